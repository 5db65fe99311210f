package scsi

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

// UnitConfig describes a logical unit. It does not change while the unit lives.
type UnitConfig struct {
	// Name is the disk's name, for messages.
	Name string
	// Vendor (8), Product (16) and Revision (4 bytes) of INQUIRY, ASCII.
	Vendor, Product, Revision string
	// Serial is the unit serial number (VPD 80h), ASCII.
	Serial string
	// NAA is the unit's name: NAA type 3h, locally assigned, in its high nibble.
	NAA uint64
	// BlockSize is the logical block length in bytes, 512 or 4096; 0: 512.
	// PhysicalBlockSize is at least that and a power of two; 0: the same.
	BlockSize, PhysicalBlockSize int
	// ReadOnly: nobody may write.
	ReadOnly bool
	// Thin: logical block provisioning management is offered (LBPME).
	Thin bool
	// Removable: the medium is.
	Removable bool
	// OnError is the policy to begin with, see Unit.SetOnError.
	OnError OnError
	// OnState, when set, hears of every stop at an error and every Resume, in
	// order, on a goroutine of its own; it may block.
	OnState func(UnitState)
	// Shared: initiators of several names may write the unit; see
	// Unit.SetShared.
	Shared bool
	// Deadline is how long PREEMPT AND ABORT waits for the tasks that it aborts
	// to leave the store; 0: DefaultDeadline.
	Deadline time.Duration
	// SetAccess: initiators may change access states by SET TARGET PORT GROUPS.
	SetAccess bool
	// Memory keeps what initiators may have saved (mode pages, …); nil: nothing
	// can be saved, and initiators are told so.
	Memory Memory
	// Saved, where set, is what the unit goes on from: what Unit.Save of the process
	// before this one said. It comes before what Memory has.
	Saved *SavedUnit
	// Migratable: the store is a backing.Holder, and the unit is served only between
	// Hold and LetGo. It needs Memory.
	Migratable bool
	// Group runs operations that an earlier process did not finish (SANITIZE,
	// FORMAT UNIT); nil: where there is one NewUnit fails.
	Group *loop.Group
	// SanitizeSpeed bounds SANITIZE OVERWRITE and a FORMAT UNIT that writes,
	// bytes a second; 0: as fast as the store.
	SanitizeSpeed int64
	// Log gets what an operator should know; nil: silence.
	Log *slog.Logger
}

// Unit is a logical unit (SAM-5 §4.6.19): one for each disk, however many targets
// map it.
type Unit struct {
	conf      UnitConfig
	backing   backing.Store
	blockSize int // conf.BlockSize
	server    deviceServer
	stopWatch func()

	// dSense is D_SENSE, tas TAS, of the Control mode page (SPC-4 §7.5.8).
	dSense, tas atomic.Bool
	// capacity in blocks.
	capacity atomic.Uint64
	// condition is what stands between commands and the medium.
	condition atomic.Uint32

	// onError is an OnError.
	onError atomic.Uint32
	// sanitizeSpeed is UnitConfig.SanitizeSpeed at present.
	sanitizeSpeed atomic.Int64

	// The gate: see gate.go.
	gate atomic.Uint32

	holding sync.Mutex // above Target.mu
	holders int        // under holding
	resumed bool       // under holding: Saved was gone on from

	// mu guards everything below, and what says so in other types. It is the
	// last of the locks Target.mu, Nexus.mu, Unit.mu to be taken, and nothing
	// blocks or calls out while it is held.
	mu       sync.Mutex
	seq      uint64    // of the youngest task or barrier that came by the slow path
	waiting  taskQueue // tasks that are not enabled, in order
	heads    int       // HEAD OF QUEUE tasks in flight
	alone    taskClass // classOrdered or classExclusive: such a task is in flight
	holds    int       // barriers, and tasks of classPreempt, that hold the unit
	barriers []*barrier
	finished []*barrier
	stuck    int // tasks that outlived a barrier
	ranges   rangeTable

	lanes    []*laneUnit
	nexuses  []*nexusUnit
	targets  map[*Target]uint16      // with the LUN
	groups   map[*Target]groupAccess // access states, see alua.go
	reserved *nexusUnit              // holds it by RESERVE
	pr       prState
	stop     stopState
	shared   bool
	writers  map[*Nexus]bool // see unit_share.go; false: sees the unit no longer
	past     Stats           // of lanes that are gone
	saves    *loop.JobQueue  // see memory.go; nil until the first
	saving   sync.Mutex      // held while Memory.Save runs; before mu
	resizing bool
	medium   mediumState // see unit_medium.go
	closed   bool
	queueErr bool // a failure to open a queue was logged
	// carried are the nexuses that the process before this one knew, until they
	// come; see handover.go.
	carried map[nexusKey]SavedNexus

	// disk is the disk device server's part, see disk.go.
	disk diskState
}

