package vhost

import (
	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
)

// takeControl serves the chain in scratch: a request on the control queue.
func takeControl(r *ring) {
	c := r.scratch
	out, in := gmem.Total(c.Out), gmem.Total(c.In)
	var b [virtioscsi.TMFLen]byte
	if out < virtioscsi.TypeLen {
		r.fail(&shortError{"control request", out, virtioscsi.TypeLen})
		return
	}
	gmem.Gather(b[:], c.Out)
	wantOut, wantIn := int64(virtioscsi.TMFLen), int64(virtioscsi.TMFRespLen)
	kind := virtioscsi.DecodeType(b[:])
	switch kind {
	case virtioscsi.TypeTMF:
	case virtioscsi.TypeANQuery, virtioscsi.TypeANSubscribe:
		wantOut, wantIn = virtioscsi.ANLen, virtioscsi.ANRespLen
	default:
		// Nobody knows where its answer would stand.
		r.answer(nil)
		return
	}
	switch {
	case out < wantOut:
		r.fail(&shortError{"control request", out, wantOut})
	case in < wantIn:
		r.fail(&shortError{"room for the answer to a control request", in, wantIn})
	case kind == virtioscsi.TypeTMF:
		r.manage((*virtioscsi.TMF)(&b))
	default:
		r.notifications((*virtioscsi.AN)(b[:virtioscsi.ANLen]))
	}
}

// notifications answers a query for asynchronous notifications, or a subscription:
// there are none of those events (medium, power, operator).
func (r *ring) notifications(q *virtioscsi.AN) {
	code := virtioscsi.OK
	if a, ok := q.LUN().Address(); !ok || r.d.find(a) == nil {
		code = virtioscsi.BadTarget
	}
	var resp virtioscsi.ANResp
	resp.Set(0, code)
	r.answer(resp[:])
}

// short answers the chain in scratch, a task management function that the core does not get.
func (r *ring) short(c virtioscsi.Response) {
	b := [virtioscsi.TMFRespLen]byte{byte(c)}
	r.answer(b[:])
}

// manage starts a task management function.
func (r *ring) manage(m *virtioscsi.TMF) {
	a, ok := m.LUN().Address()
	if !ok {
		r.short(virtioscsi.IncorrectLUN)
		return
	}
	t := r.d.find(a)
	if t == nil {
		r.now[cBadTarget]++
		r.short(virtioscsi.BadTarget)
		return
	}
	f, ok := virtioscsi.Func(m.Subtype())
	if !ok {
		r.short(virtioscsi.FunctionRejected)
		return
	}
	req := t.ctl.Get()
	if req == nil {
		r.short(virtioscsi.Busy)
		return
	}
	r.adopt(req.Own.(*slot), t, virtioscsi.TMFRespLen)
	req.LUN, req.TaskTag = a.LUN, m.Tag()
	if f == scsi.LUNReset || f == scsi.NexusReset {
		t.resets.Add(1)
	}
	// The driver made the commands in question available before it asked, but maybe
	// in rings that nobody has looked into since.
	r.d.each((*ring).sweep, func() { t.ctl.Manage(req, f) })
}

// sweep takes all that is in the ring now.
func (r *ring) sweep() {
	for n := 0; n < r.vr.Size() && r.ready(); n += batch {
		was := r.now[cRequests]
		r.look()
		if r.now[cRequests]-was < batch {
			return
		}
	}
}

// Respond is srp's: a task management function is complete. The driver may rely on it
// that all commands concerned are back when it sees the answer, so every ring
// publishes first.
func (t *target) Respond(req *srp.Request) {
	t.d.each((*ring).flushNow, func() {
		s := req.Own.(*slot)
		s.code = virtioscsi.TMFResponse(req.Response)
		if req.Func == scsi.LUNReset || req.Func == scsi.NexusReset {
			t.resets.Add(-1)
		}
		s.ring.respond(s)
	})
}

// Event is srp's: something about the target has changed.
func (t *target) Event(e scsi.Event) { t.d.events.add(t, e) }
