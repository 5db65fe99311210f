package vhosttest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vtgt/vtgt/internal/sys"
)

// UserBase is how far a region's addresses in the front end's process lie above its
// guest physical ones.
const UserBase = 0x7f00_0000_0000

// pageBytes is the unit of regions: every architecture's page, and fine for huge ones
// too where the caller gives multiples of those.
const pageBytes = 4096

// A RegionSpec asks for guest memory.
type RegionSpec struct {
	Guest uint64 // guest physical address of the first byte
	Size  int    // in bytes, a multiple of the page
	// Before is how many bytes of the region's file precede it (the mmap offset), a
	// multiple of the page.
	Before int
}

// A Region is memory of the guest, in a memfd of its own.
type Region struct {
	RegionSpec
	User uint64 // address in the front end's process, as the messages give it
	FD   int
	Mem  []byte // the guest's view

	used int // bytes that Alloc has given away
}

// Memory is what the guest has. Its regions change by Add and Remove only, which does
// not tell the back end: see Client.ShareMemory.
type Memory struct {
	mu      sync.RWMutex
	regions []*Region
}

// NewMemory makes memory of these regions.
func NewMemory(specs ...RegionSpec) (*Memory, error) {
	m := &Memory{}
	for _, s := range specs {
		if _, err := m.Add(s); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

// Add makes another region.
func (m *Memory) Add(s RegionSpec) (*Region, error) {
	if s.Size <= 0 || s.Size%pageBytes != 0 || s.Before%pageBytes != 0 || s.Guest%pageBytes != 0 {
		return nil, fmt.Errorf("region of %d bytes at %#x, offset %d: all are multiples of %d", s.Size, s.Guest, s.Before, pageBytes)
	}
	fd, err := sys.NewMemfd("vhosttest", int64(s.Before+s.Size))
	if err != nil {
		return nil, fmt.Errorf("guest memory: %w", err)
	}
	b, err := sys.MapShared(fd, int64(s.Before), s.Size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("guest memory: %w", err), sys.Close(fd))
	}
	r := &Region{RegionSpec: s, User: s.Guest + UserBase, FD: fd, Mem: b}
	m.mu.Lock()
	m.regions = append(m.regions, r)
	m.mu.Unlock()
	return r, nil
}

// Remove ends region r. Nobody may use its bytes any more.
func (m *Memory) Remove(r *Region) error {
	m.mu.Lock()
	for i := range m.regions {
		if m.regions[i] == r {
			m.regions = append(m.regions[:i:i], m.regions[i+1:]...)
			break
		}
	}
	m.mu.Unlock()
	return errors.Join(sys.Unmap(r.Mem), sys.Close(r.FD))
}

// Regions are the regions at the moment; the slice is the caller's.
func (m *Memory) Regions() []*Region {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return append([]*Region(nil), m.regions...)
}

// Close gives all memory back.
func (m *Memory) Close() error {
	var err error
	for _, r := range m.Regions() {
		err = errors.Join(err, m.Remove(r))
	}
	return err
}

func (m *Memory) find(a uint64, n int) *Region {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, r := range m.regions {
		if r.Holds(a, n) {
			return r
		}
	}
	return nil
}

// Holds tells whether the region has the n bytes at guest address a.
func (r *Region) Holds(a uint64, n int) bool {
	return n >= 0 && a >= r.Guest && a-r.Guest <= uint64(r.Size) && uint64(n) <= uint64(r.Size)-(a-r.Guest)
}

// At is the guest's view of n bytes at guest address a, which lie in one region: else
// it panics, for the test is wrong.
func (m *Memory) At(a uint64, n int) []byte {
	r := m.find(a, n)
	if r == nil {
		panic(fmt.Sprintf("the guest has no %d bytes at %#x", n, a))
	}
	return r.Mem[a-r.Guest:][:n:n]
}

// Holds tells whether n bytes at guest address a lie in one region.
func (m *Memory) Holds(a uint64, n int) bool { return m.find(a, n) != nil }

// Alloc takes n bytes of the region whose address is a multiple of align, a power of
// two, for good. They are zero.
func (r *Region) Alloc(n, align int) (uint64, error) {
	at := (r.used + align - 1) &^ (align - 1)
	if n < 0 || at+n > r.Size {
		return 0, fmt.Errorf("guest memory at %#x: %d of %d bytes are given away, %d more are not there", r.Guest, r.used, r.Size, n)
	}
	r.used = at + n
	return r.Guest + uint64(at), nil
}

// Alloc takes n bytes of the first region that has them. It belongs to one goroutine.
func (m *Memory) Alloc(n, align int) (uint64, error) {
	err := errors.New("guest memory: no region")
	for _, r := range m.Regions() {
		var a uint64
		if a, err = r.Alloc(n, align); err == nil {
			return a, nil
		}
	}
	return 0, err
}

// user is the address in the front end's process of guest address a.
func (m *Memory) user(a uint64) uint64 {
	if r := m.find(a, 0); r != nil {
		return r.User + (a - r.Guest)
	}
	return a + UserBase
}
