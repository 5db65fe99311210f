package vring

import (
	"fmt"

	"github.com/vtgt/vtgt/internal/gmem"
)

// The packed virtqueue, VIRTIO 1.2 §2.8: one ring of descriptors, which the driver makes
// available and the device writes used elements over; a bit that changes with each lap
// (the wrap counter) tells the two, and the laps, apart.
//
// A chain lies in neighbouring elements; its last one has the buffer id, by which the
// device names it when it is used. The used element takes one place, the next
// one then skips as many as the chain had.

// Flags of a descriptor besides DescNext, DescWrite and DescIndirect, VIRTIO 1.2 §2.8.1.
const (
	packedAvail = 1 << 7
	packedUsed  = 1 << 15
)

// The event suppression structures, VIRTIO 1.2 §2.8.10: an element's place with the wrap
// counter in bit 15, then flags, 2 bytes each.
const (
	eventBytes   = 4
	eventEnable  = 0
	eventDisable = 1
	eventDesc    = 2
)

// A place is one in the ring of descriptors, in a lap: the place in bits 0 to 14, the
// wrap counter in bit 15, as event suppression and SET_VRING_BASE have it.
type place uint16

const placeWrap = 1 << 15

func (p place) at() int    { return int(p &^ placeWrap) }
func (p place) wrap() bool { return p&placeWrap != 0 }

// add is the place n elements further, n <= size.
func (p place) add(n, size int) place {
	at := p.at() + n
	if at >= size {
		at -= size
		p ^= placeWrap
	}
	return p&placeWrap | place(at)
}

// passed tells whether the n elements up to p, 1 to size, were the one at event: whether
// the other side, which is less than a lap away, asked to hear of them.
func (p place) passed(event place, n, size int) bool {
	off := event.at()
	if event.wrap() != p.wrap() {
		off -= size
	}
	return needEvent(uint16(off), uint16(p.at()), uint16(p.at()-n))
}

// available tells whether an element with these flags waits for the device at p.
func (p place) available(flags uint16) bool {
	return flags&packedAvail != 0 == p.wrap() && flags&packedUsed != 0 != p.wrap()
}

// waiting are the flags of an element at p that is available.
func (p place) waiting() uint16 {
	if p.wrap() {
		return packedAvail
	}
	return packedUsed
}

// used are the flags of a used element at p.
func (p place) used() uint16 {
	if p.wrap() {
		return packedAvail | packedUsed
	}
	return 0
}

// packed is what a Ring has beyond the split one's fields. desc is the ring of
// descriptors, avail the driver's and used the device's event suppression structure.
type packed struct {
	next, shown, fill place
	num               []uint16 // by buffer id: elements of the chain in flight; 0: none
	slots             int      // elements taken and not published as used
	staged            int      // answers in them
	// The first of a batch becomes used last, since the driver looks there first.
	firstAt int
	first   uint32 // its id and flags
	quiet   bool   // the driver was told not to notify
	seen    []desc // of the chain that is being read
}

// PackedBase is SET_VRING_BASE of a packed ring in its beginning.
const PackedBase = placeWrap | placeWrap<<16

// start takes the ring's places from SET_VRING_BASE: where the device goes on to take in
// the lower half, where to put used elements in the upper one.
func (p *packed) start(base uint32, size int) error {
	p.next, p.shown = place(base), place(base>>16)
	if p.next.at() >= size || p.shown.at() >= size {
		return fmt.Errorf("virtqueue: base %#x of a packed ring of %d entries", base, size)
	}
	p.fill = p.shown
	return nil
}

func (p *packed) base() uint32 { return uint32(p.next) | uint32(p.shown)<<16 }

// packedDesc is element words as a desc: its next is the buffer id.
func packedDesc(lo, hi uint64) desc {
	return desc{lo, hi&0xffffffff | hi>>48<<32 | hi>>32<<48}
}

// waits tells whether there is a chain to take.
func (r *Ring) waits() bool {
	p := r.pk
	return p.next.available(r.desc.Load16(16*p.next.at() + 14))
}

func (r *Ring) popPacked(c *Chain) (bool, error) {
	p := r.pk
	hi := r.desc.Load64(16*p.next.at() + 8)
	if !p.next.available(uint16(hi >> 48)) {
		return false, nil
	}
	w := r.walk(-1)
	p.seen = p.seen[:0]
	id := 0
	at := p.next.at()
	for n := 1; ; n++ {
		switch {
		case n+p.slots > r.size:
			return false, r.fail(&Violation{Kind: AvailJump, Head: -1, Index: at, Value: uint64(n + p.slots)})
		case n > r.limit:
			return false, r.fail(&Violation{Kind: TooLong, Head: -1, Index: at, Value: uint64(n)})
		}
		if n > 1 {
			hi = r.desc.Load64(16*at + 8)
		}
		d := packedDesc(r.desc.Load64(16*at), hi)
		p.seen = append(p.seen, d)
		if err := w.packed(d, at, n == 1); err != nil {
			return false, r.fail(err)
		}
		if d.flags()&DescNext == 0 {
			id = int(d.next())
			break
		}
		if at++; at == r.size {
			at = 0
		}
	}
	n := len(p.seen)
	switch {
	case id >= r.size:
		return false, r.fail(&Violation{Kind: HeadRange, Head: -1, Index: at, Value: uint64(id)})
	case p.num[id] != 0:
		return false, r.fail(&Violation{Kind: HeadBusy, Head: -1, Index: at, Value: uint64(id)})
	}
	if err := w.buffers(c); err != nil {
		return false, r.fail(err)
	}
	c.Head = uint16(id)
	if r.points != nil {
		r.points(PointTaken)
	}
	if r.inf != nil {
		r.inf.pk.submit(uint16(id), p.seen)
	}
	if r.points != nil {
		r.points(PointMarked)
	}
	p.num[id] = uint16(n)
	p.slots += n
	p.next = p.next.add(n, r.size)
	r.flight++
	return true, nil
}

