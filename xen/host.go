package xen

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/xen/evtchn"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// HostConfig describes a Host. Only Type, Log and MapFrom have defaults.
type HostConfig struct {
	Store    *xenstore.Conn
	Channels evtchn.Binder
	Grants   gnttab.Table
	Group    *loop.Group
	// Dir is where journals of rings are kept: they outlive this process, and need
	// not outlive a boot.
	Dir string
	// Boot is this boot's identity (/proc/sys/kernel/random/boot_id).
	Boot [16]byte
	// Self is the domain that this process runs in.
	Self uint32
	// Type is the back end's type in xenstore ("vtgt", which does not collide with
	// Linux's xen-scsiback).
	Type string
	// MapFrom is from how many bytes on a command's data are mapped instead of
	// copied; 0: never.
	MapFrom int64
	Log     *slog.Logger // nil: silence
}

// Host serves the devices of all exports. It owns neither Store nor Grants. Methods may
// be called on any goroutine.
type Host struct {
	conf HostConfig
	base string // of the back end's nodes
	done chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	exports map[*Export]struct{}
	devices map[devID]*device
	closed  bool
}

// devID is a device by its nodes.
type devID struct{ domain, device uint32 }

// ErrClosed: the host or export was closed.
var ErrClosed = errors.New("closed")

// NewHost begins to watch for devices.
func NewHost(c HostConfig) (*Host, error) {
	if c.Type == "" {
		c.Type = "vtgt"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{conf: c, base: fmt.Sprintf("/local/domain/%d/backend/%s", c.Self, c.Type), done: make(chan struct{}),
		exports: map[*Export]struct{}{}, devices: map[devID]*device{}}
	for _, p := range []string{h.base, "@releaseDomain"} {
		if err := c.Store.Watch(p, "be"); err != nil {
			return nil, err
		}
	}
	go h.run()
	return h, nil
}

// run hands xenstore's events to the devices, until the connection ends.
func (h *Host) run() {
	defer close(h.done)
	for {
		e, err := h.conf.Store.Next()
		if err != nil {
			if !errors.Is(err, xenstore.ErrClosed) {
				h.conf.Log.Error("xen: no news of domains any more; connected devices go on", "err", err)
			}
			return
		}
		h.route(e)
	}
}

func (h *Host) route(e xenstore.Event) {
	var id devID
	rest, ours := strings.CutPrefix(e.Path, h.base+"/")
	if e.Token != "be" { // DOMAIN/DEVICE, of a front end
		rest, ours = e.Token, true
	}
	if ours {
		parts := strings.SplitN(rest, "/", 3)
		if len(parts) >= 2 {
			id, ours = parseID(parts[0], parts[1])
		} else {
			ours = false
		}
	}
	h.mu.Lock()
	d := h.devices[id]
	var all []*device
	if !ours {
		for _, x := range h.devices {
			all = append(all, x)
		}
	}
	h.mu.Unlock()
	if ours && d != nil {
		d.kick()
		return
	}
	for _, x := range all {
		x.kick()
	}
	h.scan()
}

func parseID(domain, dev string) (devID, bool) {
	a, err := strconv.ParseUint(domain, 10, 16)
	b, err2 := strconv.ParseUint(dev, 10, 32)
	return devID{uint32(a), uint32(b)}, err == nil && err2 == nil
}

// scan looks for devices that nobody serves yet.
func (h *Host) scan() {
	domains, err := h.conf.Store.List(h.base)
	if err != nil {
		return // none yet
	}
	for _, dom := range domains {
		devs, err := h.conf.Store.List(h.base + "/" + dom)
		if err != nil {
			continue
		}
		for _, dev := range devs {
			if id, ok := parseID(dom, dev); ok {
				h.adopt(id)
			}
		}
	}
}

// adopt serves a device, if an export is for it.
func (h *Host) adopt(id devID) {
	h.mu.Lock()
	var found []*Export
	if h.devices[id] == nil && !h.closed {
		for e := range h.exports {
			if e.conf.Device == id.device && e.dev == nil {
				found = append(found, e)
			}
		}
	}
	h.mu.Unlock()
	for _, e := range found {
		if !h.means(e.conf.Domain, id.domain) {
			continue
		}
		d, err := newDevice(h, e, id)
		if err != nil {
			h.conf.Log.Warn("xen: a device's nodes cannot be used", "domain", id.domain, "device", id.device, "err", err)
			return
		}
		h.mu.Lock()
		if h.closed || e.closed || e.dev != nil || h.devices[id] != nil {
			h.mu.Unlock()
			return
		}
		h.devices[id], e.dev = d, d
		h.wg.Add(1)
		h.mu.Unlock()
		go d.run()
		return
	}
}

// means tells whether want, a number, a name or a UUID, is domain id.
func (h *Host) means(want string, id uint32) bool {
	if want == strconv.FormatUint(uint64(id), 10) {
		return true
	}
	p := fmt.Sprintf("/local/domain/%d/", id)
	if n, err := h.conf.Store.Read(p + "name"); err == nil && n == want {
		return true
	}
	vm, err := h.conf.Store.Read(p + "vm")
	return err == nil && strings.EqualFold(strings.TrimPrefix(vm, "/vm/"), want)
}

// gone is the end of d's run.
func (h *Host) gone(d *device) {
	h.mu.Lock()
	delete(h.devices, d.id)
	if d.e.dev == d {
		d.e.dev = nil
	}
	h.mu.Unlock()
	close(d.ended)
	h.scan() // the domain may be back already, under another number
	h.wg.Done()
}

// Close ends the service of all devices, as Export.Close does, and waits. The states
// in xenstore stay as they are. Exports must be closed nevertheless.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	for _, d := range h.devices {
		d.end()
	}
	h.mu.Unlock()
	h.wg.Wait()
	for _, p := range []string{h.base, "@releaseDomain"} {
		_ = h.conf.Store.Unwatch(p, "be")
	}
}

