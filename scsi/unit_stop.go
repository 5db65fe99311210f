package scsi

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/backing"
)

// A unit may stop at an error of its store instead of handing the error to the
// initiator (OnError): the task whose operation failed stays where it is, tasks that
// come later are not enabled, and Unit.Resume lets all of them go on when somebody
// has seen to the cause. Commands that need no store (cmdImmediate) run meanwhile,
// and task management, the loss of a nexus, the removal of a LUN and Unit.Close end
// held tasks as they end any other.
//
// A held task (stHeld) is counted and in its lane's list like one in the store; only
// its lane's loop moves it on. Tasks that come later wait in Unit.waiting because
// mayStart says no.

// OnError says what happens to a command whose store operation failed.
type OnError uint8

// The policies.
const (
	// OnErrorReport: the command ends with sense data that tell the initiator.
	OnErrorReport OnError = iota
	// OnErrorStop: the unit stops until Resume.
	OnErrorStop
	// OnErrorStopNoSpace: it stops when the store has no space left (ENOSPC,
	// EDQUOT), every other error is reported.
	OnErrorStopNoSpace
)

func (o OnError) String() string {
	switch o {
	case OnErrorReport:
		return "report"
	case OnErrorStop:
		return "stop"
	case OnErrorStopNoSpace:
		return "enospc-stop"
	}
	return fmt.Sprintf("policy %d", uint8(o))
}

// ParseOnError is the inverse of String; "" is OnErrorReport.
func ParseOnError(s string) (OnError, error) {
	for _, o := range []OnError{OnErrorReport, OnErrorStop, OnErrorStopNoSpace} {
		if s == o.String() {
			return o, nil
		}
	}
	if s == "" {
		return OnErrorReport, nil
	}
	return OnErrorReport, fmt.Errorf("%q is no error policy; write report, stop or enospc-stop", s)
}

// stops reports whether err is one to stop at.
func (o OnError) stops(err error) bool {
	noSpace := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	switch o {
	case OnErrorStop:
		switch {
		case errors.Is(err, backing.ErrRange), errors.Is(err, backing.ErrNotSupported),
			errors.Is(err, backing.ErrReadOnly), errors.Is(err, backing.ErrCanceled):
			// What the store is, not what befell it: the same tomorrow.
			return false
		case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EFAULT):
			// The initiator is told to try again, or (EFAULT) has taken its
			// memory away: that needs no operator.
			return false
		}
		return true
	case OnErrorStopNoSpace:
		return noSpace
	}
	return false
}

// UnitState is whether a unit serves its medium.
type UnitState struct {
	// Stopped: I/O is held until Unit.Resume.
	Stopped bool
	// Err is the store's error that stopped it, Since when that was; of the
	// first one, where several operations failed. Not set while it runs.
	Err   error
	Since time.Time
	// Held is the number of tasks that Resume would let go on.
	Held int
}

// stopState is guarded by Unit.mu, except where it says otherwise.
type stopState struct {
	on    bool
	err   error
	since time.Time
	held  int // tasks in stHeld

	// told are changes that OnState has not heard of; telling: a goroutine is
	// at it.
	told    []UnitState
	telling bool
}

// State tells whether the unit runs. Any goroutine.
func (u *Unit) State() UnitState {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stateLocked()
}

func (u *Unit) stateLocked() UnitState {
	s := UnitState{Stopped: u.stop.on, Err: u.stop.err, Since: u.stop.since}
	if s.Stopped {
		s.Held = u.heldLocked()
	}
	return s
}

// heldLocked counts what waits for Resume. u.mu is held.
func (u *Unit) heldLocked() int {
	n := u.stop.held
	if u.stop.on {
		for t := u.waiting.head; t != nil; t = t.sched.qnext {
			n++
		}
	}
	return n
}

// OnError is the policy in force.
func (u *Unit) OnError() OnError { return OnError(u.onError.Load()) }

// SetOnError changes the policy for errors to come. A unit that has stopped stays
// so until Resume. Any goroutine.
func (u *Unit) SetOnError(o OnError) { u.onError.Store(uint32(o)) }

