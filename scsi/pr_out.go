package scsi

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	"github.com/vtgt/vtgt/internal/loop"
)

// PERSISTENT RESERVE OUT: SPC-4 §6.16. The command runs alone, so every task of
// another nexus that was judged by the old table has ended when the new one takes its
// place. PREEMPT AND ABORT does not wait for others: it keeps new tasks from starting
// (classPreempt) and ends those of the nexuses that it preempts by a barrier.
//
//  1. decode, and work out the new table (pr_apply.go)
//  2. PREEMPT AND ABORT: the preempted tasks have left the store
//  3. where the table persists through power loss: it is stable
//  4. the new table, its verdicts and unit attention conditions are in force; GOOD
//
// Until then nothing has changed, and a failure of 2 or 3 leaves it so.

const (
	prListLen    = 24
	prTransports = 28 // where the TransportIDs of SPEC_I_PT begin
	// maxPRList bounds a parameter list: 64 TransportIDs of the greatest length.
	maxPRList = prTransports + 64*maxTransportID
)

// prState is the reservations part of a Unit. Guarded by Unit.mu.
type prState struct {
	table *prTable
	// lost: what was to persist is damaged (SPC-4 §5.13.5.3.2).
	lost bool
	// unsure: what is kept may not be what table says, because a save failed.
	unsure bool
	// changing: a change is under way, at most one is.
	changing bool
	// absent are the unit attention conditions of registered nexuses that were
	// not there to be told. Lost in a restart, as others are.
	absent map[regID]*uaQueue
}

// lenPROut is the parameter list length; of a list that is too long only as much is
// asked for as it takes to know.
func lenPROut(t *Task) int64 {
	return min(int64(binary.BigEndian.Uint32(t.CDB[5:])), maxPRList+1)
}

// prCommand is a PERSISTENT RESERVE OUT on its way. What changes reservations is rare:
// an allocation is nothing to it.
type prCommand struct {
	t    *Task
	res  prResult
	node loop.Node
	// failed: the tasks to be aborted did not leave the store in time.
	failed bool
}

func runPROut(t *Task) {
	u := t.unit
	if t.prTable() == nil {
		return
	}
	n := int64(binary.BigEndian.Uint32(t.CDB[5:]))
	if n < prListLen || n > maxPRList {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return
	}
	p, ok := t.param(int(n))
	if !ok {
		return
	}
	// The initiator may go on writing to the list: what is checked is a copy.
	list := slices.Clone(p)
	r, bad := t.prDecode(list)
	if bad != nil {
		t.check(*bad)
		return
	}
	u.mu.Lock()
	if u.pr.changing {
		// An operator's.
		u.mu.Unlock()
		t.finish(StatusBusy)
		return
	}
	r.lost = u.pr.lost
	c := &prCommand{t: t, res: u.pr.table.apply(&r)}
	if c.res.status == StatusGood && c.res.next != u.pr.table {
		u.pr.changing = true
	}
	table := u.pr.table
	u.mu.Unlock()
	switch {
	case c.res.status == StatusReservationConflict:
		t.conflict()
	case c.res.status != StatusGood:
		t.check(c.res.sense)
	case c.res.next == table:
		t.good()
	case r.action == prPreemptAbort:
		c.abort()
	default:
		c.save()
	}
}

