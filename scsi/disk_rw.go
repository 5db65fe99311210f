package scsi

import (
	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/gmem"
)

// READ(6) to READ(16) and WRITE(6) to WRITE(16): SBC-3 §5.16 to §5.20, §5.34 to
// §5.38. This is the fast path: one store operation straight into or out of the
// front end's buffers.

// rwFlags are the store's flags for the DPO and FUA bits. The 6-byte CDBs have
// LBA bits there.
func (t *Task) rwFlags() (fl backing.Flags) {
	if t.CDB[0]>>5 == 0 {
		return 0
	}
	b := t.CDB[1]
	if b&cdbDPO != 0 {
		fl |= backing.NoCache
	}
	if b&cdbFUA != 0 {
		fl |= backing.FUA
	}
	return fl
}

func runRead(t *Task) {
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	bs := t.blockLen()
	size := int64(n) * bs
	t.Want = size
	d := &t.disk
	d.pos = int64(lba) * bs
	// An initiator may have less room than its CDB asks for: it gets what fits.
	d.end = d.pos + min(size, bufsLen(t.DataIn))
	if d.pos == d.end {
		t.good()
		return
	}
	fl := t.rwFlags()
	if fl&backing.FUA != 0 && t.unit.volatileCache() {
		// FUA on a read: no data that a power loss could still take back
		// (SBC-3 §5.16).
		t.store(backing.Sync, 0, 0, 0, nil, readSynced)
		return
	}
	t.readWhole(fl)
}

func readSynced(t *Task) {
	if t.stored() {
		t.readWhole(t.rwFlags())
	}
}

// readWhole reads the whole blocks of [pos, end) into DataIn.
func (t *Task) readWhole(fl backing.Flags) {
	d := &t.disk
	whole := (d.end - d.pos) / t.blockLen() * t.blockLen()
	if whole == 0 {
		t.readPart()
		return
	}
	v := t.DataIn
	if whole != bufsLen(v) {
		v = d.cut(v, 0, whole)
	}
	t.store(backing.Read, fl&^backing.FUA, d.pos, whole, v, readDone)
}

func readDone(t *Task) {
	if !t.stored() {
		return
	}
	d := &t.disk
	t.InLen = t.op.Len
	d.pos += t.op.Len
	if d.pos < d.end {
		t.readPart()
		return
	}
	t.good()
}

// readPart brings the first bytes of the last block, where the initiator has
// room for a part of it only.
func (t *Task) readPart() {
	b := t.buf(int(t.blockLen()))
	if b == nil {
		return
	}
	t.disk.tmp = b
	t.store1(backing.Read, 0, t.disk.pos, b, readPartDone)
}

func readPartDone(t *Task) {
	if !t.stored() {
		return
	}
	if gmem.Try(copyPart, t) != nil {
		t.check(senseFault)
		return
	}
	t.good()
}

// copyPart copies what the initiator has room for.
func copyPart(t *Task) {
	d := &t.disk
	d.data = cursor{}
	d.data.skip(t.DataIn, t.InLen)
	t.InLen += int64(d.data.copyIn(t.DataIn, d.tmp[:d.end-d.pos]))
}

func runWrite(t *Task) {
	if t.startWrite(writeDone) {
		t.good()
	}
}

// startWrite writes the whole blocks of DataOut, at most those that the CDB asks
// for, and goes on with next. none: there are none, and nothing was started. When
// it is false the task goes on, or has ended.
func (t *Task) startWrite(next step) (none bool) {
	lba, n, ok := t.extent()
	if !ok {
		return false
	}
	bs := t.blockLen()
	size := int64(n) * bs
	t.Want = size
	have := bufsLen(t.DataOut)
	v := t.DataOut
	d := &t.disk
	d.pos = int64(lba) * bs
	if move := min(size, have) / bs * bs; move != have {
		if move == 0 {
			d.end = d.pos
			return true
		}
		v, have = d.cut(v, 0, move), move
	}
	d.end = d.pos + have
	if have == 0 {
		return true
	}
	t.store(backing.Write, t.rwFlags()|t.unit.writeThrough(), d.pos, have, v, next)
	return false
}

func writeDone(t *Task) {
	if t.stored() {
		t.good()
	}
}
