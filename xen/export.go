package xen

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// Config describes an Export.
type Config struct {
	// Name is the target's, as the left part of p-dev has it.
	Name string
	// Domain is the front end's: a number, a name or a UUID. Device is its number
	// there.
	Domain string
	Device uint32
	// Type is the back end's type in xenstore ("vtgt", which does not collide with
	// Linux's xen-scsiback).
	Type string
	Port *scsi.Port
	// Place says where the domain sees an entry of the target's LUN map, if it does.
	// It must always give the same answer for the same entry. nil: the toolstack says
	// so, by nodes of its own.
	Place func(*scsi.Mapping) (LUN, bool)
	// Offer has the host write the device's nodes whenever the domain is there
	// without them: after each of its boots. Else the toolstack does.
	Offer bool
	// Initiator is the initiator port identifier, stored with the export.
	Initiator [16]byte
	Deadline  time.Duration // of stopping rings and of task management (30 s)
	// Tell hears when the domain connects and when it is gone. It must not call the
	// export.
	Tell func(connected bool, detail string)
}

// LUN is a LUN of the target and where the domain sees it.
type LUN struct {
	Number uint16
	Host   uint16 // which nobody looks at
	At     vscsiif.Address
}

// Export is a device of one domain. It outlives the domain's boots: reservations, mode
// pages and unit attentions are its nexus's.
type Export struct {
	h    *Host
	conf Config
	port *srp.Port
	warn limiter

	// Guarded by h.mu.
	dev     *device
	err     error // why there is no device
	closed  bool
	leaving bool            // the device is being detached: it is not offered again
	hidden  map[uint16]bool // LUNs that are about to go, see LetGo
	boots   uint64
	sum     counts // of rings that have ended
}

func (c *Config) defaults() {
	if c.Deadline <= 0 {
		c.Deadline = scsi.DefaultDeadline
	}
	if c.Type == "" {
		c.Type = defaultType
	}
	if c.Tell == nil {
		c.Tell = func(bool, string) {}
	}
}

// Export serves the device that c describes, as soon as its nodes are in xenstore. The
// error is a *scsi.SharingError where its domain must not share a disk.
func (h *Host) Export(c Config) (*Export, error) {
	c.defaults()
	p, err := srp.NewPort(srp.Config{Port: c.Port, Initiator: c.Initiator, Requests: 16, Slack: 4, Deadline: c.Deadline, New: NewSlot})
	if err != nil {
		return nil, err
	}
	e, err := h.export(c, p)
	if err != nil {
		p.Close(time.Nanosecond, func(int) {})
	}
	return e, err
}

// export serves c by p, which is the export's if there is no error.
func (h *Host) export(c Config, p *srp.Port) (*Export, error) {
	c.defaults()
	e := &Export{h: h, conf: c, port: p, hidden: map[uint16]bool{}}
	h.mu.Lock()
	closed := h.closed
	first := false
	if !closed {
		h.exports[e] = struct{}{}
		h.types[c.Type]++
		first = h.types[c.Type] == 1
	}
	h.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	if first {
		// Where xenstored is not there now it is asked when it is back.
		_ = h.xs().Watch(h.base(c.Type), baseToken)
	}
	h.look()
	return e, nil
}

// luns are the LUNs that the domain is to see at the moment.
func (e *Export) luns() (out []LUN) {
	l := e.port.Nexus().LUNs()
	e.h.mu.Lock()
	defer e.h.mu.Unlock()
	for i := range l {
		if x, ok := e.conf.Place(&l[i]); ok && x.At.LUN <= maxLUN && !e.hidden[l[i].LUN] {
			out = append(out, x)
		}
	}
	return out
}

// LetGo has the domain let go of a LUN that the target is about to lose: its driver
// writes out what it has for the disk. It waits until that is done, the domain is not
// connected, or the deadline has passed, which is a *BlockedError. Show is to follow.
func (e *Export) LetGo(lun uint16, deadline time.Duration) error {
	if e.conf.Place == nil {
		return nil // it is the toolstack's
	}
	h := e.h
	h.mu.Lock()
	e.hidden[lun] = true
	d := e.dev
	h.mu.Unlock()
	if d == nil {
		return nil
	}
	d.kick()
	for end := time.Now().Add(deadline); d.shows(lun); time.Sleep(min(pollTime, time.Until(end)+time.Millisecond)) {
		if time.Now().After(end) {
			st, _ := h.state(d.fe + "/state")
			return &BlockedError{d.id.domain, fmt.Sprintf("the disk at LUN %d", lun), st, deadline}
		}
	}
	return nil
}

