package vringtest

import (
	"fmt"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/vring"
)

// A Layout is where a ring lies, in guest addresses. Tables is room for Size
// indirect tables of TableLen entries, one per head; TableLen 0: none.
type Layout struct {
	Size                      int
	Desc, Avail, Used, Tables uint64
	TableLen                  int
	End                       uint64 // first byte behind it all
}

// Place lays a ring out from guest address a on, as Linux does, a multiple of 64.
func Place(a uint64, size, tableLen int) Layout {
	up := func(v uint64) uint64 { return (v + 63) &^ 63 }
	l := Layout{Size: size, Desc: a, TableLen: tableLen}
	l.Avail = l.Desc + uint64(vring.DescSize(size))
	l.Used = up(l.Avail + uint64(vring.AvailSize(size)))
	l.Tables = up(l.Used + uint64(vring.UsedSize(size)))
	l.End = up(l.Tables + uint64(16*size*tableLen))
	return l
}

// A Buf is a buffer in guest memory.
type Buf struct {
	Addr uint64
	Len  uint32
}

// A Driver is a well-behaved driver of a split or a packed ring. It belongs to one goroutine.
type Driver struct {
	Layout
	EventIdx bool

	desc, avail, used, tables gmem.Area

	free    []uint16 // next free descriptor; kept here, since a device may write the table
	chain   []int    // descriptors that a head holds; 0: none
	first   int      // of the free list, -1: none
	nfree   int
	idx     uint16 // entries made available
	shown   uint16 // of these the device knows
	last    uint16 // used entries taken
	flags   uint16 // avail.flags
	barrier gmem.Barrier
	pk      *packed // nil: a split ring
}

// Memory is the driver's view of guest memory: a Guest, or what else shares some.
type Memory interface {
	// At gives the n bytes at guest address a; they lie in one region.
	At(a uint64, n int) []byte
	// Holds tells whether there are such bytes.
	Holds(a uint64, n int) bool
}

// NewDriver lays an empty ring at l, zeroing its memory.
func NewDriver(g Memory, l Layout, eventIdx bool) (*Driver, error) {
	if !g.Holds(l.Desc, int(l.End-l.Desc)) {
		return nil, fmt.Errorf("guest memory has no room for a ring from %#x to %#x", l.Desc, l.End)
	}
	d := &Driver{Layout: l, EventIdx: eventIdx, free: make([]uint16, l.Size), chain: make([]int, l.Size), nfree: l.Size}
	for i := range d.free {
		d.free[i] = uint16(i + 1)
	}
	part := func(a uint64, n, align int) gmem.Area {
		b := g.At(a, n)
		clear(b)
		x, err := gmem.NewArea(b, align)
		if err != nil {
			panic(err)
		}
		return x
	}
	d.desc = part(l.Desc, vring.DescSize(l.Size), 16)
	d.avail = part(l.Avail, vring.AvailSize(l.Size), 2)
	d.used = part(l.Used, vring.UsedSize(l.Size), 4)
	d.tables = part(l.Tables, 16*l.Size*l.TableLen, 8)
	return d, nil
}

// SetIndex starts an empty ring at index i instead of 0.
func (d *Driver) SetIndex(i uint16) {
	if d.pk != nil {
		return // a packed ring has no index to begin at
	}
	d.idx, d.shown, d.last = i, i, i
	d.avail.Store32(0, uint32(i)<<16)
	d.used.Store32(0, uint32(i)<<16)
	if d.EventIdx {
		d.avail.Put16(4+2*d.Size, i)
		d.used.Put16(4+8*d.Size, i)
	}
}

// UsedIndex is the used index as the device has published it: what QEMU sends in
// SET_VRING_BASE after the device's process has ended without an answer to
// GET_VRING_BASE.
func (d *Driver) UsedIndex() uint16 {
	if d.pk != nil {
		return d.pk.last
	}
	return d.used.Load16(2)
}

// Index is the number of entries made available so far, modulo 2^16, Kick or not.
func (d *Driver) Index() uint16 {
	if d.pk != nil {
		return d.pk.idx
	}
	return d.idx
}

// Out is the number of entries shown to the device and not taken back by Used.
func (d *Driver) Out() int {
	if d.pk != nil {
		return int(d.pk.shown - d.pk.last)
	}
	return int(d.shown - d.last)
}

// Free is the number of free descriptors.
func (d *Driver) Free() int { return d.nfree }

func put(a gmem.Area, i int, b Buf, flags, next uint16) {
	a.Put64(16*i, b.Addr)
	a.Put64(16*i+8, uint64(b.Len)|uint64(flags)<<32|uint64(next)<<48)
}

