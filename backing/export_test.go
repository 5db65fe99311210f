package backing

// CoarseDirect makes a direct store work in blocks of n bytes, as one on a
// device with such blocks does.
func CoarseDirect(st Store, n int) {
	s := st.(*fileStore)
	s.memAlign, s.offAlign = 512, n
}
