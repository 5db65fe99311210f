package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/ibmvio"
	"github.com/vtgt/vtgt/internal/unixsock"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost"
)

// protocolSRP is the protocol identifier of ring exports' ports (SPC-4 §7.6.1): they
// have SRP's kind of initiator port identifier, 16 bytes.
const protocolSRP = 4

// ringSpec is what a virtual machine's export is made of.
type ringSpec struct {
	kind      string // kindVHost, kindVIO or kindXen
	target    string
	socket    string
	access    unixsock.Access
	initiator [16]byte
	// migratable: the disks are.
	migratable bool
	// ports are relative target port identifiers by virtio target or vio id.
	ports map[uint8]uint16
	// aix has INQUIRY say what AIX looks for.
	aix bool
	xen config.TargetXen
}

// device is what the names of ports are made of.
func (s *ringSpec) device() string {
	if s.kind == kindVHost {
		return s.target
	}
	return s.kind + " " + s.target // a target may have several kinds
}

// ringServer is the front end of a virtual machine's export.
type ringServer interface {
	Serve(*net.UnixListener) error
	Close(time.Duration) (stuck int)
	// setPorts has the virtual machine see other targets.
	setPorts(map[uint8]*scsi.Port) error
	// describe fills in what is known. since is zero, and pid without meaning, as
	// long as no virtual machine is connected; failed is why it does not serve.
	describe(*ExportStatus) (since time.Time, pid int, failed error)
}

// ringExport is an exportObject: one socket for one virtual machine, with a target port
// for each virtio target or vio id.
type ringExport struct {
	t    *targetUnit
	sock *unixsock.Socket // nil: ln was inherited
	ln   *net.UnixListener

	mu     sync.Mutex
	spec   *ringSpec
	ports  map[uint8]*scsi.Port
	made   ringServer    // goes on from another process's: for start
	e      ringServer    // nil: not started, or failed
	err    error         // why it does not serve
	served chan struct{} // closed when Serve has returned
	closed bool
}

func (o *targetUnit) newRing(s *ringSpec, own bool) (exportObject, error) {
	if s.kind == kindXen {
		return o.newXen(s)
	}
	x := &ringExport{t: o, spec: s, ports: map[uint8]*scsi.Port{}}
	if l := o.c.legacy.ring(s); l != nil {
		if err := x.goOn(l); err != nil {
			_ = x.close(time.Second)
			return nil, err
		}
		return x, nil
	}
	if x.ln = o.c.inherited.unix(s.socket); x.ln != nil {
		return x, nil
	}
	var err error
	if x.sock, err = unixsock.Bind(s.socket, s.access, own); err != nil {
		return nil, socketError(s.kind, o.name, err)
	}
	x.ln = x.sock.Listener()
	return x, nil
}

// goOn makes the export of what another process has frozen: what may fail fails here.
func (x *ringExport) goOn(l *legacyRing) error {
	t := x.t.c.legacy
	var err error
	if x.ln, err = t.unixListener(l.Listener); err != nil {
		return socketError(x.spec.kind, x.t.name, err)
	}
	if l.Own {
		x.sock = unixsock.Adopt(x.spec.socket, x.ln)
	}
	x.made, err = x.makeServer(l)
	return err
}

func socketError(kind, target string, err error) *Error {
	e := &Error{Code: CodeInternal, Object: "target " + target, Message: err.Error(), Hint: "name another path with " + kind + ".socket", Err: err}
	var se *unixsock.Error
	if !errors.As(err, &se) {
		return e
	}
	e.Message = kind + " socket " + se.Path + ": " + se.Problem
	switch se.Reason {
	case unixsock.NotASocket:
		e.Code, e.Hint = CodeInUse, "remove it, or name another path with "+kind+".socket"
	case unixsock.Answered, unixsock.Busy:
		e.Code, e.Hint = CodeInUse, "stop that program (ss -lxp src "+se.Path+" shows it), or name another path with "+kind+".socket"
	case unixsock.Denied:
		e.Code, e.Hint = CodeDenied, "run as root, or name a path in a folder that you may write, and an owner and group that are yours"
	}
	return e
}

