package guesttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
	"github.com/vtgt/vtgt/internal/guest/xenguest"
)

// xenConfig has two disks for domain u1, one for u2, and perhaps one more for u1.
const xenConfig = `version: 1
disks:
  - {name: root, store: "file:/tmp/root.img", create: true, size: 48MiB, thin: true}
  - {name: data, store: "file:/tmp/data.img", create: true, size: 64MiB, serial: "SERIAL-OF-DATA"}
  - {name: second, store: "file:/tmp/second.img", create: true, size: 32MiB}
%s
targets:
  - {name: u1, luns: [{lun: 0, disk: root}, {lun: 1, disk: data}%s], xen: {domain: u1}}
  - {name: u2, luns: [{lun: 0, disk: second}], xen: {domain: u2}}
api: {socket: /run/vtgt.sock}
state: /run/vtgt
`

// xenHoldConfig is of a vtgt whose store holds: another device of domain u1.
const xenHoldConfig = `version: 1
disks:
  - {name: slow, store: "file:/tmp/slow.img", create: true, size: 16MiB}
targets:
  - {name: slow, luns: [{lun: 0, disk: slow}], xen: {domain: u1, device: 1}}
api: {socket: /run/slow.sock}
state: /run/slow
`

// dom0 is a Xen host with vtgt in its first domain.
type dom0 struct {
	*testing.T
	*xenguest.Bed
	vtgt, slow *server
}

// server is a vtgt there.
type server struct {
	program, conf, socket string
	orders                string // a FIFO, of a holdvtgt
	answers               string
	asked                 int
	pid                   int
}

