package vhost

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
)

// TargetPort is what the guest finds at one virtio target: a SCSI target device's
// port. Each has an I_T nexus of its own.
type TargetPort struct {
	ID   uint8 // byte 1 of the LUN field, 0 to 253
	Port *scsi.Port
}

// deviceConfig describes a device. Group, Targets and Initiator have no default.
type deviceConfig struct {
	Name      string // of the export, for messages
	Group     *loop.Group
	Targets   []TargetPort
	Initiator [16]byte      // initiator port identifier, stored with the export
	Deadline  time.Duration // scsi.DefaultDeadline
	Log       *slog.Logger  // nil: silence
	// Failed hears, once and on a goroutine of its own, that the device as a whole
	// has failed: its rings take no more requests. nil: nobody asks.
	Failed func(error)

	points func(queue int, p vring.Point) // nil but in tests of crashes
}

// maxFlight is how many requests of one ring the core has at most: QEMU's rings have
// at most 1024 entries (VIRTQUEUE_MAX_SIZE), so a full one never stalls. Of a longer
// one the rest waits in the ring.
const maxFlight = 1024

// device is what all rings of one export share: the SRP ports by virtio target, the
// guest's memory, events, counters. It lives as long as its nexuses are to live.
type device struct {
	conf   deviceConfig
	space  *gmem.Space
	home   *loop.Loop // of the control and the event queue
	table  atomic.Pointer[targets]
	events events
	lines  lines

	tmu sync.Mutex // for setTargets

	mu      sync.Mutex
	rings   []*ring // that run
	failure error
}

// targets are the virtio targets at one time. They never change.
type targets struct {
	list []*target // by id
	by   [256]*target
}

// target is a virtio target. It is the carrier of the queue by which task management
// goes to its port, and events come from it.
type target struct {
	d  *device
	id uint8
	// resets counts the resets that the guest has asked for and that are under
	// way: what ends as aborted meanwhile was reset.
	resets atomic.Int32
	at     *scsi.Port
	port   *srp.Port
	ctl    *srp.Queue // on device.home
}

// newDevice attaches the initiator to every target. The error is a
// *scsi.SharingError where it must not share a disk.
func newDevice(c deviceConfig) (*device, error) {
	if c.Deadline <= 0 {
		c.Deadline = scsi.DefaultDeadline
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	d := &device{conf: c, space: gmem.NewSpace(), home: c.Group.Pick()}
	d.events.d = d
	if err := d.setTargets(c.Targets); err != nil {
		return nil, err
	}
	return d, nil
}

// setTargets gives the guest other targets, while it runs: those that are the same
// port at the same number stay as they are, and the guest hears of the others. Where
// one cannot be attached nothing changes and the error is its.
func (d *device) setTargets(ts []TargetPort) error {
	d.tmu.Lock()
	defer d.tmu.Unlock()
	old, now := d.table.Load(), &targets{}
	first := old == nil
	if first {
		old = now
	}
	var made []*target
	fail := func(id uint8, err error) error {
		for _, t := range made {
			t.port.Close(d.conf.Deadline, func(int) {})
		}
		return fmt.Errorf("vhost export %s: virtio target %d: %w", d.conf.Name, id, err)
	}
	for _, tp := range ts {
		if tp.ID > virtioscsi.MaxTarget || now.by[tp.ID] != nil {
			return fail(tp.ID, fmt.Errorf("numbers are 0 to %d, each once", virtioscsi.MaxTarget))
		}
		t := old.by[tp.ID]
		if t == nil || t.at != tp.Port {
			t = &target{d: d, id: tp.ID, at: tp.Port}
			var err error
			t.port, err = srp.NewPort(srp.Config{Port: tp.Port, Initiator: d.conf.Initiator, Requests: maxFlight,
				Deadline: d.conf.Deadline, New: newSlot})
			if err != nil {
				return fail(tp.ID, err)
			}
			made = append(made, t)
			if t.ctl, err = t.port.Queue(d.home, t, nil); err != nil {
				return fail(tp.ID, err)
			}
		}
		now.by[tp.ID] = t
		now.list = append(now.list, t)
	}
	slices.SortFunc(now.list, func(a, b *target) int { return int(a.id) - int(b.id) })
	d.table.Store(now)
	for _, t := range old.list {
		if now.by[t.id] != t {
			d.tell(t, scsi.LUNRemoved, t.port.Nexus().LUNs())
			t.port.Close(d.conf.Deadline, func(int) {})
		}
	}
	for _, t := range made {
		if first {
			break // there is no guest yet
		}
		if luns := t.port.Nexus().LUNs(); len(luns) > 0 {
			// LUN 0 has Linux scan the whole target.
			d.tell(t, scsi.LUNAdded, []scsi.Mapping{{LUN: 0}})
		}
	}
	return nil
}

// tell has the guest hear of LUNs of t.
func (d *device) tell(t *target, k scsi.EventKind, luns []scsi.Mapping) {
	for _, m := range luns {
		d.home.Later(func() { d.events.add(t, scsi.Event{Kind: k, LUN: m.LUN}) })
	}
}

// memory is the Space that the guest's generations are mapped into, and the inflight
// region too: a fault in memory of another Space is a bug of this process.
func (d *device) memory() *gmem.Space { return d.space }

// fail ends the service of the whole device: no ring takes another request. Any
// goroutine, any number of times; the first error counts.
func (d *device) fail(err error) {
	d.mu.Lock()
	first := d.failure == nil
	if first {
		d.failure = err
	}
	rings := slices.Clone(d.rings)
	d.mu.Unlock()
	if !first {
		return
	}
	d.conf.Log.Error("vhost export failed", "export", d.conf.Name, "err", err)
	for _, r := range rings {
		r.loop.Later(func() { r.fail(err) })
	}
	if d.conf.Failed != nil {
		go d.conf.Failed(err)
	}
}

// err is what the device failed of, nil as long as it serves.
func (d *device) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure
}