// port makes the target port of virtio target or vio id n.
func (x *ringExport) port(n uint8) *scsi.Port {
	s := x.spec
	c := scsi.PortConfig{
		RelID: s.ports[n], Protocol: protocolSRP,
		Name:       portName(fmt.Sprintf("%s:%d", s.device(), n), s.initiator),
		DeviceName: portName(s.device(), s.initiator),
	}
	if s.kind == kindVIO {
		c.View = func(m *scsi.Mapping) (uint16, bool) {
			a, ok := m.Address.(config.Address)
			if !ok {
				return 0, false
			}
			id, lun, ok := a.VIOOf(m.LUN)
			return uint16(lun), ok && id == n
		}
		if s.aix {
			c.Vendor, c.Product = "IBM", "VDASD blkdev"
		}
	} else {
		c.View = func(m *scsi.Mapping) (uint16, bool) {
			a, ok := m.Address.(config.Address)
			return m.LUN, ok && a.VHostTarget == n
		}
	}
	return x.t.tg.NewPort(c)
}

// portName makes a SCSI name string (SPC-4 §7.8.6.11) of NAA type 3h, locally assigned:
// the same for as long as the export keeps its initiator, which is random.
func portName(of string, initiator [16]byte) string {
	h := sha256.Sum256(append([]byte("vhost-user "+of+"\x00"), initiator[:]...))
	return fmt.Sprintf("naa.3%015x", h[:8])[:20]
}

func (x *ringExport) start() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.e != nil {
		return nil
	}
	x.err = nil
	err := x.startLocked()
	if err != nil {
		x.fail(err)
		for vt, p := range x.ports {
			p.Close(0, nil)
			delete(x.ports, vt)
		}
	}
	return err
}

// fail notes why the export does not serve, and tells of it. x.mu is held.
func (x *ringExport) fail(err error) {
	x.err = err
	x.t.c.tell(kindExport, x.t.name+"/"+x.spec.kind, "failed: "+err.Error())
}

func (x *ringExport) startLocked() error {
	c, name := x.t.c, x.t.name
	e := x.made
	if x.made = nil; e == nil {
		var err error
		if e, err = x.makeServer(nil); err != nil {
			return err
		}
	}
	if x.sock != nil {
		if err := x.sock.Publish(); err != nil {
			e.Close(time.Second)
			return socketError(x.spec.kind, name, err)
		}
	}
	x.e, x.served = e, make(chan struct{})
	c.mu.Lock()
	c.rings[x] = true
	c.mu.Unlock()
	go func() {
		defer close(x.served)
		if err := e.Serve(x.ln); err != nil && !errors.Is(err, vhost.ErrClosed) && !errors.Is(err, ibmvio.ErrExportClosed) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if !x.closed {
				x.fail(fmt.Errorf("the socket takes no more connections: %w", err))
			}
		}
	}()
	return nil
}

// makeServer makes the front end and its ports, of what another process has frozen where
// there is that.
func (x *ringExport) makeServer(l *legacyRing) (ringServer, error) {
	c, name := x.t.c, x.t.name
	for n := range x.spec.ports {
		x.ports[n] = x.port(n)
	}
	object := name + "/" + x.spec.kind // the same for ever, other than spec
	tell := func(up bool, detail string) {
		what := "disconnected"
		if up {
			what = "connected"
		}
		if detail != "" {
			what += ": " + detail
		}
		c.tell(kindExport, object, what)
	}
	newServer := newVHostServer
	if x.spec.kind == kindVIO {
		newServer = newVIOServer
	}
	e, err := newServer(x.t, x.spec, x.ports, tell, l)
	if err != nil {
		return nil, x.attachError(err)
	}
	return e, nil
}

// attachError says who stands in the way of the virtual machine.
func (x *ringExport) attachError(err error) *Error {
	object := "target " + x.t.name
	var se *scsi.SharingError
	if errors.As(err, &se) {
		return sharingError(object, se)
	}
	return &Error{Code: CodeInternal, Object: object, Message: err.Error(), Err: err}
}

