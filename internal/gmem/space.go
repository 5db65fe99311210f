package gmem

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vtgt/vtgt/internal/sys"
)

// ErrClosed is the answer of a Space that was closed.
var ErrClosed = errors.New("guest memory: the address space is closed")

// chunkBytes is what a Space reserves at once: 64 GiB, 1 GiB where addresses have 32
// bits. It costs address space only.
const chunkBytes = 1 << (30 + 6*(^uint(0)>>63))

// A Space is the addresses of one export: reserved without access, lent to the
// regions of its generations, given back to the kernel by Close alone. Its methods
// may be called by any goroutine.
type Space struct {
	mu     sync.Mutex
	chunks [][]byte
	free   [][]byte // parts of chunks, unordered, joined when they touch
	maps   map[*Map]struct{}
	gen    int
	closed bool
}

// NewSpace returns a Space that holds no addresses yet.
func NewSpace() *Space { return &Space{maps: map[*Map]struct{}{}} }

// Map maps regions as a new generation. They may not overlap. The caller keeps
// the descriptors and may close them when Map has returned.
func (s *Space) Map(regions []Region) (*Map, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.room(len(regions)); err != nil {
		return nil, err
	}
	var ms []*mapping
	for i := range regions {
		m, err := s.open(regions[i])
		if err != nil {
			s.abandon(ms)
			return nil, fmt.Errorf("guest memory region %d of %d, %v: %w", i+1, len(regions), &regions[i], err)
		}
		ms = append(ms, m)
	}
	m, err := s.newMap(ms)
	if err != nil {
		s.abandon(ms)
		return nil, err
	}
	return m, nil
}

// Add makes a generation of m's regions and r; m stays as it is. The common
// regions stay at their addresses.
func (s *Space) Add(m *Map, r Region) (*Map, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.room(len(m.regions) + 1); err != nil {
		return nil, err
	}
	if m.over {
		return nil, ErrClosed
	}
	x, err := s.open(r)
	if err != nil {
		return nil, fmt.Errorf("guest memory region %v: %w", &r, err)
	}
	n, err := s.newMap(append(append([]*mapping(nil), m.regions...), x))
	if err != nil {
		s.abandon([]*mapping{x})
	}
	return n, err
}

// Remove makes a generation of m's regions without the one at guest and user
// address of size bytes; m stays as it is, and its memory too until m is retired.
func (s *Space) Remove(m *Map, guest, user, size uint64) (*Map, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || m.over {
		return nil, ErrClosed
	}
	var ms []*mapping
	for _, x := range m.regions {
		if x.Guest != guest || x.User != user || x.Size != size {
			ms = append(ms, x)
		}
	}
	if len(ms) == len(m.regions) {
		return nil, fmt.Errorf("guest memory has no region of %d bytes at guest address %#x", size, guest)
	}
	return s.newMap(ms)
}

func (s *Space) room(n int) error {
	if s.closed {
		return ErrClosed
	}
	if n > MaxRegions {
		return fmt.Errorf("guest memory of %d regions: %d are served at most", n, MaxRegions)
	}
	return nil
}

// abandon takes back mappings that no generation holds.
func (s *Space) abandon(ms []*mapping) {
	for _, m := range ms {
		s.hide(m)
		s.release(m.whole)
	}
}

// hide takes access to m away.
func (s *Space) hide(m *mapping) {
	if m.gone.CompareAndSwap(false, true) {
		if err := sys.MapHide(m.whole); err != nil {
			// Out of mappings (vm.max_map_count): the same effect for this
			// process by another call, which splits nothing.
			_ = sys.MapDeny(m.whole)
		}
	}
}

// reserve takes n bytes at a multiple of align, a power of two, out of the
// reservation. Lock held.
func (s *Space) reserve(n, align int) ([]byte, error) {
	for {
		for i, f := range s.free {
			skip := padding(f, align)
			if skip > len(f) || len(f)-skip < n {
				continue
			}
			s.free[i] = s.free[len(s.free)-1]
			s.free = s.free[:len(s.free)-1]
			s.release(f[:skip:skip])
			s.release(f[skip+n:])
			return f[skip : skip+n : skip+n], nil
		}
		c, err := sys.MapReserve(max(chunkBytes, n+align))
		if err != nil {
			// RLIMIT_AS, or a small machine: what is needed and no more.
			if c, err = sys.MapReserve(n + align); err != nil {
				return nil, err
			}
		}
		s.chunks = append(s.chunks, c)
		s.free = append(s.free, c)
	}
}

// release gives addresses back to the reservation. Lock held.
func (s *Space) release(b []byte) {
	if len(b) == 0 {
		return
	}
	for i := 0; i < len(s.free); {
		f := s.free[i]
		j := joined(s.chunks, f, b)
		if j == nil {
			i++
			continue
		}
		b = j
		s.free[i] = s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		i = 0
	}
	s.free = append(s.free, b)
}

// Close gives the addresses back to the kernel, when every generation has been
// retired and nobody holds one; until then it refuses and says how many there are.
// Closing again does nothing.
func (s *Space) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.maps); n > 0 {
		return fmt.Errorf("guest memory: %d generations are still in use", n)
	}
	s.closed = true
	var first error
	for len(s.chunks) > 0 {
		c := s.chunks[len(s.chunks)-1]
		if err := sys.MapRelease(c); err != nil && first == nil {
			first = fmt.Errorf("munmap of guest memory: %w", err)
		}
		s.chunks = s.chunks[:len(s.chunks)-1]
	}
	s.free = nil
	return first
}

// Reserved is how many bytes of addresses the Space holds, and how many of them
// lie under regions.
func (s *Space) Reserved() (all, mapped int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.chunks {
		all += int64(len(c))
	}
	mapped = all
	for _, f := range s.free {
		mapped -= int64(len(f))
	}
	return all, mapped
}
