package scsi

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

// Operations that have the whole medium (SANITIZE, FORMAT UNIT) belong to the unit:
// a command begins one, task management ends the command and not the operation, and
// the next process goes on with it. While it lasts verdictMedium stands in the word
// of every nexus, so that READ and WRITE pay nothing for it.
//
// An operation runs on one loop with a queue of its own into the store. Its record
// (medium_record.go) is in the unit's Memory before it touches anything, and it is
// removed only when everything is stable.

const (
	// mediumStep is the most that is written or zeroed by writing at a time.
	mediumStep = 1 << 20
	// mediumPiece is the most that is deallocated or zeroed at a time: between
	// two pieces others have their turn and the progress is told.
	mediumPiece = 256 << 20
	// mediumSaves is how often the progress is made stable: what a crash costs.
	mediumSaves = 5 * time.Second
	// mediumLook is how often a speed is looked at again.
	mediumLook = 100 * time.Millisecond
	// mediumRetry is the wait before a record is saved again that could not be.
	mediumRetry = time.Second
)

// mediumState is a Unit's. Unit.mu, but for what op says of itself.
type mediumState struct {
	op *mediumOp
	// failed is the operation that failed, while the medium is not usable.
	failed *mediumRecord
	// task waits for the end of op.
	task *Task
	// verdict is verdictMedium while op or failed is set.
	verdict uint32
	// halted: the unit closes.
	halted bool
}

// SetSanitizeSpeed changes UnitConfig.SanitizeSpeed, for operations that run too. Any
// goroutine.
func (u *Unit) SetSanitizeSpeed(bytesPerSecond int64) { u.sanitizeSpeed.Store(bytesPerSecond) }

// mediumOp is an operation that runs. Its loop's, but for progress.
type mediumOp struct {
	u        *Unit
	l        *loop.Loop
	rec      mediumRecord
	stages   []mediumStage
	progress atomic.Uint32 // of 65536

	q     backing.Queue
	op    backing.Op
	one   [1][]byte
	buf   []byte // a piece of the pattern of this pass
	pass  int    // that buf holds, +1
	next  func(o *mediumOp, err error)
	node  loop.Node
	timer loop.Timer

	speed        int64 // bytes a second
	begun, moved int64 // since it has that speed: ns, bytes
	saved        int64 // ns
	job          loop.Job
	jobBytes     []byte
	jobErr       error
	ended        bool // waits for the record's removal

	tell bool   // the end is to be told
	halt func() // set: stop, then call it
	over bool   // no step follows
	gone bool   // its queue is closed
}

// mediumStage is one walk over the medium, or one operation of the store.
type mediumStage uint8

const (
	stageWrite      mediumStage = iota // write the pattern
	stageZero                          // make it zero, allocated
	stageDeallocate                    // make it zero, not allocated
	stageRekey                         // replace the data key
	stagePurge                         // destroy copies beside the medium
)

// walks reports whether the stage goes over the medium.
func (s mediumStage) walks() bool { return s <= stageDeallocate }

func (u *Unit) newMediumOp(r mediumRecord, l *loop.Loop) *mediumOp {
	o := &mediumOp{u: u, l: l, rec: r, stages: r.stages()}
	o.op.Owner = (*mediumOwner)(o)
	o.node.Init((*mediumNode)(o))
	o.timer.Init((*mediumTimer)(o))
	o.job.Init((*mediumJob)(o))
	o.tellProgress()
	return o
}

