package slab

import (
	"sync"
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/sys"
)

const (
	// Size is the size of one slab in bytes: what is mapped and unmapped.
	Size = 2 << 20
	// MinBuf and MaxBuf are the smallest and the largest buffer class, bytes.
	MinBuf = 512
	MaxBuf = Size
	// DefaultLimit is the limit of New(0) in bytes.
	DefaultLimit = 1 << 30
)

// Pool bounds the memory of all caches together. Its methods may be called on
// any goroutine.
type Pool struct {
	limit  int64
	mapped atomic.Int64
	// pressure: a cache was refused since the last slab came back. Caches then
	// keep no idle slab.
	pressure atomic.Bool
	refused  atomic.Uint64

	mu     sync.Mutex
	caches []*Cache
}

// New makes a pool that maps at most limit bytes, rounded down to whole slabs
// but one at least; limit <= 0 means DefaultLimit.
func New(limit int64) *Pool {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Pool{limit: max(limit/Size, 1) * Size}
}

// Limit is the most that the pool maps, bytes.
func (p *Pool) Limit() int64 { return p.limit }

// Mapped is what is mapped now, in use or idle, bytes.
func (p *Pool) Mapped() int64 { return p.mapped.Load() }

// Refused counts the calls of Get that found the limit reached.
func (p *Pool) Refused() uint64 { return p.refused.Load() }

// Used is the size of all buffers that are handed out now, counted by their
// class, bytes. After everything was freed it is 0.
func (p *Pool) Used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int64
	for _, c := range p.caches {
		n += c.used.Load()
	}
	return n
}

// NewCache makes a cache for one loop.
func (p *Pool) NewCache() *Cache {
	c := &Cache{pool: p}
	p.mu.Lock()
	p.caches = append(p.caches, c)
	p.mu.Unlock()
	return c
}

// forget takes a cache that is closed and empty off the list.
func (p *Pool) forget(c *Cache) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.caches {
		if o == c {
			p.caches = append(p.caches[:i], p.caches[i+1:]...)
			return
		}
	}
}

// take maps one more slab; nil at the limit and when the kernel has no memory.
func (p *Pool) take() *slab {
	for {
		n := p.mapped.Load()
		if n+Size > p.limit {
			p.pressure.Store(true)
			return nil
		}
		if p.mapped.CompareAndSwap(n, n+Size) {
			break
		}
	}
	mem, err := sys.MapAnonymous(Size)
	if err != nil {
		p.mapped.Add(-Size)
		return nil
	}
	return newSlab(mem)
}

// give unmaps a slab.
func (p *Pool) give(s *slab) {
	// munmap of a mapping of our own cannot fail.
	_ = sys.Unmap(s.mem)
	s.mem = nil
	p.mapped.Add(-Size)
	p.pressure.Store(false)
}
