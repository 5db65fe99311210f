package daemon

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/unixsock"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost"
)

// protocolSRP is the protocol identifier of ring exports' ports (SPC-4 §7.6.1): they
// have SRP's kind of initiator port identifier, 16 bytes.
const protocolSRP = 4

// vhostSpec is what a vhost-user export is made of.
type vhostSpec struct {
	target    string
	socket    string
	access    unixsock.Access
	initiator [16]byte
	// ports are relative target port identifiers by virtio target.
	ports map[uint8]uint16
}

func (s *vhostSpec) equal(o *vhostSpec) bool {
	return s.target == o.target && s.socket == o.socket && s.access == o.access && s.initiator == o.initiator && maps.Equal(s.ports, o.ports)
}

// vhostExport is an exportObject: one socket for one virtual machine, with a target port
// for each virtio target.
type vhostExport struct {
	t    *targetUnit
	sock *unixsock.Socket // nil: ln was inherited
	ln   *net.UnixListener

	mu     sync.Mutex
	spec   *vhostSpec
	ports  map[uint8]*scsi.Port
	e      *vhost.Export // nil: not started, or failed
	err    error         // why it does not serve
	served chan struct{} // closed when Serve has returned
	closed bool
}

func (o *targetUnit) newVHost(s *vhostSpec, own bool) (exportObject, error) {
	x := &vhostExport{t: o, spec: s, ports: map[uint8]*scsi.Port{}}
	if x.ln = o.c.inherited.unix(s.socket); x.ln != nil {
		return x, nil
	}
	var err error
	if x.sock, err = unixsock.Bind(s.socket, s.access, own); err != nil {
		return nil, vhostSocketError(o.name, err)
	}
	x.ln = x.sock.Listener()
	return x, nil
}

func vhostSocketError(target string, err error) *Error {
	e := &Error{Code: CodeInternal, Object: "target " + target, Message: err.Error(), Hint: "name another path with vhost.socket", Err: err}
	var se *unixsock.Error
	if !errors.As(err, &se) {
		return e
	}
	e.Message = "vhost socket " + se.Path + ": " + se.Problem
	switch se.Reason {
	case unixsock.NotASocket:
		e.Code, e.Hint = CodeInUse, "remove it, or name another path with vhost.socket"
	case unixsock.Answered, unixsock.Busy:
		e.Code, e.Hint = CodeInUse, "stop that program (ss -lxp src "+se.Path+" shows it), or name another path with vhost.socket"
	case unixsock.Denied:
		e.Code, e.Hint = CodeDenied, "run as root, or name a path in a folder that you may write, and an owner and group that are yours"
	}
	return e
}

// port makes the target port of a virtio target.
func (x *vhostExport) port(vt uint8) *scsi.Port {
	s := x.spec
	return x.t.tg.NewPort(scsi.PortConfig{
		RelID: s.ports[vt], Protocol: protocolSRP,
		Name:       portName(fmt.Sprintf("%s:%d", s.target, vt), s.initiator),
		DeviceName: portName(s.target, s.initiator),
		View: func(m *scsi.Mapping) (uint16, bool) {
			a, ok := m.Address.(config.Address)
			return m.LUN, ok && a.VHostTarget == vt
		},
	})
}

// portName makes a SCSI name string (SPC-4 §7.8.6.11) of NAA type 3h, locally assigned:
// the same for as long as the export keeps its initiator, which is random.
func portName(of string, initiator [16]byte) string {
	h := sha256.Sum256(append([]byte("vhost-user "+of+"\x00"), initiator[:]...))
	return fmt.Sprintf("naa.3%015x", h[:8])[:20]
}

// inOrder lists ports in the order of their virtio targets.
func inOrder(ports map[uint8]*scsi.Port) (ts []vhost.TargetPort) {
	for vt, p := range ports {
		ts = append(ts, vhost.TargetPort{ID: vt, Port: p})
	}
	slices.SortFunc(ts, func(a, b vhost.TargetPort) int { return cmp.Compare(a.ID, b.ID) })
	return ts
}

func (x *vhostExport) start() error {
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
func (x *vhostExport) fail(err error) {
	x.err = err
	x.t.c.tell(kindExport, x.t.name+"/"+kindVHost, "failed: "+err.Error())
}

func (x *vhostExport) startLocked() error {
	c, name := x.t.c, x.t.name
	for vt := range x.spec.ports {
		x.ports[vt] = x.port(vt)
	}
	e, err := vhost.NewExport(vhost.Config{
		Name: name, Group: c.group, Targets: inOrder(x.ports), Initiator: x.spec.initiator,
		Log: c.log,
		OnConnect: func(up bool, detail string) {
			what := "disconnected"
			if up {
				what = "connected"
			}
			if detail != "" {
				what += ": " + detail
			}
			c.tell(kindExport, name+"/"+kindVHost, what)
		},
	})
	if err != nil {
		return x.attachError(err)
	}
	if x.sock != nil {
		if err := x.sock.Publish(); err != nil {
			e.Close(time.Second)
			return vhostSocketError(name, err)
		}
	}
	x.e, x.served = e, make(chan struct{})
	c.mu.Lock()
	c.vhosts[x] = true
	c.mu.Unlock()
	go func() {
		defer close(x.served)
		if err := e.Serve(x.ln); err != nil && !errors.Is(err, vhost.ErrClosed) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if !x.closed {
				x.fail(fmt.Errorf("the socket takes no more connections: %w", err))
			}
		}
	}()
	return nil
}

