package scsi

import "bytes"

// Work on the [][]byte of a task. All offsets and lengths are bytes.

// bufsLen is the sum of the lengths of v.
func bufsLen(v [][]byte) (n int64) {
	for _, b := range v {
		n += int64(len(b))
	}
	return n
}

// cut returns the part [from, from+n) of v without copying payload. It borrows
// the task's small vector; only the rare cut over more buffers than that
// allocates. The answer is valid until the next cut.
func (d *diskTask) cut(v [][]byte, from, n int64) [][]byte {
	out := d.cutv[:0]
	for _, b := range v {
		l := int64(len(b))
		if from >= l {
			from -= l
			continue
		}
		if n == 0 {
			break
		}
		b = b[from:]
		from = 0
		if int64(len(b)) > n {
			b = b[:n]
		}
		n -= int64(len(b))
		out = append(out, b)
	}
	return out
}

// cursor walks over a [][]byte.
type cursor struct {
	i   int // buffer
	off int // byte in it
}

// next returns the following bytes that lie together, at most n of them, and
// moves on; empty at the end.
func (c *cursor) next(v [][]byte, n int) []byte {
	for c.i < len(v) {
		b := v[c.i][c.off:]
		if len(b) == 0 {
			c.i++
			c.off = 0
			continue
		}
		if len(b) > n {
			b = b[:n]
		}
		c.off += len(b)
		return b
	}
	return nil
}

// skip moves n bytes on.
func (c *cursor) skip(v [][]byte, n int64) {
	for n > 0 {
		b := c.next(v, int(min(n, 1<<30)))
		if len(b) == 0 {
			return
		}
		n -= int64(len(b))
	}
}

// copyIn copies b to c and on, and returns how much there was room for.
func (c *cursor) copyIn(v [][]byte, b []byte) (n int) {
	for n < len(b) {
		d := c.next(v, len(b)-n)
		if len(d) == 0 {
			break
		}
		n += copy(d, b[n:])
	}
	return n
}

// copyOut fills b from c on and returns how much there was.
func (c *cursor) copyOut(v [][]byte, b []byte) (n int) {
	for n < len(b) {
		s := c.next(v, len(b)-n)
		if len(s) == 0 {
			break
		}
		n += copy(b[n:], s)
	}
	return n
}

// compare compares b with the bytes from c on. It returns the offset in b of
// the first difference, or -1. Bytes that v does not have count as equal.
func (c *cursor) compare(v [][]byte, b []byte) int {
	for n := 0; n < len(b); {
		s := c.next(v, len(b)-n)
		if len(s) == 0 {
			break
		}
		if i := mismatch(s, b[n:n+len(s)]); i >= 0 {
			return n + i
		}
		n += len(s)
	}
	return -1
}

// mismatch is the first index at which a and b differ, or -1; they are of the
// same length.
func mismatch(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	at := 0
	for len(a) > 64 {
		h := len(a) / 2
		if bytes.Equal(a[:h], b[:h]) {
			a, b, at = a[h:], b[h:], at+h
		} else {
			a, b = a[:h], b[:h]
		}
	}
	for i := range a {
		if a[i] != b[i] {
			return at + i
		}
	}
	return -1
}

// allZero reports whether b holds only zeros.
func allZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
