package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/xen"
	"github.com/vtgt/vtgt/xen/evtchn"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// XenParts is the way to Xen. Dial connects to xenstored, once and again after a loss.
type XenParts struct {
	Dial     func() (*xenstore.Conn, error)
	Channels evtchn.Binder
	Grants   gnttab.Table // closed with the last export
}

// kernelXen is that by the kernel's devices.
func kernelXen() (*XenParts, error) {
	if _, err := os.Stat(evtchn.DevicePath); err != nil {
		return nil, err
	}
	t, err := gnttab.Open("")
	if err != nil {
		return nil, err
	}
	return &XenParts{Dial: func() (*xenstore.Conn, error) { return xenstore.Open("") }, Channels: evtchn.Device{}, Grants: t}, nil
}

// xenHost is the daemon's one way to Xen. There is one as long as a target has an export
// to a domain.
type xenHost struct {
	c    *core
	dir  string // of journals
	open func() (*XenParts, error)

	mu    sync.Mutex
	users int
	parts *XenParts
	h     *xen.Host
}

func (x *xenHost) init(c *core, cfg *config.Config, o *Options) {
	x.c, x.dir, x.open = c, filepath.Join(cfg.State, "xen"), o.Xen
	if x.open == nil {
		x.open = kernelXen
	}
}

// get makes the host, or shares the one that there is.
func (x *xenHost) get() (*xen.Host, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.h != nil {
		x.users++
		return x.h, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	id, _ := config.ParseUUID(strings.TrimSpace(string(boot)))
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return nil, err
	}
	p, err := x.open()
	if err != nil {
		return nil, noXen(err)
	}
	h, err := xen.NewHost(xen.HostConfig{Dial: p.Dial, Channels: p.Channels, Grants: p.Grants, Group: x.c.group, Dir: x.dir, Boot: id,
		MapFrom: xen.DefaultMapFrom, Log: x.c.log})
	if err != nil {
		_ = p.Grants.Close()
		return nil, noXen(err)
	}
	x.parts, x.h, x.users = p, h, 1
	return h, nil
}

func (x *xenHost) put() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.users--; x.users > 0 {
		return
	}
	x.h.Close()
	_ = x.parts.Grants.Close()
	x.h, x.parts = nil, nil
}

// checkXen looks whether this is a Xen domain at all; nil: it is.
func checkXen() *Error {
	for _, p := range []string{evtchn.DevicePath, gnttab.DevicePath} {
		if _, err := os.Stat(p); err != nil {
			return noXen(err)
		}
	}
	return nil
}

// noXen says what to do where Xen cannot be reached.
func noXen(err error) *Error {
	e := &Error{Code: CodeNotSupported, Message: "Xen cannot be reached: " + err.Error(), Err: err,
		Hint: "run vtgt in dom0 or a driver domain, with xenstored running and the modules xen-evtchn, xen-gntdev and xenfs loaded (modprobe -a xen-evtchn xen-gntdev xenfs); or take xen: out of the target"}
	if errors.Is(err, fs.ErrPermission) {
		e.Code, e.Hint = CodeDenied, "run as root"
	}
	return e
}

// xenExport is an exportObject: a device of one domain.
type xenExport struct {
	t *targetUnit

	mu     sync.Mutex
	spec   *ringSpec
	h      *xen.Host // nil: given back
	p      *scsi.Port
	e      *xen.Export // nil: not started, or failed
	err    error       // why not
	closed bool
}

func (o *targetUnit) newXen(s *ringSpec) (exportObject, error) {
	h, err := o.c.xen.get()
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Object = "target " + o.name
		}
		return nil, err
	}
	return &xenExport{t: o, spec: s, h: h}, nil
}

func (x *xenExport) start() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.e != nil {
		return nil
	}
	s, c := x.spec, x.t.c
	x.p = x.t.tg.NewPort(scsi.PortConfig{RelID: s.ports[0], Protocol: protocolSRP,
		Name: portName(s.device()+":0", s.initiator), DeviceName: portName(s.device(), s.initiator)})
	conf := xen.Config{Name: x.t.name, Domain: s.xen.Domain, Device: s.xen.Device, Type: s.xen.BackendType(), Port: x.p, Initiator: s.initiator,
		Offer: !s.xen.Toolstack,
		Tell: func(up bool, detail string) {
			what := "disconnected: "
			if up {
				what = "connected: "
			}
			c.tell(kindExport, x.t.name+"/"+kindXen, what+detail)
		}}
	if conf.Offer {
		conf.Place = xenPlace
	}
	if x.e, x.err = x.h.Export(conf); x.err != nil {
		x.e = nil
		x.p.Close(0, nil)
		object := "target " + x.t.name
		var se *scsi.SharingError
		if errors.As(x.err, &se) {
			x.err = sharingError(object, se)
		} else {
			x.err = &Error{Code: CodeInternal, Object: object, Message: x.err.Error(), Err: x.err}
		}
		c.tell(kindExport, x.t.name+"/"+kindXen, "failed: "+x.err.Error())
		return x.err
	}
	c.mu.Lock()
	c.rings[x] = true
	c.mu.Unlock()
	return nil
}

// xenPlace is where the domain sees a LUN.
func xenPlace(m *scsi.Mapping) (xen.LUN, bool) {
	a, _ := m.Address.(config.Address)
	at, ok := a.XenOf(m.LUN)
	return xen.LUN{Number: m.LUN, Host: at.Host, At: vscsiif.Address{Channel: at.Channel, Target: at.Target, LUN: at.LUN}}, ok
}