// prDecode decodes and checks a parameter list, which is at least prListLen long.
func (t *Task) prDecode(b []byte) (r prRequest, bad *Sense) {
	fail := func(s Sense) (prRequest, *Sense) { return prRequest{}, &s }
	lengthError := Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}
	c := &t.CDB
	r = prRequest{
		action: prAction(c[1] & 0x1f), scope: c[2] >> 4, typ: c[2] & 0x0f,
		key: binary.BigEndian.Uint64(b[prKeyAt:]), saKey: binary.BigEndian.Uint64(b[prSAKeyAt:]),
		canPersist: t.unit.canPersist(),
	}
	if r.from = t.nu().id; r.from.transport == "" {
		// The front end does not say who it is.
		return fail(Sense{Key: HardwareError, ASC: ASCInternalTargetFailure})
	}
	if r.action == prRegisterMove {
		r.aptpl, r.unreg = b[prMoveFlagsAt]&1 != 0, b[prMoveFlagsAt]&2 != 0
		n := int(binary.BigEndian.Uint32(b[20:]) & 0x7fffffff)
		if n > len(b)-prTransportAt {
			return fail(lengthError)
		}
		id, rest, ok := cutTransportID(b[prTransportAt : prTransportAt+n])
		if !ok || len(rest) != 0 {
			return fail(InvalidParamField(20, 7))
		}
		r.dest.port = binary.BigEndian.Uint16(b[prMovePortAt:])
		if dest := t.unit.port(r.dest.port); dest != nil {
			r.destPort = true
			ids := dest.named(id)
			if len(ids) > 1 {
				// Several ports of one iSCSI node: which one?
				return fail(InvalidParamField(prTransportAt, 7))
			}
			if len(ids) == 1 {
				r.dest = ids[0]
			}
		} else {
			r.dest.transport = canonicalTransportID(id)
		}
		return r, nil
	}
	flags := b[prFlagsAt]
	r.specIPT, r.allTGPT, r.aptpl = flags>>prSpecIPT&1 != 0, flags>>prAllTGPT&1 != 0, flags>>prAPTPL&1 != 0
	if r.specIPT && r.action != prRegister {
		return r, nil // refused in any case
	}
	if !r.specIPT {
		if len(b) != prListLen {
			return fail(lengthError)
		}
	} else if len(b) < prTransports {
		return fail(lengthError)
	}
	ports := []*Port{t.lane.nexus.port}
	if r.allTGPT && (r.action == prRegister || r.action == prRegisterIgnore) {
		for _, p := range t.unit.ports() {
			if p != ports[0] && p.conf.Protocol == ports[0].conf.Protocol && p.conf.RelID != ports[0].conf.RelID {
				ports = append(ports, p)
				r.also = append(r.also, regID{p.conf.RelID, r.from.transport})
			}
		}
	}
	if !r.specIPT {
		return r, nil
	}
	n := int(binary.BigEndian.Uint32(b[prTransportAt:]) & 0x7fffffff)
	if n > len(b)-prTransports {
		return fail(lengthError)
	}
	for at := prTransports; at < prTransports+n; {
		id, rest, ok := cutTransportID(b[at : prTransports+n])
		if !ok {
			return fail(InvalidParamField(prTransportAt, 7))
		}
		for _, p := range ports {
			ids := p.named(id)
			if len(ids) == 0 {
				return fail(InvalidParamField(at, 7))
			}
			r.others = append(r.others, ids...)
		}
		at = prTransports + n - len(rest)
	}
	return r, nil
}

// ports are the target ports by which the unit can be reached, of all targets, in the
// order of their identifiers. Without locks.
func (u *Unit) ports() (ps []*Port) {
	for _, tg := range u.mappedBy() {
		tg.mu.Lock()
		ps = append(ps, tg.ports...)
		tg.mu.Unlock()
	}
	slices.SortFunc(ps, func(a, b *Port) int { return int(a.conf.RelID) - int(b.conf.RelID) })
	return ps
}

// port is the target port with identifier rel by which the unit can be reached, or
// nil. Without locks.
func (u *Unit) port(rel uint16) *Port {
	for _, p := range u.ports() {
		if p.conf.RelID == rel {
			return p
		}
	}
	return nil
}

// named are the nexuses that a TransportID in a parameter list means at p; none: it
// cannot be an initiator port's there. A name of an iSCSI node (format 00b) means all
// its ports that are logged in (SPC-4 §7.6.4.6); where there are none it stands for
// itself, which is what initiators are called where the name alone counts. There a
// port of the node is the node. Without locks.
func (p *Port) named(id []byte) []regID {
	c := canonicalTransportID(id)
	if c == "" || c[0]&0x0f != p.conf.Protocol {
		return nil
	}
	var ids []regID
	if name := deviceName(c); name != "" {
		tg := p.target
		tg.mu.Lock()
		for n := range p.nexuses {
			r := n.regID()
			if deviceName(r.transport) == name && (wholeDevice(c) || wholeDevice(r.transport)) && !slices.Contains(ids, r) {
				ids = append(ids, r)
			}
		}
		tg.mu.Unlock()
	}
	if len(ids) == 0 {
		ids = append(ids, regID{p.conf.RelID, c})
	}
	return ids
}