// packed takes one element of a chain, the first or not.
func (w *walk) packed(d desc, i int, first bool) error {
	if d.flags()&DescIndirect == 0 {
		w.note(d, i)
		return nil
	}
	switch {
	case !w.r.indirect:
		return w.fail(IndirectOff, i, uint64(d.flags()))
	case !first || d.flags()&DescNext != 0:
		return w.fail(IndirectNext, i, uint64(d.flags()))
	}
	return w.indirect(d, i)
}

// row takes all n entries of an indirect table of a packed ring (§2.8.7): they are in
// order, and DescNext has no meaning.
func (w *walk) row(t gmem.Area, n int) error {
	for i := range n {
		d := packedDesc(t.Load128(i * descBytes))
		if d.flags()&DescIndirect != 0 {
			return w.fail(IndirectNested, i, uint64(d.flags()))
		}
		w.note(d, i)
	}
	return nil
}

// reloadPacked makes the chain of a request that was found in flight, of the record: used
// elements may stand where its descriptors were.
func (r *Ring) reloadPacked(id uint16, c *Chain) error {
	p := r.pk
	if int(id) >= r.size || p.num[id] == 0 || r.inf == nil {
		return r.fail(&Violation{Kind: InflightRecord, Head: -1, Index: int(id), Value: uint64(id)})
	}
	w := r.walk(int(id))
	c.Head = id
	for i, d := range r.inf.pk.chain(id, p.seen[:0]) {
		if err := w.packed(d, i, i == 0); err != nil {
			return r.fail(err)
		}
	}
	if err := w.buffers(c); err != nil {
		return r.fail(err)
	}
	return nil
}

func (r *Ring) pushPacked(id uint16, n uint32) bool {
	p := r.pk
	if int(id) >= r.size || p.num[id] == 0 {
		return false
	}
	k := int(p.num[id])
	p.num[id] = 0
	if r.points != nil {
		r.points(PointAnswered)
	}
	if r.inf != nil {
		r.inf.pk.complete(id)
	}
	flags := p.fill.used()
	if n > 0 {
		flags |= DescWrite
	}
	at, v := 16*p.fill.at(), uint32(id)|uint32(flags)<<16
	r.desc.Put32(at+8, n)
	if p.staged == 0 {
		p.firstAt, p.first = at, v
	} else {
		r.desc.Put32(at+12, v)
	}
	p.fill = p.fill.add(k, r.size)
	p.staged++
	if r.points != nil {
		r.points(PointStaged)
	}
	return true
}

func (r *Ring) publishPacked() (notify bool) {
	p := r.pk
	if p.staged == 0 {
		notify, r.forced = r.forced, false
		return notify
	}
	r.desc.Store32(p.firstAt+12, p.first)
	if r.points != nil {
		r.points(PointPublished)
	}
	if r.inf != nil {
		r.inf.pk.published(p.staged, p.fill)
	}
	if r.points != nil {
		r.points(PointSettled)
	}
	old := p.shown
	n := p.fill.at() - old.at()
	if n <= 0 {
		n += r.size
	}
	p.shown = p.fill
	p.slots -= n
	r.flight -= p.staged
	p.staged = 0
	// As with the split ring: the store above and the load below are in this order.
	ev := r.avail.Load32(0)
	switch f := uint16(ev>>16) & 3; {
	case f == eventDisable:
	case f == eventDesc && r.eventIdx:
		notify = p.shown.passed(place(ev), n, r.size)
	default:
		notify = true
	}
	notify = notify || r.forced
	r.forced = false
	return notify
}

func (r *Ring) enableKickPacked() (more bool) {
	p := r.pk
	if r.eventIdx {
		r.used.Store32(0, uint32(p.next)|eventDesc<<16)
	} else if p.quiet {
		r.used.Store32(0, eventEnable<<16)
	}
	p.quiet = false
	r.barrier.Full()
	return r.err != nil || r.waits()
}

func (r *Ring) disableKickPacked() {
	if p := r.pk; !p.quiet {
		p.quiet = true
		r.used.Store32(0, eventDisable<<16)
	}
}
