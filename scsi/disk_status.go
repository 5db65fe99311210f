package scsi

import (
	"encoding/binary"
	"errors"

	"github.com/vtgt/vtgt/backing"
)

// GET LBA STATUS(16): SBC-3 §5.4; the REPORT TYPE field is SBC-4's.

const (
	lbaStatusHeaderLen = 8
	lbaStatusDescLen   = 16
)

// Values of REPORT TYPE: which LBAs are to be told of.
const (
	reportAll         = 0x00
	reportNotMapped   = 0x01 // with a provisioning status other than zero
	reportMapped      = 0x02
	reportDeallocated = 0x03
	reportAnchored    = 0x04
	reportUnreadable  = 0x10 // that may give an unrecovered error
)

// Values of PROVISIONING STATUS.
const (
	lbaMapped      = 0
	lbaDeallocated = 1
)

// Values of COMPLETION CONDITION and the RTP bit, in byte 7 of the header.
const (
	lbaStatusByLength = 1 << 1 // the allocation length is used up
	lbaStatusByEnd    = 3 << 1 // the end of the medium was reached
	lbaStatusRTP      = 1 << 0 // REPORT TYPE was heeded
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
	d.count = 0
	switch t.CDB[14] {
	case reportAll, reportNotMapped, reportMapped, reportDeallocated:
	case reportAnchored, reportUnreadable: // there are none
		d.pos = d.end
		t.lbaStatusReply(nil)
		return
	default:
		t.check(InvalidCDBField(14, 7))
		return
	}
	b := t.buf(lbaStatusHeaderLen + maxLBAStatus*lbaStatusDescLen)
	if b == nil {
		return
	}
	clear(b)
	d.tmp = b
	t.lbaStatusNext()
}

// lbaStatusNext asks the store about what comes after pos.
func (t *Task) lbaStatusNext() {
	d := &t.disk
	if !t.unit.info().Extents || !t.unit.conf.Thin {
		t.lbaStatusAll()
		return
	}
	t.op.Ext = d.ext[:]
	t.store(backing.Extents, 0, d.pos, d.end-d.pos, nil, extentsDone)
}

// lbaStatusAll takes the rest of the medium for mapped.
func (t *Task) lbaStatusAll() {
	d := &t.disk
	d.ext[0] = backing.Extent{Off: d.pos, Len: d.end - d.pos, Allocated: true}
	t.lbaStatus(d.ext[:1])
	t.lbaStatusReply(d.tmp)
}

func extentsDone(t *Task) {
	n := int(t.op.N)
	t.op.Ext = nil
	d := &t.disk
	if errors.Is(t.op.Err, backing.ErrNotSupported) || t.op.Err == nil && n == 0 {
		t.lbaStatusAll()
		return
	}
	if !t.stored() {
		return
	}
	more := t.lbaStatus(d.ext[:min(n, maxExtents)])
	if more && d.pos < d.end {
		t.lbaStatusNext()
		return
	}
	t.lbaStatusReply(d.tmp)
}

// maxLBAStatus bounds the descriptors of one answer; initiators go on from its end
// (SBC-3 §5.4.2).
const maxLBAStatus = 64

// lbaStatusRoom is how many descriptors are worth making for t: what its
// ALLOCATION LENGTH has room for, and at least one, which the answer must have.
func (t *Task) lbaStatusRoom() int {
	room := (lenBytesAx4(t) - lbaStatusHeaderLen + lbaStatusDescLen - 1) / lbaStatusDescLen
	return int(max(1, min(room, maxLBAStatus)))
}

// lbaStatus adds extents to the answer in tmp and moves pos behind them; false:
// there is no room for more. A block is mapped when any byte of it is allocated.
func (t *Task) lbaStatus(ext []backing.Extent) (more bool) {
	d := &t.disk
	bs := t.blockLen()
	room := t.lbaStatusRoom()
	descs := d.tmp[lbaStatusHeaderLen:]
	for _, e := range ext {
		end := min(e.Off+e.Len, d.end)
		status := byte(lbaMapped)
		if e.Allocated {
			end = (end + bs - 1) / bs * bs
		} else {
			status = lbaDeallocated
			end = end / bs * bs
		}
		if end <= d.pos {
			continue
		}
		lba, blocks := uint64(d.pos/bs), uint64((end-d.pos)/bs)
		if typ := t.CDB[14]; typ == reportMapped && status != lbaMapped ||
			(typ == reportNotMapped || typ == reportDeallocated) && status == lbaMapped {
			d.pos = end
			continue
		}
		if d.count > 0 {
			last := descs[(d.count-1)*lbaStatusDescLen:]
			had := uint64(binary.BigEndian.Uint32(last[8:]))
			if last[12] == status && binary.BigEndian.Uint64(last)+had == lba && had+blocks <= 0xffffffff {
				binary.BigEndian.PutUint32(last[8:], uint32(had+blocks))
				d.pos = end
				continue
			}
		}
		if d.count == room {
			return false
		}
		desc := descs[d.count*lbaStatusDescLen:]
		d.count++
		binary.BigEndian.PutUint64(desc, lba)
		desc[12] = status
		if blocks > 0xffffffff { // the rest is for the next command
			binary.BigEndian.PutUint32(desc[8:], 0xffffffff)
			d.pos += 0xffffffff * bs
			return false
		}
		binary.BigEndian.PutUint32(desc[8:], uint32(blocks))
		d.pos = end
	}
	return true
}

// lbaStatusReply answers with the descriptors in b, count of them; nil: none.
func (t *Task) lbaStatusReply(b []byte) {
	d := &t.disk
	if b == nil {
		b = t.scratch(lbaStatusHeaderLen)
		clear(b)
	}
	total := lbaStatusHeaderLen + d.count*lbaStatusDescLen
	binary.BigEndian.PutUint32(b, uint32(total-4))
	// An initiator of SBC-3 asks for all, and finds the byte reserved.
	if t.CDB[14] != reportAll {
		b[7] = lbaStatusRTP | lbaStatusByLength
		if d.pos >= d.end {
			b[7] = lbaStatusRTP | lbaStatusByEnd
		}
	}
	t.reply(b[:total], lenBytesAx4(t))
}
