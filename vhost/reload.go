package vhost

import (
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
)

// reload takes up what was found in flight, in the order in which it came.
func (r *ring) reload(heads []uint16) {
	if len(heads) == 0 {
		return
	}
	r.replay = true
	for _, h := range heads {
		r.reHead = h
		r.guard(reloadStep)
		if r.failure != nil {
			break
		}
	}
	r.replay = false
	r.pass()
	r.dirty()
}

// reloadStep takes one request up.
func reloadStep(r *ring) {
	if r.held {
		refuseHeld(r)
	}
	if err := r.vr.Reload(r.reHead, r.scratch); err != nil {
		r.fail(err)
		return
	}
	r.now[cRequests]++
	if r.take == nil {
		r.d.events.giveBack(r)
		return
	}
	r.take(r)
	r.submitStaged()
}

// lost answers the chain in scratch: what became of the command is not known.
func (r *ring) lost() {
	var b [scsi.MaxSense]byte
	n := scsi.Sense{Key: scsi.UnitAttention, ASC: scsi.ASCPowerOnOrReset}.Encode(b[:], false)
	r.resp.Set(virtioscsi.OK, scsi.StatusCheckCondition, 0, b[:n])
	r.answer(r.resp[:])
}