// Config describes an Export.
type Config struct {
	// Name is the target's, as the left part of p-dev has it.
	Name string
	// Domain is the front end's: a number, a name or a UUID. Device is its number
	// there.
	Domain string
	Device uint32
	Port   *scsi.Port
	// LUNs are the target's LUNs at the moment.
	LUNs func() []uint16
	// Initiator is the initiator port identifier, stored with the export.
	Initiator [16]byte
	Deadline  time.Duration // of stopping rings and of task management (30 s)
}

// Export is a device of one domain. It outlives the domain's boots: reservations, mode
// pages and unit attentions are its nexus's.
type Export struct {
	h    *Host
	conf Config
	port *srp.Port

	// Guarded by h.mu.
	dev    *device
	closed bool
}

// Export serves the device that c describes, as soon as its nodes are in xenstore. The
// error is a *scsi.SharingError where its domain must not share a disk.
func (h *Host) Export(c Config) (*Export, error) {
	if c.Deadline <= 0 {
		c.Deadline = scsi.DefaultDeadline
	}
	p, err := srp.NewPort(srp.Config{Port: c.Port, Initiator: c.Initiator, Requests: 16, Slack: 4, Deadline: c.Deadline, New: NewSlot})
	if err != nil {
		return nil, err
	}
	e := &Export{h: h, conf: c, port: p}
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.exports[e] = struct{}{}
	}
	h.mu.Unlock()
	if closed {
		p.Close(time.Nanosecond, func(int) {})
		return nil, ErrClosed
	}
	h.scan()
	return e, nil
}

// Close ends the service: what was taken from the ring is answered, the states in
// xenstore stay, so that a domain does not notice, and the next process goes on. It
// returns how many requests the deadline has passed by.
func (e *Export) Close(deadline time.Duration) (stuck int) {
	h := e.h
	h.mu.Lock()
	was := e.closed
	e.closed = true
	delete(h.exports, e)
	d := e.dev
	if d != nil {
		d.end()
	}
	h.mu.Unlock()
	if was {
		return 0
	}
	if d != nil {
		<-d.ended
	}
	ch := make(chan int, 1)
	e.port.Close(deadline, func(n int) { ch <- n })
	return <-ch
}

// Status is an export's state for people.
type Status struct {
	Found             bool // a device is there
	Domain            uint32
	Backend, Frontend State
	Connected         bool  // a ring is served
	Failed            error // why not, or why not any more
	Requests, Events, Notifies, GrantCalls, GrantCopies, GrantPages,
	Bad, Unknown, Lost, Gone, InFlight uint64
}

// Status reads it.
func (e *Export) Status() (st Status) {
	e.h.mu.Lock()
	d := e.dev
	e.h.mu.Unlock()
	if d == nil {
		return st
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	st = Status{Found: true, Domain: d.id.domain, Backend: d.bs, Frontend: d.fs, Failed: errors.Join(d.err, d.failed), Connected: d.ring != nil}
	if r := d.ring; r != nil {
		for i, p := range map[int]*uint64{cRequests: &st.Requests, cEvents: &st.Events, cNotifies: &st.Notifies, cCalls: &st.GrantCalls, cCopies: &st.GrantCopies,
			cMapped: &st.GrantPages, cBad: &st.Bad, cUnknown: &st.Unknown, cLost: &st.Lost, cGone: &st.Gone, cFlight: &st.InFlight} {
			*p = r.shown[i].Load()
		}
	}
	return st
}

// State is a xenbus state (xen/include/public/io/xenbus.h).
type State uint8

// The states.
const (
	Unknown State = iota
	Initialising
	InitWait
	Initialised
	Connected
	Closing
	Closed
	Reconfiguring
	Reconfigured
)

func (s State) String() string {
	if l := [...]string{"Unknown", "Initialising", "InitWait", "Initialised", "Connected", "Closing", "Closed", "Reconfiguring", "Reconfigured"}; int(s) < len(l) {
		return l[s]
	}
	return strconv.Itoa(int(s))
}

// state reads a node with a state in it. A node that is not there, or nonsense, is
// Unknown.
func (h *Host) state(path string) (State, error) {
	v, err := h.conf.Store.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Unknown, nil
	}
	if err != nil {
		return Unknown, err
	}
	n, err := strconv.ParseUint(v, 10, 8)
	if err != nil || State(n) > Reconfigured {
		return Unknown, nil
	}
	return State(n), nil
}
