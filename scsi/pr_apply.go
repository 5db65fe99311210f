package scsi

import "slices"

// What PERSISTENT RESERVE OUT makes of a table: SPC-4 §5.13.7 to §5.13.11.

// prAction is a service action of PERSISTENT RESERVE OUT (SPC-4 table 213).
type prAction uint8

const (
	prRegister prAction = iota
	prReserve
	prRelease
	prClear
	prPreempt
	prPreemptAbort
	prRegisterIgnore
	prRegisterMove
	prReplaceLost
)

// prRequest is a PERSISTENT RESERVE OUT, decoded.
type prRequest struct {
	action     prAction
	scope, typ uint8 // as in the CDB
	key, saKey uint64
	aptpl      bool
	specIPT    bool
	allTGPT    bool
	unreg      bool
	// canPersist: APTPL can be granted. lost: the unit's reservations are.
	canPersist, lost bool

	from regID
	// also are from's initiator port at the other target ports (ALL_TG_PT).
	also []regID
	// others are what SPEC_I_PT names.
	others []regID
	// dest is where REGISTER AND MOVE moves to; destPort: that target port exists.
	dest     regID
	destPort bool
}

// prResult is what a request comes to.
type prResult struct {
	status Status
	sense  Sense    // with CHECK CONDITION
	next   *prTable // with GOOD
	ua     []prUA
	// preempted are the nexuses whose tasks PREEMPT AND ABORT aborts.
	preempted []regID
}

// prUA is a unit attention condition for a registered nexus.
type prUA struct {
	id  regID
	asc ASC
}

var prConflict = prResult{status: StatusReservationConflict}

func prCheck(s Sense) prResult { return prResult{status: StatusCheckCondition, sense: s} }

// The places in the parameter list (SPC-4 §6.16.3, §6.16.4).
const (
	prKeyAt       = 0
	prSAKeyAt     = 8
	prFlagsAt     = 20
	prMoveFlagsAt = 17
	prMovePortAt  = 18
	prTransportAt = 24
)

// Bits of byte 20.
const (
	prSpecIPT = 3
	prAllTGPT = 2
	prAPTPL   = 0
)

// apply is what r makes of p.
func (p *prTable) apply(r *prRequest) prResult {
	if r.specIPT && r.action != prRegister {
		return prCheck(InvalidParamField(prFlagsAt, prSpecIPT))
	}
	if r.aptpl && !r.canPersist {
		switch r.action {
		case prRegister, prRegisterIgnore, prReplaceLost:
			return prCheck(InvalidParamField(prFlagsAt, prAPTPL))
		case prRegisterMove:
			return prCheck(InvalidParamField(prMoveFlagsAt, 0))
		}
	}
	me := p.find(r.from)
	switch r.action {
	case prRegister, prRegisterIgnore:
		return p.register(r, me)
	case prReplaceLost:
		return p.replaceLost(r)
	}
	if me < 0 || p.regs[me].key != r.key {
		return prConflict
	}
	switch r.action {
	case prReserve:
		return p.reserve(r, me)
	case prRelease:
		return p.release(r, me)
	case prClear:
		return p.clear(r)
	case prPreempt, prPreemptAbort:
		return p.preempt(r, me)
	}
	return p.move(r, me)
}

// checkScope refuses a SCOPE that there is not.
func (r *prRequest) checkScope() (bad Sense, ok bool) {
	return InvalidCDBField(2, 7), r.scope == 0
}

// checkReservation refuses a SCOPE or TYPE that no reservation can have.
func (r *prRequest) checkReservation() (bad Sense, ok bool) {
	if bad, ok = r.checkScope(); !ok {
		return bad, false
	}
	return InvalidCDBField(2, 3), ReservationType(r.typ).valid()
}