func newDom0(t *testing.T) *dom0 {
	t.Helper()
	if os.Getenv("VTGT_XEN") == "" {
		t.Skip("boots Xen in QEMU: VTGT_XEN=1, or make test-xen")
	}
	cache, err := guest.DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := cache.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	hold, err := buildHold()
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := cache.Package("busybox-static")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	b, err := xenguest.Start(xenguest.Options{
		Cache: cache, Kernel: kernel, Dir: t.TempDir(), Domains: 2,
		Domain: guest.Image{Boot: []string{"crc32c_generic", "ext4"}, Binaries: []guest.Binary{{Path: "/sbin/mkfs.ext4"}, {Path: "/sbin/e2fsck"}}},
		First: guest.Image{
			Modules: []string{"target_core_mod", "xen_scsiback"},
			Files:   map[string]string{"/bin/vtgt": vtgtBinary(t), "/bin/holdvtgt": hold, "/bin/xencount": xenCount(t), "/bin/busybox": filepath.Join(busybox, "bin/busybox")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &dom0{T: t, Bed: b,
		vtgt: &server{program: "/bin/vtgt", conf: "/etc/vtgt.yaml", socket: "/run/vtgt.sock"},
		slow: &server{program: "/bin/holdvtgt", conf: "/etc/slow.yaml", socket: "/run/slow.sock", orders: "/run/orders", answers: "/run/answers"}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the host's console:\n%s", b.Console())
			t.Logf("xenstore:\n%s", b.Tree("/local"))
			if l, err := b.Log(); err == nil {
				t.Logf("the first domain's kernel log:\n%s", l)
			}
		}
		b.Kill()
	})
	t.Logf("the first domain is up after %v", time.Since(begin).Round(time.Second))
	d.ok(b.Put(d.vtgt.conf, fmt.Sprintf(xenConfig, "", "")))
	d.ok(b.Put(d.slow.conf, xenHoldConfig))
	d.sh("mkfifo %s", d.slow.orders)
	d.start(d.vtgt)
	d.start(d.slow)
	return d
}

func (d *dom0) ok(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// sh runs a command of busybox's shell in the first domain.
func (d *dom0) sh(format string, args ...any) string {
	d.Helper()
	out, err := d.Bed.Run("/bin/busybox", "sh", "-c", fmt.Sprintf(format, args...))
	d.ok(err)
	return strings.TrimSpace(out)
}

// start runs a server and waits until it answers.
func (d *dom0) start(s *server) {
	d.Helper()
	line := "exec " + s.program + " serve --config " + s.conf
	if s.orders != "" {
		line += fmt.Sprintf(" <>%s >%s", s.orders, s.answers)
		s.asked = 0
	}
	var err error
	s.pid, err = d.Spawn("/bin/busybox", "sh", "-c", line)
	d.ok(err)
	poll(d.T, s.program+" answers", func() error {
		_, err := d.Bed.Run("/bin/vtgt", "--socket", s.socket, "get", "exports")
		return err
	})
}

// kill ends a server by a signal: 9, or 15 for an orderly end.
func (d *dom0) kill(s *server, signal int) {
	d.Helper()
	d.ok(d.Signal(s.pid, signal, patience))
}

// order has a holdvtgt do something and returns the number of operations that it holds.
func (d *dom0) order(verb string) int {
	d.Helper()
	d.ok(d.Put(d.slow.orders, verb+" slow\n"))
	d.slow.asked++
	var n int
	poll(d.T, "holdvtgt answers", func() error {
		s, err := d.Read(d.slow.answers)
		d.ok(err)
		l := strings.Fields(s)
		if len(l) < d.slow.asked {
			return errors.New("no answer")
		}
		n, err = strconv.Atoi(l[d.slow.asked-1])
		return err
	})
	if n < 0 {
		d.Fatal("holdvtgt knows no disk slow")
	}
	return n
}

// exported is what a server tells of an export.
func (d *dom0) exported(s *server, target string) api.Export {
	d.Helper()
	out, err := d.Bed.Run("/bin/vtgt", "--socket", s.socket, "get", "exports", "-o", "json")
	d.ok(err)
	var es []api.Export
	d.ok(json.Unmarshal([]byte(out), &es))
	for _, e := range es {
		if e.Target == target && e.Xen != nil {
			return e
		}
	}
	d.Fatalf("there is no export of %s in %s", target, out)
	return api.Export{}
}

// domain makes one, waits for its device's nodes, and starts it.
func (d *dom0) domain(name string) *domU {
	d.Helper()
	x, err := d.Create(name)
	d.ok(err)
	poll(d.T, "vtgt offers the disks", func() error {
		_, err := d.ReadNode(fmt.Sprintf("/local/domain/%d/device/vscsi/0/backend", x.ID))
		return err
	})
	d.ok(x.Unpause(patience))
	return &domU{d, x}
}

// domU is a domain with disks of ours.
type domU struct {
	*dom0
	u *xenguest.Domain
}

// do has the domain's agent do something.
func (x *domU) do(op agent.Op, q agent.Request) *agent.Response {
	x.Helper()
	q.Op = op
	r, err := x.u.Do(q, patience)
	x.good(err)
	return r
}

// good is ok with the domain's log.
func (x *domU) good(err error) {
	x.Helper()
	if err == nil {
		return
	}
	if l, lerr := x.u.Log(); lerr == nil {
		_, l, _ = strings.Cut(l, "Run /init")
		x.Logf("the log of domain %s:\n%s", x.u.Name, l)
	}
	x.Fatal(err)
}

// disk waits for LUN lun of device dev, and names it.
func (x *domU) disk(dev, lun int) string {
	x.Helper()
	p, err := x.u.Await(fmt.Sprintf("/sys/bus/xen/devices/vscsi-%d/host*/target*/*:0:%d/block/*", dev, lun), patience)
	x.good(err)
	name := "/dev/" + filepath.Base(p)
	_, err = x.u.Await(name, patience)
	x.good(err)
	x.good(x.u.Put("/sys/block/"+filepath.Base(p)+"/device/timeout", "120"))
	return name
}

// busy waits until the domain's writers have done n more writes.
func (x *domU) busy(n uint64) {
	x.Helper()
	first, err := x.u.Worked(false, patience)
	x.good(err)
	poll(x.T, "the domain writes", func() error {
		p, err := x.u.Worked(false, patience)
		x.good(err)
		if len(p.Errors) > 0 {
			x.good(fmt.Errorf("the domain sees %v", p.Errors))
		}
		if p.Writes < first.Writes+n {
			return fmt.Errorf("%d writes, there were %d", p.Writes, first.Writes)
		}
		return nil
	})
}

// worked ends the writers: all must have gone well.
func (x *domU) worked() {
	x.Helper()
	p, err := x.u.Worked(true, patience)
	x.good(err)
	if len(p.Errors) > 0 {
		x.good(fmt.Errorf("the domain sees %v", p.Errors))
	}
	x.Logf("%s: %d writes, %d reads, %d syncs, the longest %d ms", x.u.Name, p.Writes, p.Reads, p.Syncs, p.Longest)
}

func TestXen(t *testing.T) {
	d := newDom0(t)
	x := d.domain("u1")
	for _, c := range []struct {
		name string
		f    func(*domU)
	}{
		{"identity", (*domU).identity},
		{"transfers", (*domU).transfers},
		{"ext4", (*domU).ext4},
		{"aborts", (*domU).aborts},
		{"reset", (*domU).reset},
		{"hot", (*domU).hot},
		{"restart", (*domU).restart},
		{"peer", (*domU).peer},
		{"destroy", (*domU).destroy},
	} {
		begin := time.Now()
		if !t.Run(c.name, func(t *testing.T) {
			d.T = t
			c.f(x)
		}) {
			d.T = t
			t.FailNow()
		}
		d.T = t
		t.Logf("%s: %.1f s", c.name, time.Since(begin).Seconds())
	}
}

// identity is what the domain sees of the disks.
func (x *domU) identity() {
	for lun, size := range []int{48 << 20, 64 << 20} {
		dev := "/sys/block/" + filepath.Base(x.disk(0, lun))
		for f, want := range map[string]string{"device/vendor": "VTGT", "device/model": "VIRTUAL DISK", "size": strconv.Itoa(size / 512)} {
			v, err := x.u.Read(dev + "/" + f)
			x.good(err)
			if strings.TrimSpace(v) != want {
				x.Errorf("LUN %d: %s is %q, want %q", lun, f, v, want)
			}
		}
	}
	v, err := x.u.Read("/sys/block/" + filepath.Base(x.disk(0, 1)) + "/device/vpd_pg80")
	x.good(err)
	if !strings.Contains(v, "SERIAL-OF-DATA") {
		x.Errorf("the serial number page is %q", v)
	}
	e := x.exported(x.vtgt, "u1")
	if e.Xen.Since == nil || e.Xen.DomainID == nil || *e.Xen.DomainID != uint32(x.u.ID) {
		x.Errorf("vtgt says %+v", e.Xen)
	}
}

// transfers writes and reads in one piece each, 512 B to 1 MiB, past the page cache. From
// 26 pages on segments are indirect.
func (x *domU) transfers() {
	dev := x.disk(0, 1)
	for i, n := range []int{512, 4096, 65536, 104 << 10, 108 << 10, 508 << 10, 1 << 20} {
		q := agent.Request{Path: dev, Off: int64(i) * 2 << 20, Len: int64(n), Size: n, Seed: uint64(n), Direct: true, Sync: true}
		x.do(agent.Fill, q)
		x.do(agent.Check, q)
	}
	q := agent.Request{Path: dev, Off: 32 << 20, Len: 16 << 20, Size: 1 << 20, Seed: 6, Direct: true, Sync: true}
	x.do(agent.Fill, q)
	x.do(agent.Check, q)
	s, err := x.u.Read("/sys/block/" + filepath.Base(dev) + "/queue/max_hw_sectors_kb")
	x.good(err)
	x.Log("max_hw_sectors_kb", strings.TrimSpace(s))
}

// rootFile is on the file system that the domain makes.
func rootFile() agent.Request {
	return agent.Request{Path: "/mnt/file", Seed: 5, Len: 12 << 20, Size: 256 << 10, Sync: true, Create: true}
}

func (x *domU) ext4() {
	dev := x.disk(0, 0)
	// Requests that are merged of pieces of pages, as 1 KiB blocks make them, have more
	// pages than Linux's front end has names for: it fails them, whatever the back end.
	_, err := x.u.Run("/sbin/mkfs.ext4", "-q", "-F", "-b", "4096", dev)
	x.good(err)
	x.good(x.u.Mount(dev, "/mnt", "ext4", ""))
	x.do(agent.Fill, rootFile())
	x.good(x.u.Umount("/mnt"))
	x.checkRoot()
}

// checkRoot checks the file system, and reads the file back.
func (x *domU) checkRoot() {
	x.Helper()
	dev := x.disk(0, 0)
	out, err := x.u.Run("/sbin/e2fsck", "-f", "-n", dev)
	if err != nil {
		x.Log(out)
	}
	x.good(err)
	x.good(x.u.Put("/proc/sys/vm/drop_caches", "3"))
	x.good(x.u.Mount(dev, "/mnt", "ext4", "ro"))
	x.do(agent.Check, rootFile())
	x.good(x.u.Umount("/mnt"))
}

// aborts has commands run out of time that the store keeps, 64 and more: the front end
// has 16 names for requests, and loses one by each command that is not answered.
func (x *domU) aborts() {
	const n, jobs = 64, 12
	dev := x.disk(1, 0)
	timeout := "/sys/block/" + filepath.Base(dev) + "/device/timeout"
	was := x.exported(x.slow, "slow").Xen.Counters.Requests
	x.order("keep")
	x.good(x.u.Put(timeout, "1"))
	// sd sends each again five times; more than once, if that is not enough.
	poll(x.T, "commands were aborted", func() error {
		var pids []int
		for range jobs {
			pid, err := x.u.SpawnDo(agent.Request{Op: agent.Direct, Path: dev, Size: 4096})
			x.good(err)
			pids = append(pids, pid)
		}
		for _, pid := range pids {
			if err := x.u.Wait(pid, patience); err == nil {
				x.Error("a command that was aborted is said to be good")
			}
		}
		// Each is a command and an ABORT.
		if k := x.exported(x.slow, "slow").Xen.Counters.Requests - was; k < 2*n {
			return fmt.Errorf("%d requests", k)
		}
		return nil
	})
	x.good(x.u.Put(timeout, "120"))
	if k := x.order("held"); k != 0 {
		x.Errorf("the store keeps %d commands that were aborted", k)
	}
	x.order("release")
	now := x.exported(x.slow, "slow").Xen.Counters
	if now.Unanswered != 0 || now.BadRequests != 0 {
		x.Errorf("%+v", now)
	}
	x.good(x.u.Work(agent.Request{Path: dev, Jobs: 16, Size: 8192, Len: 8 << 20, Seed: n}))
	x.busy(50)
	x.worked()
	x.Logf("%d requests were commands that were aborted, or ABORT", now.Requests-was)
}

// reset has the domain reset a logical unit that has a command in its store.
func (x *domU) reset() {
	dev := x.disk(1, 0)
	x.order("keep")
	// Linux's front end holds the host's lock while it completes commands: a domain with
	// one processor, which completes them there and then, stops for good at one that ends
	// during a reset. Ours has two.
	pid, err := x.u.SpawnDo(agent.Request{Op: agent.Direct, Path: dev, Size: 4096})
	x.good(err)
	poll(x.T, "the store holds a command", func() error {
		if k := x.order("held"); k != 1 {
			return fmt.Errorf("%d", k)
		}
		return nil
	})
	x.do(agent.Reset, agent.Request{Path: dev})
	poll(x.T, "the store has let go", func() error {
		// The domain sends the command again.
		x.order("release")
		if k := x.order("held"); k != 0 {
			return fmt.Errorf("%d", k)
		}
		return nil
	})
	x.good(x.u.Wait(pid, patience))
	x.good(x.u.ReadDirect(dev, 4096))
}

// apply gives vtgt a configuration.
func (d *dom0) apply(disk, lun string) {
	d.Helper()
	d.ok(d.Put(d.vtgt.conf, fmt.Sprintf(xenConfig, disk, lun)))
	_, err := d.Bed.Run(d.vtgt.program, "--socket", d.vtgt.socket, "apply", "--force", "-f", d.vtgt.conf)
	d.ok(err)
}

// hot adds a LUN and takes it away, with writers on another one.
func (x *domU) hot() {
	x.good(x.u.Work(agent.Request{Path: x.disk(0, 1), Jobs: 2, Size: 4096, Len: 8 << 20, Seed: 4}))
	for round := range 2 {
		x.apply(`  - {name: hot, store: "mem:", size: 16MiB}`, ", {lun: 2, disk: hot}")
		dev := x.disk(0, 2)
		q := agent.Request{Path: dev, Len: 4 << 20, Size: 1 << 20, Seed: 9 + uint64(round), Direct: true, Sync: true}
		x.do(agent.Fill, q)
		x.do(agent.Check, q)
		x.apply("", "")
		poll(x.T, "the disk is gone", func() error {
			if l, err := x.u.Glob("/sys/bus/xen/devices/vscsi-0/host*/target*/*:0:2"); err != nil || len(l) > 0 {
				return fmt.Errorf("%v %v", l, err)
			}
			return nil
		})
		be := fmt.Sprintf("/local/domain/0/backend/vtgt/%d/0", x.u.ID)
		poll(x.T, "its node is gone", func() error {
			if s := x.Tree(be); strings.Contains(s, "dev-2") {
				return errors.New(s)
			}
			return nil
		})
	}
	x.worked()
}

// restart kills vtgt with I/O under way, and once ends it in order.
func (x *domU) restart() {
	n := rounds(x.T, "VTGT_XEN_KILLS", 2)
	before, err := x.u.Log()
	x.good(err)
	x.good(x.u.Work(agent.Request{Path: x.disk(0, 1), Jobs: 8, Size: 16384, Len: 32 << 20, Seed: 77}))
	for i := range n + 1 {
		x.busy(30)
		if i == n {
			x.kill(x.vtgt, 15)
		} else {
			x.kill(x.vtgt, 9)
		}
		x.start(x.vtgt)
		x.busy(30)
		e := x.exported(x.vtgt, "u1").Xen
		x.Logf("round %d: %d requests were taken and not answered", i, e.Counters.TakenOver)
	}
	x.worked()
	l, err := x.u.Log()
	x.good(err)
	if l = strings.TrimPrefix(l, before); strings.Contains(l, "I/O error") {
		x.Errorf("the domain has seen errors:\n%s", l)
	}
}

// destroy ends the domain in the middle of its writes and starts it again, with another
// one beside it.
func (x *domU) destroy() {
	x.good(x.u.Work(agent.Request{Path: x.disk(0, 1), Jobs: 8, Size: 16384, Len: 32 << 20, Seed: 78}))
	x.busy(20)
	be := fmt.Sprintf("/local/domain/0/backend/vtgt/%d", x.u.ID)
	x.ok(x.u.Destroy())
	poll(x.T, "vtgt has removed the nodes of the dead domain", func() error {
		if s, err := x.Bed.Run("/usr/bin/xenstore", "exists", be); err == nil {
			return errors.New(s)
		}
		return nil
	})
	y := x.domain("u2")
	x.u = x.domain("u1").u
	x.checkRoot()
	x.good(x.u.Work(agent.Request{Path: x.disk(0, 1), Jobs: 4, Size: 16384, Len: 16 << 20, Seed: 79}))
	y.good(y.u.Work(agent.Request{Path: y.disk(0, 0), Jobs: 4, Size: 16384, Len: 16 << 20, Seed: 80}))
	x.busy(30)
	y.busy(30)
	x.worked()
	y.worked()
	x.ok(y.u.Destroy())
}
