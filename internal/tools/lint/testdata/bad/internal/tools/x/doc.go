// Package x is a tool.
package x