// register is REGISTER (SPC-4 table 67) and REGISTER AND IGNORE EXISTING KEY (table
// 68). With ALL_TG_PT, each other port of the target does as it would have done had
// the request come by it, except that a conflict there is none of the whole: else a
// port that was added later would keep its initiators from being unregistered.
func (p *prTable) register(r *prRequest, me int) prResult {
	if r.action == prRegister {
		var key uint64
		if me >= 0 {
			key = p.regs[me].key
		}
		if r.key != key {
			return prConflict
		}
	}
	if r.specIPT && me >= 0 {
		return prCheck(InvalidParamField(prFlagsAt, prSpecIPT))
	}
	if me < 0 && r.saKey == 0 {
		return prResult{next: p}
	}
	n := p.clone()
	n.generation++
	n.aptpl = r.aptpl
	res := prResult{next: n}
	ids := append([]regID{r.from}, r.also...)
	for k, id := range ids {
		i := n.find(id)
		// At the port that the request came by this was looked at.
		if k > 0 && r.action == prRegister && (i >= 0 && n.regs[i].key != r.key || i < 0 && r.key != 0) {
			continue
		}
		switch {
		case r.saKey != 0 && i >= 0:
			n.regs[i].key = r.saKey
		case r.saKey != 0:
			n.regs = append(n.regs, registrant{id, r.saKey})
		case i >= 0:
			n.unregister(i, r.from, &res)
		}
	}
	for _, id := range r.others {
		if p.find(id) >= 0 {
			return prCheck(InvalidParamField(prTransportAt, 7))
		}
		if n.find(id) < 0 {
			n.regs = append(n.regs, registrant{id, r.saKey})
		}
	}
	if len(n.regs) > maxRegistrations {
		return prCheck(Sense{Key: IllegalRequest, ASC: ascInsufficientRegistrationRs})
	}
	return res
}

// unregister removes registration i on behalf of nexus from (SPC-4 §5.13.11.2.3).
func (p *prTable) unregister(i int, from regID, res *prResult) {
	held := p.holds(i) && !p.typ.all()
	typ := p.typ
	p.remove(func(r registrant) bool { return r.id == p.regs[i].id })
	if held && typ.registrants() {
		p.tell(ASCReservationsReleased, from, res)
	}
}

// remove takes away the registrations for which f is true, and the reservation with
// its last holder (SPC-4 table 71).
func (p *prTable) remove(f func(registrant) bool) {
	kept := make([]registrant, 0, len(p.regs))
	for _, r := range p.regs {
		if !f(r) {
			kept = append(kept, r)
		}
	}
	p.regs = kept
	if len(p.regs) == 0 || !p.typ.all() && p.find(p.holder) < 0 {
		p.typ, p.holder = NoReservation, regID{}
	}
}

// tell raises asc for every registered nexus but from.
func (p *prTable) tell(asc ASC, from regID, res *prResult) {
	for _, r := range p.regs {
		if r.id != from {
			res.ua = append(res.ua, prUA{r.id, asc})
		}
	}
}

// set makes the reservation of type typ id's.
func (p *prTable) set(typ uint8, id regID) {
	p.typ, p.holder = ReservationType(typ), regID{}
	if !p.typ.all() {
		p.holder = id
	}
}

func (p *prTable) reserve(r *prRequest, me int) prResult {
	if bad, ok := r.checkReservation(); !ok {
		return prCheck(bad)
	}
	switch {
	case p.typ == NoReservation:
		n := p.clone()
		n.set(r.typ, r.from)
		return prResult{next: n}
	case p.holds(me) && p.typ == ReservationType(r.typ):
		return prResult{next: p}
	}
	return prConflict
}

func (p *prTable) release(r *prRequest, me int) prResult {
	if bad, ok := r.checkScope(); !ok {
		return prCheck(bad)
	}
	if !p.holds(me) {
		return prResult{next: p}
	}
	if p.typ != ReservationType(r.typ) {
		return prCheck(Sense{Key: IllegalRequest, ASC: ascInvalidRelease})
	}
	n := p.clone()
	n.typ, n.holder = NoReservation, regID{}
	res := prResult{next: n}
	if p.typ.registrants() {
		n.tell(ASCReservationsReleased, r.from, &res)
	}
	return res
}

