// Package xen says it again.
package xen
