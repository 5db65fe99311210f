package scsi

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// EXTENDED COPY(LID1) and what RECEIVE COPY RESULTS has for it: SPC-4 §6.4, §6.23 to
// §6.27 (RECEIVE COPY DATA, FAILURE DETAILS, OPERATING PARAMETERS and STATUS(LID1)).

// lenCopyOut is the parameter list length; of a list that is too long only as much is
// asked for as it takes to know.
func lenCopyOut(t *Task) int64 {
	return min(int64(binary.BigEndian.Uint32(t.CDB[10:])), maxCopyList+1)
}

// maxCopyList is the longest list that any third-party copy command has.
const maxCopyList = copyHeaderLen + maxCopyDescLen

func runExtendedCopy(t *Task) {
	n := lenCopyOut(t)
	if n == 0 {
		t.good()
		return
	}
	p, ok := t.copyList(n, maxCopyList)
	if !ok {
		return
	}
	list, s := decodeCopy(p)
	if s.Key != NoSense {
		t.check(s)
		return
	}
	ranges, s := list.resolve(t.nexus().LUNs())
	if s.Key != NoSense {
		t.check(s)
		return
	}
	t.startCopy(&copyEntry{
		sa: t.CDB[1] & 0x1f, id: uint32(list.id), named: list.usage != listIDNone, discard: list.usage == listIDDiscard,
	}, ranges, false)
}

// copyList is a private copy of the parameter list of n bytes; ok is false where it is
// longer than limit or not all there: the task has ended.
func (t *Task) copyList(n, limit int64) (b []byte, ok bool) {
	if n > limit {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return nil, false
	}
	p, ok := t.param(int(n))
	if !ok {
		return nil, false
	}
	// The initiator may go on writing to the list.
	return bytes.Clone(p), true
}

// startCopy enters e and copies ranges. The task ends at once when background, else with
// the copy.
func (t *Task) startCopy(e *copyEntry, ranges []copyRange, background bool) {
	l := &t.nexus().copies
	lane := t.lane.inside()
	if lane == nil { // the nexus is going
		t.finish(StatusBusy)
		return
	}
	e.unit = t.unit
	e.status = copyForeground
	if background {
		e.status = copyBackground
	}
	s, full := l.begin(e)
	switch {
	case s.Key != NoSense:
		t.check(s)
		return
	case full:
		t.finish(StatusTaskSetFull)
		return
	}
	nu := t.nu()
	c := &copyOp{entry: e, lane: lane, tag: l.nextTag(), home: nu, resets: nu.resets.Load(), ranges: ranges}
	c.stop.Init((*copyStop)(c))
	l.mu.Lock()
	e.op = c
	l.mu.Unlock()
	if background {
		c.start()
		t.good()
		return
	}
	c.outer = t
	t.copy = c
	t.sched.state = stCopy
	c.start()
}

// copyEntry finds the entry that list identifier id of the CDB names, and has f look at
// it with its list locked. false: there is none, and the task has ended.
func (t *Task) withCopy(id uint32, f func(e *copyEntry)) bool {
	l := &t.nexus().copies
	l.mu.Lock()
	e := l.find(t.unit, id)
	if e != nil {
		f(e)
	}
	l.mu.Unlock()
	if e == nil {
		t.check(InvalidCDBField(2, 7))
	}
	return e != nil
}

// runCopyStatus is RECEIVE COPY STATUS(LID1).
func runCopyStatus(t *Task) {
	b := t.scratch(12)
	clear(b)
	if !t.withCopy(uint32(t.CDB[2]), func(e *copyEntry) {
		switch {
		case e.status.running():
		case e.status == copyGood:
			b[4] = 1
		default:
			b[4] = 2
		}
		binary.BigEndian.PutUint16(b[5:], e.segments)
		units, count := transferCount(e.bytes)
		b[7] = units
		binary.BigEndian.PutUint32(b[8:], count)
	}) {
		return
	}
	binary.BigEndian.PutUint32(b, 8)
	t.reply(b, lenBytesAx4(t))
}

// transferCount is n bytes as a TRANSFER COUNT with its TRANSFER COUNT UNITS (SPC-4
// table 239): bytes, KiB, MiB, …
func transferCount(n int64) (units byte, count uint32) {
	for bits.Len64(uint64(n)) > 32 {
		n >>= 10
		units++
	}
	return units, uint32(n)
}

// runCopyData is RECEIVE COPY DATA(LID1): no segment descriptor here holds data.
func runCopyData(t *Task) {
	b := t.scratch(4)
	clear(b)
	if t.withCopy(uint32(t.CDB[2]), func(*copyEntry) {}) {
		t.reply(b, lenBytesAx4(t))
	}
}

// copyFailureHead is the length of the failure details before their sense data.
const copyFailureHead = 60

// runCopyFailure is RECEIVE COPY FAILURE DETAILS(LID1). What it has told it forgets.
func runCopyFailure(t *Task) {
	b := t.scratch(copyFailureHead + MaxSense)
	clear(b)
	n := 4
	if !t.withCopy(uint32(t.CDB[2]), func(e *copyEntry) {
		if e.status == copyBad {
			b[56] = byte(StatusCheckCondition)
			k := e.fail.Encode(b[copyFailureHead:], t.unit.dSense.Load())
			binary.BigEndian.PutUint16(b[58:], uint16(k))
			n = copyFailureHead + k
			e.list.drop(e)
		}
	}) {
		return
	}
	binary.BigEndian.PutUint32(b, uint32(n-4))
	t.reply(b[:n], lenBytesAx4(t))
}

// copyDescriptors are the descriptor types that EXTENDED COPY takes, ascending.
var copyDescriptors = []byte{copyBlocks, copyBytesOffset, copyTargetIdent}

// runCopyParameters is RECEIVE COPY OPERATING PARAMETERS.
func runCopyParameters(t *Task) {
	b := t.scratch(64)[:44]
	clear(b)
	b[4] = 0x01 // SNLID: no list identifier is fine
	binary.BigEndian.PutUint16(b[8:], maxCopyTargets)
	binary.BigEndian.PutUint16(b[10:], maxCopySegments)
	binary.BigEndian.PutUint32(b[12:], maxCopyDescLen)
	binary.BigEndian.PutUint32(b[16:], maxCopySegmentLen)
	// MAXIMUM INLINE DATA LENGTH, HELD DATA LIMIT, MAXIMUM STREAM DEVICE TRANSFER SIZE: 0.
	binary.BigEndian.PutUint16(b[34:], maxCopies) // TOTAL CONCURRENT COPIES
	b[36] = maxCopies                             // MAXIMUM CONCURRENT COPIES
	b[37] = byte(bits.TrailingZeros(uint(t.unit.blockSize)))
	b[43] = byte(len(copyDescriptors))
	b = append(b, copyDescriptors...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	t.reply(b, lenBytesAx4(t))
}
