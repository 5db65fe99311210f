package scsi

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
)

// Nexus is an I_T nexus (SAM-5 §4.7): one initiator port at one target port.
type Nexus struct {
	port *Port
	id   InitiatorID
	fe   FrontEnd

	closed atomic.Bool // set under mu
	// view is what the nexus sees of its target's LUN map; written under
	// Target.mu.
	view atomic.Pointer[lunMap]

	mu    sync.Mutex // after Target.mu, before Unit.mu
	lanes []*Lane
	units map[*Unit]*nexusUnit

	copies copyList // copies and tokens, with a lock of its own

	pastMu sync.Mutex // after Unit.mu
	past   Stats      // of lane shares that are gone
	gone   atomic.Uint64
}

// ID names the initiator port.
func (n *Nexus) ID() InitiatorID { return n.id }

// Port is the target port.
func (n *Nexus) Port() *Port { return n.port }

// Lane makes a lane on loop l. Any goroutine.
func (n *Nexus) Lane(l *loop.Loop) (*Lane, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed.Load() {
		return nil, fmt.Errorf("nexus %s: %w", n.id, ErrClosed)
	}
	ln := &Lane{nexus: n, loop: l, fe: n.fe}
	n.lanes = append(n.lanes, ln)
	return ln, nil
}

// connect makes the lane's share of the unit at lun; nil: there is none. On the
// lane's loop. It holds Target.mu so that a removal either finds the share or has
// taken the mapping away before.
func (n *Nexus) connect(ln *Lane, lun uint16) *laneUnit {
	id := n.regID()
	tg := n.port.target
	tg.mu.Lock()
	defer tg.mu.Unlock()
	m := n.view.Load()
	i := m.find(lun)
	if i < 0 || m != ln.lunMap {
		// The next lookup sees the new map.
		return nil
	}
	e := m.list[i]
	u := e.Unit
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed.Load() || ln.closed.Load() {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil
	}
	nu := n.units[u]
	if nu == nil {
		nu = n.meet(u, id, e.ReadOnly)
	}
	lu := &laneUnit{lane: ln, unit: u, nu: nu, lun: lun}
	lu.node.Init((*laneMail)(lu))
	lu.flush.Init((*laneFlush)(lu))
	u.lanes = append(u.lanes, lu)
	ln.units = append(ln.units, lu)
	ln.byLUN[lun] = lu
	return lu
}

// meet makes the state between the nexus and u, at their first contact. Nexus.mu and
// Unit.mu are held.
func (n *Nexus) meet(u *Unit, id regID, readOnly bool) *nexusUnit {
	nu := &nexusUnit{nexus: n, unit: u, id: id}
	nu.readOnly.Store(readOnly)
	if !u.goOn(nu) {
		nu.ua.add(initialUA)
	}
	u.tellAbsent(nu)
	nu.judgeConflict()
	nu.judgeAccess()
	n.units[u] = nu
	u.nexuses = append(u.nexuses, nu)
	return nu
}

// forget drops the state between the nexus and u. Target.mu is held.
func (n *Nexus) forget(u *Unit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	nu := n.units[u]
	if nu == nil {
		return
	}
	delete(n.units, u)
	u.mu.Lock()
	u.leaveNexus(nu)
	u.mu.Unlock()
}

// Close ends the nexus (SAM-5 §6.3.4, I_T nexus loss): its tasks are aborted, its
// RESERVE ends, its lanes let go of the units. Submit must not be called any more;
// what slips through ends as aborted. done, on a goroutine of its own, has the
// number of tasks that were still in the store after deadline (0:
// DefaultDeadline): they stay the core's, and Done comes for them when they end.
func (n *Nexus) Close(deadline time.Duration, done func(stuck int)) {
	tg := n.port.target
	tg.mu.Lock()
	n.mu.Lock()
	was := n.closed.Swap(true)
	delete(n.port.nexuses, n)
	units := n.units
	n.units = make(map[*Unit]*nexusUnit)
	n.lanes = nil
	n.mu.Unlock()
	tg.mu.Unlock()

	j := newJoint(done)
	if !was {
		// Nobody makes a view or a lane's share for it any more.
		for _, e := range n.LUNs() {
			e.Unit.disclaim(n)
		}
		for u, nu := range units {
			j.add(1)
			u.startBarrier(&barrier{
				nexus:   n,
				outcome: abortSilent,
				issuer:  n,
				drop:    true,
				apply:   func(*barrier) { u.leaveNexus(nu) },
				done:    j.ended,
			}, deadline)
		}
	}
	j.release(0)
}

// Close ends the lane alone: its tasks are aborted and its queues closed. done, on
// a goroutine of its own, has the number of tasks that were still in the store
// after DefaultDeadline. Any goroutine.
func (ln *Lane) Close(done func(stuck int)) {
	n := ln.nexus
	n.mu.Lock()
	was := ln.closed.Swap(true)
	for i, o := range n.lanes {
		if o == ln {
			n.lanes = append(n.lanes[:i], n.lanes[i+1:]...)
			break
		}
	}
	var units []*Unit
	for u := range n.units {
		units = append(units, u)
	}
	own := ln.own
	n.mu.Unlock()
	j := newJoint(done)
	if own != nil {
		j.add(1)
		own.Close(j.release)
	}
	if !was {
		for _, u := range units {
			j.add(1)
			u.startBarrier(&barrier{lane: ln, outcome: abortSilent, issuer: n, drop: true, done: j.ended}, 0)
		}
	}
	j.release(0)
}