// The parts of Unit.condition.
const (
	conditionASC = 0xffff
	conditionWP  = 1 << 16 // nobody may write
	conditionSWP = 1 << 17 // the same, by the SWP bit
)

// The errors of this package.
var (
	// ErrClosed: the target, nexus or unit was closed.
	ErrClosed = errors.New("closed")
)

// NewUnit makes a logical unit of st, which stays the caller's: it is to be closed
// after the unit.
func NewUnit(c UnitConfig, st backing.Store) (*Unit, error) {
	if c.BlockSize == 0 {
		c.BlockSize = 512
	}
	if c.PhysicalBlockSize == 0 {
		c.PhysicalBlockSize = c.BlockSize
	}
	if c.BlockSize != 512 && c.BlockSize != 4096 {
		return nil, fmt.Errorf("disk %s: block size %d: it must be 512 or 4096", c.Name, c.BlockSize)
	}
	if p := c.PhysicalBlockSize; p < c.BlockSize || p&(p-1) != 0 || p > 1<<20 {
		return nil, fmt.Errorf("disk %s: physical block size %d: it must be a power of two from %d to 1 MiB", c.Name, p, c.BlockSize)
	}
	info := st.Info()
	if info.BlockAlign > c.BlockSize {
		return nil, fmt.Errorf("disk %s: block size %d: the store works in units of %d bytes; set the block size to %d or use another cache mode", c.Name, c.BlockSize, info.BlockAlign, info.BlockAlign)
	}
	u := &Unit{
		conf:      c,
		backing:   st,
		blockSize: c.BlockSize,
		targets:   make(map[*Target]uint16),
		groups:    make(map[*Target]groupAccess),
		writers:   make(map[*Nexus]bool),
		shared:    c.Shared,
	}
	u.onError.Store(uint32(c.OnError))
	u.sanitizeSpeed.Store(c.SanitizeSpeed)
	u.capacity.Store(uint64(info.Size) / uint64(c.BlockSize))
	if c.ReadOnly || info.ReadOnly {
		u.conf.ReadOnly = true
		u.condition.Store(conditionWP)
	}
	if err := u.loadReservations(); err != nil {
		return nil, err
	}
	u.server = newDisk(u)
	u.disk.born = time.Now()
	if err := u.loadModes(); err != nil {
		return nil, err
	}
	if err := u.loadIdentity(); err != nil {
		return nil, err
	}
	if c.Saved != nil {
		if err := u.restore(c.Saved); err != nil {
			return nil, fmt.Errorf("disk %s: what the vtgt before this one knew of it: %w", c.Name, err)
		}
	}
	if err := u.loadMedium(); err != nil {
		return nil, err
	}
	u.stopWatch = st.Watch(func(*backing.Info) { u.resized() })
	u.resized()
	return u, nil
}

// Name is the disk's name.
func (u *Unit) Name() string { return u.conf.Name }

// Config is what the unit was made of, defaults filled in.
func (u *Unit) Config() UnitConfig { return u.conf }

// Store is the unit's store.
func (u *Unit) Store() backing.Store { return u.backing }

// Capacity is the present size of the medium in bytes.
func (u *Unit) Capacity() int64 { return int64(u.capacity.Load()) * int64(u.blockSize) }

// blocks is the present size of the medium in logical blocks.
func (u *Unit) blocks() uint64 { return u.capacity.Load() }

// info is the present description of the store.
func (u *Unit) info() *backing.Info { return u.backing.Info() }

// setNotReady has commands that need the medium end with NOT READY and asc; zero:
// it is ready. Called by commands that run alone.
func (u *Unit) setNotReady(asc ASC) {
	u.setCondition(conditionASC, uint32(asc))
}

// setSoftwareProtected is the software write protection (SWP). Called by commands
// that run alone.
func (u *Unit) setSoftwareProtected(on bool) {
	v := uint32(0)
	if on {
		v = conditionSWP
	}
	u.setCondition(conditionSWP, v)
}

func (u *Unit) setCondition(mask, v uint32) {
	for {
		o := u.condition.Load()
		if u.condition.CompareAndSwap(o, o&^mask|v) {
			return
		}
	}
}

