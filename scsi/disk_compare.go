package scsi

import "github.com/vtgt/vtgt/backing"

// COMPARE AND WRITE (SBC-3 §5.2) and ORWRITE(16) (§5.13). Both run with cmdRange:
// no other command reads or writes their blocks between their read and write.

func runCompareAndWrite(t *Task) {
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	bs := t.blockLen()
	if n > maxCompareAndWrite(bs) {
		t.check(InvalidCDBField(13, 7))
		return
	}
	size := int64(n) * bs
	if !t.exactData(2 * size) {
		// NUMBER OF LOGICAL BLOCKS has one byte: 256 blocks look like none.
		t.check(InvalidCDBField(13, 7))
		return
	}
	t.Want = 2 * size
	if n == 0 {
		t.good()
		return
	}
	b := t.buf(int(size))
	if b == nil {
		return
	}
	d := &t.disk
	d.tmp, d.pos, d.data = b, int64(lba)*bs, cursor{}
	t.store1(backing.Read, 0, d.pos, b, compareStep)
}

func compareStep(t *Task) {
	if !t.stored() {
		return
	}
	d := &t.disk
	if i := d.data.compare(t.DataOut, d.tmp); i >= 0 {
		// INFORMATION is the offset in the Data-Out Buffer (SBC-3 §5.2).
		t.check(Sense{Key: Miscompare, ASC: ASCMiscompareDuringVerify, Info: uint64(i), HasInfo: true})
		return
	}
	// At most 256 KiB: a copy is cheaper than a vector of unknown length.
	d.data.copyOut(t.DataOut, d.tmp)
	t.store1(backing.Write, t.rwFlags()|t.unit.writeThrough(), d.pos, d.tmp, writeDone)
}

func runORWrite(t *Task) {
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	bs := t.blockLen()
	t.Want = int64(n) * bs
	d := &t.disk
	d.pos = int64(lba) * bs
	d.end = d.pos + min(t.Want, bufsLen(t.DataOut)/bs*bs)
	d.data = cursor{}
	if d.pos == d.end {
		t.good()
		return
	}
	b := t.buf(int(min(d.end-d.pos, t.stepLen())))
	if b == nil {
		return
	}
	d.tmp = b
	t.store1(backing.Read, 0, d.pos, b, orRead)
}

func orRead(t *Task) {
	if !t.stored() {
		return
	}
	d := &t.disk
	b := d.tmp[:t.op.Len]
	for n := 0; n < len(b); {
		s := d.data.next(t.DataOut, len(b)-n)
		if len(s) == 0 {
			break
		}
		for i, x := range s {
			b[n+i] |= x
		}
		n += len(s)
	}
	t.store1(backing.Write, t.rwFlags()|t.unit.writeThrough(), d.pos, b, orWritten)
}

func orWritten(t *Task) {
	if !t.stored() {
		return
	}
	d := &t.disk
	d.pos += t.op.Len
	if d.pos >= d.end {
		t.good()
		return
	}
	t.store1(backing.Read, 0, d.pos, d.tmp[:min(d.end-d.pos, int64(len(d.tmp)))], orRead)
}
