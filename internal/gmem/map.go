package gmem

import (
	"errors"
	"fmt"
	"sort"
)

// An AddressError is an address or a length that a peer gave and that the map
// does not have.
type AddressError struct {
	Addr, Len uint64 // guest physical (or front-end) address, bytes
	Why       error  // ErrWrap, ErrOutside, ErrSplit or ErrPieces
}

// What is wrong with an address.
var (
	ErrWrap    = errors.New("wraps around the end of the address space")
	ErrOutside = errors.New("lies outside the memory map")
	ErrSplit   = errors.New("is divided between two regions")
	ErrPieces  = errors.New("makes too many pieces")
)

func (e *AddressError) Error() string {
	return fmt.Sprintf("address %#x, length %d, %v", e.Addr, e.Len, e.Why)
}

// Unwrap returns Why.
func (e *AddressError) Unwrap() error { return e.Why }

// A Map is one generation of guest memory: regions that do not overlap, in the
// order of their guest addresses. It never changes; only its life ends. Reading it
// needs no lock.
type Map struct {
	space   *Space
	gen     int
	regions []*mapping
	byUser  []*mapping

	// Under space.mu.
	pins    int
	retired bool
	cut     bool
	over    bool // no pin, retired: the regions are given back
	done    func()
}

// newMap makes a generation of ms, which it keeps. Lock held.
func (s *Space) newMap(ms []*mapping) (*Map, error) {
	m := &Map{space: s, regions: ms}
	m.byUser = append([]*mapping(nil), ms...)
	sort.Slice(m.regions, func(i, j int) bool { return m.regions[i].Guest < m.regions[j].Guest })
	sort.Slice(m.byUser, func(i, j int) bool { return m.byUser[i].User < m.byUser[j].User })
	for i := 1; i < len(ms); i++ {
		if a, b := m.regions[i-1], m.regions[i]; b.Guest-a.Guest < a.Size {
			return nil, fmt.Errorf("guest memory regions %v and %v overlap", &a.Region, &b.Region)
		}
		if a, b := m.byUser[i-1], m.byUser[i]; b.User-a.User < a.Size {
			return nil, fmt.Errorf("guest memory regions %v and %v overlap at the front end's addresses", &a.Region, &b.Region)
		}
	}
	for _, x := range ms {
		if x.gone.Load() {
			return nil, fmt.Errorf("guest memory region %v was cut off", &x.Region)
		}
	}
	for _, x := range ms {
		x.users++
		x.live++
	}
	s.gen++
	m.gen = s.gen
	s.maps[m] = struct{}{}
	return m, nil
}

// Space is the Space that m is mapped into.
func (m *Map) Space() *Space { return m.space }

// Generation numbers the maps of a Space from 1 on.
func (m *Map) Generation() int { return m.gen }

// Len is the number of regions.
func (m *Map) Len() int { return len(m.regions) }

// Region is region i in the order of guest addresses. Its FD may be closed.
func (m *Map) Region(i int) Region { return m.regions[i].Region }

// find returns the region that holds guest address a, else nil.
func (m *Map) find(a uint64) *mapping {
	lo, hi := 0, len(m.regions)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		r := m.regions[mid]
		switch {
		case a < r.Guest:
			hi = mid
		case a-r.Guest < r.Size:
			return r
		default:
			lo = mid + 1
		}
	}
	return nil
}

// Append translates n bytes at guest address a and appends them to dst, one piece
// per region that they lie in; dst never grows beyond limit pieces. Without bytes
// it appends nothing and looks at nothing. On an error dst comes back as it was.
func (m *Map) Append(dst [][]byte, a, n uint64, limit int) ([][]byte, error) {
	if n == 0 {
		return dst, nil
	}
	if !checkRange(a, n) {
		return dst, &AddressError{a, n, ErrWrap}
	}
	had := len(dst)
	for at, left := a, n; ; {
		r := m.find(at)
		if r == nil {
			return dst[:had], &AddressError{a, n, ErrOutside}
		}
		if len(dst) >= limit {
			return dst[:had], &AddressError{a, n, ErrPieces}
		}
		off := at - r.Guest
		k := min(left, r.Size-off)
		dst = append(dst, r.mem[off:off+k:off+k])
		if left -= k; left == 0 {
			return dst, nil
		}
		at += k // cannot wrap: a+n does not
	}
}

// A Window is a region of a Map, as somebody remembers it who comes there often. The zero
// value holds nothing. It must not outlive the hold on the Map (Pin).
type Window struct {
	guest, size uint64
	mem         []byte
}

// Window is the region that holds guest address a; empty: none does.
func (m *Map) Window(a uint64) Window {
	r := m.find(a)
	if r == nil {
		return Window{}
	}
	return Window{r.Guest, r.Size, r.mem}
}

// Piece translates n bytes at guest address a; false: they do not all lie in w.
func (w *Window) Piece(a, n uint64) ([]byte, bool) {
	off := a - w.guest
	if off >= w.size || n > w.size-off {
		return nil, false
	}
	return w.mem[off : off+n : off+n], true
}

// Slice translates n bytes at guest address a that must lie in one region.
func (m *Map) Slice(a, n uint64) ([]byte, error) {
	if !checkRange(a, n) {
		return nil, &AddressError{a, n, ErrWrap}
	}
	r := m.find(a)
	if r == nil {
		return nil, &AddressError{a, n, ErrOutside}
	}
	off := a - r.Guest
	if n <= r.Size-off {
		return r.mem[off : off+n : off+n], nil
	}
	// Two causes, two remedies: tell them apart.
	for at := a; at-a < n; {
		if r = m.find(at); r == nil {
			return nil, &AddressError{a, n, ErrOutside}
		}
		at = r.Guest + r.Size // regions do not wrap
	}
	return nil, &AddressError{a, n, ErrSplit}
}

// Guest is the guest address of b, a piece of one region of m as Append and Slice give
// them; false: it is none.
func (m *Map) Guest(b []byte) (uint64, bool) {
	for _, r := range m.regions {
		if off := addr(b) - addr(r.mem); off < uintptr(len(r.mem)) {
			return r.Guest + uint64(off), true
		}
	}
	return 0, false
}

// User translates n bytes at the front end's own address u, as SET_VRING_ADDR
// gives them, that must lie in one region. It is for the control path.
func (m *Map) User(u, n uint64) ([]byte, error) {
	if !checkRange(u, n) {
		return nil, &AddressError{u, n, ErrWrap}
	}
	for _, r := range m.byUser {
		if off := u - r.User; u >= r.User && off < r.Size {
			if n > r.Size-off {
				return nil, &AddressError{u, n, ErrSplit}
			}
			return r.mem[off : off+n : off+n], nil
		}
	}
	return nil, &AddressError{u, n, ErrOutside}
}
