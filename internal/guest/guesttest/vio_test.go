package guesttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
	"github.com/vtgt/vtgt/internal/hosttest"
)

// vioConfig has LUNs 0 and 1 at id 0, and another at id 1.
const vioConfig = `disks:
  - {name: root, store: "file:DIR/root.img", create: true, size: 64MiB, thin: true}
  - {name: data, store: "file:DIR/data.img", create: true, size: 64MiB, cache: writethrough}
  - {name: far, store: "file:DIR/far.img", create: true, size: 8MiB}
targets:
  - {name: lpar, luns: [{lun: 0, disk: root}, {lun: 1, disk: data}, {lun: 32, disk: far}], vio: {socket: "DIR/vio.sock"}}
`

// vioHoldConfig is of a vtgt whose store holds.
const vioHoldConfig = `disks:
  - {name: slow, store: "file:DIR/slow.img", create: true, size: 16MiB}
targets:
  - {name: slow, luns: [{lun: 0, disk: slow}], vio: {socket: "DIR/vio.sock"}}
`

// lpar is a pSeries guest with a client of IBM's virtual SCSI.
type lpar struct {
	*testing.T
	h *host
	*guest.VM
	kernel *guest.Kernel
}

// vioModules are what ibmvscsi needs; their soft dependencies nobody loads.
func vioModules() []string {
	return []string{"crct10dif_generic", "crc_t10dif", "crc64_rocksoft_generic", "crc64_rocksoft", "t10_pi",
		"scsi_transport_srp", "sd_mod", "sg", "crc32c_generic", "ext4"}
}

// vioQEMU is the command that runs QEMU with the device.
func vioQEMU(t *testing.T) []string {
	t.Helper()
	if os.Getenv("VTGT_VIO") == "" {
		t.Skip("boots a pSeries guest: VTGT_VIO=1, or make test-vio")
	}
	root, err := guest.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	all, _ := filepath.Glob(filepath.Join(root, ".cache/qemu-vio/*/vtgt-vscsi.so"))
	if len(all) == 0 {
		t.Fatal("there is no vtgt-vscsi.so below .cache/qemu-vio: run make qemu-vio")
	}
	return []string{"env", "LD_PRELOAD=" + all[len(all)-1], "qemu-system-ppc64"}
}

// vioDevices are QEMU's arguments for adapters at sockets.
func vioDevices(sockets ...string) (args []string) {
	for _, s := range sockets {
		args = append(args, "-device", "vtgt-vscsi,path="+s)
	}
	return args
}