// reset ends all commands and tells the core of a reset of each nexus
// (RESET_DEVICE), and sleeps until that is done; false: the deadline has passed.
func (d *device) reset() bool {
	list := d.table.Load().list
	done := make(chan bool, len(list))
	for _, t := range list {
		t.resets.Add(1)
		t.port.Reset(func(ok bool) { done <- ok })
	}
	all := true
	for range list {
		all = <-done && all
	}
	for _, t := range list {
		t.resets.Add(-1)
	}
	return all
}

// close ends the nexuses, after all virtqueues were closed. It sleeps; stuck is the
// number of requests that the deadline (0: the device's) has passed by.
func (d *device) close(deadline time.Duration) (stuck int) {
	if deadline <= 0 {
		deadline = d.conf.Deadline
	}
	d.tmu.Lock()
	defer d.tmu.Unlock()
	list := d.table.Swap(&targets{}).list
	done := make(chan int, len(list))
	for _, t := range list {
		t.port.Close(deadline, func(n int) { done <- n })
	}
	for range list {
		stuck += <-done
	}
	return stuck
}

// stuck is how many requests are with the core or the store beyond a deadline.
func (d *device) stuck() (n int64) {
	for _, t := range d.table.Load().list {
		n += t.port.Stats().Stuck
	}
	return n
}

// direct tells whether the kernel may have the guest's pages pinned: some store does
// direct I/O.
func (d *device) direct() bool {
	for _, t := range d.table.Load().list {
		for _, m := range t.port.Nexus().LUNs() {
			if m.Unit.Store().Info().Pins {
				return true
			}
		}
	}
	return false
}

// errPinned: memory could not be taken back.
var errPinned = errors.New("requests are in the store beyond the deadline, and direct I/O has the guest's pages pinned: they may land late, so the export has ended; look after the disk's device, then reset the guest")

// find gives the target that an address names, nil if there is none. The REPORT LUNS
// well-known logical unit names none: the first one answers.
func (d *device) find(a virtioscsi.Address) *target {
	table := d.table.Load()
	if !a.WellKnown {
		return table.by[a.Target]
	}
	if len(table.list) == 0 {
		return nil
	}
	return table.list[0]
}

// enter and leave note the rings that run.
func (d *device) enter(r *ring) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rings = append(d.rings, r)
	return d.failure
}

func (d *device) leave(r *ring) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rings = slices.DeleteFunc(d.rings, func(o *ring) bool { return o == r })
}

// each calls f for every request ring that runs, on its loop, then then on home. It is called
// on home, and for the control path: it allocates.
func (d *device) each(f func(*ring), then func()) {
	d.mu.Lock()
	rings := slices.Clone(d.rings)
	d.mu.Unlock()
	var left atomic.Int32
	left.Store(1)
	part := func() {
		if left.Add(-1) == 0 {
			d.home.Later(then)
		}
	}
	for _, r := range rings {
		if r.index < requestQueue {
			continue
		}
		left.Add(1)
		r.loop.Later(func() {
			f(r)
			part()
		})
	}
	part()
}

// lines bounds the lines that a guest can cause in the log.
type lines struct {
	mu      sync.Mutex
	next    time.Time
	dropped int
}

const lineEvery = 10 * time.Second

// warn logs what a guest did to ring index, or counts it where lines come too often.
func (d *device) warn(index int, err error) {
	l := &d.lines
	l.mu.Lock()
	now := time.Now()
	if now.Before(l.next) {
		l.dropped++
		l.mu.Unlock()
		return
	}
	l.next = now.Add(lineEvery)
	n := l.dropped
	l.dropped = 0
	l.mu.Unlock()
	d.conf.Log.Warn("virtqueue failed: it takes no more requests until the guest resets the device",
		"export", d.conf.Name, "queue", index, "err", err, "suppressed", n)
}
