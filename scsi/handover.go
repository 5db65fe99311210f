package scsi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A unit can go on in another process: Save tells what its initiators know of it beyond
// what is kept for ever, and UnitConfig.Saved has the next process's unit begin with
// that. Counters begin anew. Initiators that come to the ports by their old names go on
// where they were, without a unit attention; those of the others that had not come when
// ForgetCarried is called are as lost as by the loss of a nexus.

// SavedUnit is what a unit goes on from. It is encoded as JSON.
type SavedUnit struct {
	Modes json.RawMessage `json:"modes"` // the present ones, in the format of the record
	// NotReady is why the medium cannot be used; 0: it can.
	NotReady uint16 `json:"notReady,omitempty"`
	// Clock is what SET TIMESTAMP has made of the clock, ms since 1970-01-01, at the
	// time Taken; nil: the host's.
	Clock        *uint64           `json:"clock,omitempty"`
	Taken        time.Time         `json:"taken"`
	Reservations reservationsTable `json:"reservations"`
	Generation   uint32            `json:"generation"`
	Persistent   bool              `json:"persistent"` // APTPL
	Lost         bool              `json:"lost"`
	Unsure       bool              `json:"unsure"`
	Low          bool              `json:"low"` // the thin provisioning threshold was told of
	Absent       []SavedAbsent     `json:"absent,omitempty"`
	Nexuses      []SavedNexus      `json:"nexuses,omitempty"`
}

// SavedNexus is what a unit knows of a nexus.
type SavedNexus struct {
	Port      uint16   `json:"port"` // relative target port identifier
	Initiator string   `json:"initiator"`
	Attention []uint16 `json:"attention,omitempty"` // conditions that wait, ASC and ASCQ
	Prevents  bool     `json:"prevents,omitempty"`  // medium removal
	Reserved  bool     `json:"reserved,omitempty"`  // by RESERVE
}

// SavedAbsent are conditions for a registered nexus that is not there.
type SavedAbsent struct {
	Port        uint16   `json:"port"`
	TransportID []byte   `json:"transportID"`
	Attention   []uint16 `json:"attention"`
}

// nexusKey is how a unit knows a nexus again.
type nexusKey struct {
	port uint16
	id   InitiatorID
}

func (n *Nexus) key() nexusKey { return nexusKey{n.port.conf.RelID, n.id} }

// list are the conditions in their order.
func (q *uaQueue) list() (out []uint16) {
	for _, a := range q.q[:q.n] {
		out = append(out, uint16(a))
	}
	return out
}

// set is the inverse of list.
func (q *uaQueue) set(in []uint16) error {
	if len(in) > maxUA {
		return fmt.Errorf("%d unit attention conditions: the most is %d", len(in), maxUA)
	}
	*q = uaQueue{}
	for i, a := range in {
		q.q[i] = ASC(a)
	}
	q.n = len(in)
	return nil
}

// Save tells what another process's unit needs to go on. All front ends have come to a
// halt: a unit with a command, or one under way that goes on by itself, is an error that
// says what there is.
func (u *Unit) Save() (*SavedUnit, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	busy := int64(0)
	for t := u.waiting.head; t != nil; t = t.sched.qnext {
		busy++
	}
	for _, lu := range u.lanes {
		busy += lu.inflight.Load()
	}
	switch {
	case u.stop.on:
		return nil, fmt.Errorf("disk %s has stopped at an error (%w): resume it first", u.conf.Name, u.stop.err)
	case busy > 0 || u.stuck > 0:
		return nil, fmt.Errorf("disk %s has %d commands that have not ended", u.conf.Name, busy+int64(u.stuck))
	case u.medium.op != nil:
		return nil, fmt.Errorf("disk %s is busy with %s (%d %%): wait for its end", u.conf.Name, u.medium.op.rec.what(), u.medium.op.percent())
	case len(u.barriers)+u.holds > 0 || u.pr.changing || u.resizing || u.disk.newIdent != nil:
		return nil, fmt.Errorf("disk %s is about to change", u.conf.Name)
	}
	st := &SavedUnit{
		Modes: u.modeCurrent().encode(), NotReady: uint16(u.notReady()), Taken: time.Now(), Low: u.disk.low,
		Reservations: u.pr.table.record(), Generation: u.pr.table.generation, Persistent: u.pr.table.aptpl,
		Lost: u.pr.lost, Unsure: u.pr.unsure,
	}
	if c := u.disk.clock.Load(); c != nil {
		ms, _ := c.now(st.Taken)
		st.Clock = &ms
	}
	for id, q := range u.pr.absent {
		st.Absent = append(st.Absent, SavedAbsent{id.port, []byte(id.transport), q.list()})
	}
	for _, nu := range u.nexuses {
		_, prevents := u.disk.prevent[nu]
		st.Nexuses = append(st.Nexuses, SavedNexus{
			Port: nu.id.port, Initiator: string(nu.nexus.id), Attention: nu.ua.list(),
			Prevents: prevents, Reserved: u.reserved == nu,
		})
	}
	for _, n := range u.carried {
		st.Nexuses = append(st.Nexuses, n) // has not come yet
	}
	return st, nil
}

