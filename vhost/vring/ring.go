package vring

import (
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/internal/gmem"
)

// DefaultLimit is the most descriptors of one chain unless a Config says
// otherwise: what one vectored system call takes. Drivers make indirect tables
// longer than the ring (Linux does), so the ring's size is no limit for them.
const DefaultLimit = 1024

// A Config is what front end and driver agreed upon for a ring.
type Config struct {
	Size     int  // entries, at most MaxSize; a power of two, unless Packed
	Packed   bool // VIRTIO_F_RING_PACKED
	EventIdx bool // VIRTIO_F_EVENT_IDX
	Indirect bool // VIRTIO_F_INDIRECT_DESC
	Limit    int  // descriptors of one chain, 0: DefaultLimit

	// Base is the available index to go on from (SET_VRING_BASE). With an
	// Inflight it has no say. A packed ring has two places in it, see PackedBase.
	Base     uint32
	Inflight *Inflight // nil: requests in flight are not recorded

	// Points, where set, is called at every Point: tests end the process there.
	Points func(Point)
}

// Parts are a ring's three areas in guest memory: DescSize, AvailSize and UsedSize
// bytes. Of a packed ring Avail is the driver's and Used the device's event suppression
// structure.
type Parts struct{ Desc, Avail, Used []byte }

// UserParts finds the areas of a ring of size entries at the front end's addresses
// that SET_VRING_ADDR gives.
func UserParts(m *gmem.Map, size int, desc, avail, used uint64) (Parts, error) {
	return userParts(m, size, AvailSize(size), UsedSize(size), desc, avail, used)
}

// UserPacked is UserParts for a packed ring.
func UserPacked(m *gmem.Map, size int, desc, driver, device uint64) (Parts, error) {
	return userParts(m, size, eventBytes, eventBytes, desc, driver, device)
}

func userParts(m *gmem.Map, size, availSize, usedSize int, desc, avail, used uint64) (Parts, error) {
	var p Parts
	var err error
	if p.Desc, err = m.User(desc, uint64(DescSize(size))); err != nil {
		return p, fmt.Errorf("virtqueue: descriptor table: %w", err)
	}
	if p.Avail, err = m.User(avail, uint64(availSize)); err != nil {
		return p, fmt.Errorf("virtqueue: available ring: %w", err)
	}
	if p.Used, err = m.User(used, uint64(usedSize)); err != nil {
		return p, fmt.Errorf("virtqueue: used ring: %w", err)
	}
	return p, nil
}

// A Ring is a split or a packed virtqueue as its device sees it. It belongs to one goroutine,
// and its methods run under gmem.Guard.
type Ring struct {
	mem               *gmem.Map
	near              gmem.Window // of mem: where the last buffer was
	ds                []desc      // room for what is read of a chain
	desc, avail, used gmem.Area
	size              int
	limit, pieces     int
	eventIdx          bool
	indirect          bool

	next    uint16  // available index of the next entry to take
	seen    uint16  // avail.idx as Pop last read and checked it
	fill    uint16  // used index of the next entry to fill
	shown   uint16  // used.idx as the driver sees it
	flags   uint16  // used.flags
	forced  bool    // the driver is told of the next publication, whatever it asked for
	pk      *packed // nil: a split ring
	busy    []uint64
	flight  int // requests popped and not published
	inf     *Inflight
	points  func(Point) // nil but in tests
	barrier gmem.Barrier
	err     error // *Violation
}

