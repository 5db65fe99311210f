package xen

import (
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/vscsiif"
)

// slot is this carrier's part of a pooled request: the ring entry that it came by. It
// belongs to the request's loop.
type slot struct {
	r     *srp.Request
	ring  *ring
	id    uint16 // rqid
	act   vscsiif.Action
	lun   uint16
	entry int // in the journal
	seq   uint64
	segs  []gnttab.Segment
	view  *gnttab.View // what is mapped for it
	vec   [][]byte     // pieces of that
	gone  bool         // a function has failed that was to abort it: it is never answered
}

// NewSlot is srp.Config.New for ports of this package's exports.
func NewSlot(r *srp.Request) any { return &slot{r: r} }

// reaches tells whether the function in f is about the command in s.
func (f *slot) reaches(s *slot) bool {
	if s.act != vscsiif.ActCDB || s.seq > f.seq {
		return false
	}
	if f.act == vscsiif.ActAbort {
		return s.r.Tag == f.r.TaskTag
	}
	return s.lun == f.lun
}
