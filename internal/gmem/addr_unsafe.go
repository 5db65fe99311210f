package gmem

import "unsafe"

// addr is where b begins in this process.
func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// padding is how many bytes of b lie before the first multiple of align, a power
// of two.
func padding(b []byte, align int) int {
	return int(-addr(b) & uintptr(align-1))
}

// joined returns a and b as one slice where they touch within a chunk, else nil.
// Chunks that happen to touch stay apart: each is unmapped as it was mapped.
func joined(chunks [][]byte, a, b []byte) []byte {
	if addr(b)+uintptr(len(b)) == addr(a) {
		a, b = b, a
	}
	if addr(a)+uintptr(len(a)) != addr(b) {
		return nil
	}
	for _, c := range chunks {
		if within(c, addr(a)) && within(c, addr(b)) {
			off := int(addr(a) - addr(c))
			return c[off : off+len(a)+len(b) : off+len(a)+len(b)]
		}
	}
	return nil
}

// within tells whether address p lies in b.
func within(b []byte, p uintptr) bool { return p-addr(b) < uintptr(len(b)) }
