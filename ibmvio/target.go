package ibmvio

import (
	"fmt"
	"slices"

	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
)

// TargetPort is what the client finds at one id: a SCSI target device's port. Each has
// an I_T nexus of its own.
type TargetPort struct {
	ID   uint8 // 0 to 63
	Port *scsi.Port
}

// targets are the ids at one time. They never change.
type targets struct {
	list []*target // by id; never empty in an adapter that serves
	by   [crq.MaxID + 1]*target
}

// target is an id: the carrier and the mover of its port's queue.
type target struct {
	a    *adapter
	id   uint8
	at   *scsi.Port
	port *srp.Port
	q    *srp.Queue
	kick bool // the loop's: something was submitted
}

// nowhere is the number of a LUN that no port shows: of addresses at which nothing is.
var nowhere = scsi.EncodeLUN(scsi.MaxLUN)

// find gives the target for an address, and the LUN there.
func (t *targets) find(l scsi.LUN) (*target, scsi.LUN) {
	a, ok := crq.ParseLUN(l)
	if ok && a.Channel == 0 && t.by[a.ID] != nil {
		return t.by[a.ID], scsi.EncodeLUN(uint16(a.LUN))
	}
	return t.list[0], nowhere
}

// open attaches the initiator.
func (a *adapter) open(tp TargetPort) (*target, error) {
	p, err := srp.NewPort(srp.Config{Port: tp.Port, Initiator: a.conf.Initiator, Requests: a.conf.Limit,
		Slack: a.conf.Limit, Deadline: a.conf.Deadline, New: newPart})
	if err != nil {
		return nil, err
	}
	return a.adopt(tp, p)
}

// adopt makes a target of a port.
func (a *adapter) adopt(tp TargetPort, p *srp.Port) (*target, error) {
	t := &target{a: a, id: tp.ID, at: tp.Port, port: p}
	var err error
	t.q, err = p.Queue(a.loop, t, t)
	return t, err
}

// setTargets gives the client other targets, while it runs: those that are the same port
// at the same id stay as they are. Where one cannot be attached nothing changes and the
// error is its.
func (a *adapter) setTargets(ts []TargetPort) error {
	a.tmu.Lock()
	defer a.tmu.Unlock()
	old, now := a.table.Load(), &targets{}
	var made []*target
	fail := func(id uint8, err error) error {
		for _, t := range made {
			t.port.Close(a.conf.Deadline, func(int) {})
		}
		return fmt.Errorf("vio export %s: id %d: %w", a.conf.Name, id, err)
	}
	for _, tp := range ts {
		if tp.ID > crq.MaxID || now.by[tp.ID] != nil {
			return fail(tp.ID, fmt.Errorf("ids are 0 to %d, each once", crq.MaxID))
		}
		t := old.by[tp.ID]
		if t == nil || t.at != tp.Port {
			var err error
			if t, err = a.open(tp); err != nil {
				return fail(tp.ID, err)
			}
			made = append(made, t)
		}
		now.by[tp.ID] = t
		now.list = append(now.list, t)
	}
	if len(now.list) == 0 {
		return fail(0, fmt.Errorf("an adapter has at least one id"))
	}
	slices.SortFunc(now.list, func(x, y *target) int { return int(x.id) - int(y.id) })
	a.table.Store(now)
	for _, t := range old.list {
		if now.by[t.id] != t {
			t.port.Close(a.conf.Deadline, func(int) {})
		}
	}
	return nil
}

// Respond is the Carrier's.
func (t *target) Respond(r *srp.Request) { t.a.respond(t, r) }

// Event is the Carrier's. A client has no way to hear of it but the unit attention that
// the core has raised.
func (t *target) Event(e scsi.Event) { t.a.count.Events.Add(1) }