// New starts a ring on m at p. The driver may be waiting for used entries that
// an earlier process published without telling it, so the first Publish tells it in
// any case; and it may have made entries available without a kick that we get, so
// the caller looks into the ring once without one.
func New(c Config, m *gmem.Map, p Parts) (*Ring, error) {
	if c.Size < 1 || c.Size > MaxSize || c.Size&(c.Size-1) != 0 && !c.Packed {
		return nil, fmt.Errorf("virtqueue of %d entries: a split ring has a power of two, %d at most", c.Size, MaxSize)
	}
	r := &Ring{size: c.Size, limit: c.Limit, eventIdx: c.EventIdx, indirect: c.Indirect, forced: true, points: c.Points,
		busy: make([]uint64, (c.Size+63)/64)}
	if r.limit <= 0 {
		r.limit = DefaultLimit
	}
	if c.Packed {
		r.pk = &packed{num: make([]uint16, c.Size)}
		if err := r.pk.start(c.Base, c.Size); err != nil {
			return nil, err
		}
	}
	if err := r.Rebase(m, p); err != nil {
		return nil, err
	}
	if r.pk == nil {
		r.shown = r.used.Load16(usedFlags + 2)
		r.fill = r.shown
		r.next = uint16(c.Base)
	}
	if c.Inflight != nil {
		n, err := c.Inflight.attach(r)
		if err != nil {
			return nil, err
		}
		r.inf = c.Inflight
		r.inf.points = c.Points
		r.flight = n
		if r.pk == nil {
			r.next = r.shown + uint16(n)
		}
	}
	r.seen = r.next
	return r, nil
}

// Rebase moves the ring to another place or another generation of memory. Chains
// that were popped stay where they are.
func (r *Ring) Rebase(m *gmem.Map, p Parts) error {
	desc, err := area("descriptor table", p.Desc, DescSize(r.size), descAlign)
	if err != nil {
		return err
	}
	availSize, usedSize, align := AvailSize(r.size), UsedSize(r.size), availAlign
	if r.pk != nil {
		availSize, usedSize, align = eventBytes, eventBytes, 4
	}
	avail, err := area("available ring", p.Avail, availSize, align)
	if err != nil {
		return err
	}
	used, err := area("used ring", p.Used, usedSize, usedAlign)
	if err != nil {
		return err
	}
	if desc.Overlaps(avail) || desc.Overlaps(used) || avail.Overlaps(used) {
		return errors.New("virtqueue: descriptor table, available ring and used ring overlap")
	}
	r.mem, r.desc, r.avail, r.used = m, desc, avail, used
	r.near = gmem.Window{}
	// Regions that lie side by side may divide a buffer, each border once.
	r.pieces = r.limit + m.Len()
	return nil
}

func area(what string, b []byte, n, align int) (gmem.Area, error) {
	if len(b) < n {
		return gmem.Area{}, fmt.Errorf("virtqueue: %s of %d bytes: %d are needed", what, len(b), n)
	}
	a, err := gmem.NewArea(b[:n:n], align)
	if err != nil {
		return a, fmt.Errorf("virtqueue: %s: its address %w (%d bytes)", what, err, align)
	}
	return a, nil
}

// Size is the number of entries.
func (r *Ring) Size() int { return r.size }

// UsedLen is the size of the used ring with its avail_event, bytes: all that is written.
func (r *Ring) UsedLen() int { return r.used.Len() }

// Next is the available index of the next entry that Pop takes; of a packed ring the
// place, with the wrap counter in bit 15.
func (r *Ring) Next() uint16 {
	if r.pk != nil {
		return uint16(r.pk.next)
	}
	return r.next
}

// Base is, with nothing in flight, the answer to GET_VRING_BASE.
func (r *Ring) Base() uint32 {
	if r.pk != nil {
		return r.pk.base()
	}
	return uint32(r.next)
}

// Fresh tells whether the ring is at its beginning, as far as can be told: it comes by
// there again.
func (r *Ring) Fresh() bool {
	if r.pk != nil {
		return r.pk.base() == PackedBase
	}
	return r.next == 0
}

// InFlight is the number of requests popped (or found in flight at the start) and
// not published.
func (r *Ring) InFlight() int { return r.flight }

// Err is the violation that the ring failed of, nil as long as it works.
func (r *Ring) Err() error { return r.err }

