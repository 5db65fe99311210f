package xen

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/xen/evtchn"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// HostConfig describes a Host. Only Log and MapFrom have defaults.
type HostConfig struct {
	// Dial connects to xenstored: once by NewHost, and again whenever that connection
	// was lost. The connections are the host's.
	Dial     func() (*xenstore.Conn, error)
	Channels evtchn.Binder
	Grants   gnttab.Table
	Group    *loop.Group
	// Dir is where journals of rings are kept: they outlive this process, and need
	// not outlive a boot.
	Dir string
	// Boot is this boot's identity (/proc/sys/kernel/random/boot_id).
	Boot [16]byte
	// MapFrom is from how many bytes on a command's data are mapped instead of
	// copied; 0: never.
	MapFrom int64
	Log     *slog.Logger // nil: silence
}

// Host serves the devices of all exports. It does not own Grants. Methods may be called
// on any goroutine.
type Host struct {
	conf  HostConfig
	self  uint32 // the domain that this process runs in
	store atomic.Pointer[xenstore.Conn]
	quit  chan struct{}
	done  chan struct{}
	wg    sync.WaitGroup // of devices
	scans chan struct{}  // closed when the scanner has ended

	wanted chan struct{} // a scan is

	mu      sync.Mutex
	exports map[*Export]struct{}
	devices map[devID]*device
	types   map[string]int // exports by type of back end
	lost    error          // why there is no xenstored at present
	losses  uint64
	closed  bool
}

// devID is a device by its nodes.
type devID struct {
	typ            string
	domain, device uint32
}

// ErrClosed: the host or export was closed.
var ErrClosed = errors.New("closed")

// redialTime is the time between two attempts to reach a xenstored that went away.
const redialTime = 500 * time.Millisecond

// domainEvents are the special paths at which domains' comings and goings are told.
func domainEvents() []string { return []string{"@introduceDomain", "@releaseDomain"} }