// newLPAR boots a guest with the client loaded.
func newLPAR(t *testing.T, qemu []string, h *host, args []string) *lpar {
	t.Helper()
	cache, err := guest.DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := cache.KernelPPC64()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	vm, err := guest.Boot(guest.Options{Dir: t.TempDir(), QEMU: qemu, MemMB: 512, Life: 30 * time.Minute, Args: args,
		Image: &guest.Image{Kernel: kernel, Boot: vioModules(), Modules: []string{"ibmvscsi"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the agent answers after %v", time.Since(begin).Round(time.Second))
	t.Cleanup(vm.Kill)
	l := &lpar{T: t, h: h, VM: vm, kernel: kernel}
	l.insmod()
	return l
}

// insmod loads the client.
func (l *lpar) insmod() {
	l.Helper()
	// Of 64 ids on 4 channels the scan takes a minute.
	l.ok(l.Insmod(l.kernel, "max_channel=0 max_id=2", "ibmvscsi"))
}

func (l *lpar) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatalf("%v\n%s\n%s", err, l.Console(), l.h.text())
	}
}

// disk waits for the device at an address, and names it.
func (l *lpar) disk(address string) string {
	l.Helper()
	p, err := l.Await("/sys/bus/scsi/devices/"+address+"/block/*", patience)
	l.ok(err)
	dev := "/dev/" + filepath.Base(p)
	_, err = l.Await(dev, patience)
	l.ok(err)
	return dev
}

// sgio sends a CDB.
func (l *lpar) sgio(dev string, n int, seconds int, cdb ...byte) ([]byte, int, error) {
	r, err := l.Do(agent.Request{Op: agent.SGIO, Path: dev, Data: cdb, Size: n, Seconds: seconds}, patience)
	if err != nil {
		return nil, 0, err
	}
	return r.Out, r.Exit, nil
}

func TestVIOGuest(t *testing.T) {
	qemu := vioQEMU(t)
	h := newHost(t)
	h.write(h.config(vioConfig))
	h.start()
	// A file system for the guest, made here.
	if out, err := exec.Command("mkfs.ext4", "-q", filepath.Join(h.dir, "root.img")).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	bin, err := buildHold()
	if err != nil {
		t.Fatal(err)
	}
	slow := newHostOf(t, bin)
	slow.orders = true
	slow.write(slow.config(vioHoldConfig))
	slow.start()
	l := newLPAR(t, qemu, h, vioDevices(filepath.Join(h.dir, "vio.sock"), filepath.Join(slow.dir, "vio.sock")))
	root, data, far := l.disk("0:0:0:0"), l.disk("0:0:0:1"), l.disk("0:0:1:0")
	vendor, err := l.Read("/sys/bus/scsi/devices/0:0:0:0/vendor")
	l.ok(err)
	model, err := l.Read("/sys/bus/scsi/devices/0:0:1:0/model")
	l.ok(err)
	if strings.TrimSpace(vendor) != "VTGT" || strings.TrimSpace(model) != "VIRTUAL DISK" {
		t.Errorf("INQUIRY says %q, %q", vendor, model)
	}
	if out := h.vtgt("get", "exports"); !strings.Contains(out, "logged in") || !strings.Contains(out, "Linux") {
		t.Errorf("get exports: %s", out)
	}
	for _, c := range []struct {
		name string
		f    func(*lpar)
	}{
		{"transfers", func(l *lpar) { l.transfers(data) }},
		{"ext4", func(l *lpar) { l.ext4(root) }},
		{"resets", func(l *lpar) { l.resets(data, far) }},
		{"abort", func(l *lpar) { l.abort(slow) }},
		{"aborts", func(l *lpar) { l.aborts(slow) }},
		{"restart held", func(l *lpar) { l.restartHeld(slow) }},
		{"restart", (*lpar).restart},
		{"bind", (*lpar).bind},
		{"stopped", (*lpar).stopped},
		{"reload", (*lpar).reload},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.f(&lpar{t, h, l.VM, l.kernel}) }) {
			t.FailNow()
		}
	}
	if s := l.Console(); strings.Contains(s, "I/O error") {
		t.Errorf("the guest has seen I/O errors:\n%s", s)
	}
	l.ok(l.Poweroff())
}

// TestVIOPassThrough: QEMU's own server passes the commands of a LUN on, by libiscsi.
func TestVIOPassThrough(t *testing.T) {
	qemu := vioQEMU(t)
	h := newHost(t)
	h.write(h.config(`disks:
  - {name: a, store: "mem:", size: 16MiB}
targets:
  - {name: t, luns: [{lun: 0, disk: a}], iscsi: {iqn: "iqn.2026-11.org.vtgt:t"}}
`))
	h.start()
	l := newLPAR(t, qemu[2:], h, []string{"-device", "spapr-vscsi,id=vs0", "-drive", "if=none,id=d0,format=raw,file=iscsi://" + h.portal() + "/iqn.2026-11.org.vtgt:t/0",
		"-device", "scsi-block,bus=vs0.0,drive=d0"})
	dev := l.disk("0:0:0:0")
	vendor, err := l.Read("/sys/bus/scsi/devices/0:0:0:0/vendor")
	l.ok(err)
	if strings.TrimSpace(vendor) != "VTGT" {
		t.Errorf("INQUIRY says %q", vendor)
	}
	q := agent.Request{Op: agent.Fill, Path: dev, Len: 4 << 20, Size: 1 << 20, Seed: 3, Direct: true, Sync: true}
	_, err = l.Do(q, patience)
	l.ok(err)
	q.Op = agent.Check
	_, err = l.Do(q, patience)
	l.ok(err)
	l.ok(l.Poweroff())
}

