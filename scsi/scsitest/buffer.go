package scsitest

import (
	"os"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
)

// Buffer is memory outside the Go heap that can be closed: then any touch of it,
// by the core or by a store, faults and ends the test.
type Buffer struct {
	all  []byte
	open bool
}

// NewBuffer maps a closed buffer of at least n bytes.
func NewBuffer(tb testing.TB, n int) *Buffer {
	tb.Helper()
	p := os.Getpagesize()
	b, err := sys.MapAnonymous((n + p - 1) / p * p)
	if err != nil {
		tb.Fatal(err)
	}
	buf := &Buffer{all: b}
	if err := sys.MapDeny(b); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = sys.Unmap(b) })
	return buf
}

// Open makes the first n bytes usable.
func (b *Buffer) Open(n int) []byte {
	if err := sys.MapAllow(b.all); err != nil {
		panic(err) // out of memory maps: the test cannot go on
	}
	b.open = true
	return b.all[:n:n]
}

// Close makes any touch fault.
func (b *Buffer) Close() {
	if err := sys.MapDeny(b.all); err != nil {
		panic(err)
	}
	b.open = false
}