func (r *Ring) fail(err error) error {
	r.err = err
	return err
}

// More tells whether Pop has something to take, or an error to give.
func (r *Ring) More() bool {
	if r.pk != nil {
		return r.err != nil || r.waits()
	}
	return r.err != nil || r.seen != r.next || r.look() != r.next
}

// look reads avail.idx. Pop alone believes it, after a check.
func (r *Ring) look() uint16 { return r.avail.Load16(availIdx) }

// Pop takes the next available chain into c. It reports false when there is none.
// A violation fails the ring: every later Pop returns it again. Published requests
// are out of harm's way, those in flight may still be pushed and published.
func (r *Ring) Pop(c *Chain) (bool, error) {
	if r.err != nil {
		return false, r.err
	}
	if r.pk != nil {
		return r.popPacked(c)
	}
	if r.seen == r.next {
		idx := r.look()
		if idx == r.next {
			return false, nil
		}
		// A driver has at most size entries with us: those it sees used are
		// its own again.
		if int(idx-r.next) > r.size || int(idx-r.shown) > r.size {
			return false, r.fail(&Violation{Kind: AvailJump, Head: -1, Index: int(r.next), Value: uint64(idx)})
		}
		r.seen = idx
	}
	slot := int(r.next) & (r.size - 1)
	head := r.avail.Load16(availRing + 2*slot)
	switch {
	case int(head) >= r.size:
		return false, r.fail(&Violation{Kind: HeadRange, Head: -1, Index: slot, Value: uint64(head)})
	case r.isBusy(head):
		return false, r.fail(&Violation{Kind: HeadBusy, Head: -1, Index: slot, Value: uint64(head)})
	}
	if err := r.load(head, c); err != nil {
		return false, r.fail(err)
	}
	if r.points != nil {
		r.points(PointTaken)
	}
	if r.inf != nil {
		r.inf.submit(head)
	}
	if r.points != nil {
		r.points(PointMarked)
	}
	r.setBusy(head)
	r.flight++
	r.next++
	return true, nil
}

// Reload reads the chain of a request that was found in flight at the start
// (Inflight.Heads), which Pop does not give again.
func (r *Ring) Reload(head uint16, c *Chain) error {
	if r.err != nil {
		return r.err
	}
	if r.pk != nil {
		return r.reloadPacked(head, c)
	}
	if int(head) >= r.size || !r.isBusy(head) {
		return r.fail(&Violation{Kind: InflightRecord, Head: -1, Index: int(head), Value: uint64(head)})
	}
	if err := r.load(head, c); err != nil {
		return r.fail(err)
	}
	return nil
}

func (r *Ring) isBusy(h uint16) bool { return r.busy[h>>6]&(1<<(h&63)) != 0 }
func (r *Ring) setBusy(h uint16)     { r.busy[h>>6] |= 1 << (h & 63) }

// Push stages the answer of the request that head began, of which n bytes were
// written to its In buffers; the driver sees it after Publish. It reports false,
// and does nothing, for a head that is not in flight, which is a mistake of the
// caller.
func (r *Ring) Push(head uint16, n uint32) bool {
	if r.pk != nil {
		return r.pushPacked(head, n)
	}
	if int(head) >= r.size || !r.isBusy(head) {
		return false
	}
	r.busy[head>>6] &^= 1 << (head & 63)
	if r.points != nil {
		r.points(PointAnswered)
	}
	if r.inf != nil {
		r.inf.complete(head)
	}
	at := usedRing + usedBytes*(int(r.fill)&(r.size-1))
	r.used.Put32(at, uint32(head))
	r.used.Put32(at+4, n)
	r.fill++
	if r.points != nil {
		r.points(PointStaged)
	}
	return true
}

// Staged is the number of answers pushed and not published.
func (r *Ring) Staged() int {
	if r.pk != nil {
		return r.pk.staged
	}
	return int(r.fill - r.shown)
}
