package xen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/xenstore"
	"github.com/vtgt/vtgt/xen/xentest"
)

const uuid = "6f1c0000-0000-4000-8000-00000000000a"

// bed is a daemon in dom0 of a machine, with its API.
type bed struct {
	*testing.T
	m    *xentest.Machine
	dir  string
	conf string
	d    *daemon.Daemon
	srv  *api.Server
	c    *api.Client
	out  bytes.Buffer
}

func newBed(t *testing.T, targets string) *bed {
	b := &bed{T: t, m: xentest.NewMachine(t), dir: t.TempDir()}
	b.conf = filepath.Join(b.dir, "f.yaml")
	text := fmt.Sprintf("version: 1\ndisks:\n- {name: a, store: \"mem:\", size: 1MiB}\n- {name: b, store: \"mem:\", size: 1MiB}\ntargets:\n%sapi: {socket: %q}\nstate: %q\nloops: 2\n",
		targets, filepath.Join(b.dir, "s"), filepath.Join(b.dir, "state"))
	b.ok(os.WriteFile(b.conf, []byte(text), 0o600))
	b.up()
	t.Cleanup(b.down)
	return b
}

func (b *bed) ok(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bed) up() {
	b.Helper()
	text, err := os.ReadFile(b.conf)
	b.ok(err)
	b.d, err = daemon.New(b.conf, text, daemon.Options{DrainTime: tempotest.Patience, CloseTime: tempotest.Patience,
		Xen: func() (*daemon.XenParts, error) {
			return &daemon.XenParts{Dial: b.m.Dial, Channels: &b.m.Hub, Grants: b.m.Grants()}, nil
		}})
	b.ok(err)
	ln, err := api.Listen(filepath.Join(b.dir, "s"), 0o600, "")
	b.ok(err)
	b.srv = api.Serve(ln, b.d, api.ServerConfig{})
	b.c = api.NewClient(filepath.Join(b.dir, "s"))
}

func (b *bed) down() {
	b.Helper()
	b.c.Close()
	_ = b.srv.Close(context.Background())
	if err := b.d.Close(); err != nil {
		b.Error(err)
	}
}

func (b *bed) options(domain, target string) Options {
	b.out.Reset()
	return Options{Domain: domain, Target: target, Device: -1, Dial: b.m.Dial, Out: &b.out, Wait: tempotest.Patience}
}

// text is the configuration file.
func (b *bed) text() string {
	b.Helper()
	t, err := os.ReadFile(b.conf)
	b.ok(err)
	return string(t)
}

func (b *bed) attachments() []api.Attachment {
	b.Helper()
	as, err := b.c.Attachments(context.Background())
	b.ok(err)
	return as
}

// bare checks that there are no nodes, no journal and no export.
func (b *bed) bare(n nodes.Device) {
	b.Helper()
	for _, p := range []string{n.BackendPath(), n.FrontendPath()} {
		if _, ok := b.m.Store.Get(p); ok {
			b.Errorf("%s is there", p)
		}
	}
	if as := b.attachments(); len(as) > 0 {
		b.Errorf("%+v", as)
	}
	if strings.Contains(b.text(), "xen:") {
		b.Error(b.text())
	}
}