func (d *Driver) take() uint16 {
	i := d.first
	d.first = int(d.free[i])
	d.nfree--
	return uint16(i)
}

// Add makes a chain of out (device-readable) and in (device-writable), available
// with the next Kick. With indirect it takes one descriptor. It reports false when
// there is no room. Buffers, one at least, are not empty.
func (d *Driver) Add(out, in []Buf, indirect bool) (head uint16, ok bool) {
	if d.pk != nil {
		return d.addPacked(out, in, indirect)
	}
	n := len(out) + len(in)
	need := n
	if indirect {
		need = 1
		if n > d.TableLen {
			return 0, false
		}
	}
	if n == 0 || need > d.nfree {
		return 0, false
	}
	buf := func(i int) (Buf, uint16) {
		if i < len(out) {
			return out[i], 0
		}
		return in[i-len(out)], vring.DescWrite
	}
	head = d.take()
	d.chain[head] = need
	if indirect {
		t := int(head) * d.TableLen
		for i := range n {
			b, f := buf(i)
			if i < n-1 {
				f |= vring.DescNext
			}
			put(d.tables, t+i, b, f, uint16(i+1))
		}
		put(d.desc, int(head), Buf{d.Tables + uint64(16*t), uint32(16 * n)}, vring.DescIndirect, 0)
	} else {
		for i, at := 0, head; i < n; i++ {
			b, f := buf(i)
			if i == n-1 {
				put(d.desc, int(at), b, f, 0)
				break
			}
			next := d.take()
			d.free[at] = next // the chain's own links, until it comes back
			put(d.desc, int(at), b, f|vring.DescNext, next)
			at = next
		}
	}
	d.avail.Put16(4+2*(int(d.idx)&(d.Size-1)), head)
	d.idx++
	return head, true
}

// Kick shows the device what was added and tells whether it must be notified.
func (d *Driver) Kick() bool {
	if d.pk != nil {
		return d.kickPacked()
	}
	old := d.shown
	if d.idx == old {
		return false
	}
	d.avail.Store32(0, uint32(d.flags)|uint32(d.idx)<<16)
	d.shown = d.idx
	if d.EventIdx {
		event := d.used.Load16(4 + 8*d.Size)
		return d.idx-event-1 < d.idx-old
	}
	return d.used.Load16(0)&1 == 0
}

// Used takes the next answer: the head of its chain and the bytes written. An
// error is something that the device must not do.
func (d *Driver) Used() (head uint16, n uint32, ok bool, err error) {
	if d.pk != nil {
		return d.usedPacked()
	}
	idx := d.used.Load16(2)
	if idx == d.last {
		return 0, 0, false, nil
	}
	if idx-d.last > d.shown-d.last {
		return 0, 0, false, fmt.Errorf("used index %d: only %d to %d are out", idx, d.last, d.shown)
	}
	at := 4 + 8*(int(d.last)&(d.Size-1))
	id := d.used.Load32(at)
	n = d.used.Load32(at + 4)
	if int(id) >= d.Size || d.chain[id] == 0 {
		return 0, 0, false, fmt.Errorf("used entry %d names %d, which is not out", d.last, id)
	}
	d.last++
	head = uint16(id)
	last := int(head)
	for range d.chain[head] - 1 {
		last = int(d.free[last])
	}
	d.nfree += d.chain[head]
	d.chain[head] = 0
	d.free[last] = uint16(d.first)
	d.first = int(head)
	return head, n, true, nil
}

// EnableCall asks the device for a notification with the next answer and then
// looks into the ring: true says that there is one by now. Who gets false may
// sleep.
func (d *Driver) EnableCall() (more bool) {
	if d.pk != nil {
		return d.enableCallPacked()
	}
	if d.EventIdx {
		d.avail.Put16(4+2*d.Size, d.last)
		d.barrier.Full()
	} else if d.flags != 0 {
		d.flags = 0
		d.avail.Store32(0, uint32(d.shown)<<16)
	}
	return d.used.Load16(2) != d.last
}

// DisableCall tells the device that no notification is needed for now.
func (d *Driver) DisableCall() {
	if d.pk != nil {
		d.disableCallPacked()
		return
	}
	if !d.EventIdx && d.flags == 0 {
		d.flags = 1
		d.avail.Store32(0, 1|uint32(d.shown)<<16)
	}
}

// PeekFree is the head that the next Add will take.
func (d *Driver) PeekFree() (head uint16, ok bool) {
	if p := d.pk; p != nil {
		if len(p.ids) == 0 {
			return 0, false
		}
		return p.ids[len(p.ids)-1], d.nfree > 0
	}
	return uint16(d.first), d.nfree > 0
}