// Show ends what LetGo has begun: the target has lost the LUN, or has it still.
func (e *Export) Show(lun uint16) {
	e.h.mu.Lock()
	defer e.h.mu.Unlock()
	delete(e.hidden, lun)
	if e.dev != nil {
		e.dev.kick()
	}
}

// device is the device's nodes for a domain.
func (e *Export) device(domain uint32) nodes.Device {
	return nodes.Device{Backend: e.h.self, Type: e.conf.Type, Domain: domain, Number: e.conf.Device}
}

// offer writes the nodes for the export's domain, if it is there and has none.
func (e *Export) offer() {
	e.h.mu.Lock()
	skip := !e.conf.Offer || e.leaving || e.closed
	e.h.mu.Unlock()
	if skip {
		return
	}
	doms, err := nodes.Find(e.h.xs(), e.conf.Domain)
	if err == nil && len(doms) > 0 {
		var made bool
		err = e.h.xs().Update(func(tx *xenstore.Tx) error {
			// Detach may have been called since.
			e.h.mu.Lock()
			skip := e.leaving || e.closed
			e.h.mu.Unlock()
			if made = false; skip {
				return nil
			}
			var err error
			made, err = nodes.Write(tx, e.device(doms[0].ID))
			return err
		})
		switch {
		case errors.Is(err, fs.ErrPermission): // a driver domain
			err = fmt.Errorf("the device cannot be offered to domain %d: %w; write toolstack: true, and the nodes in dom0", doms[0].ID, err)
		case err != nil:
			err = fmt.Errorf("the device cannot be offered to domain %d: %w", doms[0].ID, err)
		case !made:
			err = e.rival(doms[0].ID)
		default:
			e.h.conf.Log.Info("xen: a device is offered", "export", e.conf.Name, "domain", doms[0].ID, "name", doms[0].Name, "device", e.conf.Device)
		}
	}
	e.note(err)
}

// rival is that another export serves the device already: one means the domain by its
// name, say, and one by its UUID.
func (e *Export) rival(domain uint32) error {
	e.h.mu.Lock()
	defer e.h.mu.Unlock()
	if d := e.h.devices[devID{e.conf.Type, domain, e.conf.Device}]; d != nil && d.e != e {
		return fmt.Errorf("device %d of domain %d is target %s's already; choose another number", e.conf.Device, domain, d.e.conf.Name)
	}
	return nil
}

// note keeps and tells why there is no device, once as long as it stays the same.
func (e *Export) note(err error) {
	if isLost(err) {
		return // the host has told
	}
	e.h.mu.Lock()
	was := e.err
	e.err = err
	e.h.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		e.complain(e.h.conf.Log, "a device cannot be served", "err", err)
	}
}

// isLost tells whether err is the loss of xenstored.
func isLost(err error) bool {
	return errors.Is(err, xenstore.ErrLost) || errors.Is(err, xenstore.ErrClosed)
}

// Close ends the service: what was taken from the ring is answered, the states in
// xenstore stay, so that a domain does not notice, and the next process goes on. It
// returns how many requests the deadline has passed by.
func (e *Export) Close(deadline time.Duration) (stuck int) {
	h := e.h
	h.mu.Lock()
	was := e.closed
	e.closed = true
	last := false
	if !was {
		delete(h.exports, e)
		if h.types[e.conf.Type]--; h.types[e.conf.Type] == 0 {
			delete(h.types, e.conf.Type)
			last = true
		}
	}
	d := e.dev
	if d != nil {
		d.end(deadline)
	}
	h.mu.Unlock()
	if was {
		return 0
	}
	end := time.Now().Add(deadline)
	if last {
		_ = h.xs().Unwatch(h.base(e.conf.Type), baseToken)
	}
	if d != nil {
		<-d.ended
		stuck = d.stuck
	}
	ch := make(chan int, 1)
	e.port.Close(max(time.Until(end), time.Millisecond), func(n int) { ch <- n })
	return max(stuck, <-ch)
}