// adjust is called by the daemon's one writer, as start and close are: x.mu is for those
// who look, and they do not wait for the core.
func (x *ringExport) adjust(s *ringSpec) error {
	x.mu.Lock()
	old, e, was, closed := x.spec, x.e, x.ports, x.closed
	x.spec = s
	x.mu.Unlock()
	if closed {
		return nil
	}
	var bad collect
	if x.sock != nil && old.access != s.access {
		if err := x.sock.SetAccess(s.access); err != nil {
			bad.add(socketError(old.kind, x.t.name, err))
		}
	}
	if e == nil {
		bad.add(x.start()) // it failed before
		return bad.err()
	}
	if maps.Equal(old.ports, s.ports) {
		return bad.err()
	}
	is := map[uint8]*scsi.Port{}
	for vt := range s.ports {
		if is[vt] = was[vt]; is[vt] == nil {
			is[vt] = x.port(vt)
		}
	}
	stays, goes := is, was
	if err := e.setPorts(is); err != nil {
		bad.add(x.attachError(err))
		stays, goes = was, is
	}
	x.mu.Lock()
	x.ports = stays
	x.mu.Unlock()
	for vt, p := range goes {
		if stays[vt] != p {
			await(time.Second, func(done func(int)) error { p.Close(time.Second, done); return nil })
		}
	}
	return bad.err()
}

func (x *ringExport) close(deadline time.Duration) error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	e, ports := x.e, x.ports
	if e == nil && x.made != nil {
		x.made.Close(deadline)
	}
	x.mu.Unlock()

	end := time.Now().Add(deadline)
	if x.sock != nil {
		_ = x.sock.Close()
	} else if x.ln != nil {
		_ = x.ln.Close()
	}
	stuck := 0
	if e != nil {
		stuck = e.Close(deadline)
		<-x.served
	}
	for _, p := range ports {
		left := max(time.Until(end), 50*time.Millisecond)
		await(left, func(done func(int)) error { p.Close(left, done); return nil })
	}
	c := x.t.c
	c.mu.Lock()
	delete(c.rings, x)
	c.mu.Unlock()
	if stuck != 0 {
		return &Error{Code: CodeTimeout, Object: "target " + x.t.name, Message: fmt.Sprintf("%d commands of its virtual machine did not leave the store within %v; the guest's memory was cut off from them", stuck, deadline.Round(time.Millisecond)), Hint: "look at the devices below its disks"}
	}
	return nil
}

func (x *ringExport) describe(s *ExportStatus) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s.Name = portName(fmt.Sprintf("%s:%d", x.spec.device(), 0), x.spec.initiator)
	s.Addresses = []string{x.spec.socket}
	s.State = "listening"
	switch x.spec.kind {
	case kindVHost:
		s.VHost = newVHostStatus(x.spec)
	case kindVIO:
		s.VIO = newVIOStatus(x.spec)
	}
	err := x.err
	if x.e != nil {
		since, _, failed := x.e.describe(s)
		if err == nil {
			err = failed
		}
		if !since.IsZero() {
			s.State, s.Reason = "connected", ""
		}
	}
	if err != nil {
		s.State, s.Reason = "failed", err.Error()
	}
}

// sessions are the nexuses of the virtual machine, while it is there.
func (x *ringExport) sessions() (out []Session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.e == nil {
		return nil
	}
	since, pid, _ := x.e.describe(&ExportStatus{})
	if since.IsZero() {
		return nil
	}
	id := srp.InitiatorID(x.spec.initiator)
	for _, n := range slices.Sorted(maps.Keys(x.ports)) {
		s := Session{Kind: x.spec.kind, Target: x.t.name, Initiator: id.Name(), Since: since,
			Params:      map[string]string{},
			Connections: []Connection{{Local: x.spec.socket, Remote: fmt.Sprintf("process %d", pid)}}}
		if x.spec.kind == kindVIO {
			s.VIOID = int(n)
		} else {
			s.VHostTarget = int(n)
		}
		for _, n := range x.ports[n].Nexuses() {
			u := n.Stats()
			s.Commands += u.Reads + u.Writes + u.Others
			s.BytesIn += u.WriteBytes
			s.BytesOut += u.ReadBytes
		}
		out = append(out, s)
	}
	return out
}
