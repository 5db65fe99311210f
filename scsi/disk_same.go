package scsi

import (
	"errors"

	"github.com/vtgt/vtgt/backing"
)

// WRITE SAME(10) and (16): SBC-3 §5.42, §5.43.

func runWriteSame(t *Task) {
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	bs := t.blockLen()
	if n > maxWriteSame(bs) {
		// "exceeds the MAXIMUM WRITE SAME LENGTH field" (SBC-3 §5.42).
		if t.CDB[0] == opWriteSame10 {
			t.check(InvalidCDBField(7, 7))
		} else {
			t.check(InvalidCDBField(10, 7))
		}
		return
	}
	d := &t.disk
	d.pos = int64(lba) * bs
	d.end = d.pos + int64(n)*bs
	d.sync = t.unit.writeThrough() != 0
	unmap := t.CDB[1]&(1<<3) != 0
	zero := true
	if ndob := t.CDB[0] == opWriteSame16 && t.CDB[1]&1 != 0; !ndob {
		if !t.exactData(bs) {
			t.check(wrongDataLength)
			return
		}
		t.Want = bs
		p := t.scratch(int(bs))
		d.data = cursor{}
		d.data.copyOut(t.DataOut, p)
		zero = allZero(p)
		if !zero && !unmap {
			t.fill(p)
			return
		}
	}
	if d.pos == d.end {
		t.good()
		return
	}
	if unmap {
		// Whatever the block holds: the initiator asks for what LBPRZ tells it
		// of deallocated blocks. SBC-3 §4.7.3.4.3 would have a block that is not
		// zero written instead; the Linux kernel's target does as we do, and
		// libiscsi's WriteSame10.UnmapUntilEnd, which sends ones, counts on it.
		t.deallocate(d.pos, d.end-d.pos, sameDeallocated)
		return
	}
	t.store(backing.Zero, backing.NoUnmap, d.pos, d.end-d.pos, nil, sameDeallocated)
}

// exactData reports whether the initiator has n bytes to send and sent them.
func (t *Task) exactData(n int64) bool {
	return bufsLen(t.DataOut) == n && t.Offered <= n
}

// wrongDataLength is for commands that cannot do a part of their work: the
// initiator gave more or less data than its CDB says.
var wrongDataLength = Sense{Key: IllegalRequest, ASC: ascInvalidFieldInCIU}

// fill writes the block p to every block of [pos, end). p is copied.
func (t *Task) fill(p []byte) {
	d := &t.disk
	if d.pos == d.end {
		t.good()
		return
	}
	b := t.buf(int(min(d.end-d.pos, t.stepLen())))
	if b == nil {
		return
	}
	for i := copy(b, p); i < len(b); i *= 2 {
		copy(b[i:], b[:i])
	}
	d.tmp = b
	t.store1(backing.Write, t.unit.writeThrough(), d.pos, b, fillStep)
}

func fillStep(t *Task) {
	if !t.stored() {
		return
	}
	d := &t.disk
	d.pos += t.op.Len
	if d.pos >= d.end {
		t.good()
		return
	}
	b := d.tmp[:min(d.end-d.pos, int64(len(d.tmp)))]
	t.store1(backing.Write, t.unit.writeThrough(), d.pos, b, fillStep)
}

// sameDeallocated ends a WRITE SAME of zeros, or goes on by writing them where
// the store knows no better way.
func sameDeallocated(t *Task) {
	if errors.Is(t.op.Err, backing.ErrNotSupported) {
		p := t.scratch(int(t.blockLen()))
		clear(p)
		t.fill(p)
		return
	}
	if t.stored() {
		t.settle()
	}
}

// settle ends a task that changed the medium by other means than Write: with a
// Sync first where the write cache is off.
func (t *Task) settle() {
	if t.disk.sync && t.unit.volatileCache() {
		t.store(backing.Sync, 0, 0, 0, nil, writeDone)
		return
	}
	t.good()
}

// deallocate gives [off, off+n) bytes back to the store so that they read zero,
// and goes on with next. LBPRZ promises that for every store, so a store whose
// discarded blocks may read anything gets a Zero that may unmap.
func (t *Task) deallocate(off, n int64, next step) {
	k := backing.Zero
	if i := t.unit.info(); i.DiscardGranularity > 0 && i.DiscardZeroes {
		k = backing.Discard
	}
	t.store(k, 0, off, n, nil, next)
}
