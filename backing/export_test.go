package backing

// CoarseDirect makes a direct store work in blocks of n bytes, as one on a
// device with such blocks does.
func CoarseDirect(st Store, n int) {
	s := st.(*fileStore)
	s.memAlign, s.offAlign = 512, n
}

// Exclusive is how many operations took the exclusive way, Bounced how many a
// bounce buffer of the loop.
func Exclusive(st Store) uint64 { return st.(*fileStore).excl.ops.Load() }
func Bounced(st Store) uint64   { return st.(*fileStore).counts.bounced.Load() }
