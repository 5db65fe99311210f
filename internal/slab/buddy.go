package slab

import "math/bits"

const (
	units  = Size / MinBuf // blocks of order 0 in a slab
	orders = 13            // order o is a block of MinBuf<<o bytes
)

// The state of a block, kept at its first unit; other units are 0.
const (
	blockFree = 0x80 // in the list free[order]
	blockUsed = 0x40
	orderMask = 0x0f
)

// slab is one piece of mapped memory, divided by the buddy method: a block of
// order o begins at a multiple of its size and its buddy is the block whose
// first unit differs in bit o alone.
type slab struct {
	mem   []byte
	avail uint16 // bit o: free[o] is not empty
	used  int    // units in use
	// state, next and prev are per unit; 0xffff ends a list.
	state      [units]uint8
	next, prev [units]uint16
	free       [orders]uint16
	// links of the cache's lists of slabs that have a free block of an order.
	link [orders]struct{ next, prev *slab }
}

const none = 0xffff

func newSlab(mem []byte) *slab {
	s := &slab{mem: mem}
	for o := range s.free {
		s.free[o] = none
	}
	s.push(0, orders-1)
	return s
}

// push puts the block at u on the free list of order o.
func (s *slab) push(u uint16, o int) {
	h := s.free[o]
	s.next[u], s.prev[u] = h, none
	if h != none {
		s.prev[h] = u
	}
	s.free[o] = u
	s.avail |= 1 << o
	s.state[u] = blockFree | uint8(o)
}

// unlink takes the block at u off the free list of order o.
func (s *slab) unlink(u uint16, o int) {
	n, p := s.next[u], s.prev[u]
	if p == none {
		s.free[o] = n
		if n == none {
			s.avail &^= 1 << o
		}
	} else {
		s.next[p] = n
	}
	if n != none {
		s.prev[n] = p
	}
	s.state[u] = 0
}

// alloc takes a block of order o out of a free one of order from >= o, which
// must exist.
func (s *slab) alloc(o, from int) uint16 {
	u := s.free[from]
	s.unlink(u, from)
	for from > o {
		from--
		s.push(u+1<<from, from)
	}
	s.state[u] = blockUsed | uint8(o)
	s.used += 1 << o
	return u
}

// release gives the block at u back and joins it with its free buddies.
func (s *slab) release(u uint16) {
	o := int(s.state[u] & orderMask)
	s.used -= 1 << o
	s.state[u] = 0
	for o < orders-1 {
		b := u ^ 1<<o
		if s.state[b] != blockFree|uint8(o) {
			break
		}
		s.unlink(b, o)
		u &^= 1 << o
		o++
	}
	s.push(u, o)
}

// orderOf is the smallest order whose blocks hold n bytes, n in [0, MaxBuf].
func orderOf(n int) int {
	if n <= MinBuf {
		return 0
	}
	return bits.Len(uint(n-1)) - 9
}