// restore is the inverse of Save. Nobody knows the unit yet.
func (u *Unit) restore(st *SavedUnit) error {
	m, err := decodeModes(st.Modes)
	if err != nil {
		return fmt.Errorf("mode pages: %w", err)
	}
	p, err := st.Reservations.table()
	if err != nil {
		return fmt.Errorf("reservations: %w", err)
	}
	m.wce = m.wce && u.volatileCache()
	m.lbpere = m.lbpere && u.conf.Thin
	u.modeSet(m)
	u.setNotReady(ASC(st.NotReady))
	u.disk.low = st.Low
	if st.Clock != nil {
		u.disk.clock.Store(&clock{time.Now(), *st.Clock + uint64(max(time.Since(st.Taken).Milliseconds(), 0))})
	}
	p.generation, p.aptpl = st.Generation, st.Persistent
	u.pr.table, u.pr.lost, u.pr.unsure = p, st.Lost, st.Unsure
	for _, a := range st.Absent {
		q := new(uaQueue)
		if err := q.set(a.Attention); err != nil {
			return err
		}
		if u.pr.absent == nil {
			u.pr.absent = make(map[regID]*uaQueue)
		}
		u.pr.absent[regID{a.Port, string(a.TransportID)}] = q
	}
	u.carried = make(map[nexusKey]SavedNexus)
	for _, n := range st.Nexuses {
		if len(n.Attention) > maxUA {
			return errors.New("more unit attention conditions than there are")
		}
		u.carried[nexusKey{n.Port, InitiatorID(n.Initiator)}] = n
	}
	return nil
}

// goOn gives a nexus what the process before this one knew of it; false: nothing.
// Unit.mu is held, nu is not in u.nexuses yet.
func (u *Unit) goOn(nu *nexusUnit) bool {
	k := nu.nexus.key()
	s, ok := u.carried[k]
	if !ok {
		return false
	}
	delete(u.carried, k)
	_ = nu.ua.set(s.Attention) // checked by restore
	if s.Prevents {
		if u.disk.prevent == nil {
			u.disk.prevent = make(map[*nexusUnit]struct{})
		}
		u.disk.prevent[nu] = struct{}{}
	}
	if s.Reserved && u.reserved == nil {
		u.reserved = nu
	}
	return true
}

// resume has a nexus that comes meet at once the units that know it: they tell it of
// what happens from now on, and its RESERVE keeps others out. Target.mu is held.
func (n *Nexus) resume(view *lunMap) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range view.list {
		e := &view.list[i]
		u := e.Unit
		u.mu.Lock()
		if _, ok := u.carried[n.key()]; ok && n.units[u] == nil && !u.closed {
			n.meet(u, n.regID(), e.ReadOnly)
			u.judgeConflicts()
		}
		u.mu.Unlock()
	}
}

// ForgetCarried is called when every nexus has come that goes on.
func (u *Unit) ForgetCarried() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.carried = nil
}

// Carried tells which nexuses have not come, for messages: "INITIATOR at port N".
func (u *Unit) Carried() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []string
	for _, k := range slices.Collect(maps.Keys(u.carried)) {
		out = append(out, fmt.Sprintf("%s at port %d", k.id, k.port))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
