package xen

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/journal"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// retryTime is the time between two attempts to take a connected ring over: as long as
// the process before us lives, its event channel cannot be bound.
const retryTime = 200 * time.Millisecond

// slowRetryTime is that after other failures: a front end that lies is looked at when it
// writes something else, but this machine may have been short of something.
const slowRetryTime = 2 * time.Second

// device is a device's nodes while somebody serves them. One goroutine, run, looks at
// both ends' states whenever something has changed, and does what they ask for: it
// never relies on having seen every change.
type device struct {
	h      *Host
	e      *Export
	id     devID
	be, fe string // paths
	wake   chan struct{}
	quit   chan struct{}
	once   sync.Once
	ended  chan struct{}
	luns   atomic.Pointer[lunMap]

	// run's.
	ident journal.Identity
	file  *os.File
	mem   []byte
	jr    *journal.Journal
	seen  bool          // the front end was there
	again time.Duration // when to try again; 0: not before something changes
	stuck int           // requests that the last stop has left behind

	limit atomic.Int64 // how long that may wait for them, ns; 0: the export's deadline

	mu     sync.Mutex // what Status reads
	bs, fs State
	ring   *ring
	err    error // of the last step
	failed error // of the ring
	since  time.Time
}

func newDevice(h *Host, e *Export, id devID) (*device, error) {
	d := &device{h: h, e: e, id: id, be: e.device(id.domain).BackendPath(),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
	d.luns.Store(&lunMap{})
	var err error
	if d.fe, err = h.xs().Read(d.be + "/frontend"); err != nil {
		return nil, err
	}
	who, err := h.xs().Read(d.be + "/frontend-id")
	if err != nil {
		return nil, err
	}
	if who != strconv.FormatUint(uint64(id.domain), 10) {
		return nil, fmt.Errorf("frontend-id is %q", who)
	}
	return d, nil
}

func (d *device) token() string { return fmt.Sprintf("%s/%d/%d", d.id.typ, d.id.domain, d.id.device) }

// kick has run look again. Any goroutine.
func (d *device) kick() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// end has run return, when what was taken is answered or limit has passed.
func (d *device) end(limit time.Duration) {
	d.limit.Store(int64(max(limit, 1)))
	d.once.Do(func() { close(d.quit) })
}

// patience is how long a stop may take.
func (d *device) patience() time.Duration {
	if n := d.limit.Load(); n > 0 {
		return min(time.Duration(n), d.e.conf.Deadline)
	}
	return d.e.conf.Deadline
}

func (d *device) run() {
	defer d.h.gone(d)
	if err := d.h.xs().Watch(d.fe, d.token()); err == nil {
		defer func() { _ = d.h.xs().Unwatch(d.fe, d.token()) }()
	}
	defer d.disconnect(false)
	d.kick()
	var retry <-chan time.Time
	for {
		select {
		case <-d.quit:
			return
		case <-d.wake:
		case <-retry:
		}
		retry = nil
		d.again = 0
		over, err := d.step()
		d.note(err)
		if over {
			return
		}
		if d.again > 0 {
			retry = time.After(d.again)
		}
	}
}

// note keeps and tells what went wrong, once as long as it stays the same.
func (d *device) note(err error) {
	if isLost(err) {
		return // the host has told
	}
	d.mu.Lock()
	was := d.err
	d.err = err
	d.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		d.complain("a device cannot be served", "err", err)
	}
}

// complain logs what the domain does wrong, or suffers.
func (d *device) complain(msg string, args ...any) {
	d.e.complain(d.h.conf.Log, msg, append([]any{"domain", d.id.domain, "device", d.id.device}, args...)...)
}

func (d *device) setState(s State) error {
	return d.h.xs().Write(d.be+"/state", strconv.Itoa(int(s)))
}

// step does what the states ask for. over: the device is no more.
func (d *device) step() (over bool, err error) {
	bs, err := d.h.state(d.be + "/state")
	if err != nil {
		return false, err
	}
	front, err := d.h.state(d.fe + "/state")
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	d.bs, d.fs = bs, front
	d.mu.Unlock()
	switch {
	case bs == Unknown: // the nodes were removed, or are being made
		if _, err := d.h.xs().Read(d.be + "/frontend"); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		d.disconnect(true)
		return true, nil
	case front == Unknown:
		return d.lost()
	}
	d.seen = true
	switch bs {
	case Initialising:
		return false, d.init()
	case InitWait:
		if front == Initialised {
			return false, d.initialised()
		}
	case Closed:
		if front == Initialising && d.online() { // the domain boots again, or loads its driver again
			return false, d.init()
		}
		// Else the toolstack removes the nodes.
	case Closing:
		return false, d.closing(front)
	case Connected, Reconfiguring, Reconfigured:
		return false, d.connected(bs, front)
	}
	return false, nil
}

