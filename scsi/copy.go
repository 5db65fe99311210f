package scsi

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
)

// Third-party copies (SPC-4 §5.17, SBC-3 §4.22): what EXTENDED COPY and WRITE USING
// TOKEN have the core do.
//
// A copy is a little initiator: it reads and writes by tasks of its own, on a lane of
// its own (Lane.inside) into the nexus that asked for it. So each piece meets whatever
// any command meets: the LUN map of that nexus, reservations, access states, write
// protection, the range table, the gate, a unit that has stopped. A copy can do nothing
// that its initiator could not do by READ and WRITE.
//
// In the foreground the command stays in its unit's task set until the copy is over
// (state stCopy); task management cancels the copy and is answered when its last
// operation has left the stores. In the background (IMMED) the copy goes on without a
// task, and ends with its nexus, or when the task set of its unit is reset.
//
// Where both stores are files of one file system, pieces are moved by one operation of
// the destination's (backing.Copy), which may move no data at all. The destination's
// task runs first and then takes hold of the source, by a task that only stands for it
// there; it never waits for it. If it cannot have it at once the piece is read and
// written instead. A task that held one range and waited for another could be waited
// for by that one.

const (
	// copySlots is how many pieces of one copy are under way at a time: one is read
	// while another is written.
	copySlots = 2
	// copyBytes is the size of a piece that is read and written, copyMove of one that
	// is moved or zeroed: it keeps exclusive commands of both units waiting.
	copyBytes = 1 << 20
	copyMove  = 32 << 20
)

// Additional sense codes of copies.
const (
	ascUnreachableTarget   ASC = 0x0804
	ascThirdPartyFailure   ASC = 0x0d01
	ascTargetNotReachable  ASC = 0x0d02
	ascWrongTargetType     ASC = 0x0d03
	ascCopyAborted         ASC = 0x0000
	ascTooManyTargets      ASC = 0x2606
	ascUnknownTargetType   ASC = 0x2607
	ascTooManySegments     ASC = 0x2608
	ascUnknownSegmentType  ASC = 0x2609
	ascInexactSegment      ASC = 0x260a
	ascInlineDataExceeded  ASC = 0x260b
	ascTokenUnsupported    ASC = 0x2301
	ascTokenUnknown        ASC = 0x2304
	ascTokenCorrupt        ASC = 0x2305
	ascTokenExpired        ASC = 0x2307
	ascTokenCancelled      ASC = 0x2308
	ascTokenLength         ASC = 0x230a
	ascProcessTerminated   ASC = 0x0006
	ascNoRoomForToken      ASC = 0x550d
	ascCopyOpInProgress        = ASCOperationInProgress
	ascCopyNoRoomForBuffer     = ASCInsufficientResources
)

// copyEnd is one end of a range: bytes of a unit that the nexus sees as lun.
type copyEnd struct {
	unit *Unit
	lun  uint16
	off  int64
}

// copyRange is n bytes to be copied, whole blocks at both ends.
type copyRange struct {
	src, dst copyEnd // src.unit is nil: zeros
	n        int64
	// bad: there is nothing to copy; the copy ends with this when it comes here.
	bad Sense
}

// copyOp is a copy that is under way. All of it belongs to its loop, but for what
// entry has.
type copyOp struct {
	entry *copyEntry
	lane  *Lane // its own tasks'
	tag   uint64
	// outer is the command, while it waits for the end; nil in the background.
	outer *Task
	// home is the pair of nexus and unit that the command came to; a background copy
	// ends when its count of resets is not resets any more.
	home   *nexusUnit
	resets uint32

	ranges []copyRange
	cur    int   // range
	pos    int64 // bytes of it given out
	left   int64 // bytes of it not done
	moves  bool  // the range may be moved by one operation

	slots    [copySlots]copySlot
	stop     loop.Node // for COPY OPERATION ABORT
	busy     int       // slots at work
	canceled bool
	over     bool
	fail     Sense // with a Key once it has failed
}

// copyPhase is what a slot is about.
type copyPhase uint8

const (
	copyIdle copyPhase = iota
	copyReading
	copyWriting
	copyZeroing
	copyMoving
)

// copySlot does one piece after the other, with tasks of its own.
type copySlot struct {
	c     *copyOp
	t     Task // reads, writes, zeroes, moves
	hold  Task // stands for the piece at its source while t moves it
	node  loop.Node
	buf   *slab.Buf
	one   [1][]byte
	phase copyPhase
	r     copyRange // the piece
	rest  copyRange // of a piece that could not be moved: to be read and written

	held    bool // hold runs
	unmoved bool // t has ended without moving anything
}

