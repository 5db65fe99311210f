// Package daemon is fine itself.
package daemon