// TestAttach: a domain gets a target while it runs, and again after a reboot; detach takes
// it away in order.
func TestAttach(t *testing.T) {
	b := newBed(t, "- {name: t, luns: [{lun: 0, disk: a}]}\n- {name: u, luns: [{lun: 0, disk: b}]}\n")
	ctx := context.Background()
	b.m.Create(2, "vm1", uuid)
	n := nodes.Device{Type: "vtgt", Domain: 2}
	o := b.options("vm1", "t")
	o.Wait = 0
	b.ok(Attach(ctx, b.c, o))
	if got := b.out.String(); !strings.Contains(got, "target t is device 0 of domain vm1 (2), offered") {
		t.Error(got)
	}
	for p, want := range map[string]string{n.BackendPath(): "[n0 r2]", n.FrontendPath(): "[n2 r0]"} {
		if l, err := b.m.Tools.Perms(p); err != nil || fmt.Sprint(l) != want {
			t.Errorf("%s: %v %v", p, l, err)
		}
	}
	if !strings.Contains(b.text(), "xen:") || !strings.Contains(b.text(), "domain: vm1") {
		t.Error(b.text())
	}
	r := b.m.Boot(n)
	r.Wait("0:0:0:0")
	b.m.States(n, "4", "4")
	// Again: the same; a second target: the next device.
	b.ok(Attach(ctx, b.c, b.options("vm1", "t")))
	if got := b.out.String(); !strings.Contains(got, "which is connected") {
		t.Error(got)
	}
	o = b.options(uuid, "u")
	o.Wait, o.Type = 0, "vtgt-two"
	b.ok(Attach(ctx, b.c, o))
	n2 := nodes.Device{Type: "vtgt-two", Domain: 2, Number: 1}
	r2 := b.m.Boot(n2)
	r2.Wait("0:0:0:0")
	if as := b.attachments(); len(as) != 2 || as[0].State != api.Attached || as[0].Subject != "vm1" || as[1].Subject != uuid || len(as[0].Steps) != 2 || as[1].Options[optName] != "vm1" {
		t.Errorf("%+v", as)
	}
	// The domain reboots.
	b.m.Destroy(2)
	r.Off()
	r2.Off()
	b.m.Create(3, "vm1", uuid)
	n.Domain, n2.Domain = 3, 3
	o = b.options("vm1", "t")
	o.Wait = 0
	b.ok(Attach(ctx, b.c, o)) // says when the domain may go on
	if st, _ := b.m.Store.Get(n.BackendPath() + "/state"); st != "2" {
		t.Errorf("state %q", st)
	}
	b.m.States(n, "2", "1")
	b.m.States(n2, "2", "1")
	r, r2 = b.m.Boot(n), b.m.Boot(n2)
	r.Wait("0:0:0:0")
	r2.Wait("0:0:0:0")
	b.ok(Detach(ctx, b.c, b.options("vm1", "t")))
	r.Wait()
	if !r2.Has("0:0:0:0") {
		t.Error("the other device has gone, too")
	}
	b.ok(Detach(ctx, b.c, b.options("3", "u"))) // by its number
	r2.Wait()
	b.bare(n)
	b.bare(n2)
	b.ok(Detach(ctx, b.c, b.options("vm1", "t")))
	if got := b.out.String(); !strings.Contains(got, "nothing to do") {
		t.Error(got)
	}
	r.Off()
	r2.Off()
}

// TestLater: a domain that does not run gets its device when it comes up, also one whose
// export was written by hand.
func TestLater(t *testing.T) {
	b := newBed(t, "- {name: t, luns: [{lun: 0, disk: a}]}\n- {name: u, luns: [{lun: 0, disk: b}], xen: {domain: "+strings.ToUpper(uuid)+", device: 5}}\n")
	ctx := context.Background()
	b.ok(Attach(ctx, b.c, b.options("vm1", "t")))
	if got := b.out.String(); !strings.Contains(got, "which does not run: it gets device 0 when it comes up") {
		t.Error(got)
	}
	b.m.Create(4, "vm1", uuid)
	n, n2 := nodes.Device{Type: "vtgt", Domain: 4}, nodes.Device{Type: "vtgt", Domain: 4, Number: 5}
	b.m.States(n, "2", "1")
	b.m.States(n2, "2", "1")
	// Paused: its drivers have done nothing yet, and nothing is to be waited for.
	b.ok(Detach(ctx, b.c, b.options("vm1", "t")))
	b.ok(Detach(ctx, b.c, b.options("vm1", "u")))
	b.bare(n)
	b.bare(n2)
}