// abort ends the tasks of the preempted nexuses.
func (c *prCommand) abort() {
	t := c.t
	u := t.unit
	b := &barrier{outcome: abortTAS, issuer: t.lane.nexus, except: t, done: c.aborted,
		apply: func(b *barrier) {
			if b.expired {
				// The command fails, and no condition tells them.
				b.clearedUA = ASCCommandsClearedByAnother
				for _, nu := range b.cleared {
					nu.raise(ASCCommandsClearedByAnother)
				}
			}
		}}
	// By lanes, not by nexuses: a nexus that was lost has none of the latter, but
	// a WRITE of it may be in the store still.
	u.mu.Lock()
	for _, lu := range u.lanes {
		if slices.Contains(c.res.preempted, lu.nu.id) && !slices.Contains(b.among, lu.nu) {
			b.among = append(b.among, lu.nu)
		}
	}
	u.mu.Unlock()
	if len(b.among) == 0 {
		c.save()
		return
	}
	c.node.Init(c)
	u.startBarrier(b, u.conf.Deadline)
}

// aborted is the barrier's done.
func (c *prCommand) aborted(b *barrier) {
	c.failed = b.expired
	c.t.lane.loop.Post(&c.node)
}

// Handle goes on when the preempted tasks have ended.
func (c *prCommand) Handle(*loop.Node) {
	t := c.t
	t.touch()
	if c.failed {
		c.give()
		t.check(Sense{Key: AbortedCommand, ASC: ascCommandTimeout})
		return
	}
	c.save()
}

// give ends the change without making it.
func (c *prCommand) give() {
	u := c.t.unit
	u.mu.Lock()
	u.pr.changing = false
	u.mu.Unlock()
}

// save makes the new table stable.
func (c *prCommand) save() {
	t := c.t
	u := t.unit
	u.mu.Lock()
	same := !u.pr.unsure && !u.pr.lost && sameKept(u.pr.table, c.res.next)
	u.mu.Unlock()
	if same || !u.canPersist() {
		c.commit()
		return
	}
	t.pr = c
	t.save(ReservationsRecord, encodeReservations(c.res.next), prSaved)
}

// prSaved is the step after save.
func prSaved(t *Task) {
	c := t.pr
	t.pr = nil
	u := t.unit
	err := t.op.Err
	u.mu.Lock()
	u.pr.unsure = err != nil
	u.mu.Unlock()
	if err == nil {
		c.commit()
		return
	}
	c.give()
	u.logError("persistent reservations were not changed: they could not be stored", "initiator", string(t.lane.nexus.id), "err", err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		t.check(Sense{Key: IllegalRequest, ASC: ascInsufficientRegistrationRs})
		return
	}
	t.check(Sense{Key: HardwareError, ASC: ASCInternalTargetFailure})
}

// commit puts the new table into force and ends the command.
func (c *prCommand) commit() {
	t := c.t
	u := t.unit
	u.mu.Lock()
	if prAction(t.CDB[1]&0x1f) == prPreemptAbort {
		for _, nu := range u.nexuses {
			if slices.Contains(c.res.preempted, nu.id) {
				delete(u.disk.prevent, nu)
			}
		}
	}
	u.setTable(c.res.next, c.res.ua)
	u.mu.Unlock()
	t.good()
}

// setTable puts a table into force, ends a change, and raises conditions. u.mu is held.
func (u *Unit) setTable(p *prTable, uas []prUA) {
	u.pr.table, u.pr.lost, u.pr.changing = p, false, false
	u.judgeConflicts()
	for _, a := range uas {
		there := false
		for _, nu := range u.nexuses {
			if nu.id == a.id {
				nu.raise(a.asc)
				there = true
			}
		}
		if there {
			continue
		}
		q := u.pr.absent[a.id]
		if q == nil {
			if len(u.pr.absent) >= maxRegistrations {
				continue
			}
			if u.pr.absent == nil {
				u.pr.absent = make(map[regID]*uaQueue)
			}
			q = new(uaQueue)
			u.pr.absent[a.id] = q
		}
		q.add(a.asc)
	}
}

// tellAbsent gives a nexus that has come the conditions that it missed. u.mu is held.
func (u *Unit) tellAbsent(nu *nexusUnit) {
	q := u.pr.absent[nu.id]
	if q == nil {
		return
	}
	delete(u.pr.absent, nu.id)
	for a, ok := q.take(); ok; a, ok = q.take() {
		nu.ua.add(a)
	}
}
