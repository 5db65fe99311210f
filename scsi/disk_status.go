package scsi

import (
	"encoding/binary"
	"errors"

	"github.com/vtgt/vtgt/backing"
)

// GET LBA STATUS: SBC-3 §5.4.

const (
	lbaStatusHeaderLen = 8
	lbaStatusDescLen   = 16
)

func runGetLBAStatus(t *Task) {
	lba := binary.BigEndian.Uint64(t.CDB[2:])
	end := t.unitBlocks()
	if lba >= end {
		t.check(Sense{Key: IllegalRequest, ASC: ASCLBAOutOfRange})
		return
	}
	d := &t.disk
	bs := t.blockLen()
	d.pos, d.end = int64(lba)*bs, int64(end)*bs
	if !t.unit.info().Extents || !t.unit.conf.Thin {
		d.ext[0] = backing.Extent{Off: d.pos, Len: d.end - d.pos, Allocated: true}
		t.lbaStatus(1)
		return
	}
	t.op.Ext = d.ext[:]
	t.store(backing.Extents, 0, d.pos, d.end-d.pos, nil, extentsDone)
}

func extentsDone(t *Task) {
	n := int(t.op.N)
	t.op.Ext = nil
	d := &t.disk
	if errors.Is(t.op.Err, backing.ErrNotSupported) || t.op.Err == nil && n == 0 {
		d.ext[0] = backing.Extent{Off: d.pos, Len: d.end - d.pos, Allocated: true}
		t.lbaStatus(1)
		return
	}
	if t.stored() {
		t.lbaStatus(min(n, maxExtents))
	}
}

// lbaStatus answers with the first n of ext. A block is mapped when any byte of
// it is allocated.
func (t *Task) lbaStatus(n int) {
	d := &t.disk
	bs := t.blockLen()
	b := t.scratch(lbaStatusHeaderLen + maxExtents*lbaStatusDescLen)
	clear(b)
	descs := b[lbaStatusHeaderLen:]
	count := 0
	at := d.pos // the first byte without an answer, a block's first
	for _, e := range d.ext[:n] {
		end := min(e.Off+e.Len, d.end)
		if e.Allocated {
			end = (end + bs - 1) / bs * bs
		} else {
			end = end / bs * bs
		}
		if end <= at {
			continue
		}
		status := byte(1) // deallocated
		if e.Allocated {
			status = 0 // mapped
		}
		blocks := uint64((end - at) / bs)
		last := descs[max(count-1, 0)*lbaStatusDescLen:]
		if had := uint64(binary.BigEndian.Uint32(last[8:])); count > 0 && last[12] == status && had+blocks <= 0xffffffff {
			binary.BigEndian.PutUint32(last[8:], uint32(had+blocks))
			at = end
			continue
		}
		desc := descs[count*lbaStatusDescLen:]
		binary.BigEndian.PutUint64(desc, uint64(at/bs))
		count++
		if blocks > 0xffffffff { // the rest is for the next command
			binary.BigEndian.PutUint32(desc[8:], 0xffffffff)
			desc[12] = status
			break
		}
		binary.BigEndian.PutUint32(desc[8:], uint32(blocks))
		desc[12] = status
		at = end
	}
	total := lbaStatusHeaderLen + count*lbaStatusDescLen
	binary.BigEndian.PutUint32(b, uint32(total-4))
	t.reply(b[:total], lenBytesAx4(t))
}
