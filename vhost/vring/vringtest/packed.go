package vringtest

import (
	"fmt"

	"github.com/vtgt/vtgt/vhost/vring"
)

// Flags of a packed ring's descriptors, VIRTIO 1.2 §2.8.1, and of event suppression,
// §2.8.10.
const (
	flagAvail  = 1 << 7
	flagUsed   = 1 << 15
	eventsOff  = 1
	eventsDesc = 2
)

// packed is what a Driver of a packed ring has besides. desc is the ring, avail the
// driver's and used the device's event suppression structure.
type packed struct {
	at, used         int
	wrap, usedWrap   bool
	ids              []uint16 // free ones
	held             int      // where the first chain since the last Kick begins, -1: none
	heldWord         uint32   // its id and flags
	added            int      // elements since the last Kick
	off              bool
	idx, shown, last uint16 // chains
}

// NewPacked is NewDriver for a packed ring.
func NewPacked(g Memory, l Layout, eventIdx bool) (*Driver, error) {
	d, err := NewDriver(g, l, eventIdx)
	if err != nil {
		return nil, err
	}
	p := &packed{wrap: true, usedWrap: true, held: -1}
	for i := l.Size - 1; i >= 0; i-- {
		p.ids = append(p.ids, uint16(i))
	}
	d.pk = p
	return d, nil
}

func (p *packed) flags() uint16 {
	if p.wrap {
		return flagAvail
	}
	return flagUsed
}

func (d *Driver) addPacked(out, in []Buf, indirect bool) (id uint16, ok bool) {
	p := d.pk
	n := len(out) + len(in)
	need := n
	if indirect {
		need = 1
		if n > d.TableLen {
			return 0, false
		}
	}
	if n == 0 || need > d.nfree || len(p.ids) == 0 {
		return 0, false
	}
	id = p.ids[len(p.ids)-1]
	p.ids = p.ids[:len(p.ids)-1]
	d.chain[id] = need
	d.nfree -= need
	buf := func(i int) (Buf, uint16) {
		if i < len(out) {
			return out[i], 0
		}
		return in[i-len(out)], vring.DescWrite
	}
	first, word := p.at, uint32(0)
	element := func(b Buf, flags uint16) {
		d.desc.Put64(16*p.at, b.Addr)
		d.desc.Put32(16*p.at+8, b.Len)
		w := uint32(id) | uint32(flags|p.flags())<<16
		if p.at == first {
			word = w
		} else {
			d.desc.Put32(16*p.at+12, w)
		}
		if p.at++; p.at == d.Size {
			p.at, p.wrap = 0, !p.wrap
		}
	}
	if indirect {
		t := int(id) * d.TableLen
		for i := range n {
			b, f := buf(i)
			d.tables.Put64(16*(t+i), b.Addr)
			d.tables.Put64(16*(t+i)+8, uint64(b.Len)|uint64(f)<<48)
		}
		element(Buf{d.Tables + uint64(16*t), uint32(16 * n)}, vring.DescIndirect)
	} else {
		for i := range n {
			b, f := buf(i)
			if i < n-1 {
				f |= vring.DescNext
			}
			element(b, f)
		}
	}
	// The first chain is shown last; those behind it are not looked at before.
	if p.held < 0 {
		p.held, p.heldWord = 16*first+12, word
	} else {
		d.desc.Put32(16*first+12, word)
	}
	p.added += need
	p.idx++
	return id, true
}

func (d *Driver) kickPacked() bool {
	p := d.pk
	if p.held < 0 {
		return false
	}
	d.desc.Store32(p.held, p.heldWord)
	n := p.added
	p.held, p.added, p.shown = -1, 0, p.idx
	ev := d.used.Load32(0)
	switch f := ev >> 16 & 3; {
	case f == eventsOff:
		return false
	case f == eventsDesc && d.EventIdx:
		off := int(ev & 0x7fff)
		if ev>>15&1 != 0 != p.wrap {
			off -= d.Size
		}
		return uint16(p.at-off-1) < uint16(n)
	}
	return true
}

func (d *Driver) usedPacked() (id uint16, n uint32, ok bool, err error) {
	p := d.pk
	w := d.desc.Load32(16*p.used + 12)
	flags := uint16(w >> 16)
	if flags&flagAvail != 0 != p.usedWrap || flags&flagUsed != 0 != p.usedWrap {
		return 0, 0, false, nil
	}
	n = d.desc.Load32(16*p.used + 8)
	id = uint16(w)
	if int(id) >= d.Size || d.chain[id] == 0 {
		return 0, 0, false, fmt.Errorf("used element %d names %d, which is not out", p.used, id)
	}
	if n > 0 != (flags&vring.DescWrite != 0) {
		return 0, 0, false, fmt.Errorf("used element %d of %d bytes has the flags %#x", p.used, n, flags)
	}
	k := d.chain[id]
	d.chain[id] = 0
	d.nfree += k
	p.ids = append(p.ids, id)
	if p.used += k; p.used >= d.Size {
		p.used, p.usedWrap = p.used-d.Size, !p.usedWrap
	}
	p.last++
	return id, n, true, nil
}

func (d *Driver) enableCallPacked() (more bool) {
	p := d.pk
	if d.EventIdx {
		v := uint32(p.used) | eventsDesc<<16
		if p.usedWrap {
			v |= 1 << 15
		}
		d.avail.Store32(0, v)
	} else if p.off {
		d.avail.Store32(0, 0)
	}
	p.off = false
	d.barrier.Full()
	flags := uint16(d.desc.Load32(16*p.used+12) >> 16)
	return flags&flagAvail != 0 == p.usedWrap && flags&flagUsed != 0 == p.usedWrap
}

func (d *Driver) disableCallPacked() {
	if p := d.pk; !p.off {
		p.off = true
		d.avail.Store32(0, eventsOff<<16)
	}
}

// Base is what a driver that has taken all answers would have in SET_VRING_BASE.
func (d *Driver) Base() uint32 {
	p := d.pk
	if p == nil {
		return uint32(d.UsedIndex())
	}
	v := uint32(p.used)
	if p.usedWrap {
		v |= 1 << 15
	}
	return v | v<<16
}

// PackedParts is Parts for a packed ring.
func (g *Guest) PackedParts(l Layout) (vring.Parts, error) {
	return vring.UserPacked(g.Map, l.Size, l.Desc+UserBase, l.Avail+UserBase, l.Used+UserBase)
}
