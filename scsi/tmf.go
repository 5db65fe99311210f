package scsi

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
)

// TMFunc is a task management function (SAM-5 §7).
type TMFunc uint8

// The task management functions.
const (
	AbortTask TMFunc = iota + 1
	AbortTaskSet
	ClearTaskSet
	ClearACA
	LUNReset
	TargetWarmReset
	TargetColdReset
	NexusReset
	QueryTask
	QueryTaskSet
	QueryAsyncEvent
)

var tmNames = [...]string{"", "ABORT TASK", "ABORT TASK SET", "CLEAR TASK SET", "CLEAR ACA",
	"LOGICAL UNIT RESET", "TARGET WARM RESET", "TARGET COLD RESET", "I_T NEXUS RESET",
	"QUERY TASK", "QUERY TASK SET", "QUERY ASYNCHRONOUS EVENT"}

func (f TMFunc) String() string {
	if f > 0 && int(f) < len(tmNames) {
		return tmNames[f]
	}
	return fmt.Sprintf("task management function %d", uint8(f))
}

// TMResponse is the answer to a task management function (SAM-5 §7.1).
type TMResponse uint8

// The answers.
const (
	// TMComplete: done, and every affected task has left the store.
	TMComplete TMResponse = iota
	// TMSucceeded: the answer to a query is yes.
	TMSucceeded
	// TMNoTask: ABORT TASK found none (transports differ in what they call
	// that; to SAM-5 it is FUNCTION COMPLETE).
	TMNoTask
	// TMNoLUN: no unit has that LUN.
	TMNoLUN
	TMNotSupported
	TMRejected
	// TMFailed: affected tasks are still in the store after the deadline. They
	// end later, without a response.
	TMFailed
	// TMIncorrectLUN: the LUN has a format that is not known.
	TMIncorrectLUN
)

func (r TMResponse) String() string {
	switch r {
	case TMComplete:
		return "FUNCTION COMPLETE"
	case TMSucceeded:
		return "FUNCTION SUCCEEDED"
	case TMNoTask:
		return "no such task"
	case TMNoLUN, TMIncorrectLUN:
		return "INCORRECT LOGICAL UNIT NUMBER"
	case TMNotSupported:
		return "function not supported"
	case TMRejected:
		return "FUNCTION REJECTED"
	case TMFailed:
		return "SERVICE DELIVERY OR TARGET FAILURE"
	}
	return fmt.Sprintf("task management response %d", uint8(r))
}

// TMF is a task management request. It is the core's from Nexus.Manage until Done.
type TMF struct {
	Func TMFunc
	LUN  LUN    // ignored by the functions on targets and nexuses
	Tag  uint64 // of AbortTask, QueryTask
	// Lane is the lane, of this nexus, on whose loop Done is called.
	Lane *Lane
	// Deadline: how long to wait for tasks to leave the store; 0:
	// DefaultDeadline.
	Deadline time.Duration
	// Done is called once. For every affected task FrontEnd.Done was called
	// before, unless Response is TMFailed.
	Done func(*TMF)
	Ref  any // the front end's own

	Response TMResponse // valid in Done

	tmf
}

type tmf struct {
	node   loop.Node
	left   atomic.Int32
	found  atomic.Int32
	failed atomic.Bool
}

// tmfEnd is a TMF as the handler of its node.
type tmfEnd TMF

func (e *tmfEnd) Handle(*loop.Node) {
	m := (*TMF)(e)
	m.Done(m)
}

// Manage starts a task management function. It affects the tasks of which Submit
// has returned, and no task that the caller submits afterwards. Any goroutine; but
// a front end that keeps this order calls it on the loop of the lane in question.
func (n *Nexus) Manage(m *TMF) {
	m.node.Init((*tmfEnd)(m))
	m.found.Store(0)
	m.failed.Store(false)
	m.left.Store(1)
	m.Response = n.manage(m)
	m.release()
}

// release ends one part of m.
func (m *TMF) release() {
	if m.left.Add(-1) != 0 {
		return
	}
	if m.Response == TMComplete {
		switch {
		case m.failed.Load():
			m.Response = TMFailed
		case m.Func == AbortTask && m.found.Load() == 0:
			m.Response = TMNoTask
		case (m.Func == QueryTask || m.Func == QueryTaskSet) && m.found.Load() != 0:
			m.Response = TMSucceeded
		}
	}
	m.Lane.loop.Post(&m.node)
}

// ended is a barrier's done.
func (m *TMF) ended(b *barrier) {
	m.found.Add(int32(b.found))
	if b.expired {
		m.failed.Store(true)
	}
	m.release()
}

// start has barrier b, one part of m, wait for u's tasks.
func (m *TMF) start(u *Unit, b barrier) {
	m.left.Add(1)
	b.done = m.ended
	u.startBarrier(&b, m.Deadline)
}

// manage starts m. TMComplete: what was started decides.
func (n *Nexus) manage(m *TMF) TMResponse {
	if !m.Func.supported() {
		return TMNotSupported
	}
	luns := n.LUNs()
	switch m.Func {
	case TargetWarmReset, TargetColdReset:
		for _, e := range luns {
			m.start(e.Unit, barrier{outcome: abortTAS, issuer: n, hold: true,
				apply: func(b *barrier) { b.unit.resetLocked(ASCBusReset) }})
		}
		return TMComplete
	case NexusReset:
		n.mu.Lock()
		defer n.mu.Unlock()
		for u, nu := range n.units {
			m.start(u, barrier{nexus: n, outcome: abortSilent, issuer: n, hold: true,
				apply: func(b *barrier) { nu.lost() }})
		}
		return TMComplete
	}

	num, ok := m.LUN.Number()
	if !ok {
		return TMIncorrectLUN
	}
	lm := n.view.Load()
	i := lm.find(num)
	if i < 0 {
		return TMNoLUN
	}
	u := lm.list[i].Unit
	switch m.Func {
	case AbortTask:
		m.start(u, barrier{nexus: n, given: true, byTag: true, tag: m.Tag, outcome: abortSilent, issuer: n})
	case AbortTaskSet:
		m.start(u, barrier{nexus: n, given: true, outcome: abortSilent, issuer: n})
	case ClearTaskSet:
		m.start(u, barrier{outcome: abortTAS, issuer: n, clearedUA: ASCCommandsClearedByAnother, apply: func(b *barrier) {
			for _, nu := range b.cleared {
				nu.raise(ASCCommandsClearedByAnother)
			}
		}})
	case LUNReset:
		m.start(u, barrier{outcome: abortTAS, issuer: n, hold: true,
			apply: func(b *barrier) { b.unit.resetLocked(ASCBusDeviceReset) }})
	case QueryTask:
		m.start(u, barrier{nexus: n, given: true, byTag: true, tag: m.Tag, query: true})
	case QueryTaskSet:
		m.start(u, barrier{nexus: n, given: true, query: true})
	case QueryAsyncEvent:
		n.mu.Lock()
		nu := n.units[u]
		n.mu.Unlock()
		if nu == nil || nu.verdict.Load()&verdictUA != 0 {
			return TMSucceeded
		}
	}
	return TMComplete
}

// lost is the I_T nexus loss condition (SAM-5 §6.3.4) for a nexus that lives on.
// Unit.mu is held.
func (nu *nexusUnit) lost() {
	u := nu.unit
	if u.reserved == nu {
		u.setReservation(nil)
	}
	delete(u.disk.prevent, nu)
	nu.resets.Add(1)
	nu.raise(ASCNexusLoss)
}
