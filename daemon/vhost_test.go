package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// guest connects a machine without QEMU.
func guest(t *testing.T, socket string) *vhosttest.Client {
	t.Helper()
	c, err := vhosttest.Dial(socket, vhosttest.Options{Timeout: tempotest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Events().Post(8); err != nil {
		t.Fatal(err)
	}
	return c
}

// reports is the list of REPORT LUNS at a virtio target.
func reports(t *testing.T, c *vhosttest.Client, target uint8) (luns []byte) {
	t.Helper()
	in := make([]byte, 256)
	for range 3 { // unit attentions
		r, err := c.Request(0).Exec(vhosttest.LUN(target, 0), []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, nil, in)
		if err != nil {
			t.Fatal(err)
		}
		if r.Response != vhosttest.RespOK {
			t.Fatalf("REPORT LUNS: response %d", r.Response)
		}
		if r.Status == 0 {
			break
		}
	}
	for b := in[8 : 8+int(in[3])]; len(b) > 0; b = b[8:] {
		luns = append(luns, b[1])
	}
	return luns
}

func (w *world) export(d *Daemon, target, kind string) ExportStatus {
	w.t.Helper()
	for _, e := range d.Exports() {
		if e.Target == target && e.Kind == kind {
			return e
		}
	}
	w.t.Fatalf("no export %s of %s in %+v", kind, target, d.Exports())
	return ExportStatus{}
}

// awaitState waits for the state of a target's vhost-user export.
func (w *world) awaitState(d *Daemon, target, state string) ExportStatus {
	w.t.Helper()
	var e ExportStatus
	if !tempotest.Settles(func() bool { e = w.export(d, target, kindVHost); return e.State == state }) {
		w.t.Fatalf("%+v, want it %s", e, state)
	}
	return e
}

// TestVHost: a machine comes, works, sees LUNs come and go at their virtio targets, and
// goes; another export beside it does not notice changes of the first.
func TestVHost(t *testing.T) {
	w := newWorld(t)
	one, two := filepath.Join(w.dir, "one"), filepath.Join(w.dir, "two")
	text := func(luns, more string) []byte {
		return w.config(fmt.Sprintf("disks:\n- {name: a, store: \"mem:\", size: 1MiB}\n- {name: b, store: \"mem:\", size: 1MiB}\n- {name: c, store: \"mem:\", size: 1MiB, shared: true}\n"+
			"targets:\n- {name: one, luns: [%s], vhost: {socket: %q%s}}\n- {name: two, luns: [{lun: 0, disk: c}], vhost: {socket: %q}, iscsi: {iqn: %q}}\n", luns, one, more, two, iqn2))
	}
	apply := func(d *Daemon, text []byte, force bool) *Result {
		t.Helper()
		r, err := d.Apply("f.yaml", text, ApplyOptions{Force: force})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	d := w.start(text("{lun: 0, disk: a}", ""))
	e := w.export(d, "one", kindVHost)
	if e.State != "listening" || e.Addresses[0] != one || e.RelativePort == 0 || !strings.HasPrefix(e.Name, "naa.3") || len(e.Name) != 20 || e.VHost.Initiator == "" {
		t.Errorf("%+v %+v", e, e.VHost)
	}
	if fi, err := os.Lstat(one); err != nil || fi.Mode() != fs.ModeSocket|0o600 {
		t.Error(fi, err)
	}
	c1, c2 := guest(t, one), guest(t, two)
	e = w.awaitState(d, "one", "connected")
	if v := e.VHost; v.PID != os.Getpid() || v.Started != 3 || v.Since == nil || len(v.Features) == 0 || v.MemoryBytes == 0 || e.Sessions != 1 {
		t.Errorf("%+v %+v", e, v)
	}
	if l := reports(t, c1, 0); !slices.Equal(l, []byte{0}) {
		t.Errorf("LUNs %v", l)
	}
	reports(t, c2, 0)
	var ss []Session
	if !tempotest.Settles(func() bool { // counters are published after the answer
		ss = d.Sessions()
		return len(ss) == 2 && ss[0].Kind == kindVHost && ss[0].Target == "one" && ss[0].Commands > 0 && strings.HasPrefix(ss[0].Initiator, "srp.")
	}) {
		t.Errorf("%+v", ss)
	}

	// A LUN at another virtio target, and one more here.
	apply(d, text("{lun: 0, disk: a}, {lun: 5, disk: b, address: {vhost: {target: 9}}}, {lun: 7, disk: c}", ""), false)
	if l := reports(t, c1, 9); !slices.Equal(l, []byte{5}) {
		t.Errorf("LUNs of target 9: %v", l)
	}
	if l := reports(t, c1, 0); !slices.Equal(l, []byte{0, 7}) {
		t.Errorf("LUNs of target 0: %v", l)
	}
	inquiry := make([]byte, 36)
	if r, err := c1.Request(0).Exec(vhosttest.LUN(9, 5), []byte{0x12, 0, 0, 0, 36, 0}, nil, inquiry); err != nil || r.Response != vhosttest.RespOK || r.Status != 0 || inquiry[0] != 0 {
		t.Errorf("INQUIRY: %+v %v %x", r, err, inquiry)
	}
	heard := map[vhosttest.Event]bool{}
	for range 2 {
		ev, err := c1.Events().Wait(0)
		if err != nil {
			t.Fatal(err)
		}
		heard[ev] = true
	}
	for _, l := range [][8]byte{vhosttest.LUN(9, 5), vhosttest.LUN(0, 7)} {
		if !heard[vhosttest.Event{Event: vhosttest.EventTransportReset, LUN: l, Reason: vhosttest.ReasonRescan}] {
			t.Errorf("heard %v", heard)
		}
	}
	if e := w.export(d, "one", kindVHost); !slices.Equal(e.VHost.Targets, []int{0, 9}) || e.Sessions != 2 {
		t.Errorf("%+v %+v", e, e.VHost)
	}

	// Taken away: refused, and who uses it is said; by force it is gone.
	if _, err := d.Apply("f.yaml", text("{lun: 0, disk: a}, {lun: 7, disk: c}", ""), ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "the virtual machine at "+one) {
		t.Error(err)
	}
	apply(d, text("{lun: 0, disk: a}, {lun: 7, disk: c}", ""), true)
	if r, err := c1.Request(0).Exec(vhosttest.LUN(9, 5), []byte{0, 0, 0, 0, 0, 0}, nil, nil); err != nil || r.Response != vhosttest.RespBadTarget {
		t.Errorf("target 9: %+v %v", r, err)
	}
	if ev, err := c1.Events().Wait(0); err != nil || ev != (vhosttest.Event{Event: vhosttest.EventTransportReset, LUN: vhosttest.LUN(9, 5), Reason: vhosttest.ReasonRemoved}) {
		t.Error(ev, err)
	}

	// Who may connect changes at once, for nobody who is there.
	apply(d, text("{lun: 0, disk: a}, {lun: 7, disk: c}", ", mode: \"0666\""), false)
	if fi, err := os.Lstat(one); err != nil || fi.Mode() != fs.ModeSocket|0o666 {
		t.Error(fi, err)
	}
	if l := reports(t, c1, 0); !slices.Equal(l, []byte{0, 7}) {
		t.Errorf("LUNs %v", l)
	}

	// Another socket: the machine loses its device, the other one stays.
	was := one
	one = filepath.Join(w.dir, "uno")
	if _, err := d.Apply("f.yaml", text("{lun: 0, disk: a}", ""), ApplyOptions{}); err == nil {
		t.Error("not refused")
	}
	apply(d, text("{lun: 0, disk: a}", ""), true)
	if err := c1.WaitClosed(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(was); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the old socket is there still:", err)
	}
	reports(t, c2, 0)
	if e := w.export(d, "two", kindVHost); e.State != "connected" || e.VHost.Counters.Connections != 1 {
		t.Errorf("%+v %+v", e, e.VHost)
	}
	// Its own iSCSI name may go without it noticing.
	apply(d, []byte(strings.Replace(string(text("{lun: 0, disk: a}", "")), iqn2, iqn1, 1)), false)
	reports(t, c2, 0)
	id := w.export(d, "one", kindVHost).VHost.Initiator
	c3 := guest(t, one)
	if l := reports(t, c3, 0); !slices.Equal(l, []byte{0}) {
		t.Errorf("LUNs %v", l)
	}
	_ = c3.Close()
	w.awaitState(d, "one", "listening")

	var told []string
	_ = d.Events(context.Background(), SinceAll, false, func(es []Event) error {
		for _, e := range es {
			if e.Kind == kindExport {
				told = append(told, e.Name+" "+strings.Split(e.Detail, ":")[0])
			}
		}
		return nil
	})
	for _, want := range []string{"one/vhost connected", "one/vhost disconnected", "two/vhost connected"} {
		if !slices.Contains(told, want) {
			t.Errorf("no event %q in %q", want, told)
		}
	}

	// Nothing is left, and the machine is the same initiator afterwards.
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for _, s := range []string{one, two} {
		if _, err := os.Lstat(s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", s, err)
		}
	}
	d = w.start(text("{lun: 0, disk: a}", ""))
	if now := w.export(d, "one", kindVHost).VHost.Initiator; now != id {
		t.Errorf("initiator %s, was %s", now, id)
	}
}

// TestVHostSockets: only what nobody uses is replaced, and what is wrong is said.
func TestVHostSockets(t *testing.T) {
	w := newWorld(t)
	p := filepath.Join(w.dir, "sock")
	text := func(more string) []byte {
		return w.config(fmt.Sprintf("targets:\n- {name: one, vhost: {socket: %q%s}}\n", p, more))
	}
	refused := func(text []byte, words ...string) {
		t.Helper()
		err := w.refused(text)
		for _, s := range words {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%v\nwant %q", err, s)
			}
		}
	}
	refused(text(", owner: no-such-user"), "f.yaml:3:", "there is no user no-such-user")
	refused(text(", group: no-such-group"), "there is no group no-such-group")
	if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(text(""), "f.yaml:3:", "something that is not a socket is there")
	if b, err := os.ReadFile(p); err != nil || string(b) != "x" {
		t.Fatal("the file was touched")
	}
	// The same is said without a daemon.
	cfg, err := config.Parse("f.yaml", text(", owner: no-such-user, group: no-such-group"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"f.yaml:3:", "is not a socket", "there is no user no-such-user", "there is no group no-such-group"} {
		if err := CheckHost(cfg); err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%v\nwant %q", err, s)
		}
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	refused(text(""), "another program answers there")
	ln.SetUnlinkOnClose(false)
	ln.Close()
	d := w.start(text(", owner: " + fmt.Sprint(os.Getuid()) + ", group: " + fmt.Sprint(os.Getgid())))
	c := guest(t, p)
	if r, err := c.Request(0).Exec(vhosttest.LUN(0, 0), []byte{0x12, 0, 0, 0, 96, 0}, nil, make([]byte, 96)); err != nil || r.Response != vhosttest.RespOK {
		t.Errorf("INQUIRY of a target without LUNs: %+v %v", r, err)
	}
	if fi, err := os.Lstat(p); err != nil || fi.Mode().Perm() != 0o660 {
		t.Error(fi, err)
	}
	if _, err := vhosttest.Dial(p, vhosttest.Options{Timeout: tempotest.Patience}); err == nil {
		t.Error("two machines at one socket")
	}
	if n := w.export(d, "one", kindVHost).VHost.Counters.Rejected; n != 1 {
		t.Errorf("%d rejected", n)
	}
}

// TestVHostShared: a virtual machine is an initiator like others to the guard of disks
// that are not shared, also where only a mask decides.
func TestVHostShared(t *testing.T) {
	w := newWorld(t)
	p := filepath.Join(w.dir, "sock")
	text := func(mask string) []byte {
		return w.config(fmt.Sprintf("disks: [{name: a, store: \"mem:\", size: 1MiB}]\ntargets:\n- {name: one, luns: [{lun: 0, disk: a, initiators: [%q]}], vhost: {socket: %q, initiator: 6f1c0000-0000-4000-8000-000000000001}, iscsi: {iqn: %q}}\n", mask, p, iqn1))
	}
	d := w.start(text("iqn.*"))
	c := guest(t, p)
	if l := reports(t, c, 0); len(l) != 0 {
		t.Errorf("LUNs %v", l)
	}
	if r, err := c.Request(0).Exec(vhosttest.LUN(0, 0), []byte{0, 0, 0, 0, 0, 0}, nil, nil); err != nil || r.Status == 0 {
		t.Errorf("the LUN is masked: %+v %v", r, err)
	}
	dial(t, d, iqn1, host)
	awaitSessions(t, d, 2)
	// Now both could write: the core refuses one of them, and it is told.
	r, err := d.Apply("f.yaml", text("*"), ApplyOptions{})
	if err == nil && len(r.Warnings) == 0 {
		t.Error("two initiators may write")
	}
	// The other way round: the machine writes, the host does not get in.
	d.Close()
	d = w.start(text("srp.6f1c*"))
	c = guest(t, p)
	if l := reports(t, c, 0); !slices.Equal(l, []byte{0}) {
		t.Errorf("LUNs %v", l)
	}
	d.Close()
	d = w.start(text("*"))
	wantNotShared(t, d, iqn1, host)
	if e := w.export(d, "one", kindVHost); e.State != "listening" {
		t.Errorf("%+v", e)
	}
}

// TestVHostInherited: a socket that somebody else has bound stays theirs.
func TestVHostInherited(t *testing.T) {
	w := newWorld(t)
	p := filepath.Join(w.dir, "sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	text := func(target string) []byte {
		return w.config(fmt.Sprintf("targets: [%s]\n", target))
	}
	with := fmt.Sprintf("{name: one, vhost: {socket: %q}}", p)
	d := w.startWith(text(with), Options{Inherited: []*os.File{f}})
	c := guest(t, p)
	w.awaitState(d, "one", "connected")
	if _, err := d.Apply("f.yaml", text(""), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitClosed(); err != nil {
		t.Error(err)
	}
	// It listens still, and the export that comes back finds it.
	if _, err := d.Apply("f.yaml", text(with), ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	guest(t, p)
	w.awaitState(d, "one", "connected")
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(p); err != nil {
		t.Error("the socket is not ours to remove:", err)
	}
}

// TestPortName: names differ where ports do, and stay.
func TestPortName(t *testing.T) {
	a := portName("vm1:0", [16]byte{1})
	for _, b := range []string{portName("vm1:1", [16]byte{1}), portName("vm2:0", [16]byte{1}), portName("vm1:0", [16]byte{2}), portName("vm1", [16]byte{1})} {
		if a == b {
			t.Error(b)
		}
	}
	if a != "naa.3"+strings.Repeat("x", 15) && len(a) != 20 || a != portName("vm1:0", [16]byte{1}) {
		t.Error(a)
	}
	if err := config.CheckISCSIName(a); err != nil { // the same form
		t.Error(err)
	}
}

// TestVHostSwap: two targets change their sockets in one go.
func TestVHostSwap(t *testing.T) {
	w := newWorld(t)
	text := func(a, b string) []byte {
		return w.config(fmt.Sprintf("disks: [{name: a, store: \"mem:\", size: 1MiB}]\ntargets:\n- {name: one, luns: [{lun: 3, disk: a}], vhost: {socket: %q}}\n- {name: two, vhost: {socket: %q}}\n", filepath.Join(w.dir, a), filepath.Join(w.dir, b)))
	}
	d := w.start(text("x", "y"))
	for _, s := range [][2]string{{"y", "x"}, {"x", "z"}, {"z", "x"}} {
		if r, err := d.Apply("f.yaml", text(s[0], s[1]), ApplyOptions{}); err != nil || len(r.Warnings) > 0 {
			t.Fatal(r, err)
		}
		c, o := guest(t, filepath.Join(w.dir, s[0])), guest(t, filepath.Join(w.dir, s[1]))
		if l := reports(t, c, 0); !slices.Equal(l, []byte{3}) {
			t.Errorf("%v: LUNs %v", s, l)
		}
		if l := reports(t, o, 0); len(l) != 0 {
			t.Errorf("%v: LUNs %v of the other", s, l)
		}
		_, _ = c.Close(), o.Close()
		w.awaitState(d, "one", "listening")
		w.awaitState(d, "two", "listening")
	}
}