// writeProtected reports whether nobody may write.
func (u *Unit) writeProtected() bool {
	return u.condition.Load()&(conditionWP|conditionSWP) != 0
}

// event tells every nexus that sees the unit. Without locks.
func (u *Unit) event(k EventKind) {
	for _, tg := range u.mappedBy() {
		tg.event(k, u)
	}
}

// resetLocked is the logical unit reset condition (SAM-5 §6.3.3). u.mu is held, no
// task runs. The unit attention is for every nexus, that of the one who asked for the
// reset too: a condition of the unit knows no issuer, and other targets (the Linux
// kernel's, SCST) do the same.
func (u *Unit) resetLocked(ua ASC) {
	u.setReservation(nil)
	for _, nu := range u.nexuses {
		nu.resets.Add(1)
	}
	u.server.reset()
	u.raiseUALocked(ua, nil)
}

// leave has the unit forget a lane that has let go of it, once its queue is closed
// and its tasks have ended. Unit.mu is held.
func (lu *laneUnit) leave() {
	if !lu.gone || lu.inflight.Load() != 0 {
		return
	}
	u := lu.unit
	for i, o := range u.lanes {
		if o == lu {
			u.lanes = append(u.lanes[:i], u.lanes[i+1:]...)
			u.past.add(lu)
			n := lu.lane.nexus
			n.pastMu.Lock()
			n.past.add(lu)
			n.gone.Add(1)
			n.pastMu.Unlock()
			u.lanesLeft(n)
			return
		}
	}
}

// leaveNexus forgets nu: the nexus is lost to the unit. u.mu is held.
func (u *Unit) leaveNexus(nu *nexusUnit) {
	for i, o := range u.nexuses {
		if o == nu {
			u.nexuses = append(u.nexuses[:i], u.nexuses[i+1:]...)
			break
		}
	}
	if u.reserved == nu {
		u.setReservation(nil)
	}
}

// Close takes the unit away from all targets: tasks that run end with LOGICAL UNIT
// NOT SUPPORTED. done, on a goroutine of its own, has the number of tasks that were
// still in the store after deadline (0: DefaultDeadline); when it is zero the store
// may be closed.
func (u *Unit) Close(deadline time.Duration, done func(stuck int)) {
	u.mu.Lock()
	was := u.closed
	u.closed = true
	u.mu.Unlock()
	if was {
		go done(0)
		return
	}
	u.stopWatch()
	j := newJoint(done)
	for _, tg := range u.mappedBy() {
		tg.removeUnit(u, deadline, j)
	}
	u.haltMedium(deadline, j)
	j.add(1)
	u.startBarrier(&barrier{outcome: abortGone, drop: true, hold: true, done: j.ended}, deadline)
	j.release(0)
}

func (u *Unit) mappedBy() (tgs []*Target) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for tg := range u.targets {
		tgs = append(tgs, tg)
	}
	return tgs
}

// queueFailed notes that a queue into the store could not be made: the commands
// end with what the device server makes of ErrClosed. Logged once: peers decide
// how often it happens.
func (u *Unit) queueFailed(err error) {
	u.mu.Lock()
	was := u.queueErr
	u.queueErr = true
	u.mu.Unlock()
	if !was && u.conf.Log != nil {
		u.conf.Log.Error("disk cannot do I/O: no queue into its store", "disk", u.conf.Name, "err", err)
	}
}

func (u *Unit) logError(msg string, args ...any) {
	if u.conf.Log != nil {
		u.conf.Log.Error(msg, append([]any{"disk", u.conf.Name}, args...)...)
	}
}

func (u *Unit) logInfo(msg string, args ...any) {
	if u.conf.Log != nil {
		u.conf.Log.Info(msg, append([]any{"disk", u.conf.Name}, args...)...)
	}
}

// joint calls done when several operations have all ended.
type joint struct {
	mu    sync.Mutex
	n     int
	stuck int
	done  func(stuck int)
}

// newJoint counts its maker as the first.
func newJoint(done func(stuck int)) *joint { return &joint{n: 1, done: done} }

func (j *joint) add(n int) {
	j.mu.Lock()
	j.n += n
	j.mu.Unlock()
}

// release ends one; done runs on a goroutine of its own, so that it may block.
func (j *joint) release(stuck int) {
	j.mu.Lock()
	j.n--
	j.stuck += stuck
	last := j.n == 0
	stuck = j.stuck
	j.mu.Unlock()
	if last && j.done != nil {
		go j.done(stuck)
	}
}

// ended is a barrier's done.
func (j *joint) ended(b *barrier) { j.release(b.stuck) }
