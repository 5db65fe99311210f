package daemon

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/chap"
	"github.com/vtgt/vtgt/scsi"
)

// fakeEngine keeps account of what is open and mapped, and fails on demand.
type fakeEngine struct {
	mu    sync.Mutex
	fail  string // "OP NAME" that fails
	open  map[string]bool
	calls []string
	hang  time.Duration // how long disks take to close
	over  bool
	// connected is who is there.
	connected []Session
}

var errFake = &Error{Code: CodeInternal, Object: "fake", Message: "told to fail"}

// do notes a call and says whether it fails.
func (e *fakeEngine) do(op, name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, op+" "+name)
	if e.fail == op+" "+name {
		x := *errFake
		return &x
	}
	return nil
}

// flip opens or closes a thing; twice is a defect.
func (e *fakeEngine) flip(name string, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open[name] == on {
		panic(fmt.Sprintf("%s is open: %v already\n%s", name, on, strings.Join(e.calls, "\n")))
	}
	if on {
		e.open[name] = true
	} else {
		delete(e.open, name)
	}
}

func (e *fakeEngine) things() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for n := range e.open {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (e *fakeEngine) remember(func(string) scsi.Memory) {}

type fakeDisk struct {
	e    *fakeEngine
	name string // disk and path
	cfg  config.Disk
}

func (e *fakeEngine) openDisk(d *config.Disk, _ state.Disk, _ time.Duration) (diskObject, error) {
	name := "disk " + d.Name + " " + d.Store
	if err := e.do("open", d.Name+" "+string(d.Cache)); err != nil {
		return nil, err
	}
	e.flip(name, true)
	return &fakeDisk{e, name, *d}, nil
}
func (k *fakeDisk) status() diskState               { return diskState{size: 1 << 20} }
func (k *fakeDisk) resize(int64) error              { return k.e.do("resize", k.cfg.Name) }
func (k *fakeDisk) setOnError(config.OnError)       {}
func (k *fakeDisk) setSanitizeSpeed(config.Size)    {}
func (k *fakeDisk) setShared(bool) error            { return nil }
func (k *fakeDisk) resume() error                   { return k.e.do("resume", k.cfg.Name) }
func (k *fakeDisk) reservations() scsi.Reservations { return scsi.Reservations{} }
func (k *fakeDisk) clearReservations(time.Duration) error {
	return k.e.do("clear reservations", k.cfg.Name)
}
func (k *fakeDisk) flush(time.Duration) error { return k.e.do("flush", k.cfg.Name) }
func (k *fakeDisk) close(deadline time.Duration) error {
	if err := k.e.do("close", k.cfg.Name); err != nil {
		return err
	}
	if k.e.hang > deadline {
		time.Sleep(deadline)
		return &Error{Code: CodeTimeout, Object: "disk " + k.cfg.Name, Message: "stuck"}
	}
	time.Sleep(k.e.hang)
	for _, n := range k.e.things() {
		if strings.HasPrefix(n, "lun ") && strings.HasSuffix(n, k.name) {
			panic(n + " is mapped still")
		}
	}
	k.e.flip(k.name, false)
	return nil
}

func (e *fakeEngine) setDiscovery([]chap.Account) {}

type fakeTarget struct {
	e    *fakeEngine
	name string
	mu   sync.Mutex
	luns map[uint16]string
}

func (e *fakeEngine) newTarget(t *config.Target, _ uint16) (targetObject, error) {
	name := t.Name
	if err := e.do("target", name); err != nil {
		return nil, err
	}
	e.flip("target "+name, true)
	return &fakeTarget{e: e, name: name, luns: map[uint16]string{}}, nil
}
func (o *fakeTarget) mapLUN(l config.LUN, d diskObject, _ bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.luns[l.LUN] != "" {
		return errors.New("LUN in use")
	}
	o.luns[l.LUN] = d.(*fakeDisk).name
	o.e.flip(fmt.Sprintf("lun %s/%d %s", o.name, l.LUN, o.luns[l.LUN]), true)
	return nil
}
func (o *fakeTarget) unmapLUN(lun uint16, _ time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.luns[lun] != "" {
		o.e.flip(fmt.Sprintf("lun %s/%d %s", o.name, lun, o.luns[lun]), false)
		delete(o.luns, lun)
	}
	return nil
}
func (o *fakeTarget) remapLUN(uint16, bool, time.Duration) error { return nil }
func (o *fakeTarget) setAccess(*access)                          {}
func (o *fakeTarget) setALUA(config.ALUA, time.Duration) error   { return nil }
func (o *fakeTarget) close()                                     { o.e.flip("target "+o.name, false) }

// fakeExport is made, started and closed once.
type fakeExport struct {
	e       *fakeEngine
	name    string
	started bool
	closed  bool
}

func (o *fakeTarget) newExport(what string) (exportObject, error) {
	if err := o.e.do("export", o.name+" "+what); err != nil {
		return nil, err
	}
	o.e.flip("made "+o.name+" "+what, true)
	return &fakeExport{e: o.e, name: o.name + " " + what}, nil
}
func (o *fakeTarget) newISCSI(c *config.TargetISCSI, _ uint16) (exportObject, error) {
	return o.newExport(c.IQN)
}
func (o *fakeTarget) newRing(s *ringSpec, own bool) (exportObject, error) {
	return o.newExport(fmt.Sprintf("%s %v", s.socket, own))
}
func (x *fakeExport) start() error {
	if x.started || x.closed {
		panic(x.name + " is started again")
	}
	x.started = true
	x.e.flip("export "+x.name, true)
	return nil
}
func (x *fakeExport) adjust(s *ringSpec) error {
	return x.e.do("adjust", fmt.Sprintf("%s %04o %d", s.socket, s.access.Mode, len(s.ports)))
}
func (x *fakeExport) describe(*ExportStatus) {}
func (x *fakeExport) close(time.Duration) error {
	if x.closed {
		return nil
	}
	x.closed = true
	x.e.flip("made "+x.name, false)
	if x.started {
		x.e.flip("export "+x.name, false)
	}
	return nil
}

func (e *fakeEngine) alive() {}

func (e *fakeEngine) observe(func(kind, name, detail string)) {}

type fakePortal struct {
	e *fakeEngine
	a string
}

func (e *fakeEngine) listen(a string) (portalObject, error) {
	if err := e.do("listen", a); err != nil {
		return nil, err
	}
	e.flip("portal "+a, true)
	return &fakePortal{e, a}, nil
}
func (p *fakePortal) addr() string             { return p.a }
func (p *fakePortal) start() error             { return p.e.do("start", p.a) }
func (p *fakePortal) close() error             { p.e.flip("portal "+p.a, false); return nil }
func (e *fakeEngine) sessions() []Session      { return e.connected }
func (e *fakeEngine) traffic() Traffic         { return Traffic{} }
func (e *fakeEngine) stop(time.Duration) error { return e.do("stop", "") }
func (e *fakeEngine) close()                   { e.over = true }

func fakeStart(t *testing.T, e *fakeEngine, text []byte) (*Daemon, error) {
	t.Helper()
	cfg, err := config.Parse("f.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return start("f.yaml", text, cfg, e, Options{LockWait: -1, DrainTime: time.Second, CloseTime: time.Second})
}

func fakeConfig(dir, disks, luns, portals string) []byte {
	return []byte(fmt.Sprintf("version: 1\ndisks:\n%stargets:\n%siscsi: {portals: [%s]}\nstate: %q\n", disks, luns, portals, filepath.Join(dir, "state")))
}

// Whatever step fails, what runs afterwards is what ran before.
func TestFaults(t *testing.T) {
	const tgt = "- {name: t, luns: [{lun: 0, disk: a}, {lun: 1, disk: b}], iscsi: {iqn: iqn.2026-11.org.vtgt:t}}\n"
	dir := t.TempDir()
	before := fakeConfig(dir, "- {name: a, store: \"file:/a\"}\n- {name: b, store: \"file:/b\"}\n", tgt, "\"127.0.0.1:1\"")
	// b has other settings, a another file, c and u and a portal are new.
	after := fakeConfig(dir, "- {name: a, store: \"file:/a2\"}\n- {name: b, store: \"file:/b\", cache: direct}\n- {name: c, store: \"file:/c\"}\n- {name: new, store: \"file:/no/such/new\", create: true, size: 1MiB}\n",
		"- {name: t, luns: [{lun: 0, disk: a}, {lun: 2, disk: b}, {lun: 3, disk: c}], iscsi: {iqn: iqn.2026-11.org.vtgt:t}}\n- {name: u, luns: [{lun: 0, disk: new}], iscsi: {iqn: iqn.2026-11.org.vtgt:u}}\n",
		"\"127.0.0.1:2\"")
	wantBefore := []string{
		"disk a file:/a", "disk b file:/b", "export t iqn.2026-11.org.vtgt:t",
		"lun t/0 disk a file:/a", "lun t/1 disk b file:/b", "made t iqn.2026-11.org.vtgt:t", "portal 127.0.0.1:1", "target t",
	}
	wantAfter := []string{
		"disk a file:/a2", "disk b file:/b", "disk c file:/c", "disk new file:/no/such/new", "export t iqn.2026-11.org.vtgt:t", "export u iqn.2026-11.org.vtgt:u",
		"lun t/0 disk a file:/a2", "lun t/2 disk b file:/b", "lun t/3 disk c file:/c",
		"lun u/0 disk new file:/no/such/new", "made t iqn.2026-11.org.vtgt:t", "made u iqn.2026-11.org.vtgt:u", "portal 127.0.0.1:2", "target t", "target u",
	}
	for _, fail := range []string{"", "open a writeback", "open b direct", "open c writeback", "open new writeback", "listen 127.0.0.1:2", "target u", "close b"} {
		t.Run(strings.ReplaceAll("fail "+fail, " ", "_"), func(t *testing.T) {
			e := &fakeEngine{open: map[string]bool{}}
			d, err := fakeStart(t, e, before)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.things(); !slices.Equal(got, wantBefore) {
				t.Fatalf("at the start:\n%s", strings.Join(got, "\n"))
			}
			e.fail = fail
			res, err := d.Apply("g.yaml", after, ApplyOptions{})
			e.fail = ""
			want := wantBefore
			if fail == "" {
				want = wantAfter
			}
			if (err == nil) != (fail == "") {
				t.Errorf("%v", err)
			}
			if err == nil && len(res.Warnings) > 0 {
				t.Errorf("%v", res.Warnings)
			}
			if got := e.things(); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s\nby\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), strings.Join(e.calls, "\n"))
			}
			// From there both ways lead where they should.
			if _, err := d.Apply("g.yaml", after, ApplyOptions{}); err != nil {
				t.Error(err)
			}
			if got := e.things(); !slices.Equal(got, wantAfter) {
				t.Errorf("the second time\n%s", strings.Join(got, "\n"))
			}
			if _, err := d.Apply("f.yaml", before, ApplyOptions{}); err != nil {
				t.Error(err)
			}
			if got := e.things(); !slices.Equal(got, wantBefore) {
				t.Errorf("back\n%s", strings.Join(got, "\n"))
			}
			if err := d.Close(); err != nil || len(e.things()) != 0 || !e.over {
				t.Errorf("after Close: %v\n%v", err, e.things())
			}
		})
	}
}

