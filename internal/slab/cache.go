package slab

import (
	"fmt"
	"math/bits"
	"sync/atomic"
)

// Cache is one loop's way to the pool's memory. All methods are for that loop
// only.
type Cache struct {
	pool *Pool
	used atomic.Int64 // bytes handed out; written on the loop, read by Pool.Used

	avail uint16        // bit o: slabs[o] is not empty
	slabs [orders]*slab // slabs with a free block of that order
	// quick holds freed buffers as they are, so that a steady flow neither
	// splits nor joins blocks.
	quick  [orders]*Buf
	nquick [orders]int
	hdrs   *Buf // unused headers

	idle   int // slabs without a block in use
	low    int // the smallest idle since the last Trim
	gets   uint64
	seen   uint64 // gets at the last Trim
	closed bool
}

// quickBytes bounds each list of quick in bytes.
const quickBytes = 1 << 20

// Buf is a buffer. It belongs to whoever got it until Free.
type Buf struct {
	// B has the length that was asked for and the capacity of its class.
	// From 4096 bytes on it begins at a page boundary. It may be re-sliced:
	// Free does not look at it.
	B []byte

	cache *Cache
	slab  *slab
	next  *Buf
	unit  uint16
	order uint8
	live  bool
}

// Get returns a buffer of n bytes, n <= MaxBuf. It returns nil when n is larger
// and when the pool's limit is reached: answer BUSY or leave the request where
// it is.
func (c *Cache) Get(n int) *Buf {
	if n < 0 || n > MaxBuf {
		return nil
	}
	c.gets++
	o := orderOf(n)
	b := c.quick[o]
	if b != nil {
		c.quick[o] = b.next
		c.nquick[o]--
	} else if b = c.cut(o); b == nil {
		return nil
	}
	b.next = nil
	b.live = true
	size := MinBuf << o
	off := int(b.unit) * MinBuf
	b.B = b.slab.mem[off : off+n : off+size]
	c.used.Store(c.used.Load() + int64(size))
	return b
}

// Free gives the buffer back, on the loop of the cache it came from. b and
// every slice of its memory must not be used afterwards; a second Free of the
// same buffer is a bug that is ignored as long as nobody else got it.
func (b *Buf) Free() {
	c := b.cache
	if c == nil || !b.live {
		return
	}
	b.live = false
	b.B = nil
	o := int(b.order)
	size := MinBuf << o
	c.used.Store(c.used.Load() - int64(size))
	if c.nquick[o] < quickBytes/size && c.nquick[o] < 256 && !c.closed && !c.pool.pressure.Load() {
		b.next = c.quick[o]
		c.quick[o] = b
		c.nquick[o]++
		return
	}
	c.join(b)
	if c.closed || c.pool.pressure.Load() {
		c.flush()
		c.shrink(0)
		if c.closed && c.used.Load() == 0 {
			c.pool.forget(c)
		}
	}
}

// cut makes a buffer of order o from the slabs, with a new slab if need be.
func (c *Cache) cut(o int) *Buf {
	fit := c.avail >> o << o
	if fit == 0 {
		s := c.pool.take()
		if s == nil && c.flush() {
			fit = c.avail >> o << o
		}
		switch {
		case s != nil:
			c.idle++
			c.relink(s, 0)
			fit = c.avail >> o << o
		case fit == 0:
			c.pool.refused.Add(1)
			return nil
		}
	}
	from := bits.TrailingZeros16(fit)
	s := c.slabs[from]
	if s.used == 0 {
		c.idle--
		c.low = min(c.low, c.idle)
	}
	was := s.avail
	u := s.alloc(o, from)
	c.relink(s, was)

	b := c.hdrs
	if b == nil {
		b = c.headers()
	}
	c.hdrs = b.next
	b.slab, b.unit, b.order = s, u, uint8(o)
	return b
}

// headers makes some more headers.
func (c *Cache) headers() *Buf {
	bs := make([]Buf, 64)
	for i := range bs {
		bs[i].cache = c
		bs[i].next = c.hdrs
		c.hdrs = &bs[i]
	}
	return c.hdrs
}

// join gives a buffer's block back to its slab.
func (c *Cache) join(b *Buf) {
	s := b.slab
	was := s.avail
	s.release(b.unit)
	c.relink(s, was)
	if s.used == 0 {
		c.idle++
	}
	b.slab = nil
	b.next = c.hdrs
	c.hdrs = b
}

// relink brings the cache's lists up to date after s.avail changed from was.
func (c *Cache) relink(s *slab, was uint16) {
	for diff := was ^ s.avail; diff != 0; diff &= diff - 1 {
		o := bits.TrailingZeros16(diff)
		if s.avail>>o&1 != 0 {
			c.insert(s, o)
		} else {
			c.remove(s, o)
		}
	}
}

func (c *Cache) insert(s *slab, o int) {
	h := c.slabs[o]
	s.link[o].next, s.link[o].prev = h, nil
	if h != nil {
		h.link[o].prev = s
	}
	c.slabs[o] = s
	c.avail |= 1 << o
}

func (c *Cache) remove(s *slab, o int) {
	n, p := s.link[o].next, s.link[o].prev
	if n != nil {
		n.link[o].prev = p
	}
	if p != nil {
		p.link[o].next = n
	} else {
		c.slabs[o] = n
		if n == nil {
			c.avail &^= 1 << o
		}
	}
	s.link[o].next, s.link[o].prev = nil, nil
}

// flush empties the quick lists; true if there was anything in them.
func (c *Cache) flush() bool {
	any := false
	for o := range c.quick {
		for b := c.quick[o]; b != nil; b = c.quick[o] {
			c.quick[o] = b.next
			c.join(b)
			any = true
		}
		c.nquick[o] = 0
	}
	return any
}

// shrink gives idle slabs back to the kernel until keep of them are left.
func (c *Cache) shrink(keep int) {
	for c.idle > keep {
		s := c.slabs[orders-1] // whole blocks: idle slabs, all of them
		c.remove(s, orders-1)
		c.idle--
		c.pool.give(s)
	}
	c.low = c.idle
}

// Trim gives back what was idle since the last Trim: all of it when no buffer
// was asked for meanwhile, else the slabs that were never needed. The loop calls
// it about once a second. More reports that memory is still held that a later
// Trim could give back.
func (c *Cache) Trim() (more bool) {
	if c.gets == c.seen {
		c.flush()
		c.shrink(0)
	} else {
		c.shrink(c.idle - min(c.low, c.idle))
	}
	c.seen = c.gets
	return c.Holds()
}

// Holds reports that the cache keeps idle memory.
func (c *Cache) Holds() bool {
	if c.idle > 0 {
		return true
	}
	for o := range c.quick {
		if c.quick[o] != nil {
			return true
		}
	}
	return false
}

// Close gives all idle memory back. Buffers that are still out are named by the
// error; their memory stays mapped until they are freed (on whichever single
// goroutine owns them then), because a device may still write into it.
func (c *Cache) Close() error {
	c.closed = true
	c.flush()
	c.shrink(0)
	if n := c.used.Load(); n != 0 {
		return fmt.Errorf("slab: %d bytes still in use at close", n)
	}
	c.pool.forget(c)
	return nil
}
