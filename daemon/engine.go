package daemon

import (
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/iscsi/chap"
	"github.com/vtgt/vtgt/scsi"
)

// engine is what the daemon drives: the loops with the SCSI core and the front
// ends on them. There is one (see bind.go); the seam is for tests of what happens
// when a step fails. All methods may sleep.
type engine interface {
	// openDisk opens the store of d and puts a unit on it, waiting at most
	// wait for a lock that a predecessor is about to give up.
	openDisk(d *config.Disk, id state.Disk, wait time.Duration) (diskObject, error)
	// newTarget makes a target without exports: nobody can reach it. group is the
	// target port group identifier of its ports.
	newTarget(t *config.Target, group uint16) (targetObject, error)
	// listen binds an address; connections are not accepted before start.
	listen(addr string) (portalObject, error)
	// observe has f hear of changes that no configuration made: of which kind of
	// object, its name, and what. Called once, before anything else.
	observe(f func(kind, name, detail string))
	// remember has disks keep what their initiators ask for in what of gives for
	// the disk's name. Called once, before the first disk.
	remember(of func(disk string) scsi.Memory)
	// setDiscovery says which CHAP users may see the list of targets; none:
	// everybody may.
	setDiscovery(users []chap.Account)
	// sessions are the sessions that exist now.
	sessions() []Session
	// traffic are counters of the front ends.
	traffic() Traffic
	// alive returns when every loop has gone round.
	alive()
	// stop closes all sessions within deadline.
	stop(deadline time.Duration) error
	// close ends the loops; everything else has been closed.
	close()
}

// diskObject is an open store with the unit on it.
type diskObject interface {
	status() diskState
	// resize makes the store size bytes long; a shorter one is cut.
	resize(size int64) error
	// setShared says whether initiators of several names may write it; not
	// that they may not where they can at present.
	setShared(on bool) error
	// setOnError changes what happens at errors to come.
	setOnError(p config.OnError)
	// setSanitizeSpeed changes the bound of operations that overwrite the medium.
	setSanitizeSpeed(s config.Size)
	// resume re-opens a store that refuses writes, and lets a unit that stopped
	// go on.
	resume() error
	// reservations are those that there are.
	reservations() scsi.Reservations
	// clearReservations removes them and all registrations.
	clearReservations(deadline time.Duration) error
	// flush makes what was written stable.
	flush(deadline time.Duration) error
	// close lets the unit go, then the store. No target maps it any more.
	close(deadline time.Duration) error
}

// diskState is what a diskObject knows of itself.
type diskState struct {
	size     int64 // bytes
	readOnly bool  // the store was opened so
	thin     bool
	state    string // running, stopped, latched, or an operation on the medium and how far it is
	err      string // that stopped it
	since    *time.Time
	held     int
	space    *SpaceStatus // nil: not known
	stats    UnitStats
}

// targetObject is a SCSI target.
type targetObject interface {
	mapLUN(l config.LUN, d diskObject, readOnly bool) error
	unmapLUN(lun uint16, deadline time.Duration) error
	// remapLUN changes how a LUN is mapped; its commands go on.
	remapLUN(lun uint16, readOnly bool, deadline time.Duration) error
	// setAccess says who may log in from now on, and which LUNs that mapLUN and
	// remapLUN map from now on are seen by whom.
	setAccess(a *access)
	// setALUA changes the access state; it waits for commands that the new one
	// would refuse.
	setALUA(s config.ALUA, deadline time.Duration) error
	// newISCSI and newRing make exports, which nobody can reach before start.
	newISCSI(c *config.TargetISCSI, relID uint16) (exportObject, error)
	// own: what answers at the socket is the export that this one follows.
	newRing(s *ringSpec, own bool) (exportObject, error)
	// close frees a target without LUNs and exports.
	close()
}

// exportObject is a way to reach a target.
type exportObject interface {
	// start makes the target reachable.
	start() error
	// adjust changes what can change while a virtual machine is connected: the
	// socket's owner and mode, and the virtio targets. s is for the same socket and
	// initiator.
	adjust(s *ringSpec) error
	// describe fills in what it knows of itself.
	describe(s *ExportStatus)
	// close makes the target unreachable and ends sessions; again: nothing. It has
	// not to be started.
	close(deadline time.Duration) error
}

// detacher is an exportObject that can end for good, in order: its consumer lets go of its
// disks. close alone means that vtgt ends, and comes back.
type detacher interface {
	// detach waits at most for deadline.
	detach(deadline time.Duration) error
}

// lunLeaver is an exportObject whose consumer can let go of a LUN before it is lost.
type lunLeaver interface {
	// letGo waits at most for deadline. show follows it, when the LUN is lost.
	letGo(lun uint16, deadline time.Duration) error
	show(lun uint16)
}

// leave runs f, which takes LUN lun away, when the consumers of exports have let go of it.
func leave(exports map[string]*export, lun uint16, deadline time.Duration, f func() error) error {
	var bad collect
	for _, e := range exports {
		if l, ok := e.obj.(lunLeaver); ok {
			bad.add(l.letGo(lun, deadline))
			defer l.show(lun)
		}
	}
	bad.add(f())
	return bad.err()
}

// retire ends an export that is in no configuration any more.
func retire(o exportObject, deadline time.Duration) error {
	var bad collect
	if d, ok := o.(detacher); ok {
		bad.add(d.detach(deadline))
	}
	bad.add(o.close(deadline))
	return bad.err()
}

// portalObject is a bound listening address.
type portalObject interface {
	// addr is the address as bound, with the port that the kernel chose.
	addr() string
	start() error
	close() error
}