// TestRefused: what cannot be done is said, and leaves nothing behind.
func TestRefused(t *testing.T) {
	b := newBed(t, "- {name: t, luns: [{lun: 0, disk: a}]}\n- {name: u, xen: {domain: vm2, device: 1}}\n- {name: v, luns: [{lun: 300, disk: b}]}\n- {name: w, xen: {domain: vm1, toolstack: true, device: 8}}\n")
	ctx := context.Background()
	b.m.Create(2, "vm1", uuid)
	b.m.Attach(nodes.Device{Type: "vscsi", Domain: 2, Number: 3}) // LIO's
	for _, c := range []struct {
		domain, target, typ string
		device              int
		want                string
	}{
		{"vm1", "none", "", -1, "target none: is not there"},
		{"17", "t", "", -1, "there is no domain 17"},
		{"vm1", "u", "", -1, "belongs to domain vm2 already; vtgt detach xen vm2 u"},
		{"vm2", "u", "", 7, "is device 1 of the domain already"},
		{"vm2", "u", "vscsi", -1, "its back end is of type vtgt already"},
		{"vm1", "w", "", -1, "another toolstack writes its nodes"},
		{"vm1", "t", "vbd", -1, "cannot be the back end's type"},
		{"vm1", "t", "", 3, "domain 2 has a vscsi device 3 already, of the back end /local/domain/0/backend/vscsi/2/3; choose another number with --device"},
		{"vm1", "v", "", -1, "a Xen domain cannot have LUN 300"},
	} {
		was := b.text()
		o := b.options(c.domain, c.target)
		o.Type, o.Device = c.typ, c.device
		if err := Attach(ctx, b.c, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if now := b.text(); strings.Contains(was, "name: t, luns: [{lun: 0, disk: a}]}") && now != was {
			t.Errorf("%+v: the configuration is\n%s", c, now)
		}
		if as := b.attachments(); len(as) > 0 {
			t.Errorf("%+v: %+v", c, as)
		}
	}
	if err := Detach(ctx, b.c, b.options("vm1", "u")); err != nil {
		t.Error(err)
	}
	o := b.options("vm1", "t")
	o.Dial = func() (*xenstore.Conn, error) { return nil, errors.New("no such file") }
	if err := Attach(ctx, b.c, o); err == nil || !strings.Contains(err.Error(), "xenstored cannot be reached: no such file; run this in dom0") {
		t.Error(err)
	}
}

// TestBlocked: a domain that does not let go is named; the same command goes on when it
// does, and --force does not wait for it.
func TestBlocked(t *testing.T) {
	b := newBed(t, "- {name: t, luns: [{lun: 0, disk: a}]}\n")
	ctx := context.Background()
	b.m.Create(2, "vm1", uuid)
	n := nodes.Device{Type: "vtgt", Domain: 2}
	for _, force := range []bool{false, true} {
		o := b.options("vm1", "t")
		o.Wait = 0
		b.ok(Attach(ctx, b.c, o))
		r := b.m.Boot(n)
		r.Wait("0:0:0:0")
		b.m.States(n, "4", "4")
		r.Deafen(true)
		o = b.options("vm1", "t")
		o.Wait = time.Nanosecond
		err := Detach(ctx, b.c, o)
		if err == nil || !strings.Contains(err.Error(), "domain vm1 (2) has not let go of device 0") || !strings.Contains(err.Error(), "front end is in state Connected, the back end in state Closing") {
			t.Fatal(err)
		}
		if as := b.attachments(); len(as) != 1 || as[0].State != api.Detaching {
			t.Errorf("%+v", as)
		}
		if !r.Has("0:0:0:0") {
			t.Error("its disks are gone")
		}
		if force {
			b.d.Close() // ends the wait for the domain: the next one waits a moment only
			b.srv.Close(ctx)
			b.up()
			o.Force = true
			done := make(chan error, 1)
			go func() { done <- Detach(ctx, b.c, o) }()
			r.Deafen(false)
			b.ok(tempotest.Recv(t, done, "the end"))
		} else {
			r.Deafen(false)
			b.ok(Detach(ctx, b.c, b.options("vm1", "t")))
		}
		r.Wait()
		b.bare(n)
		r.Off()
	}
}

// TestBrokenOff: the journal's writes fail one after the other, as when the command is
// killed there; the same command, or its opposite, finishes the work.
func TestBrokenOff(t *testing.T) {
	b := newBed(t, "- {name: t, luns: [{lun: 0, disk: a}]}\n")
	b.m.Create(2, "vm1", uuid)
	n := nodes.Device{Type: "vtgt", Domain: 2}
	kill := func(n int, f func(ctx context.Context, c *api.Client, o Options) error, o Options) (killed bool) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		o.Dial = func() (*xenstore.Conn, error) {
			return b.m.Store.Dial(0), nil
		}
		out := &countdown{n: n, f: cancel}
		o.Out = out
		err := f(ctx, b.c, o)
		return err != nil && out.n <= 0
	}
	for i := 1; ; i++ {
		o := b.options("vm1", "t")
		o.Wait = 0
		if !kill(i, Attach, o) {
			break
		}
		if i%2 == 0 {
			b.ok(Detach(context.Background(), b.c, b.options("vm1", "t")))
			b.bare(n)
		}
		if i > 20 {
			t.Fatal("no end")
		}
	}
	r := b.m.Boot(n)
	r.Wait("0:0:0:0")
	for i := 1; kill(i, Detach, b.options("vm1", "t")); i++ {
		if i > 20 {
			t.Fatal("no end")
		}
	}
	b.ok(Detach(context.Background(), b.c, b.options("vm1", "t")))
	b.bare(n)
	r.Off()
}

// countdown calls f at the n'th write.
type countdown struct {
	n int
	f func()
}

func (c *countdown) Write(p []byte) (int, error) {
	if c.n--; c.n == 0 {
		c.f()
	}
	return len(p), nil
}
