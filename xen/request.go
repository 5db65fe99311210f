package xen

import (
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/vscsiif"
)

// take serves the request in req; false: the core takes nothing at the moment.
func (r *ring) take() bool {
	switch r.req.Action() {
	case vscsiif.ActCDB:
		return r.takeCDB()
	case vscsiif.ActAbort, vscsiif.ActReset:
		return r.takeTMF()
	}
	r.bad()
	return true
}

// refuse answers req without the core.
func (r *ring) refuse(result int32) {
	e := r.jr.Take(&r.req)
	r.rsp.Set(r.req.ID(), result, 0, nil)
	r.push(e)
}

func (r *ring) countBad() {
	r.now[cBad]++
	if n := r.now[cBad]; n&(n-1) == 0 {
		r.Bad(n)
	}
}

func (r *ring) bad() {
	r.countBad()
	r.refuse(vscsiif.Result(vscsiif.HostError, 0))
}

// find is the command in flight that the front end calls id.
func (r *ring) find(id uint16) *slot {
	for _, s := range r.open {
		if s.id == id && s.act == vscsiif.ActCDB && !s.gone {
			return s
		}
	}
	return nil
}

// adopt makes sr the request in req.
func (r *ring) adopt(sr *srp.Request, lun uint16) *slot {
	s := sr.Own.(*slot)
	r.seq++
	s.ring, s.id, s.act, s.lun, s.seq = r, r.req.ID(), r.req.Action(), lun, r.seq
	s.entry = r.jr.Take(&r.req)
	s.segs, r.segs = r.segs, s.segs
	sr.LUN, sr.Tag = scsi.EncodeLUN(lun), r.seq
	r.open = append(r.open, s)
	return s
}

// takeCDB serves a command.
func (r *ring) takeCDB() bool {
	q := &r.req
	lun, ok := (*r.LUNs.Load())[q.Address()]
	if !ok {
		r.now[cUnknown]++
		r.refuse(vscsiif.Result(vscsiif.HostNoConnect, 0))
		return true
	}
	size, ok := r.segments()
	if !ok || q.CDBLen() == 0 || q.CDBLen() > vscsiif.MaxCDB || r.find(q.ID()) != nil {
		r.bad()
		return true
	}
	queue := r.copyq
	mapped := r.MapFrom > 0 && size >= r.MapFrom
	if mapped {
		queue = r.mapq
	}
	sr := queue.Get()
	if sr == nil {
		return false
	}
	s := r.adopt(sr, lun)
	copy(sr.CDB[:], q.CDB()[:])
	clear(sr.CDB[vscsiif.MaxCDB:])
	sr.CDBLen = uint8(q.CDBLen())
	if q.Direction() == vscsiif.ToDevice {
		sr.OutSize = size
	} else {
		sr.InSize = size
	}
	if mapped {
		if err := r.mapData(s); err != nil {
			r.countBad()
			r.rsp.Set(s.id, vscsiif.Result(vscsiif.HostError, 0), 0, nil)
			r.push(s.entry)
			r.release(s)
			return true
		}
	}
	queue.Submit(sr)
	return true
}

// segments makes segs of req and returns how many bytes they have; false: they are not
// as they must be.
func (r *ring) segments() (size int64, ok bool) {
	q := &r.req
	r.segs = r.segs[:0]
	n, indirect := q.Segments()
	switch {
	case q.Direction() > vscsiif.NoData || n > vscsiif.MaxDirect:
		return 0, false
	case n == 0 || q.Direction() == vscsiif.NoData:
		return 0, true
	case q.Direction() == vscsiif.Bidirectional:
		return 0, false // the ring has no way to say which segments are which
	}
	if !indirect {
		for i := range n {
			r.segs = append(r.segs, gnttab.Segment(q.Segment(i)))
		}
	} else if !r.descriptors(n) {
		return 0, false
	}
	for _, s := range r.segs {
		if !vscsiif.Segment(s).InPage() {
			return 0, false
		}
		size += int64(s.Len)
	}
	return size, true
}

