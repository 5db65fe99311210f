package ibmvio

import (
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/srptest"
)

// device plays the QEMU device for a partition.
type device struct {
	p    *partition
	nc   net.Conn
	wmu  sync.Mutex
	done sync.WaitGroup
}

// connect has the partition's device connect to the socket at path.
func (p *partition) connect(path string, st wire.State) *device {
	p.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		p.Fatal(err)
	}
	d := &device{p: p, nc: nc}
	h := wire.Hello{Major: wire.Major, MaxData: wire.MaxData, Unit: 0x71000002, State: st, Name: "lpar", UUID: [16]byte{15: 7}, Epoch: p.epoch}
	if st&wire.Registered != 0 {
		h.QueueSize = 16 * ringLen
	}
	p.mu.Lock()
	p.dev = d
	p.mu.Unlock()
	d.write(h.Append(nil))
	d.done.Add(1)
	go d.run()
	return d
}

func (d *device) write(b []byte) {
	d.wmu.Lock()
	defer d.wmu.Unlock()
	_, _ = d.nc.Write(b)
}

func (d *device) close() {
	_ = d.nc.Close()
	d.done.Wait()
}

// run does what the server asks for.
func (d *device) run() {
	defer d.done.Done()
	buf := make([]byte, 0, 2*wire.MaxFrame)
	for {
		n, err := d.nc.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
		at := 0
		for {
			f, k, err := wire.Split(buf[at:], wire.Server)
			if err != nil {
				d.p.Error(err)
				return
			}
			if k == 0 {
				break
			}
			d.serve(f)
			at += k
		}
		buf = buf[:copy(buf, buf[at:])]
	}
}

// serve does one thing.
func (d *device) serve(f wire.Frame) {
	op := Op{Epoch: f.Epoch, Link: wire.Flags(f.Code)&wire.Link != 0}
	switch f.Type {
	case wire.TypeRead, wire.TypeWrite:
		t, err := wire.ParseTransfer(f)
		if err != nil {
			d.p.Error(err)
			return
		}
		op.Addr, op.Buf = t.Address, t.Data
		if f.Type == wire.TypeWrite {
			op.Kind = OpWrite
		} else {
			op.Kind, op.Buf = OpRead, make([]byte, t.Len)
		}
	case wire.TypeSend:
		e, _ := wire.ParseCRQ(f)
		op.Kind, op.Entry = OpSend, crq.Entry(e)
	default:
		return
	}
	err := d.p.do(&op)
	st := wire.OK
	for s, e := range map[wire.Status]error{wire.Full: ErrFull, wire.Address: ErrAddress, wire.Stale: ErrStale, wire.Skipped: ErrSkipped, wire.Closed: ErrLost} {
		if errors.Is(err, e) {
			st = s
		}
	}
	if op.Kind != OpRead && st == wire.OK && wire.Flags(f.Code)&wire.Quiet != 0 {
		return
	}
	data := op.Buf
	if op.Kind != OpRead || st != wire.OK {
		data = nil
	}
	d.write(wire.AppendReply(nil, f.Type, st, f.Epoch, f.ID, data))
}

// exportOf is an export that serves adapter a of a test.
func exportOf(a *adapter, g *loop.Group) *Export {
	return &Export{conf: Config{Name: "t1", Group: g, Deadline: tempotest.Patience, Log: discard()}, a: a, news: make(chan news, 64),
		listeners: make(map[*net.UnixListener]struct{}), fresh: make(map[net.Conn]struct{}), closed: make(chan struct{})}
}

// sockLink is a link over a socket: its moves cannot be held.
type sockLink struct {
	srptest.Wire
	k  *link
	ln *net.UnixListener
	e  *Export
}

func (s *sockLink) Close() {
	s.Wire.Close()
	_ = s.ln.Close()
	tempotest.Settles(func() bool { s.e.mu.Lock(); defer s.e.mu.Unlock(); return s.e.conn == nil })
}

// sockFactory makes links over sockets.
func sockFactory(dir string) srptest.Factory {
	var last *adapter
	n := 0
	return func(tb testing.TB, p *srp.Port, l *loop.Loop) srptest.Link {
		if last != nil && last.table.Load().list[0].port == p {
			tempotest.Settles(func() (ok bool) { last.loop.Do(func() { ok = last.resets == 0 && last.hyp == nil }); return ok })
		}
		a := testAdapter(tb, l, p)
		last = a
		n++
		path := filepath.Join(dir, string(rune('A'+n)))
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			tb.Fatal(err)
		}
		e := exportOf(a, l.Group())
		done := make(chan struct{})
		go func() { defer close(done); _ = e.Serve(ln) }()
		tb.Cleanup(func() { ln.Close(); <-done })
		k := unlinked(tb, a)
		k.connect(path, wire.Registered|wire.Served)
		k.login(p)
		return &sockLink{Wire: k, k: k, ln: ln, e: e}
	}
}

func TestSocketCarrier(t *testing.T) {
	srptest.Run(t, srptest.Config{Carrier: sockFactory(t.TempDir()), New: newPart, Keyless: true, Open: func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
		return backing.Open("mem:", backing.Options{Size: size, Group: g})
	}})
}

// TestExport: one virtual machine at a time; it may come again.
func TestExport(t *testing.T) {
	r := newRig(t, 16, false)
	e := exportOf(r.a, r.group)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve(ln) }()
	for round := range 3 {
		st := wire.State(0)
		if round > 0 {
			st = wire.Registered | wire.Served
		}
		d := r.connect(path, st)
		if round > 0 {
			r.entry("ff060000000000000000000000000000")
		}
		if !tempotest.Settles(func() bool { return !e.Status().Connected.IsZero() }) {
			t.Fatal("not connected")
		}
		r.login()
		r.ready()
		if st := e.Status(); st.Name != "lpar" || st.Unit != 0x71000002 || st.Client.State != LoggedIn.String() || st.UUID[15] != 7 || st.PID == 0 {
			t.Errorf("%+v", st)
		}
		// A second one is turned away.
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		h := wire.Hello{Major: wire.Major, MaxData: wire.MaxData}
		_, _ = nc.Write(h.Append(nil))
		_ = nc.SetReadDeadline(time.Now().Add(tempotest.Patience))
		if n, err := nc.Read(make([]byte, 1)); err == nil {
			t.Errorf("a second virtual machine gets %d bytes", n)
		}
		nc.Close()
		d.close()
		if !tempotest.Settles(func() bool { return e.Status().Connected.IsZero() }) {
			t.Fatal("still connected")
		}
	}
	// Another version is told so.
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := wire.Hello{Major: 9, MaxData: wire.MaxData}
	_, _ = nc.Write(h.Append(nil))
	b := make([]byte, 28)
	_ = nc.SetReadDeadline(time.Now().Add(tempotest.Patience))
	if _, err := nc.Read(b); err != nil || b[7] == 0 {
		t.Errorf("refusal: %x %v", b, err)
	}
	nc.Close()
	if !tempotest.Settles(func() bool { return e.Status().Counters.Rejected == 4 }) {
		t.Errorf("%+v", e.Status())
	}
	ln.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