// transfers writes and reads in one piece each, 512 B to 4 MiB, past the page cache.
func (l *lpar) transfers(dev string) {
	l.ok(l.Put("/sys/block/"+filepath.Base(dev)+"/queue/max_sectors_kb", "4096"))
	for i, n := range []int{512, 4096, 65536, 128 << 10, 640 << 10, 704 << 10, 1 << 20, 4 << 20} {
		q := agent.Request{Op: agent.Fill, Path: dev, Off: int64(i) * 4 << 20, Len: int64(n), Size: n, Seed: uint64(n), Direct: true, Sync: true}
		_, err := l.Do(q, patience)
		l.ok(err)
		q.Op = agent.Check
		_, err = l.Do(q, patience)
		l.ok(err)
	}
	sg, err := l.Read("/sys/block/" + filepath.Base(dev) + "/queue/max_hw_sectors_kb")
	l.ok(err)
	l.T.Log("max_hw_sectors_kb", strings.TrimSpace(sg))
}

func (l *lpar) ext4(dev string) {
	l.ok(l.Mount(dev, "/mnt", "ext4", ""))
	q := agent.Request{Op: agent.Fill, Path: "/mnt/f", Len: 16 << 20, Size: 256 << 10, Seed: 5, Create: true, Sync: true}
	_, err := l.Do(q, patience)
	l.ok(err)
	l.ok(l.Umount("/mnt"))
	l.ok(l.Mount(dev, "/mnt", "ext4", ""))
	q.Op, q.Create = agent.Check, false
	_, err = l.Do(q, patience)
	l.ok(err)
	l.ok(l.Umount("/mnt"))
}

// resets has the client reset a logical unit, and then its host.
func (l *lpar) resets(dev, other string) {
	for level, dev := range map[int]string{0: dev, 3: other} {
		_, err := l.Do(agent.Request{Op: agent.Reset, Path: dev, Size: level}, patience)
		l.ok(err)
		l.ok(l.ReadDirect(dev, 4096))
	}
}

// bind takes the driver away from the adapter and gives it back, as rmmod and insmod do.
func (l *lpar) bind() {
	const driver = "/sys/bus/vio/drivers/ibmvscsi/"
	p, err := l.Await(driver+"7*", patience)
	l.ok(err)
	unit := filepath.Base(p)
	l.ok(l.Put(driver+"unbind", unit))
	if out := l.h.vtgt("get", "exports"); !strings.Contains(out, "no client") {
		l.Errorf("get exports: %s", out)
	}
	l.ok(l.Put(driver+"bind", unit))
	l.ok(l.ReadDirect(l.disk("*:0:1:0"), 4096))
}

// spawn starts something that goes on beside.
func (l *lpar) spawn(q agent.Request) int {
	l.Helper()
	pid, err := l.SpawnDo(q)
	l.ok(err)
	return pid
}

// held waits until the store holds n commands.
func (l *lpar) held(slow *host, n int) {
	l.Helper()
	poll(l.T, "commands are held", func() error {
		if k := slow.order("held", "slow"); k < n {
			return fmt.Errorf("%d of %d", k, n)
		}
		return nil
	})
}

// read8 is READ(10) of eight blocks.
func read8() []byte { return []byte{0x28, 0, 0, 0, 8, 0, 0, 0, 8, 0} }

// abort has commands time out that the store holds: they are aborted, and the adapter
// goes on.
func (l *lpar) abort(slow *host) {
	dev := l.disk("1:0:0:0")
	functions := func() uint64 { return l.exported(slow).Counters.Functions }
	for range 2 {
		was := functions()
		slow.order("hold", "slow")
		pid := l.spawn(agent.Request{Op: agent.SGIO, Path: dev, Data: read8(), Size: 4096, Seconds: 2})
		l.held(slow, 1)
		poll(l.T, "the command is aborted", func() error {
			if functions() == was {
				return errors.New("no task management")
			}
			return nil
		})
		slow.order("release", "slow")
		if err := l.Wait(pid, patience); err == nil {
			l.Error("a command that was aborted is said to be good")
		}
		l.ok(l.ReadDirect(dev, 4096))
	}
}

// exported is what vtgt get exports tells of the one export of slow.
func (l *lpar) exported(slow *host) *daemon.VIOStatus {
	l.Helper()
	cli := &host{t: l.T, bin: l.h.bin, socket: slow.socket}
	var es []api.Export
	if err := json.Unmarshal([]byte(cli.vtgt("get", "exports", "-o", "json")), &es); err != nil || len(es) != 1 || es[0].VIO == nil {
		l.Fatalf("%v: %+v", err, es)
	}
	return es[0].VIO
}