// descriptors fetches segs from the n pages of them that req names.
func (r *ring) descriptors(n int) bool {
	r.batch.Reset()
	total := 0
	for i := range n {
		s := r.req.Segment(i)
		if !s.InTable() || total+int(s.Len) > len(r.table) {
			return false
		}
		r.batch.Get(uint16(r.Domain), gnttab.Segment(s), r.table[total:total+int(s.Len)])
		total += int(s.Len)
	}
	if r.copy() != nil {
		return false
	}
	for o := 0; o < total; o += vscsiif.SegmentLen {
		r.segs = append(r.segs, gnttab.Segment(vscsiif.ParseSegment(r.table[o:])))
	}
	return true
}

var errGrant = errors.New("a grant that cannot be copied")

// copy does the copies in batch.
func (r *ring) copy() error {
	if r.batch.Len() == 0 {
		return nil
	}
	r.now[cCalls]++
	r.now[cCopies] += uint64(r.batch.Len())
	if err := r.Grants.Copy(&r.batch); err != nil {
		return err
	}
	if i, _ := r.batch.Failed(); i >= 0 {
		return errGrant
	}
	return nil
}

// mapData maps the pages of s, and makes its request's buffers of them.
func (r *ring) mapData(s *slot) error {
	var v *gnttab.View
	if n := len(r.views); n > 0 {
		v, r.views = r.views[n-1], r.views[:n-1]
	} else {
		v = new(gnttab.View)
	}
	r.refs = r.refs[:0]
	for _, g := range s.segs {
		r.refs = append(r.refs, g.Ref)
	}
	out := s.r.OutSize > 0
	r.now[cCalls]++
	if err := r.Grants.Map(v, r.Domain, r.refs, !out); err != nil {
		r.views = append(r.views, v)
		return err
	}
	r.now[cMapped] += uint64(len(r.refs))
	s.view, s.vec = v, s.vec[:0]
	for i, g := range s.segs {
		if o := i*gnttab.PageSize + int(g.Off); g.Len > 0 {
			s.vec = append(s.vec, v.B[o:o+int(g.Len):o+int(g.Len)])
		}
	}
	if out {
		s.r.DataOut = s.vec
	} else {
		s.r.DataIn = s.vec
	}
	return nil
}

// unmap gives the pages of s back.
func (r *ring) unmap(s *slot) error {
	v := s.view
	if v == nil {
		return nil
	}
	r.now[cCalls]++
	if err := r.Grants.Unmap(v); err != nil {
		return err
	}
	s.view = nil
	if r.ended {
		return v.Free()
	}
	r.views = append(r.views, v)
	return nil
}

// Fetch is srp's: the data of a command come.
func (r *ring) Fetch(sr *srp.Request) { r.copyq.Moved(sr, r.move(sr, sr.DataOut, -1)) }

// Store is srp's: the data of a command go.
func (r *ring) Store(sr *srp.Request) { r.copyq.Moved(sr, r.move(sr, sr.DataIn, sr.InLen)) }

var (
	errEnded = errors.New("the ring has ended")
	errShort = errors.New("the segments are shorter than the data")
)

// move copies bufs from the segments of sr, all of them, or the first n bytes to these.
func (r *ring) move(sr *srp.Request, bufs [][]byte, n int64) error {
	if r.dead {
		return errEnded
	}
	s := sr.Own.(*slot)
	put := n >= 0
	if !put {
		n = 0
		for _, b := range bufs {
			n += int64(len(b))
		}
	}
	r.batch.Reset()
	var buf []byte
	for _, g := range s.segs {
		for g.Len > 0 && n > 0 {
			if len(buf) == 0 {
				buf, bufs = bufs[0], bufs[1:]
				continue
			}
			k := min(int64(g.Len), int64(len(buf)), n)
			piece := g
			piece.Len = uint16(k)
			if put {
				r.batch.Put(uint16(r.Domain), piece, buf[:k])
			} else {
				r.batch.Get(uint16(r.Domain), piece, buf[:k])
			}
			g.Off, g.Len, buf, n = g.Off+uint16(k), g.Len-uint16(k), buf[k:], n-k
		}
	}
	if n > 0 {
		return errShort
	}
	return r.copy()
}

