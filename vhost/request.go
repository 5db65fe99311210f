package vhost

import (
	"fmt"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
)

// shortError is a header that does not fit in the buffers that the driver gave.
type shortError struct {
	what      string
	have, min int64
}

func (e *shortError) Error() string {
	return fmt.Sprintf("%s of %d bytes: it has at least %d", e.what, e.have, e.min)
}

// takeRequest serves the chain in scratch: a command.
func takeRequest(r *ring) {
	c := r.scratch
	out, in := gmem.Total(c.Out)-virtioscsi.ReqLen, gmem.Total(c.In)-virtioscsi.RespLen
	switch {
	case out < 0:
		r.fail(&shortError{"request header", out + virtioscsi.ReqLen, virtioscsi.ReqLen})
		return
	case in < 0:
		r.fail(&shortError{"room for a response", in + virtioscsi.RespLen, virtioscsi.RespLen})
		return
	}
	h := r.header(c.Out)
	a, ok := h.LUN().Address()
	var t *target
	if ok {
		t = r.d.find(a)
	}
	switch {
	case t == nil:
		r.now[cBadTarget]++
		r.refuse(virtioscsi.BadTarget)
		return
	case out > 0 && in > 0: // VIRTIO_SCSI_F_INOUT was not offered
		r.refuse(virtioscsi.Failure)
		return
	case r.replay && !srp.Repeatable(h.CDB()[:]):
		r.lost()
		return
	}
	q := r.queue(t)
	if q == nil {
		r.refuse(virtioscsi.TransportFailure)
		return
	}
	req := q.Get()
	if req == nil { // the port lets nothing in at the moment
		r.held = true
		r.loop.After(&r.retry, holdTime)
		return
	}
	s := req.Own.(*slot)
	r.adopt(s, t, virtioscsi.RespLen)
	req.LUN, req.Tag, req.Attr = a.LUN, h.Tag(), h.Attr()
	req.CDB, req.CDBLen = *h.CDB(), virtioscsi.CDBLen
	req.OutSize, req.InSize, req.Replayed = out, in, r.replay
	req.DataOut = gmem.Skip(s.chain.Out, virtioscsi.ReqLen)
	req.DataIn = gmem.Skip(s.chain.In, virtioscsi.RespLen)
	r.submit(q, req)
}

// header copies the request header out of out, which has room for it: where memory is
// gone, that ends here, before anything is under way.
func (r *ring) header(out [][]byte) *virtioscsi.Req {
	if b := out[0]; len(b) >= virtioscsi.ReqLen { // four moves, in the place of calls
		r.req = virtioscsi.Req(b)
	} else {
		gmem.Gather(r.req[:], out)
	}
	return &r.req
}

// holdTime is the time between two attempts to get a held chain in.
const holdTime = time.Millisecond

// ringRetry is a ring whose chain in scratch is to be tried again.
type ringRetry ring

func (h *ringRetry) Expired(*loop.Timer) { (*ring)(h).look() }

// refuseHeld answers a held chain: the ring stops.
func refuseHeld(r *ring) {
	r.held = false
	r.refuse(virtioscsi.Busy)
}

// refuse answers the chain in scratch without the core.
func (r *ring) refuse(c virtioscsi.Response) {
	r.resp.Set(c, scsi.StatusGood, 0, nil)
	r.answer(r.resp[:])
}

// queue is the ring's queue into target t, made at its first use; nil: the port is
// closed. It is kicked at the end of the batch.
func (r *ring) queue(t *target) *srp.Queue {
	if r.queues == nil {
		r.queues = make([]*srp.Queue, 256)
	}
	if t == r.batchFor {
		return r.batchTo
	}
	q := r.queues[t.id]
	if q == nil || q.Port() != t.port { // of a target that was there before: its port has closed it
		var err error
		if q, err = t.port.Queue(r.loop, r, nil); err != nil {
			return nil
		}
		r.queues[t.id] = q
	}
	r.batchFor, r.batchTo = t, q
	for _, k := range r.kicks {
		if k == q {
			return q
		}
	}
	r.kicks = append(r.kicks, q)
	return q
}

// Respond is srp's: the command has ended.
func (r *ring) Respond(req *srp.Request) {
	s := req.Own.(*slot)
	if req.Aborted {
		s.code = virtioscsi.Aborted
		if s.target.resets.Load() > 0 {
			s.code = virtioscsi.Reset
		}
	}
	s.ring.respond(s)
}

// Event is srp's. The control path's queue tells of events, once for the device.
func (r *ring) Event(scsi.Event) {}
