// Package secret reads secrets from files that nobody else can read or replace.
package secret