// A disk that a refused change closed and that cannot be opened again is lost until
// it can: it comes back with the next configuration that has it.
func TestLostDisk(t *testing.T) {
	const tgt = "- {name: t, luns: [{lun: 0, disk: a}], iscsi: {iqn: iqn.2026-11.org.vtgt:t}}\n"
	dir := t.TempDir()
	one := fakeConfig(dir, "- {name: a, store: \"file:/a\"}\n", tgt, "\"127.0.0.1:1\"")
	two := fakeConfig(dir, "- {name: a, store: \"file:/a\", cache: direct}\n", tgt, "\"127.0.0.1:1\"")
	e := &fakeEngine{open: map[string]bool{}}
	d, err := fakeStart(t, e, one)
	if err != nil {
		t.Fatal(err)
	}
	want := e.things()
	bad := &brokenEngine{fakeEngine: e, broken: true}
	d.eng = bad
	if _, err := d.Apply("f", two, ApplyOptions{}); err == nil {
		t.Fatal("no error")
	}
	if len(d.Disks()) != 0 || len(d.Targets()) != 1 {
		t.Errorf("%+v %+v", d.Disks(), d.Targets())
	}
	bad.broken = false
	if _, err := d.Apply("f", one, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := e.things(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := d.Close(); err != nil || len(e.things()) != 0 {
		t.Errorf("%v %v", err, e.things())
	}
}

type brokenEngine struct {
	*fakeEngine
	broken bool
}

func (b *brokenEngine) openDisk(d *config.Disk, id state.Disk, w time.Duration) (diskObject, error) {
	if b.broken {
		return nil, &Error{Code: CodeInternal, Object: "disk " + d.Name, Message: "broken"}
	}
	return b.fakeEngine.openDisk(d, id, w)
}

// A start that fails leaves nothing, whatever fails.
func TestStartFaults(t *testing.T) {
	for _, fail := range []string{"open a writeback", "listen 127.0.0.1:1", "target t"} {
		dir := t.TempDir()
		e := &fakeEngine{open: map[string]bool{}, fail: fail}
		text := fakeConfig(dir, "- {name: a, store: \"file:/a\"}\n", "- {name: t, luns: [{lun: 0, disk: a}], iscsi: {iqn: iqn.2026-11.org.vtgt:t}}\n", "\"127.0.0.1:1\"")
		if _, err := fakeStart(t, e, text); err == nil {
			t.Errorf("%s: no error", fail)
		}
		if got := e.things(); len(got) != 0 || !e.over {
			t.Errorf("%s: left %v", fail, got)
		}
		e = &fakeEngine{open: map[string]bool{}}
		d, err := fakeStart(t, e, text)
		if err != nil {
			t.Fatalf("%s: the state folder is held: %v", fail, err)
		}
		d.Close()
	}
}

// Stores that do not let go do not hold up the end.
func TestCloseStuck(t *testing.T) {
	e := &fakeEngine{open: map[string]bool{}, hang: time.Hour}
	disks := ""
	for i := range 20 {
		disks += fmt.Sprintf("- {name: d%d, store: \"file:/%d\"}\n", i, i)
	}
	d, err := fakeStart(t, e, fakeConfig(t.TempDir(), disks, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	err = tempotest.Recv(t, closed, "Close comes back")
	if es := AsErrors(err); len(es) != 20 || es[0].Code != CodeTimeout {
		t.Errorf("%v", err)
	}
	if e.over {
		t.Error("the loops were ended although stores have operations on them")
	}
	if d.Close() != nil {
		t.Error("Close is not idempotent")
	}
}