// online tells whether the toolstack wants the device to stay.
func (d *device) online() bool {
	v, err := d.h.xs().Read(d.be + "/online")
	return err == nil && v == "1"
}

// lost is the end of the front end's nodes, or their absence. Those of a domain that is
// dead are ours to remove: nobody else knows of them.
func (d *device) lost() (over bool, err error) {
	if d.seen {
		d.disconnect(true)
	}
	alive, err := d.h.xs().Introduced(d.id.domain)
	if err != nil || alive {
		return false, err
	}
	if !d.seen { // a domain that is being made is not introduced yet
		if _, err := d.h.xs().Read(fmt.Sprintf("/local/domain/%d", d.id.domain)); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	_ = os.Remove(d.h.journalPath(d.id))
	err = d.h.xs().Update(func(tx *xenstore.Tx) error { return nodes.RemoveBackend(tx, d.e.device(d.id.domain)) })
	if err != nil {
		d.again = slowRetryTime
	}
	return err == nil, err
}

// init offers the device.
func (d *device) init() error {
	return d.h.xs().Update(func(tx *xenstore.Tx) error {
		if err := tx.Write(d.be+"/feature-sg-grant", strconv.Itoa(maxSegments)); err != nil {
			return err
		}
		if _, err := d.syncNodes(tx); err != nil {
			return err
		}
		return tx.Write(d.be+"/state", strconv.Itoa(int(InitWait)))
	})
}

// close writes the end. Only the front end's own leave, or the toolstack's wish, leads
// here: a front end takes it for the loss of the disk.
func (d *device) close(s State) error { return d.setState(s) }

// initialised is a front end that has offered its ring.
func (d *device) initialised() error {
	if d.ring == nil {
		return d.connect(true)
	}
	// The ring is served already: only the state could not be written.
	if id, err := d.identity(); err != nil || id == d.ident {
		if err == nil {
			err = d.setState(Connected)
		}
		return err
	}
	d.disconnect(true)
	return d.connect(true)
}

// closing is a device that the toolstack, or its front end, wants to end. The disks are
// served until the front end has let go of them: it writes out what its caches hold.
func (d *device) closing(front State) error {
	switch front {
	case Initialising, InitWait, Closed: // no driver, or no ring
		d.disconnect(true)
		return d.close(Closed)
	case Connected, Reconfiguring, Reconfigured:
		if d.ring == nil {
			return d.connect(false)
		}
	}
	return nil
}

// connected is what there is to do while the device is, or was, connected.
func (d *device) connected(bs, front State) error {
	switch front {
	case Closing:
		d.disconnect(true)
		return d.close(Closing)
	case Closed:
		d.disconnect(true)
		return d.close(Closed)
	}
	if d.ring == nil {
		switch front {
		case Initialising:
			return nil
		case Initialised:
			// It has built a new ring while nobody was there (resume), or has not
			// seen the process before us connected: it has sent nothing yet.
			return d.connect(true)
		}
		if err := d.connect(false); err != nil {
			return err
		}
	}
	switch {
	case front == Initialised:
		// It has not seen us connected yet, or has built a new ring (resume).
		if id, err := d.identity(); err != nil || id == d.ident {
			return err
		}
		d.disconnect(true)
		return d.connect(true)
	case front == Reconfiguring && bs == Reconfiguring:
		return d.h.xs().Update(func(tx *xenstore.Tx) error {
			if err := d.applyNodes(tx, false); err != nil {
				return err
			}
			return tx.Write(d.be+"/state", strconv.Itoa(int(Reconfigured)))
		})
	case front == Connected && bs != Reconfiguring:
		return d.settle(bs)
	}
	return nil
}

// identity reads what the front end says of its ring.
func (d *device) identity() (id journal.Identity, err error) {
	id = journal.Identity{Domain: d.id.domain, Device: d.id.device, Boot: d.h.conf.Boot}
	for name, p := range map[string]*uint32{"ring-ref": &id.RingRef, "event-channel": &id.Port} {
		v, err := d.h.xs().Read(d.fe + "/" + name)
		if err != nil {
			return id, err
		}
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return id, fmt.Errorf("the front end's %s is %.40q", name, v)
		}
		*p = uint32(n)
	}
	return id, nil
}

