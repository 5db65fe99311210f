package scsi

import "github.com/vtgt/vtgt/backing"

// VERIFY(10) to VERIFY(16) and WRITE AND VERIFY(10) to (16): SBC-3 §5.31 to
// §5.33, §5.39 to §5.41. The medium is read in pieces of stepBytes.

// bytchk is the BYTCHK field.
func (t *Task) bytchk() byte { return t.CDB[1] >> 1 & 3 }

func runVerify(t *Task) {
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	bs := t.blockLen()
	d := &t.disk
	d.data = cursor{}
	d.pattern = false
	d.pos = int64(lba) * bs
	d.end = d.pos + int64(n)*bs
	switch t.bytchk() {
	case 1:
		t.Want = int64(n) * bs
		// Less data than blocks: what can be compared is compared.
		d.end = min(d.end, d.pos+bufsLen(t.DataOut)/bs*bs)
	case 2: // reserved
		t.check(InvalidCDBField(1, 2))
		return
	case 3:
		if n > 0 {
			t.Want = bs
			if bufsLen(t.DataOut) < bs {
				d.end = d.pos
			}
		}
		d.pattern = true
	}
	t.verify()
}

// verify reads [pos, end) and compares it with the data, if there are any.
func (t *Task) verify() {
	d := &t.disk
	if d.pos >= d.end {
		t.good()
		return
	}
	b := t.buf(int(min(d.end-d.pos, t.stepLen())))
	if b == nil {
		return
	}
	d.tmp = b
	t.store1(backing.Read, 0, d.pos, b, verifyStep)
}

// stepLen is the largest number of whole blocks that a step takes, in bytes.
func (t *Task) stepLen() int64 { return max(stepBytes/t.blockLen(), 1) * t.blockLen() }

func verifyStep(t *Task) {
	if !t.stored() {
		return
	}
	d := &t.disk
	b := d.tmp[:t.op.Len]
	bs := int(t.blockLen())
	bad := -1
	switch {
	case t.bytchk() == 0:
	case d.pattern:
		for i := 0; i < len(b) && bad < 0; i += bs {
			d.data = cursor{}
			if j := d.data.compare(t.DataOut, b[i:i+bs]); j >= 0 {
				bad = i + j
			}
		}
	default:
		bad = d.data.compare(t.DataOut, b)
	}
	if bad >= 0 {
		lba := uint64(d.pos)/uint64(bs) + uint64(bad/bs)
		t.check(Sense{Key: Miscompare, ASC: ASCMiscompareDuringVerify, Info: lba, HasInfo: true})
		return
	}
	d.pos += int64(len(b))
	if d.pos >= d.end {
		t.good()
		return
	}
	t.store1(backing.Read, 0, d.pos, d.tmp[:min(d.end-d.pos, int64(len(d.tmp)))], verifyStep)
}

func runWriteVerify(t *Task) {
	if b := t.bytchk(); b > 1 { // 10b and 11b are reserved here
		t.check(InvalidCDBField(1, 2))
		return
	}
	if t.startWrite(writeVerifyWritten) {
		t.good()
	}
}

func writeVerifyWritten(t *Task) {
	if !t.stored() {
		return
	}
	t.disk.data = cursor{}
	t.disk.pattern = false
	// Verifying is of the medium, so the data have to be on it.
	if t.unit.volatileCache() {
		t.store(backing.Sync, 0, 0, 0, nil, writeVerifySynced)
		return
	}
	t.verify()
}

func writeVerifySynced(t *Task) {
	if t.stored() {
		t.verify()
	}
}
