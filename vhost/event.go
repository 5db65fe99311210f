package vhost

import (
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
)

// maxEvents bounds the events that wait for a buffer.
const maxEvents = 64

// events are what the device has to tell its driver. They belong to the home loop. A
// buffer is taken from the ring only when there is something to put into it.
type events struct {
	d      *device
	ring   *ring // nil: the queue does not run
	list   []event
	missed bool
	began  bool // the queue has run before
}

// event is one that waits.
type event struct {
	kind   virtioscsi.EventKind
	lun    virtioscsi.LUN
	reason uint32
}

func (v *events) init(d *device) { v.d = d }

// start is told that the event queue runs.
func (v *events) start(r *ring) {
	v.ring = r
	switch {
	case r.goesOn:
	case r.virgin:
		// A driver at its beginning scans everything after it has started us.
		// That nothing was taken yet says little: events are rare.
		v.list, v.missed = v.list[:0], false
	case !v.began && (r.found || !r.vr.Fresh()):
		// The driver ran with another process: what it should have heard since
		// is not known.
		v.missed = true
	}
	v.began = true
}

// stop is told that it does not.
func (v *events) stop(r *ring) {
	if v.ring == r {
		v.ring = nil
	}
}

// add notes an event of target t.
func (v *events) add(t *target, e scsi.Event) {
	n := event{lun: virtioscsi.MakeLUN(t.id, e.LUN)}
	switch e.Kind {
	case scsi.LUNAdded:
		n.kind, n.reason = virtioscsi.TransportReset, virtioscsi.ReasonRescan
	case scsi.LUNRemoved:
		n.kind, n.reason = virtioscsi.TransportReset, virtioscsi.ReasonRemoved
	case scsi.LUNResized:
		n.kind, n.reason = virtioscsi.ParamChange, virtioscsi.ReasonCapacity
	case srp.EventsMissed:
		v.missed = true
	}
	switch {
	case n.kind == virtioscsi.NoEvent:
	case len(v.list) == maxEvents:
		v.missed = true
	default:
		v.list = append(v.list, n)
	}
	v.deliver()
}

// deliver puts what waits into buffers, as long as there are some.
func (v *events) deliver() {
	if r := v.ring; r != nil && r.ready() {
		r.guard(deliverStep)
	}
}

// wanted tells whether the driver wants to hear of e.
func (r *ring) wanted(k virtioscsi.EventKind) bool {
	if k == virtioscsi.ParamChange {
		return virtioscsi.Has(r.features, virtioscsi.FeatureChange)
	}
	return virtioscsi.Has(r.features, virtioscsi.FeatureHotplug)
}

func deliverStep(r *ring) {
	v := &r.d.events
	r.now[cRounds]++
	for {
		n := 0
		for n < len(v.list) && !r.wanted(v.list[n].kind) {
			n++
		}
		v.list = append(v.list[:0], v.list[n:]...)
		v.missed = v.missed && r.wanted(virtioscsi.NoEvent)
		if len(v.list) == 0 && !v.missed {
			r.vr.EnableKick() // one kick for each time that buffers are used up
			r.dirty()
			return
		}
		ok, err := r.vr.Pop(r.scratch)
		if err != nil {
			r.fail(err)
			return
		}
		if !ok {
			if !r.vr.EnableKick() {
				return
			}
			continue
		}
		var e event
		if len(v.list) > 0 {
			e = v.list[0]
			v.list = append(v.list[:0], v.list[1:]...)
		}
		v.put(r, e)
		if r.failure != nil {
			return
		}
	}
}

// put fills the buffer in scratch.
func (v *events) put(r *ring, e event) {
	if v.missed {
		e.kind |= virtioscsi.EventsMissed
		v.missed = false
	}
	var n int
	for _, b := range r.scratch.In {
		n += len(b)
	}
	if n < virtioscsi.EventLen {
		r.fail(&shortError{"event buffer", int64(n), virtioscsi.EventLen})
		return
	}
	var b virtioscsi.Event
	b.Set(e.kind, e.lun, e.reason)
	r.now[cRequests]++
	r.answer(b[:])
}

// giveBack fills a buffer that an earlier process had taken, in scratch.
func (v *events) giveBack(r *ring) {
	v.missed = r.wanted(virtioscsi.NoEvent)
	v.put(r, event{})
}