// The rows of a copy's own tasks that no CDB names. Their CDBs are those of READ(16)
// and WRITE(16), which tell their ranges.
var (
	copyHoldRow = preparedRow(command{op: 0x88, sa: noSA, name: "copy, source",
		usage: []byte{0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirNone, conflict: conflictRead, flags: cmdMedium | cmdBlocks, run: runCopyHold})
	copyMoveRow = preparedRow(command{op: 0x8a, sa: noSA, name: "copy, destination",
		usage: []byte{0x8a, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0},
		dir:   dirNone, conflict: conflictWrite, flags: cmdMedium | cmdWrite | cmdBlocks, run: runCopyMove})
)

func preparedRow(c command) *command {
	c.prepare()
	return &c
}

// start begins the copy. On the loop.
func (c *copyOp) start() {
	for i := range c.slots {
		s := &c.slots[i]
		s.c = c
		s.node.Init(s)
		for _, t := range []*Task{&s.t, &s.hold} {
			// What unit attention conditions wait are the initiator's to see.
			t.Tag, t.Ref, t.Replayed, t.CDBLen = c.tag, s, true, 16
		}
	}
	c.cur = -1
	c.nextRange()
	c.pump()
}

// nextRange goes on to the next range; a bad one ends the copy.
func (c *copyOp) nextRange() {
	for c.cur++; c.cur < len(c.ranges); c.cur++ {
		r := &c.ranges[c.cur]
		if r.bad.Key == NoSense {
			r.bad = r.check()
		}
		if r.bad.Key != NoSense {
			c.failed(r.bad)
			return
		}
		if r.n > 0 {
			c.pos, c.left, c.moves = 0, r.n, r.src.unit != nil && !r.overlaps()
			return
		}
		c.entry.segmentDone()
	}
}

// check reports what is wrong with a range: it leaves a medium.
func (r *copyRange) check() Sense {
	for _, e := range []*copyEnd{&r.src, &r.dst} {
		if u := e.unit; u != nil {
			bs := int64(u.blockSize)
			if !inRange(uint64(e.off/bs), uint64(r.n/bs), u.blocks()) {
				return Sense{Key: CopyAborted, ASC: ascCopyAborted}
			}
		}
	}
	return Sense{}
}

// overlaps reports whether source and destination share bytes: then the order of the
// pieces matters.
func (r *copyRange) overlaps() bool {
	return r.src.unit == r.dst.unit && r.src.off < r.dst.off+r.n && r.dst.off < r.src.off+r.n
}

// failed notes the first reason for an end. It is about the present range.
func (c *copyOp) failed(s Sense) {
	if c.fail.Key != NoSense {
		return
	}
	if s.Key == CopyAborted {
		// INFORMATION is the number of the segment (SPC-4 §6.4.4).
		s.Info, s.HasInfo = uint64(c.cur), true
	}
	c.fail = s
}

// pump gives every slot something to do, or ends the copy. On the loop, from a handler
// of its own or with no task of the copy on the stack.
func (c *copyOp) pump() {
	for i := range c.slots {
		if s := &c.slots[i]; s.phase == copyIdle {
			c.next(s)
		}
	}
	if c.busy == 0 && !c.over {
		c.finish()
	}
	c.lane.Kick()
}

// next gives slot s the next piece, if there is one now.
func (c *copyOp) next(s *copySlot) {
	if c.fail.Key != NoSense || c.canceled || c.cur >= len(c.ranges) {
		return
	}
	r := &c.ranges[c.cur]
	if s.rest.n == 0 && c.pos == r.n || c.busy > 0 && r.overlaps() {
		return
	}
	if c.outer == nil && c.home.resets.Load() != c.resets {
		c.failed(Sense{Key: AbortedCommand, ASC: ASCCommandsClearedByAnother})
		return
	}
	move := s.rest.n == 0 && (c.moves || r.src.unit == nil)
	if !move && !s.buffer() {
		if c.busy == 0 {
			c.failed(Sense{Key: CopyAborted, ASC: ascCopyNoRoomForBuffer})
		}
		return
	}
	switch {
	case s.rest.n > 0:
		s.r = s.rest.cut(copyBytes)
	case move:
		s.r = copyRange{src: r.src.at(c.pos), dst: r.dst.at(c.pos), n: min(r.n-c.pos, copyMove)}
		c.pos += s.r.n
	default:
		s.r = copyRange{src: r.src.at(c.pos), dst: r.dst.at(c.pos), n: min(r.n-c.pos, copyBytes)}
		c.pos += s.r.n
	}
	c.busy++
	switch {
	case r.src.unit == nil:
		s.zero()
	case move:
		s.move()
	default:
		s.read()
	}
}

// at is the place n bytes on.
func (e copyEnd) at(n int64) copyEnd {
	e.off += n
	return e
}

// cut takes the first n bytes off r, if it has so many.
func (r *copyRange) cut(n int64) copyRange {
	p := *r
	p.n = min(r.n, n)
	r.src, r.dst, r.n = r.src.at(p.n), r.dst.at(p.n), r.n-p.n
	return p
}

// buffer sees to it that the slot has one.
func (s *copySlot) buffer() bool {
	if s.buf == nil {
		s.buf = s.c.lane.loop.Slabs().Get(copyBytes)
	}
	return s.buf != nil
}

// cdb makes the CDB of t: op with n bytes at off of a medium in blocks of bs bytes.
func (s *copySlot) cdb(t *Task, op, flags byte, e *copyEnd) {
	clear(t.CDB[:])
	t.CDB[0], t.CDB[1] = op, flags
	bs := int64(e.unit.blockSize)
	binary.BigEndian.PutUint64(t.CDB[2:], uint64(e.off/bs))
	binary.BigEndian.PutUint32(t.CDB[10:], uint32(s.r.n/bs))
	t.DataIn, t.DataOut = nil, nil
}

// submit gives t to the unit at e; row nil: by its CDB.
func (s *copySlot) submit(e *copyEnd, row *command, p copyPhase) {
	s.phase = p
	if !s.c.lane.submitInside(&s.t, e, row) {
		// The nexus sees the unit no longer.
		s.t.SenseLen = uint8(Sense{Key: IllegalRequest, ASC: ASCLUNNotSupported}.Encode(s.t.Sense[:], false))
		s.t.Status, s.t.Aborted = StatusCheckCondition, false
		s.c.lane.loop.Post(&s.node)
	}
}

func (s *copySlot) read() {
	s.cdb(&s.t, 0x88, 0, &s.r.src)
	s.one[0] = s.buf.B[:s.r.n]
	s.t.DataIn = s.one[:]
	s.submit(&s.r.src, nil, copyReading)
}

func (s *copySlot) write() {
	s.cdb(&s.t, 0x8a, 0, &s.r.dst)
	s.t.DataOut = s.one[:]
	s.submit(&s.r.dst, nil, copyWriting)
}

func (s *copySlot) zero() {
	flags := byte(0x01) // NDOB
	if s.r.dst.unit.conf.Thin {
		flags |= 0x08 // UNMAP
	}
	s.cdb(&s.t, opWriteSame16, flags, &s.r.dst)
	s.submit(&s.r.dst, nil, copyZeroing)
}

func (s *copySlot) move() {
	s.unmoved = false
	s.cdb(&s.t, 0x8a, 0, &s.r.dst)
	s.cdb(&s.hold, 0x88, 0, &s.r.src)
	s.submit(&s.r.dst, copyMoveRow, copyMoving)
}

// runCopyMove is the handler of copyMoveRow: the destination is ours; is the source?
func runCopyMove(t *Task) {
	s := t.Ref.(*copySlot)
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	s.held = false
	if !s.c.lane.holdInside(&s.hold, &s.r.src) || !s.held {
		// Somebody is in the way, or may not be passed: a READ will tell.
		s.unmoved = true
		t.good()
		return
	}
	bs := t.blockLen()
	t.op.Src, t.op.SrcOff = s.r.src.unit.backing, s.r.src.off
	fl := t.unit.writeThrough()
	if !t.unit.conf.Thin {
		fl |= backing.NoUnmap
	}
	t.store(backing.Copy, fl, int64(lba)*bs, int64(n)*bs, nil, copyMoved)
}

// copyMoved is the step after a move.
func copyMoved(t *Task) {
	s := t.Ref.(*copySlot)
	t.op.Src = nil
	if errors.Is(t.op.Err, backing.ErrNotSupported) {
		s.unmoved = true
		s.c.moves = false
		t.good()
		return
	}
	if t.stored() {
		t.good()
	}
}

// runCopyHold is the handler of copyHoldRow: it stays until the move is over.
func runCopyHold(t *Task) {
	s := t.Ref.(*copySlot)
	if _, _, ok := t.extent(); !ok {
		return
	}
	s.held = true
	t.sched.state = stCopy
	t.copy = s.c
}

// release ends hold.
func (s *copySlot) release() {
	if s.held {
		s.held = false
		s.hold.sched.state = stRunning
		s.hold.copy = nil
		s.hold.touch()
		s.hold.good()
	}
}

// insideDone gets the tasks of copies back. It is what lanes of their own have for a
// front end.
type insideDone struct{}

// Done has the slot look in a moment: the task is not out of the counters yet.
func (insideDone) Done(t *Task) {
	if s := t.Ref.(*copySlot); t == &s.t {
		t.lane.loop.Post(&s.node)
	}
}

func (insideDone) Event(Event)            {}
func (insideDone) TransportID([]byte) int { return 0 }

// Handle goes on when the slot's task has ended.
func (s *copySlot) Handle(*loop.Node) {
	c := s.c
	s.release()
	switch {
	case c.canceled:
		s.phase = copyIdle
	case s.t.Aborted || s.t.Status != StatusGood:
		c.failed(s.failure())
		s.phase = copyIdle
	case s.phase == copyReading && s.t.InLen == s.r.n:
		s.write()
		c.lane.Kick()
		return
	case s.phase == copyReading: // cannot be: the range was checked
		c.failed(Sense{Key: CopyAborted, ASC: ascThirdPartyFailure})
		s.phase = copyIdle
	case s.phase == copyMoving && s.unmoved:
		s.phase, s.rest = copyIdle, s.r
	default:
		s.phase = copyIdle
		c.entry.copied(s.r.n)
		c.left -= s.r.n
		if c.left == 0 {
			c.entry.segmentDone()
			c.nextRange()
		}
	}
	c.busy--
	c.pump()
}

// failure says what the end of the slot's task means to the copy.
func (s *copySlot) failure() Sense {
	t := &s.t
	f := Sense{Key: CopyAborted, ASC: ascThirdPartyFailure}
	if t.Status == StatusCheckCondition && !t.Aborted {
		if asc := senseASC(t.Sense[:t.SenseLen]); asc == ASCLUNNotSupported {
			f.ASC = ascTargetNotReachable
		}
	}
	return f
}

// senseASC is the additional sense code of encoded sense data.
func senseASC(b []byte) ASC {
	switch {
	case len(b) >= 14 && b[0]&0x7f == 0x70:
		return ASC(b[12])<<8 | ASC(b[13])
	case len(b) >= 4 && b[0]&0x7f == 0x72:
		return ASC(b[2])<<8 | ASC(b[3])
	}
	return 0
}

// aborted has the copy end because t, the command or what stands for a source, was
// aborted. On the loop, without Unit.mu.
func (c *copyOp) aborted(t *Task) {
	if t != c.outer {
		asc := ascThirdPartyFailure
		if t.sched.aborted == abortGone {
			asc = ascTargetNotReachable
		}
		c.failed(Sense{Key: CopyAborted, ASC: asc})
	}
	c.cancel()
}

// cancel has the copy end soon, without another piece. On the loop, without Unit.mu,
// no task of the copy on the stack.
func (c *copyOp) cancel() {
	if c.canceled || c.over {
		return
	}
	c.canceled = true
	var units []*Unit
	for i := range c.slots {
		s := &c.slots[i]
		if s.phase == copyIdle {
			continue
		}
		for _, u := range []*Unit{s.r.src.unit, s.r.dst.unit} {
			if u != nil && !slices.Contains(units, u) {
				units = append(units, u)
			}
		}
	}
	for _, u := range units {
		u.startBarrier(&barrier{lane: c.lane, byTag: true, tag: c.tag, outcome: abortSilent, issuer: c.lane.nexus}, 0)
	}
}

// finish ends the copy: nothing of it is under way.
func (c *copyOp) finish() {
	c.over = true
	for i := range c.slots {
		s := &c.slots[i]
		if s.buf != nil {
			s.buf.Free()
			s.buf = nil
		}
	}
	c.entry.ended(c.fail, c.canceled && c.fail.Key == NoSense)
	t := c.outer
	if t == nil {
		return
	}
	c.outer = nil
	t.copy = nil
	t.sched.state = stRunning
	t.touch()
	if c.fail.Key != NoSense {
		t.check(c.fail)
	} else {
		t.good()
	}
}