// aborts has 200 commands run out of time that the store keeps. Linux adds one to its
// limit for each: nothing may be lost, and nothing be too much, for the writers that come
// then.
func (l *lpar) aborts(slow *host) {
	if os.Getenv("VTGT_ABORTS") == "" {
		l.Skip("half a minute, for make soak: set VTGT_ABORTS=1")
	}
	// depth is as much as the client lets a unit have: 4 lots of commands run out of time
	// instead of 13, and with 200 that were not given back it is beyond the limit.
	const n, depth = 200, 64
	dev := l.disk("1:0:0:0")
	l.ok(l.Put("/sys/bus/scsi/devices/1:0:0:0/queue_depth", strconv.Itoa(depth)))
	was := l.exported(slow)
	slow.order("keep", "slow")
	begin := time.Now()
	pid := l.spawn(agent.Request{Op: agent.Expire, Path: dev, Data: read8(), Size: 4096, Seconds: 2, Jobs: n})
	l.ok(l.Wait(pid, patience))
	took := time.Since(begin)
	if k := slow.order("held", "slow"); k != 0 {
		l.Errorf("the store keeps %d commands that were aborted", k)
	}
	now := l.exported(slow)
	if k := now.Counters.Functions - was.Counters.Functions; k < n {
		l.Errorf("%d functions for %d aborts", k, n)
	}
	if now.RequestLimit < 128 || now.RequestLimit != was.RequestLimit {
		l.Errorf("the limit is %d, it was %d", now.RequestLimit, was.RequestLimit)
	}
	l.ok(l.Work(agent.Request{Path: dev, Jobs: depth, Size: 8192, Len: 8 << 20, Seed: n}))
	// All at once; one or two may begin with a sync or be merged.
	l.held(slow, depth-4)
	slow.order("release", "slow")
	poll(l.T, "the guest writes", func() error {
		p, err := l.Worked(false, patience)
		l.ok(err)
		if len(p.Errors) > 0 || p.Running != depth {
			l.Fatalf("the guest sees %+v\n%s", p, l.Console())
		}
		if p.Writes < 1000 {
			return fmt.Errorf("%d writes", p.Writes)
		}
		return nil
	})
	p, err := l.Worked(true, patience)
	l.ok(err)
	if len(p.Errors) > 0 {
		l.Fatalf("the guest sees %+v", p)
	}
	end := l.exported(slow)
	if end.Counters.Busy != was.Counters.Busy || end.Counters.Violations != was.Counters.Violations || end.Counters.Inits != was.Counters.Inits {
		l.Errorf("a client that keeps to its limit was turned away or began anew: %+v, %+v before", end.Counters, was.Counters)
	}
	if out := (&host{t: l.T, bin: l.h.bin, socket: slow.socket}).vtgt("get", "exports"); !strings.Contains(out, "limit "+strconv.Itoa(end.RequestLimit)) {
		l.Errorf("get exports does not show the limit, %d:\n%s", end.RequestLimit, out)
	}
	l.Logf("%d aborts in %v, limit %d; then %d writes, %d reads, %d syncs, the longest %d ms",
		now.Counters.Functions-was.Counters.Functions, took.Round(time.Millisecond), end.RequestLimit, p.Writes, p.Reads, p.Syncs, p.Longest)
}

// restartHeld kills a vtgt that has commands in its store: the next one gets them again,
// and nobody in the guest sees more than a pause.
func (l *lpar) restartHeld(slow *host) {
	dev := l.disk("1:0:0:0")
	for range 3 {
		slow.order("hold", "slow")
		pass := l.spawn(agent.Request{Op: agent.SGIO, Path: dev, Data: read8(), Size: 4096, Seconds: 300})
		read := l.spawn(agent.Request{Op: agent.Direct, Path: dev, Size: 4096})
		l.held(slow, 2)
		slow.kill()
		slow.start()
		l.ok(l.Wait(pass, patience))
		l.ok(l.Wait(read, patience))
	}
}