// adjust: what can change of a device is which LUNs there are, and the core tells of that.
func (x *xenExport) adjust(s *ringSpec) error {
	x.mu.Lock()
	x.spec = s
	again := x.e == nil && !x.closed
	x.mu.Unlock()
	if again {
		return x.start() // it failed before
	}
	return nil
}

func (x *xenExport) detach(deadline time.Duration) error {
	x.mu.Lock()
	e, closed := x.e, x.closed
	x.mu.Unlock()
	if e == nil || closed {
		return nil
	}
	err := e.Detach(deadline)
	var be *xen.BlockedError
	switch {
	case errors.As(err, &be):
		return &Error{Code: CodeTimeout, Object: "target " + x.t.name, Message: be.Error() + "; its device was taken away", Hint: "look at the domain's console; what it had not written yet is lost", Err: err}
	case err != nil:
		return &Error{Code: CodeInternal, Object: "target " + x.t.name, Message: "the device could not be taken away in order: " + err.Error(), Hint: "look whether xenstored runs", Err: err}
	}
	return nil
}

func (x *xenExport) letGo(lun uint16, deadline time.Duration) error {
	x.mu.Lock()
	e, closed := x.e, x.closed
	x.mu.Unlock()
	if e == nil || closed {
		return nil
	}
	if err := e.LetGo(lun, deadline); err != nil {
		return &Error{Code: CodeTimeout, Object: "LUN " + lunName(x.t.name, lun), Message: err.Error() + "; it was taken away", Hint: "look at the domain's console; what it had not written yet is lost", Err: err}
	}
	return nil
}

func (x *xenExport) show(lun uint16) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.e != nil {
		x.e.Show(lun)
	}
}

func (x *xenExport) close(deadline time.Duration) error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	e := x.e
	x.mu.Unlock()
	c := x.t.c
	stuck := 0
	if e != nil {
		stuck = e.Close(deadline)
		await(time.Second, func(done func(int)) error { x.p.Close(time.Second, done); return nil })
		c.mu.Lock()
		delete(c.rings, x)
		c.mu.Unlock()
	}
	c.xen.put()
	if stuck != 0 {
		return &Error{Code: CodeTimeout, Object: "target " + x.t.name, Message: fmt.Sprintf("%d commands of its domain did not leave the store within %v", stuck, deadline.Round(time.Millisecond)), Hint: "look at the devices below its disks"}
	}
	return nil
}

// place is the device, for people.
func (s *ringSpec) place() string { return s.xen.String() }

func (x *xenExport) describe(s *ExportStatus) {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := &x.spec.xen
	s.Name = portName(x.spec.device()+":0", x.spec.initiator)
	s.Addresses = []string{x.spec.place()}
	s.State = "listening"
	s.Xen = &XenStatus{Initiator: config.FormatUUID(x.spec.initiator), Domain: c.Domain, Device: c.Device, Type: c.BackendType(), Toolstack: c.Toolstack}
	if x.e == nil {
		if x.err != nil {
			s.State, s.Reason = "failed", x.err.Error()
		}
		return
	}
	st := x.e.Status()
	s.Xen.fill(&st)
	host := x.h.Status()
	s.Xen.Counters.XenstoreLosses = host.Losses
	if host.Lost != nil {
		s.Xen.Xenstore = host.Lost.Error()
	}
	s.Stuck = int64(st.Gone)
	switch {
	case st.Failed != nil:
		s.State, s.Reason = "failed", st.Failed.Error()
	case st.Connected:
		s.State = "connected"
	case host.Lost != nil:
		s.Reason = "xenstored does not answer: " + host.Lost.Error()
	case !st.Found && c.Toolstack:
		s.Reason = fmt.Sprintf("domain %s is not there, or the toolstack has not written the device's nodes", c.Domain)
	case !st.Found:
		s.Reason = fmt.Sprintf("there is no domain %s", c.Domain)
	default:
		s.Reason = fmt.Sprintf("domain %d has not connected: its front end is in state %v", st.Domain, st.Frontend)
	}
}

// fill takes over what the front end knows.
func (v *XenStatus) fill(st *xen.Status) {
	if st.Found {
		v.DomainID = &st.Domain
		v.Backend, v.Frontend = st.Backend.String(), st.Frontend.String()
	}
	if st.Connected {
		v.Since = &st.Since
	}
	v.InFlight = int(st.InFlight)
	v.Counters = XenCounters{
		Connections: st.Boots, Requests: st.Requests, Events: st.Events, Notifies: st.Notifies, GrantCalls: st.GrantCalls,
		GrantCopies: st.GrantCopies, GrantPages: st.GrantPages, BadRequests: st.Bad, UnknownDevices: st.Unknown, TakenOver: st.Lost, Unanswered: st.Gone, Complaints: st.Complaints,
	}
}

// sessions are the nexus of the domain, while it is there.
func (x *xenExport) sessions() []Session {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.e == nil || x.closed {
		return nil
	}
	st := x.e.Status()
	if !st.Connected {
		return nil
	}
	s := Session{Kind: kindXen, Target: x.t.name, Initiator: srp.InitiatorID(x.spec.initiator).Name(), Since: st.Since, Params: map[string]string{},
		Connections: []Connection{{Local: x.spec.place(), Remote: fmt.Sprintf("domain %d", st.Domain)}}}
	for _, n := range x.p.Nexuses() {
		u := n.Stats()
		s.Commands += u.Reads + u.Writes + u.Others
		s.BytesIn += u.WriteBytes
		s.BytesOut += u.ReadBytes
	}
	return []Session{s}
}
