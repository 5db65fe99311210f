package prefetch

import "unsafe"

// Line is the size of a cache line in bytes, or less: at such steps lines are asked for.
const Line = 64

// A Span is memory that will soon be wanted. It is an address, not a pointer: it does
// not keep the memory, and nothing can be read through it. The memory may be gone or
// have no pages: asking for it then does nothing. The zero value is of no bytes.
type Span struct {
	at uintptr
	n  int // bytes
}

// Of is the Span of b.
func Of(b []byte) Span {
	return Span{uintptr(unsafe.Pointer(unsafe.SliceData(b))), len(b)}
}

// Len is the number of bytes not yet asked for.
func (s *Span) Len() int { return s.n }

// Next asks for the next n bytes, or as many as are left.
func (s *Span) Next(n int) {
	if n = min(n, s.n); n > 0 {
		lines(s.at, n)
		s.at += uintptr(n)
		s.n -= n
	}
}
