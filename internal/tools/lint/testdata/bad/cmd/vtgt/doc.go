// Package main is not how a command begins.
package main