func (p *prTable) clear(r *prRequest) prResult {
	res := prResult{next: &prTable{generation: p.generation + 1, aptpl: p.aptpl}}
	p.tell(ASCReservationsPreempted, r.from, &res)
	return res
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4 table 72, figure 9).
func (p *prTable) preempt(r *prRequest, me int) prResult {
	replace := false
	match := func(g registrant) bool { return g.key == r.saKey }
	switch {
	case p.typ.all() && r.saKey == 0:
		replace = true
		match = func(registrant) bool { return true }
	case p.typ == NoReservation, p.typ.all():
	case r.saKey == 0:
		return prCheck(InvalidParamField(prSAKeyAt, 7))
	default:
		replace = r.saKey == p.holderKey()
	}
	if !slices.ContainsFunc(p.regs, match) {
		return prConflict
	}
	if replace {
		if bad, ok := r.checkReservation(); !ok {
			return prCheck(bad)
		}
	}
	n := p.clone()
	n.generation++
	res := prResult{next: n}
	for _, g := range p.regs {
		if !match(g) {
			continue
		}
		res.preempted = append(res.preempted, g.id)
		if g.id != r.from {
			res.ua = append(res.ua, prUA{g.id, ASCRegistrationsPreempted})
		}
	}
	if !replace {
		n.remove(match)
		return res
	}
	n.remove(func(g registrant) bool { return match(g) && g.id != r.from })
	n.set(r.typ, r.from)
	if n.typ != p.typ {
		n.tell(ASCReservationsReleased, r.from, &res)
	}
	return res
}

// move is REGISTER AND MOVE (SPC-4 §5.13.8).
func (p *prTable) move(r *prRequest, me int) prResult {
	switch {
	case p.typ == NoReservation:
		return prCheck(InvalidCDBField(1, 4))
	case p.typ.all(), !p.holds(me):
		return prConflict
	case r.saKey == 0:
		return prCheck(InvalidParamField(prSAKeyAt, 7))
	case r.dest.transport == r.from.transport, r.dest.transport == "":
		return prCheck(InvalidParamField(prTransportAt, 7))
	case !r.destPort:
		return prCheck(InvalidParamField(prMovePortAt, 7))
	}
	n := p.clone()
	n.generation++
	n.aptpl = r.aptpl
	if i := n.find(r.dest); i >= 0 {
		n.regs[i].key = r.saKey
	} else {
		n.regs = append(n.regs, registrant{r.dest, r.saKey})
	}
	n.holder = r.dest
	if r.unreg {
		n.remove(func(g registrant) bool { return g.id == r.from })
	}
	if len(n.regs) > maxRegistrations {
		return prCheck(Sense{Key: IllegalRequest, ASC: ascInsufficientRegistrationRs})
	}
	return prResult{next: n}
}

// replaceLost is REPLACE LOST RESERVATION (SPC-4 §5.13.11.3).
func (p *prTable) replaceLost(r *prRequest) prResult {
	switch {
	case !r.lost:
		return prCheck(Sense{Key: IllegalRequest, ASC: ascInvalidRelease})
	case r.key != 0:
		return prCheck(InvalidParamField(prKeyAt, 7))
	case r.saKey == 0:
		return prCheck(InvalidParamField(prSAKeyAt, 7))
	case r.allTGPT:
		return prCheck(InvalidParamField(prFlagsAt, prAllTGPT))
	}
	if bad, ok := r.checkReservation(); !ok {
		return prCheck(bad)
	}
	n := &prTable{aptpl: r.aptpl, regs: []registrant{{r.from, r.saKey}}}
	n.set(r.typ, r.from)
	return prResult{next: n}
}