// Resume lets a stopped unit go on: held operations are given to the store again,
// as a whole, then what came later starts. One that fails again stops the unit
// again. It is not an error if the unit runs.
//
// An operation of which a repetition could hide a loss is not repeated: a Sync, and
// an FUA write over a store with a volatile cache that has latched. Other writes,
// acknowledged earlier, may have been lost with it, and the operating system tells
// of that once only; so their tasks end with the error now.
//
// A store that has latched (backing.ErrLatched) has to be re-opened first
// (Store.Reopen): Resume refuses until then.
func (u *Unit) Resume() error {
	if u.State().Stopped && backing.StatsOf(u.backing).Latched {
		return fmt.Errorf("disk %s: its store refuses writes since a sync failed; re-open it first: %w", u.Name(), backing.ErrLatched)
	}
	u.mu.Lock()
	if !u.stop.on {
		u.mu.Unlock()
		return nil
	}
	held := u.heldLocked()
	u.stop.on, u.stop.err, u.stop.since = false, nil, time.Time{}
	// First what failed, so that on each lane it comes before what is later.
	for _, lu := range u.lanes {
		lu.resume = true
		lu.post()
	}
	u.schedule()
	u.tellState()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
	u.logInfo("disk goes on", "held", held)
	return nil
}

// failed looks at an operation that did not do all it was to do. true: the task is
// held. On the lane's loop, without Unit.mu.
func (lu *laneUnit) failed(t *Task) bool {
	op := &t.op
	err := op.Err
	if err == nil {
		if op.Kind != backing.Read && op.Kind != backing.Write {
			return false // N means something else
		}
		err = io.ErrUnexpectedEOF
	}
	u := lu.unit
	if !u.OnError().stops(err) {
		return false
	}
	lossy := op.Kind == backing.Sync ||
		op.Flags&backing.FUA != 0 && u.info().Volatile &&
			(errors.Is(err, backing.ErrLatched) || backing.StatsOf(u.backing).Latched)

	u.mu.Lock()
	if lu.dropped || u.closed || t.sched.aborted != notAborted {
		// On its way out: nobody could be waiting for it.
		u.mu.Unlock()
		return false
	}
	t.sched.state = stHeld
	t.sched.ended = lossy
	u.stop.held++
	lu.held++
	first := !u.stop.on
	if first {
		u.stop.on, u.stop.err, u.stop.since = true, err, time.Now()
		u.tellState()
	}
	u.schedule()
	done := u.takeFinished()
	u.mu.Unlock()
	finishAll(done)
	if first && u.conf.Log != nil {
		u.conf.Log.Error("disk stopped: its I/O is held until it is resumed", "disk", u.conf.Name, "error", err)
	}
	return true
}

// unhold makes held task t ready to be begun. On its lane's loop, Unit.mu held.
func (lu *laneUnit) unhold(t *Task) {
	lu.unit.stop.held--
	lu.held--
	t.sched.state = stReady
	t.sched.again = true
	lu.ready.push(t)
}

// resumeHeld makes all held tasks of the lane ready, in the order in which they
// started. On the lane's loop, Unit.mu held.
func (lu *laneUnit) resumeHeld() {
	lu.resume = false
	for t := lu.tasks.head; t != nil; t = t.sched.next {
		if t.sched.state == stHeld {
			lu.unhold(t)
		}
	}
}

// again goes on with a task that was held or has yielded. On the lane's loop, without Unit.mu.
func (lu *laneUnit) again(t *Task) {
	s := &t.sched
	s.again = false
	if s.ended {
		s.ended = false
		lu.lane.run(t, t.next)
		return
	}
	lu.lane.run(t, repeatOp)
}

// repeatOp is the step that gives t.op to the store once more.
func repeatOp(t *Task) {
	t.op.N, t.op.Err = 0, nil
	t.lane.stored = t
}

// tellState has OnState hear of the present state. u.mu is held.
func (u *Unit) tellState() {
	s := &u.stop
	if u.conf.OnState == nil {
		return
	}
	s.told = append(s.told, u.stateLocked())
	if !s.telling {
		s.telling = true
		go u.tell()
	}
}

// tell calls OnState, in order.
func (u *Unit) tell() {
	for {
		u.mu.Lock()
		if len(u.stop.told) == 0 {
			u.stop.told, u.stop.telling = nil, false
			u.mu.Unlock()
			return
		}
		st := u.stop.told[0]
		u.stop.told = u.stop.told[1:]
		u.mu.Unlock()
		u.conf.OnState(st)
	}
}
