package gmem

// Gather copies from src, in order, until dst is full or src ends, and returns the
// number of bytes: how a header that a driver split in any way is read, once. It
// touches guest memory.
func Gather(dst []byte, src [][]byte) int {
	n := 0
	for _, b := range src {
		if n == len(dst) {
			break
		}
		n += copy(dst[n:], b)
	}
	return n
}

// Scatter copies src over dst, in order, until dst is full or src ends, and
// returns the number of bytes. It touches guest memory.
func Scatter(dst [][]byte, src []byte) int {
	n := 0
	for _, b := range dst {
		if n == len(src) {
			break
		}
		n += copy(b, src[n:])
	}
	return n
}

// Skip drops the first n bytes of bufs, changing its first remaining entry in
// place, and returns the rest, without empty pieces at its front. More bytes than
// there are leave nothing.
func Skip(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 {
		if l := len(bufs[0]); n < l {
			bufs[0] = bufs[0][n:]
			break
		} else {
			n -= l
		}
		bufs = bufs[1:]
	}
	return bufs
}

// Total is the number of bytes of bufs.
func Total(bufs [][]byte) int64 {
	var n int64
	for _, b := range bufs {
		n += int64(len(b))
	}
	return n
}