// attachError says who stands in the way of the virtual machine.
func (x *vhostExport) attachError(err error) *Error {
	object := "target " + x.t.name
	var se *scsi.SharingError
	if errors.As(err, &se) {
		return sharingError(object, se)
	}
	return &Error{Code: CodeInternal, Object: object, Message: err.Error(), Err: err}
}

// adjust is called by the daemon's one writer, as start and close are: x.mu is for those
// who look, and they do not wait for the core.
func (x *vhostExport) adjust(s *vhostSpec) error {
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
			bad.add(vhostSocketError(x.t.name, err))
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
	if err := e.SetTargets(inOrder(is)); err != nil {
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

func (x *vhostExport) close(deadline time.Duration) error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	e, ports := x.e, x.ports
	x.mu.Unlock()

	end := time.Now().Add(deadline)
	if x.sock != nil {
		_ = x.sock.Close()
	} else {
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
	delete(c.vhosts, x)
	c.mu.Unlock()
	if stuck != 0 {
		return &Error{Code: CodeTimeout, Object: "target " + x.t.name, Message: fmt.Sprintf("%d commands of its virtual machine did not leave the store within %v; the guest's memory was cut off from them", stuck, deadline.Round(time.Millisecond)), Hint: "look at the devices below its disks"}
	}
	return nil
}

func (x *vhostExport) describe(s *ExportStatus) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s.Name = portName(fmt.Sprintf("%s:%d", x.spec.target, 0), x.spec.initiator)
	s.Addresses = []string{x.spec.socket}
	v := &VHostStatus{Initiator: config.FormatUUID(x.spec.initiator), Targets: []int{}, Features: []string{}, ProtocolFeatures: []string{}, Rings: []VHostRing{}}
	s.VHost, s.State = v, "listening"
	for _, vt := range slices.Sorted(maps.Keys(x.spec.ports)) {
		v.Targets = append(v.Targets, int(vt))
	}
	err := x.err
	if x.e != nil {
		st := x.e.Status()
		if err == nil {
			err = st.Failed
		}
		v.fill(&st)
		s.Stuck = int64(st.Stuck)
		s.Reason = st.Refused
		if !st.Connected.IsZero() {
			s.State, s.Reason = "connected", ""
		}
	}
	if err != nil {
		s.State, s.Reason = "failed", err.Error()
	}
}

// fill takes over what the front end knows.
func (v *VHostStatus) fill(st *vhost.Status) {
	if !st.Connected.IsZero() {
		v.Since = &st.Connected
		v.PID, v.UID = st.PID, st.UID
		v.DeviceStatus = st.DeviceStatus
		v.Features = append(v.Features, st.Features...)
		v.ProtocolFeatures = append(v.ProtocolFeatures, st.ProtocolFeatures...)
	}
	v.Queues, v.Started, v.Enabled = st.Queues, st.Started, st.Enabled
	v.Regions, v.MemoryBytes = st.Regions, st.MemoryBytes
	v.InFlight, v.Stuck = st.InFlight, st.Stuck
	n := &st.Counters
	v.Counters = VHostCounters{
		Connections: n.Connections, Rejected: n.Rejected, Messages: n.Messages, UnknownMessages: n.UnknownMessages, Violations: n.Violations,
		Starts: n.Starts, Resets: n.Resets, MemoryChanges: n.MemoryChanges, Requests: n.Requests, Kicks: n.Kicks, Calls: n.Calls,
		Rounds: n.Rounds, BadTarget: n.BadTarget, Replayed: n.Replayed,
	}
	for _, r := range st.Rings {
		x := VHostRing{Index: r.Index, Started: r.Started, Enabled: r.Enabled, Size: r.Size, InFlight: r.InFlight, Stuck: r.Stuck, Requests: r.Requests, Kicks: r.Kicks, Calls: r.Calls}
		if r.Failed != nil {
			x.Failed = r.Failed.Error()
		}
		v.Rings = append(v.Rings, x)
	}
}

// sessions are the nexuses of the virtual machine, while it is there.
func (x *vhostExport) sessions() (out []Session) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.e == nil {
		return nil
	}
	st := x.e.Status()
	if st.Connected.IsZero() {
		return nil
	}
	id := srp.InitiatorID(x.spec.initiator)
	for _, t := range inOrder(x.ports) {
		s := Session{Kind: kindVHost, Target: x.t.name, Initiator: id.Name(), VHostTarget: int(t.ID), Since: st.Connected,
			Params:      map[string]string{},
			Connections: []Connection{{Local: x.spec.socket, Remote: fmt.Sprintf("process %d", st.PID)}}}
		for _, n := range t.Port.Nexuses() {
			u := n.Stats()
			s.Commands += u.Reads + u.Writes + u.Others
			s.BytesIn += u.WriteBytes
			s.BytesOut += u.ReadBytes
		}
		out = append(out, s)
	}
	return out
}