// loadMedium goes on with the operation that the unit's Memory knows of.
func (u *Unit) loadMedium() error {
	b, err := u.recall(mediumRecordName)
	if err != nil || b == nil {
		return err
	}
	r, err := decodeMedium(b, u.blockSize)
	if err != nil {
		return u.damaged(mediumRecordName, err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.medium.verdict = verdictMedium
	switch {
	case r.Failed:
		u.medium.failed = &r
		u.logError("an operation on the whole medium has failed: initiators have to repeat it", "operation", r.what())
		return nil
	case u.conf.Group == nil:
		return errors.New("disk " + u.conf.Name + ": " + r.what() + " was interrupted, and there are no loops to go on with it")
	case u.conf.ReadOnly:
		return errors.New("disk " + u.conf.Name + ": " + r.what() + " was interrupted and has to go on; open the disk for writing")
	}
	o := u.newMediumOp(r, u.conf.Group.Pick())
	u.medium.op = o
	u.logInfo("operation on the whole medium goes on", "operation", r.what(), "percent", o.percent())
	o.l.Post(&o.node)
	return nil
}

// beginMedium begins r, of which the record has been saved, for t: t ends at once or
// waits for the end. t runs alone, on its lane's loop.
func (t *Task) beginMedium(r mediumRecord, immed bool) {
	u := t.unit
	o := u.newMediumOp(r, t.lane.loop.Group().Pick())
	u.mu.Lock()
	halted := u.medium.halted
	if !halted {
		u.medium.op, u.medium.failed = o, nil
		u.medium.verdict = verdictMedium
		u.judgeMedium()
		// Else it was aborted while the record was being saved.
		if !immed && t.sched.aborted == notAborted {
			u.medium.task = t
			u.parkLocked(t)
		}
	}
	parked := u.medium.task == t
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
	if halted {
		// The next process begins it.
		t.check(Sense{Key: NotReady, ASC: ASCManualIntervention})
		return
	}
	u.logInfo("operation on the whole medium begins", "operation", r.what())
	o.l.Post(&o.node)
	if !parked {
		t.good()
	}
}

// judgeMedium takes medium.verdict over. u.mu is held.
func (u *Unit) judgeMedium() {
	for _, nu := range u.nexuses {
		nu.setVerdict()
	}
}

// leaveMedium is for a parked task that was aborted. u.mu is held.
func (u *Unit) leaveMedium(t *Task) {
	if u.medium.task == t {
		u.medium.task = nil
	}
}

// mediumSense is how commands end while an operation has the medium or has failed.
func (u *Unit) mediumSense() (Sense, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch m := &u.medium; {
	case m.op != nil:
		return Sense{Key: NotReady, ASC: m.op.rec.busyASC()}.Progress(uint16(m.op.progress.Load())), true
	case m.failed != nil:
		return Sense{Key: MediumError, ASC: m.failed.failedASC()}, true
	}
	return Sense{}, false
}

// duringMedium reports whether the command is processed although an operation has the
// medium or has failed (SBC-3 §4.11, §5.2). Those that repair a failure are.
func (t *Task) duringMedium() bool {
	switch t.CDB[0] {
	case 0x03, 0x12, 0x4d, 0xa0:
		// REQUEST SENSE, INQUIRY, LOG SENSE, REPORT LUNS
		return true
	case 0xa3:
		sa := t.CDB[1] & 0x1f
		return sa == 0x0a || sa == 0x0c || sa == 0x0d // what there is to ask for
	case opSanitize, opFormatUnit:
		u := t.unit
		u.mu.Lock()
		defer u.mu.Unlock()
		// A format does not hide that the medium was not sanitized.
		return u.medium.op == nil && (t.CDB[0] == opSanitize || u.medium.failed == nil || u.medium.failed.Kind == mediumFormat)
	}
	return false
}

// MediumOperation is an operation that has the whole medium.
type MediumOperation struct {
	// Name is "SANITIZE OVERWRITE", "FORMAT UNIT", ….
	Name string
	// Percent is how much of it is done.
	Percent int
	// Failed: it has ended with an error, and the medium is not usable.
	Failed bool
}

// MediumOperation tells of the operation that has the medium; false: there is none.
// Any goroutine.
func (u *Unit) MediumOperation() (MediumOperation, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch m := &u.medium; {
	case m.op != nil:
		return MediumOperation{Name: m.op.rec.what(), Percent: m.op.percent()}, true
	case m.failed != nil:
		return MediumOperation{Name: m.failed.what(), Failed: true}, true
	}
	return MediumOperation{}, false
}

// haltMedium stops the operation: its record stays. j waits for that, at most for
// deadline.
func (u *Unit) haltMedium(deadline time.Duration, j *joint) {
	u.mu.Lock()
	o := u.medium.op
	u.medium.halted = true
	u.mu.Unlock()
	if o == nil {
		return
	}
	if deadline <= 0 {
		deadline = DefaultDeadline
	}
	j.add(1)
	var once atomic.Bool
	t := time.AfterFunc(deadline, func() {
		if !once.Swap(true) {
			j.release(1)
		}
	})
	halted := func() {
		t.Stop()
		if !once.Swap(true) {
			j.release(0)
		}
	}
	go func() {
		if !o.l.Do(func() { o.stop(halted) }) {
			halted()
		}
	}()
}

// stop has the operation end after the step that runs, on its loop.
func (o *mediumOp) stop(halted func()) {
	if o.gone {
		halted()
		return
	}
	o.halt = halted
	if !o.over && o.next == nil && o.jobBytes == nil {
		// Between two steps: the node or the timer is due. Whoever comes first
		// closes the queue.
		o.l.Stop(&o.timer)
		o.step()
	}
}

// mediumOwner, mediumNode, mediumTimer and mediumJob are a mediumOp in its roles.
type (
	mediumOwner mediumOp
	mediumNode  mediumOp
	mediumTimer mediumOp
	mediumJob   mediumOp
)

func (w *mediumOwner) OpDone(*backing.Op)  { (*mediumOp)(w).done() }
func (n *mediumNode) Handle(*loop.Node)    { (*mediumOp)(n).resume() }
func (t *mediumTimer) Expired(*loop.Timer) { (*mediumOp)(t).resume() }
func (j *mediumJob) RunJob(*loop.Job)      { (*mediumOp)(j).runJob() }

// resume is the next turn of the operation on its loop.
func (o *mediumOp) resume() {
	switch {
	case o.over:
	case o.next != nil && o.jobBytes == nil:
		// An operation that ended inside Submit.
		o.done()
	case o.jobBytes != nil:
		o.jobDone()
	default:
		o.step()
	}
}

// submit gives the store an operation; next runs in a later round in any case, so
// that a store which answers inline does not keep the loop.
func (o *mediumOp) submit(k backing.Kind, fl backing.Flags, off, n int64, bufs [][]byte, next func(o *mediumOp, err error)) {
	op := &o.op
	op.Kind, op.Flags, op.Off, op.Len, op.Bufs = k, fl, off, n, bufs
	op.N, op.Err = 0, nil
	o.next = next
	if o.q.Submit(op) {
		o.l.Post(&o.node)
		return
	}
	o.q.Kick()
}

func (o *mediumOp) done() {
	next, err := o.next, o.op.Err
	o.next = nil
	if err == nil && o.op.Kind == backing.Write && o.op.N != o.op.Len {
		err = errors.New("a part was not written")
	}
	next(o, err)
}

// step does the next piece of work.
func (o *mediumOp) step() {
	if o.halt != nil {
		o.close()
		return
	}
	if o.q == nil {
		q, err := o.u.backing.Queue(o.l)
		if err != nil {
			o.fail(err)
			return
		}
		o.q = q
		o.speed, o.begun, o.moved = o.u.sanitizeSpeed.Load(), o.l.Now(), 0
		o.saved = o.l.Now()
	}
	if o.rec.Stage >= len(o.stages) {
		o.finish()
		return
	}
	stage := o.stages[o.rec.Stage]
	size := o.u.Capacity()
	switch {
	case stage == stageRekey:
		o.submit(backing.Rekey, 0, 0, 0, nil, (*mediumOp).staged)
		return
	case stage == stagePurge:
		o.submit(backing.Purge, 0, 0, 0, nil, (*mediumOp).staged)
		return
	case o.rec.Pos >= size:
		o.submit(backing.Sync, 0, 0, 0, nil, (*mediumOp).staged)
		return
	}
	if now := o.l.Now(); now-o.saved >= int64(mediumSaves) && o.u.conf.Memory != nil {
		// First the data, then the word that they are there.
		o.saved = now
		o.submit(backing.Sync, 0, 0, 0, nil, (*mediumOp).synced)
		return
	}
	left := size - o.rec.Pos
	switch stage {
	case stageWrite:
		if wait := o.pace(); wait > 0 {
			o.l.After(&o.timer, min(wait, mediumLook))
			return
		}
		n := min(left, o.writeLen())
		o.one[0] = o.piece(n)
		o.submit(backing.Write, backing.NoCache, o.rec.Pos, n, o.one[:], (*mediumOp).walked)
	case stageZero:
		n := min(left, mediumPiece)
		o.submit(backing.Zero, backing.NoUnmap, o.rec.Pos, n, nil, (*mediumOp).walked)
	case stageDeallocate:
		k := backing.Zero
		if i := o.u.info(); i.DiscardGranularity > 0 && i.DiscardZeroes {
			k = backing.Discard
		}
		n := min(left, mediumPiece)
		o.submit(k, 0, o.rec.Pos, n, nil, (*mediumOp).walked)
	}
}

// pace is how long the next write has to wait for the speed that was asked for.
func (o *mediumOp) pace() time.Duration {
	speed := o.u.sanitizeSpeed.Load()
	if speed != o.speed {
		o.speed, o.begun, o.moved = speed, o.l.Now(), 0
	}
	if speed <= 0 {
		return 0
	}
	due := o.begun + int64(float64(o.moved)/float64(speed)*1e9)
	return time.Duration(due - o.l.Now())
}

// writeLen is the length of one write: a sixteenth of a second's at a bounded speed.
func (o *mediumOp) writeLen() int64 {
	n := int64(mediumStep)
	if o.speed > 0 {
		n = min(n, o.speed/16)
	}
	bs := int64(o.u.blockSize)
	return max(n/bs*bs, bs)
}

// piece is n bytes of the pattern of this pass.
func (o *mediumOp) piece(n int64) []byte {
	if o.pass != o.rec.Stage+1 || int64(len(o.buf)) < n { // or the speed is a larger one
		o.pass = o.rec.Stage + 1
		o.buf = make([]byte, o.writeLen())
		o.rec.fill(o.buf, o.u.blockSize)
	}
	return o.buf[:n]
}

// walked is the end of one piece of a stage.
func (o *mediumOp) walked(err error) {
	stage := o.stages[o.rec.Stage]
	switch {
	case errors.Is(err, backing.ErrNotSupported) && stage != stageWrite:
		// The store knows no better way than to write zeros.
		o.stages[o.rec.Stage] = stageWrite
	case errors.Is(err, backing.ErrRange) && o.rec.Pos+o.op.Len > o.u.backing.Info().Size:
		// It was made smaller: the rest is not there any more.
		o.rec.Pos = o.u.backing.Info().Size
		o.rec.Pos -= o.rec.Pos % int64(o.u.blockSize)
		if o.rec.Pos < o.u.Capacity() {
			o.l.After(&o.timer, time.Millisecond) // the unit notices in a moment
			return
		}
	case err != nil:
		o.fail(err)
		return
	default:
		o.rec.Pos += o.op.Len
		if stage == stageWrite {
			o.moved += o.op.Len
		}
	}
	o.tellProgress()
	o.step()
}

// staged is the end of a stage: everything of it is stable.
func (o *mediumOp) staged(err error) {
	if errors.Is(err, backing.ErrNotSupported) && o.op.Kind == backing.Purge {
		err = nil
	}
	if err != nil {
		o.fail(err)
		return
	}
	o.rec.Stage++
	o.rec.Pos = 0
	o.tellProgress()
	o.step()
}

// synced saves the progress: what it names is stable.
func (o *mediumOp) synced(err error) {
	if err != nil {
		o.fail(err)
		return
	}
	o.save(o.rec.encode())
}

// noRecord is what save gets to remove the record.
var noRecord = []byte{}

// save gives the record to the unit's Memory, on a worker; jobDone follows.
func (o *mediumOp) save(b []byte) {
	u := o.u
	if u.conf.Memory == nil {
		o.jobBytes, o.jobErr = b, nil
		o.l.Post(&o.node)
		return
	}
	u.mu.Lock()
	if u.saves == nil {
		u.saves = o.l.Group().Workers().NewJobQueue(1)
	}
	q := u.saves
	u.mu.Unlock()
	o.jobBytes = b
	q.Submit(&o.job)
}

// runJob saves. On a worker.
func (o *mediumOp) runJob() {
	u := o.u
	b := o.jobBytes
	if len(b) == 0 {
		b = nil
	}
	u.saving.Lock()
	o.jobErr = u.conf.Memory.Save(mediumRecordName, b)
	u.saving.Unlock()
	o.l.Post(&o.node)
}

func (o *mediumOp) jobDone() {
	o.jobBytes = nil
	if err := o.jobErr; err != nil {
		if !o.u.disk.saveErr.Swap(true) {
			o.u.logError("cannot save how far an operation on the whole medium is: look at the state folder", "operation", o.rec.what(), "err", err)
		}
	}
	if !o.ended {
		o.step() // what is not saved is done again after a restart
		return
	}
	if o.jobErr != nil && o.halt == nil {
		// The next process would do all of it again, to what is written by then.
		o.saved = o.l.Now()
		o.l.After(&o.timer, mediumRetry)
		return
	}
	o.tell = o.jobErr == nil
	o.close()
}

// finish ends the operation: its record goes, then commands come in again.
func (o *mediumOp) finish() {
	o.ended = true
	if o.rec.Failed {
		o.save(o.rec.encode())
		return
	}
	o.save(noRecord)
}

// fail ends it with an error.
func (o *mediumOp) fail(err error) {
	o.u.logError("an operation on the whole medium failed", "operation", o.rec.what(), "err", err, "at", o.rec.Pos)
	o.rec.Failed = true
	o.rec.Stage = len(o.stages)
	o.finish()
}

// tellEnd lets commands in, or says that the medium is not usable, and has the task
// go on that waits.
func (o *mediumOp) tellEnd() {
	u := o.u
	u.mu.Lock()
	u.medium.op = nil
	u.medium.verdict = 0
	var err error
	if o.rec.Failed {
		r := o.rec
		u.medium.failed, u.medium.verdict = &r, verdictMedium
		err = errMedium
	}
	u.judgeMedium()
	if t := u.medium.task; t != nil {
		u.medium.task = nil
		u.unparkLocked(t, err, mediumEnded)
	}
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
	if err == nil {
		u.logInfo("operation on the whole medium has ended", "operation", o.rec.what())
	}
}

// errMedium: the operation that a task waited for has failed.
var errMedium = errors.New("operation failed")

// mediumEnded ends the task that began the operation.
func mediumEnded(t *Task) {
	if t.op.Err != nil {
		if s, ok := t.unit.mediumSense(); ok {
			t.check(s)
			return
		}
	}
	t.good()
}

// close gives the queue back, then tells the end. On the loop, nothing in flight.
func (o *mediumOp) close() {
	if o.over {
		return
	}
	o.over = true
	o.buf = nil
	if o.q == nil {
		o.closed()
		return
	}
	o.q.Close(o.closed)
}

func (o *mediumOp) closed() {
	o.gone = true
	if o.tell {
		o.tellEnd()
	}
	if o.halt != nil {
		o.halt()
	}
}

// tellProgress has progress say what is done.
func (o *mediumOp) tellProgress() {
	size := o.u.Capacity()
	walks, done := 0.0, 0.0
	for i, s := range o.stages {
		w := 0.001
		if s.walks() {
			w = 1
		}
		walks += w
		switch {
		case i < o.rec.Stage:
			done += w
		case i == o.rec.Stage && s.walks() && size > 0:
			done += min(float64(o.rec.Pos)/float64(size), 1)
		}
	}
	o.progress.Store(uint32(min(done/walks*65536, 65535)))
}

func (o *mediumOp) percent() int { return int(o.progress.Load()) * 100 / 65536 }