// restart kills vtgt with I/O under way, pass-through commands among it.
func (l *lpar) restart() {
	dev := l.disk("*:0:0:1")
	const jobs, slot, area = 8, 8192, 32 << 20
	l.ok(l.Work(agent.Request{Path: dev, Jobs: jobs, Size: slot, Len: area, Seed: 77}))
	for range 3 {
		first, err := l.Worked(false, patience)
		l.ok(err)
		pid, err := l.SpawnDo(agent.Request{Op: agent.SGIO, Path: dev, Data: []byte{0x28, 0, 0, 1, 0, 0, 0, 8, 0, 0}, Size: 1 << 20, Seconds: 300})
		l.ok(err)
		l.h.kill()
		// While nobody is there.
		late, err := l.SpawnDo(agent.Request{Op: agent.SGIO, Path: dev, Data: []byte{0x12, 0, 0, 0, 36, 0}, Size: 36, Seconds: 300})
		l.ok(err)
		l.h.start()
		poll(l.T, "the guest writes on", func() error {
			p, err := l.Worked(false, patience)
			l.ok(err)
			if len(p.Errors) > 0 || p.Running != jobs {
				l.Fatalf("the guest sees %+v\n%s", p, l.Console())
			}
			if p.Writes < first.Writes+50 {
				return fmt.Errorf("%d writes, it had %d", p.Writes, first.Writes)
			}
			return nil
		})
		l.ok(l.Wait(pid, patience))
		l.ok(l.Wait(late, patience))
	}
	p, err := l.Worked(true, patience)
	l.ok(err)
	if len(p.Errors) > 0 {
		l.Fatalf("the guest sees %+v", p)
	}
	l.Logf("%d writes, %d reads, %d syncs, the longest %d ms", p.Writes, p.Reads, p.Syncs, p.Longest)
}

// stopped stops the server for a while, VTGT_STOP_SECONDS or 3: the guest lives on, and
// its I/O goes on then.
func (l *lpar) stopped() {
	const size = 64 << 10
	span := 3 * time.Second
	if n, err := strconv.Atoi(os.Getenv("VTGT_STOP_SECONDS")); err == nil && n > 0 {
		span = time.Duration(n) * time.Second
	}
	dev := l.disk("*:0:0:1")
	write := agent.Request{Op: agent.Fill, Path: dev, Off: 40 << 20, Len: size, Size: size, Seed: 30, Direct: true, Sync: true}
	hosttest.Stop(l.T, l.h.cmd.Process.Pid)
	begin := time.Now()
	pids := []int{l.spawn(agent.Request{Op: agent.Direct, Path: dev, Size: 4096}), l.spawn(write)}
	asked := 0
	for ; time.Since(begin) < span; asked++ {
		if _, err := l.Read("/proc/uptime"); err != nil {
			l.Errorf("a stopped server stops the guest: %v", err)
			break
		}
		time.Sleep(300 * time.Millisecond)
	}
	l.ok(l.h.cmd.Process.Signal(syscall.SIGCONT))
	l.Logf("stopped for %v; the guest has answered %d times", time.Since(begin).Round(time.Second), asked)
	for _, pid := range pids {
		l.ok(l.Wait(pid, patience))
	}
	write.Op = agent.Check
	_, err := l.Do(write, patience)
	l.ok(err)
}

// reload takes the client's module out and puts it in again: the disks come back with
// their data.
func (l *lpar) reload() {
	dev := l.disk("*:0:0:1")
	q := agent.Request{Op: agent.Fill, Path: dev, Off: 48 << 20, Len: 1 << 20, Size: 256 << 10, Seed: 48, Direct: true, Sync: true}
	_, err := l.Do(q, patience)
	l.ok(err)
	poll(l.T, "the module is out", func() error { return l.Rmmod("ibmvscsi") })
	if names, err := l.Glob("/sys/block/sd*"); err != nil || len(names) > 0 {
		l.Errorf("without the module there is %v, %v", names, err)
	}
	if out := l.h.vtgt("get", "exports"); !strings.Contains(out, "no client") {
		l.Errorf("get exports: %s", out)
	}
	l.insmod()
	q.Op, q.Path = agent.Check, l.disk("*:0:0:1")
	_, err = l.Do(q, patience)
	l.ok(err)
	l.ok(l.ReadDirect(l.disk("*:0:1:0"), 4096))
	if out := l.h.vtgt("get", "exports"); !strings.Contains(out, "logged in") {
		l.Errorf("get exports: %s", out)
	}
}