// connect serves the front end's ring: a new one, or one that a process before us has
// served.
func (d *device) connect(fresh bool) (err error) {
	if d.ident, err = d.identity(); err != nil {
		return err
	}
	d.again = retryTime // the process before us may live still
	if fresh {
		d.again = slowRetryTime
	}
	if err := d.openJournal(); err != nil {
		return err
	}
	// The binding is what nobody else has at the same time: it comes first.
	c := ringConfig{Loop: d.h.conf.Group.Pick(), Port: d.e.port, Domain: d.id.domain, Grants: d.h.conf.Grants, Page: new(gnttab.View),
		LUNs: &d.luns, MapFrom: d.h.conf.MapFrom, Events: func(scsi.Event) { d.kick() }, Failed: d.fail, Bad: d.bad}
	if c.Channel, err = d.h.conf.Channels.Bind(d.id.domain, d.ident.Port); err != nil {
		return err
	}
	if err := c.Grants.Map(c.Page, d.id.domain, []uint32{d.ident.RingRef}, true); err != nil {
		return errors.Join(err, c.Channel.Close())
	}
	if err := d.start(&c, fresh); err != nil {
		return errors.Join(err, c.Channel.Close(), c.Grants.Unmap(c.Page), c.Page.Free())
	}
	d.again = 0
	if !fresh {
		return nil
	}
	return d.setState(Connected)
}

func (d *device) start(c *ringConfig, fresh bool) (err error) {
	var cons, prod uint32
	if !fresh {
		var req uint32
		if req, prod, err = vscsiif.Indices(c.Page.B); err != nil {
			return err
		}
		rsp := prod
		d.jr, cons, prod, c.Lost, err = journal.Open(d.mem, d.ident, rsp)
		if errors.Is(err, journal.ErrOther) && req == rsp {
			// Nobody waits for an answer: nothing can have been taken.
			cons, prod = rsp, rsp
			d.jr, err = journal.New(d.mem, d.ident, rsp)
		}
		if err != nil {
			return fmt.Errorf("a connected device cannot be taken over, %w: shut the domain down and start it again", err)
		}
	} else if d.jr, err = journal.New(d.mem, d.ident, 0); err != nil {
		return err
	}
	c.Journal = d.jr
	if c.Ring, err = vscsiif.NewRing(c.Page.B, cons, prod); err != nil {
		return err
	}
	if err := d.h.xs().Update(func(tx *xenstore.Tx) error { return d.applyNodes(tx, fresh) }); err != nil {
		return err
	}
	var r *ring
	if !c.Loop.Do(func() { r, err = newRing(*c) }) {
		return ErrClosed
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.ring, d.since = r, time.Now()
	d.mu.Unlock()
	d.h.mu.Lock()
	d.e.boots++
	d.h.mu.Unlock()
	d.e.conf.Tell(true, fmt.Sprintf("domain %d", d.id.domain))
	return nil
}

// fail is the ring's: it serves no more. On its loop.
func (d *device) fail(err error) {
	d.mu.Lock()
	d.failed = err
	d.mu.Unlock()
	d.complain("a ring is served no more", "why", err)
}

// bad is the ring's, too: the n'th request that is not made as it must be.
func (d *device) bad(n uint64) {
	d.complain("requests are not made as they must be, and are answered with an error", "requests", n)
}

// openJournal maps the device's journal.
func (d *device) openJournal() error {
	if d.mem != nil {
		return nil
	}
	p := d.h.journalPath(d.id)
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("the journal of a ring: %w", err)
	}
	if err := f.Truncate(journal.Size); err == nil {
		d.mem, err = sys.MapShared(int(f.Fd()), 0, journal.Size)
	}
	if d.mem == nil {
		return errors.Join(fmt.Errorf("the journal of a ring, %s, cannot be mapped", p), f.Close())
	}
	d.file = f
	return nil
}

// disconnect stops the ring when what was taken is answered. forget: for good; else the
// next process goes on with it.
func (d *device) disconnect(forget bool) {
	d.mu.Lock()
	r := d.ring
	d.mu.Unlock()
	if r != nil {
		ch := make(chan int, 1)
		if r.Loop.Do(func() { r.stop(d.patience(), func(n int) { ch <- n }) }) {
			var n int
			select {
			case n = <-ch:
			case <-d.quit: // perhaps with less patience
				r.Loop.Do(func() { r.hasten(d.patience()) })
				n = <-ch
			}
			if n > 0 {
				d.complain("requests are still with the store", "stuck", n)
			}
			d.stuck = n
		}
		d.h.mu.Lock()
		d.mu.Lock()
		d.ring, d.failed = nil, nil
		for i := range d.e.sum {
			if i != cFlight {
				d.e.sum[i] += r.shown[i].Load()
			}
		}
		d.mu.Unlock()
		d.h.mu.Unlock()
		d.e.conf.Tell(false, fmt.Sprintf("domain %d", d.id.domain))
		if forget {
			d.jr.Forget()
		}
	}
	if d.mem == nil {
		return
	}
	if forget {
		_ = os.Remove(d.file.Name())
	}
	_ = sys.Unmap(d.mem)
	_ = d.file.Close()
	d.mem, d.file, d.jr = nil, nil, nil
}
