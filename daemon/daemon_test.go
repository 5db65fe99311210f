package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

const (
	iqn1 = "iqn.2026-11.org.vtgt:one"
	iqn2 = "iqn.2026-11.org.vtgt:two"
	host = "iqn.2026-11.org.vtgt:test-host"
)

// world is a folder with what a configuration needs.
type world struct {
	t   *testing.T
	dir string
}

func newWorld(t *testing.T) *world {
	noLeaks(t)
	return &world{t, hosttest.Dir(t)}
}

func (w *world) file(name string, size int64) string {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Truncate(p, size); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// config completes a configuration: disks and targets are given.
func (w *world) config(body string, portals ...string) []byte {
	if portals == nil {
		portals = []string{"127.0.0.1:0"}
	}
	return []byte(fmt.Sprintf("version: 1\n%siscsi: {portals: [\"%s\"]}\napi: {socket: %q}\nstate: %q\nloops: 2\n",
		body, strings.Join(portals, `", "`), filepath.Join(w.dir, "s"), filepath.Join(w.dir, "state")))
}

func (w *world) start(text []byte) *Daemon {
	w.t.Helper()
	return w.startWith(text, Options{})
}

func (w *world) startWith(text []byte, o Options) *Daemon {
	w.t.Helper()
	o.LockWait, o.DrainTime, o.CloseTime = -1, tempotest.Patience, tempotest.Patience
	if o.space == nil {
		// Tests that count events and warnings do not depend on the machine's disk.
		o.space = func(st backing.Store) (backing.Space, error) {
			s, err := backing.SpaceOf(st)
			s.Available = s.Total
			return s, err
		}
	}
	d, err := New("f.yaml", text, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return d
}

func (w *world) refused(text []byte) Errors {
	w.t.Helper()
	d, err := New("f.yaml", text, Options{LockWait: -1})
	if err == nil {
		d.Close()
		w.t.Fatal("no error")
	}
	return AsErrors(err)
}

func dial(t *testing.T, d *Daemon, target, initiator string) *iscsitest.Conn {
	t.Helper()
	c, err := tryDial(d, target, initiator)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tryDial(d *Daemon, target, initiator string) (*iscsitest.Conn, error) {
	c, err := iscsitest.Dial(d.Status().Portals[0])
	if err != nil {
		return nil, err
	}
	if err := c.Login(iscsitest.Login{InitiatorName: initiator, TargetName: target, HeaderDigest: true}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// awaitSessions waits until d lists n sessions: it hears of them a moment later
// than their initiators.
func awaitSessions(t *testing.T, d *Daemon, n int) {
	t.Helper()
	if !tempotest.Settles(func() bool { return len(d.Sessions()) == n }) {
		t.Fatalf("%d sessions, want %d", len(d.Sessions()), n)
	}
}

func rw(op byte, blocks int) []byte {
	return []byte{op, 0, 0, 0, 0, 0, 0, byte(blocks >> 8), byte(blocks), 0}
}

// run runs a command, again after a unit attention.
func run(t *testing.T, c *iscsitest.Conn, cmd iscsitest.Command) *iscsitest.Task {
	t.Helper()
	for range 5 {
		x := cmd
		r, err := c.Run(&x)
		if err != nil {
			t.Fatal(err)
		}
		if key, _ := iscsitest.Sense(r.Sense); r.Status == 2 && key == 6 {
			continue
		}
		return r
	}
	t.Fatal("unit attentions without end")
	return nil
}

func write(t *testing.T, c *iscsitest.Conn, lun uint16, b byte) {
	t.Helper()
	r := run(t, c, iscsitest.Command{LUN: lun, CDB: rw(0x2a, 1), Out: bytes.Repeat([]byte{b}, 512)})
	if r.Status != 0 {
		t.Fatalf("WRITE: status %x sense %x", r.Status, r.Sense)
	}
}

func read(t *testing.T, c *iscsitest.Conn, lun uint16, b byte) {
	t.Helper()
	r := run(t, c, iscsitest.Command{LUN: lun, CDB: rw(0x28, 1), In: 512})
	if r.Status != 0 || !bytes.Equal(r.In, bytes.Repeat([]byte{b}, 512)) {
		t.Fatalf("READ: status %x sense %x, % .16x", r.Status, r.Sense, r.In)
	}
}

func (w *world) one() string {
	return fmt.Sprintf("disks:\n- {name: a, store: %q}\n- {name: m, store: \"mem:\", size: 1MiB}\ntargets:\n- {name: t1, luns: [{lun: 0, disk: a}], iscsi: {iqn: %q}}\n", "file:"+filepath.Join(w.dir, "a.img"), iqn1)
}

func TestServeAndClose(t *testing.T) {
	w := newWorld(t)
	img := w.file("a.img", 1<<20)
	d := w.start(w.config(w.one()))
	c := dial(t, d, iqn1, host)
	write(t, c, 0, 0x5a)
	read(t, c, 0, 0x5a)

	ss := d.Sessions()
	if len(ss) != 1 || ss[0].Target != "t1" || ss[0].Initiator != host || ss[0].Params["HeaderDigest"] != "CRC32C" || ss[0].Params["DataDigest"] != "None" {
		t.Errorf("sessions %+v", ss)
	}
	ks := d.Disks()
	if len(ks) != 2 || ks[0].Size != 1<<20 || len(ks[0].Serial) != 16 || ks[0].LUNs[0] != "t1/0" {
		t.Errorf("disks %+v", ks)
	}
	if ts := d.Targets(); ts[0].Sessions != 1 || ts[0].LUNs[0].Size != 1<<20 {
		t.Errorf("targets %+v", ts)
	}
	if es := d.Exports(); es[0].RelativePort != 1 || es[0].Sessions != 1 || !strings.HasPrefix(es[0].Addresses[0], "127.0.0.1:") {
		t.Errorf("exports %+v", es)
	}

	// A second daemon is refused and does no harm.
	text := bytes.Replace(w.config(w.one()), []byte("/state"), []byte("/state2"), 1)
	if es := w.refused(text); es[0].Code != CodeInUse || !strings.Contains(es[0].Error(), "a.img") {
		t.Errorf("%v", es)
	}
	if es := w.refused(w.config(w.one())); es[0].Code != CodeInUse || !strings.Contains(es[0].Error(), "another vtgt (process ") {
		t.Errorf("%v", es)
	}
	read(t, c, 0, 0x5a)

	// An initiator that stays does not hold it up for a quarter of that time.
	begin := time.Now()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > tempotest.Patience/4 {
		t.Errorf("Close took %v", took)
	}
	b, err := os.ReadFile(img)
	if err != nil || !bytes.Equal(b[:512], bytes.Repeat([]byte{0x5a}, 512)) {
		t.Errorf("what was written is not in the file: %v", err)
	}
	if _, err := d.Apply("x", w.config(w.one()), ApplyOptions{}); err == nil || AsErrors(err)[0].Code != CodeUnavailable {
		t.Errorf("apply after Close: %v", err)
	}

	// Everything is free again, and known by the same serial.
	d2 := w.start(w.config(w.one()))
	if got := d2.Disks(); got[0].Serial != ks[0].Serial || got[0].NAA != ks[0].NAA {
		t.Errorf("identity changed: %+v, was %+v", got[0], ks[0])
	}
}

func TestNothingHalfStarted(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	w.file("short.img", 4096)
	w.file("odd.img", 4096+512)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	fine := hosttest.Port(t).String()
	made := filepath.Join(w.dir, "made.img")
	body := strings.Replace(w.one(), "disks:\n", fmt.Sprintf("disks:\n- {name: made, store: %q, create: true, size: 1MiB}\n- {name: gone, store: %q}\n- {name: short, store: %q, size: 1MiB}\n- {name: odd, store: %q, blockSize: 4096}\n",
		"file:"+made, "file:"+w.dir+"/gone.img", "file:"+w.dir+"/short.img", "file:"+w.dir+"/odd.img"), 1)
	es := w.refused(w.config(body, busy.Addr().String(), fine))
	for _, want := range []struct {
		code Code
		text []string
	}{
		{CodeNotFound, []string{"f.yaml:4:23: disk gone", "gone.img"}},
		{CodeInvalid, []string{"f.yaml:5:24: disk short", "short.img", "4096"}},
		{CodeInvalid, []string{"f.yaml:6:22: disk odd", "4608 bytes is not a multiple of the block size 4096"}},
		{CodeInUse, []string{"portal " + busy.Addr().String(), "in use"}},
	} {
		if !slices.ContainsFunc(es, func(e *Error) bool {
			ok := e.Code == want.code && e.Hint != ""
			for _, s := range want.text {
				ok = ok && strings.Contains(e.Error(), s)
			}
			return ok
		}) {
			t.Errorf("%v is not among\n%v", want, es)
		}
	}
	if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made although nothing is served: %v", err)
	}
	// All that could be opened was let go of.
	w.start(w.config(w.one(), fine))
}

func TestApply(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	w.file("b.img", 2<<20)
	d := w.start(w.config(w.one()))
	c := dial(t, d, iqn1, host)
	write(t, c, 0, 1)

	next := w.config(fmt.Sprintf("disks:\n- {name: a, store: %q}\n- {name: b, store: %q, blockSize: 4096}\n- {name: n, store: \"null:\", size: 1GiB}\ntargets:\n"+
		"- {name: t1, luns: [{lun: 0, disk: a}, {lun: 1, disk: b}], iscsi: {iqn: %q}}\n- {name: t2, luns: [{lun: 5, disk: n}], iscsi: {iqn: %q}}\n",
		"file:"+w.dir+"/a.img", "file:"+w.dir+"/b.img", iqn1, iqn2), "127.0.0.1:0", "127.0.0.2:0")

	dry, err := d.Apply("g.yaml", next, ApplyOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Disks()) != 2 || d.Status().Revision != 1 {
		t.Error("a dry run changed something")
	}
	res, err := d.Apply("g.yaml", next, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(res.Changes, dry.Changes) || len(res.Changes) != 7 || len(res.Warnings) != 0 || res.Revision != 2 {
		t.Errorf("%+v\n%+v", res, dry)
	}
	if n := len(d.Status().Portals); n != 2 || d.Config().File != "g.yaml" {
		t.Errorf("%d portals, %s", n, d.Config().File)
	}

	// The session is the same one, is told of the LUN, and sees it.
	x := iscsitest.Command{CDB: make([]byte, 6)}
	r, err := c.Run(&x)
	if err != nil {
		t.Fatal(err)
	}
	if key, asc := iscsitest.Sense(r.Sense); key != 6 || asc != 0x3f0e {
		t.Errorf("sense %x %04x, want REPORTED LUNS DATA HAS CHANGED", key, asc)
	}
	read(t, c, 0, 1)
	r = run(t, c, iscsitest.Command{LUN: 1, CDB: []byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, In: 8})
	if !bytes.Equal(r.In, []byte{0, 0, 1, 0xff, 0, 0, 0x10, 0}) {
		t.Errorf("capacity of LUN 1: %x", r.In)
	}
	dial(t, d, iqn2, host)
	awaitSessions(t, d, 2)

	// Nothing to do: nothing is done.
	if res, err = d.Apply("g.yaml", next, ApplyOptions{}); err != nil || len(res.Changes) != 0 {
		t.Errorf("%+v %v", res, err)
	}

	// Back again: LUN 1, target t2 with its session and the portal go.
	_, err = d.Apply("f.yaml", w.config(w.one()), ApplyOptions{})
	if es := AsErrors(err); err == nil || len(es) != 2 || es[0].Code != CodeBusy || es[0].Object != "target t2" || !strings.Contains(es[0].Message, "is in use by "+host+",i,0x") ||
		es[1].Object != "lun t1/1" || !strings.Contains(es[1].Hint, "--force") {
		t.Errorf("%v", err)
	}
	dry, err = d.Apply("f.yaml", w.config(w.one()), ApplyOptions{DryRun: true, Force: true})
	if err != nil || len(dry.Warnings) != 2 || !strings.Contains(dry.Warnings[0], "target t2 is removed: its sessions end: "+host) {
		t.Errorf("%+v %v", dry, err)
	}
	if _, err = d.Apply("f.yaml", w.config(w.one()), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r = run(t, c, iscsitest.Command{LUN: 1, CDB: make([]byte, 6)})
	if key, asc := iscsitest.Sense(r.Sense); key != 5 || asc != 0x2500 {
		t.Errorf("LUN 1 is gone, but: %x %04x", key, asc)
	}
	read(t, c, 0, 1)
	if _, err := tryDial(d, iqn2, host); err == nil {
		t.Error("target t2 is still there")
	}
	if ss := d.Sessions(); len(ss) != 1 {
		t.Errorf("%d sessions", len(ss))
	}
}

func TestApplyRefusals(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d := w.start(w.config(w.one()))
	c := dial(t, d, iqn1, host)
	awaitSessions(t, d, 1)
	write(t, c, 0, 7)
	refuse := func(code Code, text []byte, want string) {
		t.Helper()
		before := d.Config()
		for _, dry := range []bool{true, false} {
			_, err := d.Apply("g.yaml", text, ApplyOptions{DryRun: dry})
			if dry && code == CodeNotFound {
				continue // not tried
			}
			es := AsErrors(err)
			if err == nil || es[0].Code != code || !strings.Contains(es.Error(), want) {
				t.Errorf("dry %v: %v, want %s", dry, err, want)
			}
		}
		if d.Config() != before {
			t.Error("the configuration is another one")
		}
		read(t, c, 0, 7)
	}
	sub := func(old, new string) []byte {
		s := string(w.config(w.one()))
		if !strings.Contains(s, old) {
			t.Fatalf("no %s in\n%s", old, s)
		}
		return []byte(strings.Replace(s, old, new, 1))
	}
	refuse(CodeInvalid, []byte("version: 2\n"), "g.yaml:1:10: version 2 is not known")
	refuse(CodeBusy, sub("a.img\"", "a.img\", cache: writethrough"), "disk a: cannot change (cache writeback -> writethrough) while initiators use it: "+host)
	refuse(CodeBusy, sub("iqn: \""+iqn1, "iqn: \""+iqn2), "target t1: its iSCSI export cannot change while initiators are logged in")
	refuse(CodeRestart, sub("loops: 2", "loops: 3"), "g.yaml:10:8: loops cannot change from 2 to 3")
	refuse(CodeRestart, sub("/state\"", "/state3\""), "state cannot change")
	refuse(CodeNotFound, sub("- {name: m, store: \"mem:\", size: 1MiB}", fmt.Sprintf("- {name: m, store: %q}", "file:"+w.dir+"/none.img")), "none.img")

	// The same change without a session.
	c.Close()
	awaitSessions(t, d, 0)
	if _, err := d.Apply("g.yaml", sub("a.img\"", "a.img\", cache: writethrough"), ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if k := d.Disks()[0]; k.Cache != "writethrough" {
		t.Errorf("%+v", k)
	}
	c = dial(t, d, iqn1, host)
	read(t, c, 0, 7)
}

// A changed disk that cannot be opened as it is to be comes back as it was.
func TestReopenFails(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d := w.start(w.config(w.one()))
	text := string(w.config(w.one()))
	_, err := d.Apply("g.yaml", []byte(strings.Replace(text, "a.img\"", "a.img\", size: 2MiB, blockSize: 4096", 1)), ApplyOptions{})
	if err == nil || !strings.Contains(err.Error(), "a.img") {
		t.Fatalf("%v", err)
	}
	if k := d.Disks(); k[0].BlockSize != 512 || k[0].Size != 1<<20 {
		t.Errorf("%+v", k[0])
	}
	c := dial(t, d, iqn1, host)
	write(t, c, 0, 3)
	read(t, c, 0, 3)
	c.Close()
	// Another file that is not there: the old one was never closed.
	if _, err := d.Apply("g.yaml", []byte(strings.Replace(text, "a.img\"", "none.img\"", 1)), ApplyOptions{}); err == nil {
		t.Fatal("no error")
	}
	read(t, dial(t, d, iqn1, host), 0, 3)
}

func TestGrow(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d := w.start(w.config(w.one()))
	c := dial(t, d, iqn1, host)
	read(t, c, 0, 0)
	text := strings.Replace(string(w.config(w.one())), "a.img\"", "a.img\", size: 2MiB", 1)
	if _, err := d.Apply("g.yaml", []byte(text), ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	r := run(t, c, iscsitest.Command{CDB: []byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, In: 8})
	if !bytes.Equal(r.In, []byte{0, 0, 0x0f, 0xff, 0, 0, 2, 0}) {
		t.Errorf("capacity %x", r.In)
	}
	if _, err := d.Apply("g.yaml", []byte(strings.Replace(text, "2MiB", "512KiB", 1)), ApplyOptions{}); err == nil || AsErrors(err)[0].Code != CodeInvalid || !strings.Contains(err.Error(), "use --force") {
		t.Errorf("shrinking a disk: %v", err)
	}
	if _, err := d.Apply("g.yaml", []byte(strings.Replace(text, "2MiB", "512KiB", 1)), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r = run(t, c, iscsitest.Command{CDB: []byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, In: 8})
	if !bytes.Equal(r.In, []byte{0, 0, 0x03, 0xff, 0, 0, 2, 0}) {
		t.Errorf("capacity %x", r.In)
	}
}

func TestStateUnwritable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("as root nothing is unwritable: a file stands in the way instead")
	}
	w := newWorld(t)
	w.file("a.img", 1<<20)
	w.file("state", 0)
	es := w.refused(w.config(w.one()))
	if !strings.Contains(es.Error(), "state "+w.dir+"/state: cannot make the state folder") {
		t.Errorf("%v", es)
	}
}
