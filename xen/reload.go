package xen

import (
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/xen/journal"
	"github.com/vtgt/vtgt/xen/vscsiif"
)

// reload answers what a process before us has taken and not answered. Nothing of it
// runs any more. Commands come first: those that may run again are to be sent again;
// of the others nobody knows what became, so that the front end's SCSI gets a unit
// attention. Then the functions, which have nothing left to end.
func (r *ring) reload(lost []journal.Lost) {
	var sense [scsi.MaxSense]byte
	n := scsi.Sense{Key: scsi.UnitAttention, ASC: scsi.ASCPowerOnOrReset}.Encode(sense[:], false)
	for i := range lost {
		q := &lost[i].Request
		if q.Action() == vscsiif.ActAbort || q.Action() == vscsiif.ActReset {
			continue
		}
		r.now[cLost]++
		switch h := ended(lost, q); {
		case q.Action() != vscsiif.ActCDB:
			r.rsp.Set(q.ID(), vscsiif.Result(vscsiif.HostError, 0), 0, nil)
		case h != vscsiif.HostOK:
			r.rsp.Set(q.ID(), vscsiif.Result(h, 0), 0, nil)
		case srp.Repeatable(q.CDB()[:]):
			r.rsp.Set(q.ID(), vscsiif.Result(vscsiif.HostRequeue, 0), 0, nil)
		default:
			r.rsp.Set(q.ID(), vscsiif.Result(vscsiif.HostOK, scsi.StatusCheckCondition), 0, sense[:n])
		}
		r.push(lost[i].Entry)
	}
	for i := range lost {
		if a := lost[i].Request.Action(); a == vscsiif.ActAbort || a == vscsiif.ActReset {
			r.rsp.Set(lost[i].Request.ID(), vscsiif.ResetSuccess, 0, nil)
			r.push(lost[i].Entry)
		}
	}
}

// ended is the host result of command q where a function among lost was to end it.
func ended(lost []journal.Lost, q *vscsiif.Request) vscsiif.Host {
	for i := range lost {
		switch f := &lost[i].Request; {
		case f.Action() == vscsiif.ActAbort && f.Ref() == q.ID():
			return vscsiif.HostAbort
		case f.Action() == vscsiif.ActReset && f.Address() == q.Address():
			return vscsiif.HostReset
		}
	}
	return vscsiif.HostOK
}
