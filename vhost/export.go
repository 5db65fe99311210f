package vhost

import (
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost/vring"
)

// MaxTarget is the largest TargetPort.ID: Windows' vioscsi ignores what lies above.
const MaxTarget = 253

// Config describes an Export. Name, Group and Initiator have no default.
type Config struct {
	Name      string // of the export, for people
	Group     *loop.Group
	Targets   []TargetPort
	Initiator [16]byte      // initiator port identifier, stored with the export
	Deadline  time.Duration // of stopping rings and of task management (30 s)
	Queues    int           // request queues that a front end is told to be possible (1024)
	Log       *slog.Logger  // nil: silence
	// Migratable: the front end may move its machine to another host, where another
	// vtgt serves the same disks. The pages that we write are noted then.
	Migratable bool
	// Hold, where set, is called before the first ring starts, on an error of which it
	// does not; LetGo after the last one has stopped. Both may sleep.
	Hold  func() error
	LetGo func()
	// OnConnect, where set, hears of a front end's coming and going, with what can
	// be said of it, one call at a time. It must not call the Export.
	OnConnect func(up bool, detail string)

	// Saved and Set, where set, are what the process before this one has frozen: the
	// Export goes on with its front end when it begins to serve.
	Saved *Saved
	Set   *handover.Set
	// Crashed: that process did not freeze but was killed, and Saved comes from its
	// Parker. Requests that were in flight are taken up again.
	Crashed bool
	// Parker, where set, keeps what is needed for that.
	Parker Parker

	points func(queue int, p vring.Point) // nil but in tests of crashes
}

// An Export is one virtio-scsi device as a vhost-user back end offers it. It outlives
// the connections to it: reservations, mode pages and unit attentions are its nexuses'.
// Methods may be called on any goroutine.
type Export struct {
	conf  Config
	log   journal
	count counters

	quit chan struct{} // closed at the beginning of Close
	halt atomic.Pointer[halt]

	// devMu serialises what changes the device and may sleep. Above mu.
	devMu   sync.Mutex
	targets []TargetPort

	mu        sync.Mutex
	dev       *device // written under devMu too
	goneWait  time.Duration
	drainWait time.Duration
	listeners map[*net.UnixListener]struct{}
	sess      *session      // of the present front end, else of the last one; nil: there was none
	nc        *net.UnixConn // nil: no front end is connected
	over      chan struct{} // closed when sess has ended with all of its commands
	since     time.Time
	pid, uid  int
	refused   string
	closing   bool
	adopted   *session      // to be served when Serve begins
	deadline  time.Duration // of the session's end: Close may shorten it
	closed    chan struct{} // closed at the end of Close
	stuck     int           // what Close returned
}

// NewExport attaches the initiator to every target. The error is a *scsi.SharingError
// where it must not share a disk.
func NewExport(c Config) (*Export, error) {
	if c.Deadline <= 0 {
		c.Deadline = scsi.DefaultDeadline
	}
	if c.Queues <= 0 {
		c.Queues = defaultQueues
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	e := &Export{
		goneWait: goneWait, drainWait: drainWait,
		conf: c, log: journal{log: c.Log}, targets: slices.Clone(c.Targets), deadline: c.Deadline,
		listeners: make(map[*net.UnixListener]struct{}), quit: make(chan struct{}), closed: make(chan struct{}),
	}
	var err error
	if e.dev, err = e.newDevice(); err != nil {
		return nil, err
	}
	if c.Saved != nil {
		if err := e.adopt(c.Saved, c.Set); err != nil {
			e.Close(time.Second)
			return nil, err
		}
	}
	return e, nil
}

// defaultQueues is what QEMU is told to be possible. Version 10 does not start a guest
// with more virtual CPUs than that.
const defaultQueues = 1024

func (e *Export) newDevice() (*device, error) {
	var d *device
	var err error
	d, err = newDevice(deviceConfig{
		Name: e.conf.Name, Group: e.conf.Group, Targets: e.targets, Initiator: e.conf.Initiator,
		Deadline: e.conf.Deadline, Log: e.conf.Log, Failed: func(error) { e.failed(d) }, points: e.conf.points,
	})
	return d, err
}

// failed ends d's connection: it serves no ring any more.
func (e *Export) failed(d *device) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dev == d && e.nc != nil {
		_ = e.nc.Close() // the session then finds the device's error
	}
}

// SetTargets gives the guest other targets, while it runs: what is there stays as it
// is, and the guest hears of ports that come and go. The error is that of the first
// port that could not be attached; nothing has changed then.
func (e *Export) SetTargets(ts []TargetPort) error {
	e.devMu.Lock()
	defer e.devMu.Unlock()
	e.mu.Lock()
	closing := e.closing
	e.mu.Unlock()
	if closing {
		return ErrClosed
	}
	if err := e.dev.setTargets(ts); err != nil {
		return err
	}
	e.targets = slices.Clone(ts)
	return nil
}

// Close ends the connection, waits until commands have ended, and then the nexuses. It
// returns the number of requests that the deadline (0: Config.Deadline) has passed by:
// they end in the store, and their memory is cut off. Close again returns the same.
func (e *Export) Close(deadline time.Duration) (stuck int) {
	if deadline <= 0 {
		deadline = e.conf.Deadline
	}
	until := time.Now().Add(deadline)
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		<-e.closed
		return e.stuck
	}
	e.closing, e.deadline = true, deadline
	close(e.quit)
	for l := range e.listeners {
		_ = l.SetDeadline(time.Unix(1, 0)) // Serve returns
	}
	if e.nc != nil {
		_ = e.nc.Close()
	}
	over, s := e.over, e.adopted
	e.adopted = nil
	e.mu.Unlock()
	if s != nil { // Serve has not begun
		s.end(left(until))
		close(over)
	}
	if over != nil {
		<-over
	}
	e.devMu.Lock()
	defer e.devMu.Unlock()
	e.stuck = e.retire(e.dev, until)
	close(e.closed)
	return e.stuck
}

// retire ends d, whose rings have all been closed, and tells what is stuck.
func (e *Export) retire(d *device, until time.Time) (stuck int) {
	stuck = int(d.stuck()) // of the rings' requests; close says what else there is
	stuck += d.close(left(until))
	// Generations that were retired are given back by goroutines of their own. What a
	// stuck request may still touch stays for good.
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := d.memory().Close()
		if err == nil {
			return stuck
		}
		if stuck > 0 || time.Until(until) <= 0 {
			e.conf.Log.Warn("vhost-user: addresses of guest memory stay taken", "export", e.conf.Name, "stuck", stuck, "why", err)
			return stuck
		}
		time.Sleep(pause)
	}
}