// NewHost connects to xenstored.
func NewHost(c HostConfig) (*Host, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{conf: c, quit: make(chan struct{}), done: make(chan struct{}), scans: make(chan struct{}), wanted: make(chan struct{}, 1),
		exports: map[*Export]struct{}{}, devices: map[devID]*device{}, types: map[string]int{}}
	s, err := c.Dial()
	if err != nil {
		return nil, err
	}
	if h.self, err = s.Self(); err == nil {
		h.store.Store(s)
		err = h.watch()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	go h.run()
	go h.scanner()
	return h, nil
}

// xs is the connection to xenstored. It may have been lost: then what is asked of it
// fails, and devices look again when there is another one.
func (h *Host) xs() *xenstore.Conn { return h.store.Load() }

// base is where the nodes of back ends of a type are.
func (h *Host) base(typ string) string {
	return fmt.Sprintf("/local/domain/%d/backend/%s", h.self, typ)
}

// watch has a new connection tell of what concerns us.
func (h *Host) watch() error {
	s := h.xs()
	h.mu.Lock()
	type watch struct{ path, token string }
	var l []watch
	for t := range h.types {
		l = append(l, watch{h.base(t), baseToken})
	}
	for _, d := range h.devices {
		l = append(l, watch{d.fe, d.token()})
	}
	h.mu.Unlock()
	for _, p := range domainEvents() {
		l = append(l, watch{p, baseToken})
	}
	for _, w := range l {
		// A device that has come meanwhile has asked for its own.
		if err := s.Watch(w.path, w.token); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// baseToken is the token of watches that are not of a single device.
const baseToken = "be"

// run hands xenstore's events to the devices.
func (h *Host) run() {
	defer close(h.done)
	for {
		e, err := h.xs().Next()
		if err == nil {
			h.route(e)
			continue
		}
		if !h.reconnect(err) {
			return
		}
	}
}

// reconnect waits for a xenstored; false: the host was closed. Rings that are connected
// do not need it.
func (h *Host) reconnect(why error) bool {
	h.mu.Lock()
	if !h.closed {
		h.lost = why
		h.losses++
	}
	h.mu.Unlock()
	select {
	case <-h.quit:
		return false
	default:
	}
	h.conf.Log.Warn("xen: no news of domains until xenstored is back; connected devices go on", "err", why)
	t := time.NewTicker(redialTime)
	defer t.Stop()
	for {
		s, err := h.conf.Dial()
		if err == nil {
			h.store.Store(s)
			select {
			case <-h.quit: // Close closes it
				return false
			default:
			}
			if err = h.watch(); err == nil {
				break
			}
			_ = s.Close()
		}
		h.mu.Lock()
		h.lost = err
		h.mu.Unlock()
		select {
		case <-h.quit:
			return false
		case <-t.C:
		}
	}
	h.mu.Lock()
	h.lost = nil
	h.mu.Unlock()
	h.conf.Log.Info("xen: xenstored is back")
	h.kickAll()
	h.look()
	return true
}

func (h *Host) kickAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.devices {
		d.kick()
	}
}

// route finds out whom e concerns.
func (h *Host) route(e xenstore.Event) {
	of := e.Token // TYPE/DOMAIN/DEVICE, of a front end
	if e.Token == baseToken {
		of, _ = strings.CutPrefix(e.Path, fmt.Sprintf("/local/domain/%d/backend/", h.self))
	}
	if p := strings.SplitN(of, "/", 4); len(p) >= 3 {
		if id, ok := parseID(p[0], p[1], p[2]); ok {
			h.mu.Lock()
			d := h.devices[id]
			h.mu.Unlock()
			if d != nil {
				d.kick()
				return
			}
		}
	}
	h.kickAll()
	h.look()
}

func parseID(typ, domain, dev string) (devID, bool) {
	a, err := strconv.ParseUint(domain, 10, 16)
	b, err2 := strconv.ParseUint(dev, 10, 32)
	return devID{typ, uint32(a), uint32(b)}, err == nil && err2 == nil
}

// look has the scanner look for what is new. It does not wait.
func (h *Host) look() {
	select {
	case h.wanted <- struct{}{}:
	default:
	}
}

func (h *Host) scanner() {
	defer close(h.scans)
	h.sweep()
	for {
		select {
		case <-h.quit:
			return
		case <-h.wanted:
			h.scan()
		}
	}
}

// sweep removes journals of devices that were removed while no vtgt was there.
func (h *Host) sweep() {
	names, _ := filepath.Glob(filepath.Join(h.conf.Dir, "xen-*-*-*"))
	for _, p := range names {
		l := strings.Split(strings.TrimPrefix(filepath.Base(p), "xen-"), "-") // a type may have dashes
		n := len(l)
		id, ok := parseID(strings.Join(l[:n-2], "-"), l[n-2], l[n-1])
		if !ok || h.journalPath(id) != p {
			continue
		}
		if _, err := h.xs().Read(fmt.Sprintf("%s/%d/%d", h.base(id.typ), id.domain, id.device)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(p)
		}
	}
}

// scan looks for domains that want their nodes, and for nodes that nobody serves yet.
func (h *Host) scan() {
	h.mu.Lock()
	var idle []*Export
	var types []string
	if !h.closed {
		for e := range h.exports {
			if e.dev == nil {
				idle = append(idle, e)
			}
		}
		for t := range h.types {
			types = append(types, t)
		}
	}
	h.mu.Unlock()
	for _, e := range idle {
		e.offer()
	}
	for _, t := range types {
		h.scanType(t)
	}
}

func (h *Host) scanType(typ string) {
	base := h.base(typ)
	domains, err := h.xs().List(base)
	if err != nil {
		return // none yet
	}
	for _, dom := range domains {
		devs, err := h.xs().List(base + "/" + dom)
		if err != nil {
			continue
		}
		for _, dev := range devs {
			id, ok := parseID(typ, dom, dev)
			if !ok {
				continue
			}
			if h.adopt(id); strings.HasPrefix(typ, defaultType) {
				h.bury(id)
			}
		}
	}
}

// journalPath is where the journal of a device's ring is kept.
func (h *Host) journalPath(id devID) string {
	return filepath.Join(h.conf.Dir, fmt.Sprintf("xen-%s-%d-%d", id.typ, id.domain, id.device))
}

// adopt serves a device, if an export is for it.
func (h *Host) adopt(id devID) {
	h.mu.Lock()
	var found []*Export
	if h.devices[id] == nil && !h.closed {
		for e := range h.exports {
			if e.conf.Type == id.typ && e.conf.Device == id.device && e.dev == nil {
				found = append(found, e)
			}
		}
	}
	h.mu.Unlock()
	if len(found) == 0 {
		return
	}
	dom := nodes.Lookup(&h.xs().Tx, id.domain)
	for _, e := range found {
		if !dom.Is(e.conf.Domain) {
			continue
		}
		d, err := newDevice(h, e, id)
		if err != nil {
			e.note(fmt.Errorf("the nodes of domain %d, device %d cannot be used: %w", id.domain, id.device, err))
			return
		}
		h.mu.Lock()
		if h.closed || e.closed || e.dev != nil || h.devices[id] != nil {
			h.mu.Unlock()
			return
		}
		h.devices[id], e.dev, e.err = d, d, nil
		h.wg.Add(1)
		h.mu.Unlock()
		go d.run()
		return
	}
}

// bury removes what is left of a device that nobody serves, of a domain that is dead:
// it has died while no vtgt was there.
func (h *Host) bury(id devID) {
	h.mu.Lock()
	served := h.devices[id] != nil
	h.mu.Unlock()
	if served {
		return
	}
	// One that is being made is not introduced yet, but has a folder.
	if alive, err := h.xs().Introduced(id.domain); err != nil || alive {
		return
	}
	if _, err := h.xs().Read(fmt.Sprintf("/local/domain/%d", id.domain)); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	_ = os.Remove(h.journalPath(id))
	n := nodes.Device{Backend: h.self, Type: id.typ, Domain: id.domain, Number: id.device}
	_ = h.xs().Update(func(tx *xenstore.Tx) error { return nodes.RemoveBackend(tx, n) })
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
	h.look() // the domain may be back already, under another number
	h.wg.Done()
}

// Close ends the service of all devices, as Export.Close does, and waits. The states
// in xenstore stay as they are. Exports must be closed nevertheless.
func (h *Host) Close() {
	h.mu.Lock()
	was := h.closed
	h.closed = true
	for _, d := range h.devices {
		d.end(d.e.conf.Deadline)
	}
	h.mu.Unlock()
	if was {
		return
	}
	h.wg.Wait()
	close(h.quit)
	_ = h.xs().Close() // and with it its watches
	<-h.done
	<-h.scans
	_ = h.xs().Close() // run may have made another one meanwhile
}

// HostStatus is a host's state for people.
type HostStatus struct {
	Lost   error  // why there is no connection to xenstored at present
	Losses uint64 // of connections
}

// Status reads it.
func (h *Host) Status() HostStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return HostStatus{h.lost, h.losses}
}

// defaultType is the type of back ends that are vtgt's alone, or what theirs begin with.
const defaultType = "vtgt"

// DefaultMapFrom is HostConfig.MapFrom of the daemon: never. Hypercalls of the first domain
// per write and read, copied and mapped, under Linux 6.1 and Xen 4.17 (make test-xen): 140
// and 145 against 320 and 272 for 4 KiB, 175 and 171 against 407 and 274 for 64 KiB, 965 and
// 839 against 859 and 824 for 508 KiB, the most that its front end asks for: a page that is
// mapped is mapped twice, for the kernel and for us.
const DefaultMapFrom = 0
