package scsi

// Unit attention conditions (SAM-5 §5.14): a short queue for each nexus and unit.

// initialUA is what a nexus finds at its first contact with a unit: one condition,
// which Linux, Windows and libiscsi take for granted.
const initialUA = ASCPowerOnOrReset

// maxUA bounds the queue. All the conditions that the core knows fit, once each.
const maxUA = 16

// uaSense is the sense data of a unit attention condition.
func uaSense(a ASC) Sense {
	s := Sense{Key: UnitAttention, ASC: a}
	if a == ASCThinThresholdReached {
		// Where the threshold's descriptor is in mode page 1Ch/02h (SBC-3
		// §4.7.3.7.6).
		s.Info, s.HasInfo = thresholdOffset, true
	}
	return s
}

// uaQueue is guarded by Unit.mu.
type uaQueue struct {
	n int
	q [maxUA]ASC
}

func isReset(a ASC) bool { return a>>8 == 0x29 }

// resetRank orders the conditions of a reset: a higher one includes the lower.
func resetRank(a ASC) int {
	switch a {
	case ASCPowerOnOrReset, ASCPowerOn:
		return 4
	case ASCBusReset:
		return 3
	case ASCBusDeviceReset:
		return 2
	}
	return 1 // nexus loss
}

// impliedByReset: conditions about state that a reset has set anew.
func impliedByReset(a ASC) bool {
	switch a {
	case ASCModeParametersChanged, ASCReservationsPreempted, ASCReservationsReleased,
		ASCRegistrationsPreempted, ASCCommandsClearedByAnother:
		return true
	}
	return isReset(a)
}

// add puts a in its place: conditions of a reset come first, one of them only, and
// take away what they imply (SAM-5 §5.14.5); the others follow in order, each
// once. When the queue is full the new one is not kept, as SAM-5 allows.
func (q *uaQueue) add(a ASC) {
	if isReset(a) {
		if q.n > 0 && isReset(q.q[0]) && resetRank(q.q[0]) >= resetRank(a) {
			a = q.q[0]
		}
		k := 1
		var kept [maxUA]ASC
		kept[0] = a
		for _, o := range q.q[:q.n] {
			if !impliedByReset(o) && k < maxUA {
				kept[k] = o
				k++
			}
		}
		q.q, q.n = kept, k
		return
	}
	for _, o := range q.q[:q.n] {
		if o == a {
			return
		}
	}
	if q.n < maxUA {
		q.q[q.n] = a
		q.n++
	}
}

func (q *uaQueue) take() (ASC, bool) {
	if q.n == 0 {
		return 0, false
	}
	a := q.q[0]
	copy(q.q[:], q.q[1:q.n])
	q.n--
	return a, true
}

func (q *uaQueue) remove(a ASC) {
	for i, o := range q.q[:q.n] {
		if o == a {
			copy(q.q[i:], q.q[i+1:q.n])
			q.n--
			return
		}
	}
}

// raise adds a condition. u.mu is held.
func (nu *nexusUnit) raise(a ASC) {
	nu.ua.add(a)
	nu.setVerdict()
}

// takeUA takes the oldest pending condition away, for REQUEST SENSE and for the
// command that reports it. Without u.mu.
func (nu *nexusUnit) takeUA() (a ASC, ok bool) {
	nu.unit.mu.Lock()
	a, ok = nu.ua.take()
	nu.setVerdict()
	nu.unit.mu.Unlock()
	return a, ok
}

// raiseUA raises a condition for every nexus of the unit but except (which may be
// nil). Any goroutine, without u.mu.
func (u *Unit) raiseUA(a ASC, except *nexusUnit) {
	u.mu.Lock()
	u.raiseUALocked(a, except)
	u.mu.Unlock()
}

// raiseUALocked is raiseUA with u.mu held.
func (u *Unit) raiseUALocked(a ASC, except *nexusUnit) {
	for _, nu := range u.nexuses {
		if nu != except {
			nu.raise(a)
		}
	}
}

// eachNexus calls f for every nexus that has come to the unit. u.mu is held.
func (u *Unit) eachNexus(f func(nu *nexusUnit)) {
	for _, nu := range u.nexuses {
		f(nu)
	}
}

// clearUA takes condition a away from all units of the nexus: REPORT LUNS ends
// REPORTED LUNS DATA HAS CHANGED that way (SPC-4 §6.33). Without u.mu.
func (n *Nexus) clearUA(a ASC) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for u, nu := range n.units {
		u.mu.Lock()
		nu.ua.remove(a)
		nu.setVerdict()
		u.mu.Unlock()
	}
}

// raiseUA raises a condition at all units of the nexus. Without u.mu.
func (n *Nexus) raiseUA(a ASC) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for u, nu := range n.units {
		u.mu.Lock()
		nu.raise(a)
		u.mu.Unlock()
	}
}