// takeTMF serves ABORT and RESET.
func (r *ring) takeTMF() bool {
	q := &r.req
	var lun uint16
	var tag uint64
	fn := scsi.LUNReset
	if q.Action() == vscsiif.ActAbort {
		s := r.find(q.Ref())
		if s == nil { // it has ended, and its answer is in the ring
			r.refuse(vscsiif.ResetSuccess)
			return true
		}
		fn, lun, tag = scsi.AbortTask, s.lun, s.r.Tag
	} else {
		var ok bool
		if lun, ok = (*r.LUNs.Load())[q.Address()]; !ok {
			r.now[cUnknown]++
			r.refuse(vscsiif.ResetFailed)
			return true
		}
	}
	sr := r.copyq.Get()
	if sr == nil {
		return false
	}
	r.segs = r.segs[:0]
	r.adopt(sr, lun)
	sr.TaskTag = tag
	r.copyq.Manage(sr, fn)
	return true
}

// Respond is srp's: the command or function has ended.
func (r *ring) Respond(sr *srp.Request) {
	s := sr.Own.(*slot)
	// The front end frees its pages when it is answered: they must be its own again.
	if err := r.unmap(s); err != nil {
		r.fail(fmt.Errorf("request %#x stays unanswered: %w", s.id, err))
		if !r.dead { // else the journal is another's already
			r.jr.Drop(s.entry)
		}
		r.release(s)
		return
	}
	switch {
	case r.dead:
	case sr.Func != 0:
		r.managed(s)
	case s.gone:
		// Dropped already.
	default:
		r.outcome(s)
		r.push(s.entry)
	}
	r.release(s)
}

// managed answers a function. The front end frees what it was about, and uses the names
// of it again, whatever the answer: commands that have not ended by now are never
// answered.
func (r *ring) managed(f *slot) {
	result := vscsiif.ResetFailed
	switch f.r.Response {
	case scsi.TMComplete, scsi.TMSucceeded, scsi.TMNoTask:
		result = vscsiif.ResetSuccess
	case scsi.TMFailed:
		for _, s := range r.open {
			if f.reaches(s) && !s.gone {
				s.gone = true
				r.now[cGone]++
				r.jr.Drop(s.entry)
			}
		}
	}
	r.rsp.Set(f.id, result, 0, nil)
	r.push(f.entry)
}

// outcome makes the response of a command that has ended.
func (r *ring) outcome(s *slot) {
	sr := s.r
	if sr.Aborted {
		// The front end itself asks for nothing else than ABORT and RESET; who else
		// ended the command has the front end send it again.
		h := vscsiif.HostReset
		for _, f := range r.open {
			if f.act == vscsiif.ActAbort && f.reaches(s) {
				h = vscsiif.HostAbort
			}
		}
		r.rsp.Set(s.id, vscsiif.Result(h, 0), 0, nil)
		return
	}
	host, left := vscsiif.HostOK, int64(0)
	if sr.Status != scsi.StatusGood || sr.Want != sr.OutSize+sr.InSize {
		out, in := sr.Residuals()
		if left = in; sr.OutSize > 0 {
			left = out
		}
		if left < 0 {
			// The command wanted more than the buffers hold, which residual_len
			// cannot say. Where it failed anyway the sense data say more.
			left = 0
			if sr.Status == scsi.StatusGood {
				host = vscsiif.HostError
			}
		}
	}
	r.rsp.Set(s.id, vscsiif.Result(host, sr.Status), uint32(min(left, 1<<32-1)), sr.Sense[:sr.SenseLen])
}