// BlockedError: a front end has not let go of its device.
type BlockedError struct {
	Domain   uint32
	Of       string // what it has not let go of
	Frontend State
	Waited   time.Duration
}

func (e *BlockedError) Error() string {
	return fmt.Sprintf("domain %d has not let go of %s within %v: its front end is in state %v", e.Domain, e.Of, e.Waited.Round(time.Millisecond), e.Frontend)
}

// pollTime is how often Detach and LetGo look.
const pollTime = 20 * time.Millisecond

// Detach takes the device away from its domain: the front end is asked to let go and
// waited for, then the ring ends and, where the host writes them, the nodes go. The
// error is a *BlockedError where the deadline has passed: the device is gone
// nevertheless. The export is to be closed afterwards.
func (e *Export) Detach(deadline time.Duration) error {
	h := e.h
	h.mu.Lock()
	e.leaving = true
	d := e.dev
	h.mu.Unlock()
	if d == nil {
		return nil
	}
	n := e.device(d.id.domain)
	end := time.Now().Add(deadline)
	var wait bool
	for {
		err := h.xs().Update(func(tx *xenstore.Tx) (err error) { wait, err = nodes.End(tx, n); return err })
		if err == nil {
			break
		}
		if !isLost(err) || time.Now().After(end) {
			return err
		}
		time.Sleep(pollTime) // there may be a xenstored again in time
	}
	for wait {
		closed, err := nodes.Ended(&h.xs().Tx, n)
		if err != nil && !isLost(err) {
			return err
		}
		if closed && err == nil {
			break
		}
		if time.Now().After(end) {
			st, _ := h.state(n.FrontendPath() + "/state")
			err = &BlockedError{d.id.domain, "its disks", st, deadline}
			e.Close(time.Second)
			return errors.Join(err, e.remove(n))
		}
		time.Sleep(min(pollTime, time.Until(end)+time.Millisecond))
	}
	return e.remove(n)
}

// remove removes the nodes that the host has written.
func (e *Export) remove(n nodes.Device) error {
	return e.h.xs().Update(func(tx *xenstore.Tx) error {
		if !e.conf.Offer {
			return tx.Write(n.BackendPath()+"/state", "6")
		}
		return nodes.Remove(tx, n)
	})
}

// Status is an export's state for people.
type Status struct {
	Found             bool // a device is there
	Domain            uint32
	Backend, Frontend State
	Connected         bool      // a ring is served
	Since             time.Time // when it was connected
	Failed            error     // why not, or why not any more
	Boots             uint64    // rings that were connected
	InFlight          uint64
	// Counters of all rings since the export was made.
	Requests, Events, Notifies, GrantCalls, GrantCopies, GrantPages, Bad, Unknown, Lost, Gone uint64
	// Complaints are warnings about the domain that were logged, or were too many.
	Complaints uint64
}

// Status reads it.
func (e *Export) Status() (st Status) {
	e.h.mu.Lock()
	d, sum := e.dev, e.sum
	st.Failed, st.Boots = e.err, e.boots
	if d != nil {
		d.mu.Lock()
		st.Found, st.Domain, st.Backend, st.Frontend, st.Failed = true, d.id.domain, d.bs, d.fs, errors.Join(d.err, d.failed)
		if r := d.ring; r != nil {
			st.Connected, st.Since = true, d.since
			for i := range sum {
				sum[i] += r.shown[i].Load()
			}
		}
		d.mu.Unlock()
	}
	e.h.mu.Unlock()
	st.Complaints = e.warn.count()
	for i, p := range map[int]*uint64{cRequests: &st.Requests, cEvents: &st.Events, cNotifies: &st.Notifies, cCalls: &st.GrantCalls, cCopies: &st.GrantCopies,
		cMapped: &st.GrantPages, cBad: &st.Bad, cUnknown: &st.Unknown, cLost: &st.Lost, cGone: &st.Gone, cFlight: &st.InFlight} {
		*p = sum[i]
	}
	return st
}
