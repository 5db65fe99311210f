package iscsi

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/leaktest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/scsi"
)

const (
	rigTarget    = "iqn.2026-11.org.vtgt:t1"
	rigInitiator = "iqn.2026-11.org.vtgt:initiator"
	rigSize      = 64 << 20
)

// rig is a server over one disk, and everything below it.
type rig struct {
	t      testing.TB
	group  *loop.Group
	slabs  *slab.Pool
	store  backing.Store
	unit   *scsi.Unit
	target *scsi.Target
	srv    *Server
	portal *Portal
	log    *strings.Builder
	closed bool

	before leaktest.Mark
}

type rigOptions struct {
	limits Limits
	slab   int64
	loops  int
	store  backing.Store
	spec   string
	quiet  bool
	config func(*Config)
}

func newRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	r := &rig{t: t}
	r.before = leaktest.Now(t)
	if o.loops == 0 {
		o.loops = 2
	}
	r.slabs = slab.New(o.slab)
	var err error
	if r.group, err = loop.NewGroup(loop.Config{Loops: o.loops, Slabs: r.slabs, Strict: true}); err != nil {
		t.Fatal(err)
	}
	if r.store = o.store; r.store == nil {
		if o.spec == "" {
			o.spec = "mem:"
		}
		if r.store, err = backing.Open(o.spec, backing.Options{Size: rigSize, Group: r.group}); err != nil {
			t.Fatal(err)
		}
	}
	if r.unit, err = scsi.NewUnit(scsi.UnitConfig{Name: "d1", Vendor: "vtgt", Product: "disk", Revision: "1",
		Serial: "0001", NAA: 0x3000000000000001, BlockSize: 512, Thin: true}, r.store); err != nil {
		t.Fatal(err)
	}
	r.target = scsi.NewTarget(scsi.TargetConfig{Name: "t1"})
	if err := r.target.Map(0, r.unit, scsi.MapOptions{}); err != nil {
		t.Fatal(err)
	}
	port := r.target.NewPort(scsi.PortConfig{RelID: 1, Protocol: 5, Name: rigTarget + ",t,0x0001", DeviceName: rigTarget})
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() && !o.quiet {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	// Unless a test is about them, no limit in time.
	for _, d := range []*time.Duration{&o.limits.LoginTimeout, &o.limits.TaskTimeout, &o.limits.StallTimeout, &o.limits.PingTimeout} {
		if *d == 0 {
			*d = tempotest.Patience
		}
	}
	if o.limits.PingInterval == 0 {
		o.limits.PingInterval = -1
	}
	cfg := Config{Group: r.group, Limits: o.limits, Log: log}
	if o.config != nil {
		o.config(&cfg)
	}
	r.srv = NewServer(cfg)
	r.srv.logoutGrace = 50 * time.Millisecond
	if err := r.srv.AddTarget(TargetConfig{Name: rigTarget, Target: r.target, Port: port, TPGT: 1}); err != nil {
		t.Fatal(err)
	}
	if r.portal, err = r.srv.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// close ends everything and looks for leaks.
func (r *rig) close() {
	if r.closed {
		return
	}
	r.closed = true
	t := r.t
	if err := r.srv.Close(tempotest.Patience); err != nil {
		t.Error(err)
	}
	if n := len(r.srv.list(nil)); n != 0 {
		t.Errorf("%d sessions after Close", n)
	}
	if n := r.slabs.Used(); n != 0 {
		t.Errorf("%d bytes of slabs in use after Close", n)
	}
	done := make(chan int, 2)
	r.target.Close(tempotest.Patience, func(n int) { done <- n })
	<-done
	r.unit.Close(tempotest.Patience, func(n int) { done <- n })
	<-done
	if err := r.store.Close(); err != nil {
		t.Error(err)
	}
	if n := r.group.Misuse(); n != 0 {
		t.Errorf("%d misuses of loops", n)
	}
	r.group.Close()
	r.before.Check(t)
}

func (r *rig) addr() string { return r.portal.Addr().String() }

func (r *rig) login() iscsitest.Login {
	return iscsitest.Login{InitiatorName: rigInitiator, TargetName: rigTarget}
}

// dial logs in; unit attentions are taken.
func (r *rig) dial(l iscsitest.Login) *iscsitest.Conn {
	r.t.Helper()
	c := r.dialOnly(l)
	for range 4 {
		k, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)})
		if err != nil {
			r.t.Fatal("TEST UNIT READY:", err)
		}
		if k.Status == 0 {
			return c
		}
	}
	r.t.Fatal("TEST UNIT READY fails")
	return nil
}

func (r *rig) dialOnly(l iscsitest.Login) *iscsitest.Conn {
	r.t.Helper()
	c, err := iscsitest.Dial(r.addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.Login(l); err != nil {
		r.t.Fatal(err)
	}
	return c
}
