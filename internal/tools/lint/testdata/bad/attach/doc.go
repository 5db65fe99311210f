// Package attach is the floor of the ways to attach.
package attach
