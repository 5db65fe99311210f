package guesttest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
	"github.com/vtgt/vtgt/internal/hosttest"
)

const vhostConfig = `disks:
  - {name: data, store: "file:DIR/data.img", create: true, size: 96MiB, serial: "SERIAL-OF-DATA"}
  - {name: other, store: "file:DIR/other.img", create: true, size: 64MiB}
targets:
  - {name: vm1, luns: [{lun: 0, disk: data}], vhost: {socket: "DIR/vm1.sock"}}
  - {name: vm2, luns: [{lun: 0, disk: other}], vhost: {socket: "DIR/vm2.sock"}}
`

const holdConfig = `disks:
  - {name: slow, store: "file:DIR/slow.img", create: true, size: 64MiB}
  - {name: sick, store: "file:DIR/sick.img", create: true, size: 64MiB}
targets:
  - {name: hold, luns: [{lun: 0, disk: slow}, {lun: 1, disk: sick}], vhost: {socket: "DIR/vm.sock"}}
`

// vhostDevice are QEMU's arguments for a device.
func vhostDevice(id, socket, more string) []string {
	return []string{"-chardev", "socket,id=" + id + ",path=" + socket, "-device", "vhost-user-scsi-pci,chardev=" + id + more}
}

// machine is a guest with a device of vtgt's.
type machine struct{ *linux }

func bootVHost(t *testing.T, o guest.Options) *machine {
	t.Helper()
	k, err := wantGuest(t).Kernel()
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = t.TempDir()
	o.Image = &guest.Image{Kernel: k, Boot: []string{"virtio_pci", "virtio_scsi", "sd_mod", "sg", "crc32c_generic", "ext4"}}
	for _, p := range []string{"/sbin/mkfs.ext4", "/sbin/e2fsck"} {
		o.Image.Binaries = append(o.Image.Binaries, guest.Binary{Path: p})
	}
	vm, err := guest.Boot(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guest's console:\n%s", vm.Console())
			if l, err := vm.Log(); err == nil {
				t.Logf("the guest's kernel log:\n%s", l)
			}
		}
		vm.Kill()
	})
	return &machine{&linux{t: t, vm: vm, k: k}}
}

// disk waits for the kernel name of the disk at "TARGET:LUN" of the SCSI host that has
// the chardev's device: hosts are counted in the order of QEMU's arguments.
func (m *machine) disk(host int, address string) string {
	m.t.Helper()
	p, err := m.vm.Await(fmt.Sprintf("/sys/class/scsi_disk/%d:0:%s/device/block/*", host, address), time.Minute)
	if err != nil {
		m.t.Fatal(err)
	}
	return filepath.Base(p)
}

// gone waits until there is no such disk.
func (m *machine) gone(host int, address string) {
	m.t.Helper()
	poll(m.t, "the disk goes", func() error {
		if p := m.glob(fmt.Sprintf("/sys/class/scsi_device/%d:0:%s", host, address)); len(p) > 0 {
			return fmt.Errorf("%s is there", p)
		}
		return nil
	})
}

func (h *host) exports() map[string]api.Export {
	h.t.Helper()
	var es []api.Export
	if err := json.Unmarshal([]byte(h.vtgt("get", "exports", "-o", "json")), &es); err != nil {
		h.t.Fatal(err)
	}
	m := map[string]api.Export{}
	for _, e := range es {
		m[e.Target] = e
	}
	return m
}

// awaitExport waits for an export's state.
func (h *host) awaitExport(target, state string) api.Export {
	h.t.Helper()
	var e api.Export
	poll(h.t, "the export of "+target, func() error {
		if e = h.exports()[target]; e.State != state {
			return fmt.Errorf("is %s (%s), not %s", e.State, e.Reason, state)
		}
		return nil
	})
	return e
}

// spawn does a request in the guest beside others.
func (m *machine) spawn(q agent.Request) int {
	m.t.Helper()
	pid, err := m.vm.SpawnDo(q)
	if err != nil {
		m.t.Fatal(err)
	}
	return pid
}

func (m *machine) ends(pid int, limit time.Duration) {
	m.t.Helper()
	if err := m.vm.Wait(pid, limit); err != nil {
		m.t.Fatal(err)
	}
}

// runs wants a program in the guest to be under way still.
func (m *machine) runs(pid int, what string) {
	m.t.Helper()
	if p := m.glob(fmt.Sprintf("/proc/%d/fd", pid)); len(p) == 0 {
		m.t.Fatalf("%s has ended", what)
	}
	if s, err := m.vm.Read(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(s, ") Z ") {
		m.t.Fatalf("%s has ended: %s %v", what, s, err)
	}
}

// TestVHost drives vtgt with Linux's virtio-scsi driver under the host's QEMU: one
// machine with two CPUs, a device of vtgt's and one whose stores can hang.
func TestVHost(t *testing.T) { testVHost(t, "") }

// TestVHostPacked is TestVHost with packed rings: with VTGT_PACKED, all of it.
func TestVHostPacked(t *testing.T) { testVHost(t, ",packed=on") }

// testVHost is TestVHost with more properties of the device.
func testVHost(t *testing.T, more string) {
	wantGuest(t)
	h := newHost(t)
	h.write(h.config(vhostConfig))
	h.start()
	bin, err := buildHold()
	if err != nil {
		t.Fatal(err)
	}
	slow := newHostOf(t, bin)
	slow.orders = true
	slow.write(slow.config(holdConfig))
	slow.start()
	m := bootVHost(t, guest.Options{CPUs: 2, MemMB: 320,
		Args: append(vhostDevice("vm1", filepath.Join(h.dir, "vm1.sock"), more), vhostDevice("hold", filepath.Join(slow.dir, "vm.sock"), more)...)})
	t.Cleanup(func() {
		if t.Failed() {
			for _, x := range []*host{h, slow} {
				out, _, _ := x.try("get", "exports", "-o", "json")
				t.Log(out)
			}
		}
	})
	data := m.disk(0, "0:0")

	// Held now, let go some steps later, when Linux's timeout of 30 s is over.
	held := time.Now()
	slowDisk, sickDisk := m.disk(1, "0:0"), m.disk(1, "0:1")
	slow.order("hold", "slow")
	reader := m.spawn(agent.Request{Op: agent.Direct, Path: "/dev/" + slowDisk, Size: 4096})
	poll(t, "a command is held", func() error {
		if slow.order("held", "slow") == 0 {
			return fmt.Errorf("none")
		}
		return nil
	})

	m.step(h, "identity", func(t *testing.T) {
		dev := "/sys/block/" + data + "/device"
		want := h.disks()["data"]
		for _, f := range []struct{ name, want string }{{"vendor", "VTGT"}, {"model", "VIRTUAL DISK"}, {"type", "0"}} {
			if v := m.read(dev + "/" + f.name); v != f.want {
				t.Errorf("%s is %q, want %q", f.name, v, f.want)
			}
		}
		if v, err := m.vm.Read(dev + "/inquiry"); err != nil || len(v) < 36 || !strings.HasPrefix(v[8:], "VTGT    VIRTUAL DISK") {
			t.Errorf("INQUIRY data %q, %v", v, err)
		}
		if v, err := m.vm.Read(dev + "/vpd_pg80"); err != nil || !strings.HasSuffix(v, "SERIAL-OF-DATA") {
			t.Errorf("serial number page %q, %v", v, err)
		}
		if v := strings.TrimRight(m.read(dev+"/wwid"), "\x00"); !strings.EqualFold(v, "naa."+want.NAA) {
			t.Errorf("wwid is %q, want naa.%s", v, want.NAA)
		}
		e := h.awaitExport("vm1", "connected")
		if v := e.VHost; v.PID != m.vm.PID() || e.Sessions != 1 || slices.Contains(v.Features, "RING_PACKED") != (more != "") {
			t.Errorf("%+v %+v", e, v)
		}
		if ss := h.sessions(); len(ss) != 1 || ss[0].Kind != "vhost" || ss[0].Target != "vm1" || ss[0].Commands == 0 {
			t.Errorf("sessions: %+v", ss)
		}
	})

	m.step(h, "two queues", func(t *testing.T) {
		before := h.exports()["vm1"].VHost
		if before.Started != 4 || len(before.Rings) < 4 {
			t.Fatalf("%+v", before)
		}
		for cpu := 1; cpu <= 2; cpu++ {
			m.pattern(t, agent.Check, agent.Request{Path: "/dev/" + data, Len: 0, CPU: cpu}) // the CPU is there
			q := agent.Request{Path: "/dev/" + data, Seed: uint64(cpu), Off: int64(cpu) << 20, Len: 1 << 20, Size: 65536, Direct: true, CPU: cpu}
			m.pattern(t, agent.Fill, q)
			m.pattern(t, agent.Check, q)
		}
		after := h.exports()["vm1"].VHost
		for ring := 2; ring < 4; ring++ {
			if a, b := before.Rings[ring].Requests, after.Rings[ring].Requests; b < a+32 {
				t.Errorf("queue %d took %d requests", ring, b-a)
			}
		}
	})

	m.step(h, "ext4", func(t *testing.T) { m.fileSystem(t, "/dev/"+data, 1) })

	m.step(h, "hot add", func(t *testing.T) {
		h.vtgt("disk", "add", "more", "--store", "mem:", "--size", "16MiB", "--shared")
		h.vtgt("lun", "add", "vm1", "more", "--lun", "300")
		// Linux keeps the bits of flat space addressing in the number.
		more := m.disk(0, fmt.Sprintf("0:%d", 0x4000|300))
		if v := m.read("/sys/block/" + more + "/size"); v != strconv.Itoa(16<<20/512) {
			t.Errorf("its size is %s sectors", v)
		}
		h.vtgt("disk", "add", "third", "--store", "mem:", "--size", "8MiB")
		h.vtgt("lun", "add", "vm1", "third", "--lun", "2", "--vhost-target", "7")
		third := m.disk(0, "7:2")
		q := agent.Request{Path: "/dev/" + third, Seed: 3, Len: 1 << 20, Direct: true}
		m.pattern(t, agent.Fill, q)
		m.pattern(t, agent.Check, q)
	})

	m.step(h, "hot remove", func(t *testing.T) {
		if _, _, err := h.try("lun", "rm", "vm1", "300"); err == nil || !strings.Contains(err.Error(), "the virtual machine at") {
			t.Errorf("a LUN in use is removed without force: %v", err)
		}
		h.vtgt("lun", "rm", "vm1", "300", "--force")
		m.gone(0, fmt.Sprintf("0:%d", 0x4000|300))
		h.vtgt("lun", "rm", "vm1", "2", "--force")
		m.gone(0, "7:2")
		m.touch(t, data)
	})

	m.step(h, "resize", func(t *testing.T) {
		const size = 128 << 20
		h.vtgt("disk", "set", "data", "--size", "128MiB")
		poll(t, "the guest sees the new size", func() error {
			if v := m.read("/sys/block/" + data + "/size"); v != strconv.Itoa(size/512) {
				return fmt.Errorf("%s sectors", v)
			}
			return nil
		})
		q := agent.Request{Path: "/dev/" + data, Seed: 9, Off: size - 1<<20, Len: 1 << 20, Direct: true}
		m.pattern(t, agent.Fill, q)
		m.pattern(t, agent.Check, q)
	})

	m.step(slow, "device reset", func(t *testing.T) {
		// The function is answered when the last command has left the store, and
		// the commands are sent again by the driver, which sees them aborted.
		slow.order("hold", "sick")
		q := agent.Request{Op: agent.Fill, Path: "/dev/" + sickDisk, Seed: 5, Len: 1 << 20, Size: 128 << 10, Direct: true}
		writer := m.spawn(q)
		poll(t, "a write is held", func() error {
			if slow.order("held", "sick") == 0 {
				return fmt.Errorf("none")
			}
			return nil
		})
		reset := m.spawn(agent.Request{Op: agent.Reset, Path: "/dev/" + sickDisk})
		time.Sleep(time.Second)
		m.runs(reset, "the reset of a device whose store holds a write")
		slow.order("release", "sick")
		m.ends(reset, time.Minute)
		m.ends(writer, time.Minute)
		q.Op = agent.Check
		m.pattern(t, agent.Check, q)
	})

	if more != "" && os.Getenv("VTGT_PACKED") == "" {
		// What follows takes a minute, and is about processes more than about rings.
		slow.order("release", "slow")
		m.ends(reader, time.Minute)
		if err := m.vm.Poweroff(); err != nil {
			t.Error(err)
		}
		h.stop()
		slow.stop()
		return
	}

	t.Run("two machines", func(t *testing.T) { twoMachines(t, h, m, data) })

	m.step(slow, "a command held for longer than the timeout", func(t *testing.T) {
		limit := longHold(t)
		time.Sleep(time.Until(held.Add(limit)))
		m.runs(reader, "a read whose store hangs")
		slow.order("release", "slow")
		m.ends(reader, time.Minute)
		m.touch(t, slowDisk)
		log, err := m.vm.Log()
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"I/O error", "offline"} {
			if lines := linesWith(log, "sd ", bad); len(lines) > 0 {
				t.Errorf("the guest's log: %q", lines)
			}
		}
		t.Logf("held for %v", time.Since(held).Round(time.Second))
	})

	if err := m.vm.Poweroff(); err != nil {
		t.Error(err)
	}
	h.awaitExport("vm1", "listening")
	h.stop()
	slow.stop()
	for _, p := range []string{"vm1.sock", "vm2.sock"} {
		if _, err := os.Lstat(filepath.Join(h.dir, p)); err == nil {
			t.Errorf("%s is left", p)
		}
	}
}

// longHold is how long a command is held: longer than Linux's timeout of 30 s.
func longHold(t *testing.T) time.Duration {
	return time.Duration(rounds(t, "VTGT_HOLD_SECONDS", 33)) * time.Second
}

// twoMachines has a second machine on the same daemon die in the middle of writes, and
// another one take its memory away: the first one writes, verifies and does not notice.
func twoMachines(t *testing.T, h *host, m *machine, data string) {
	was := m.t
	m.t, h.t = t, t
	defer func() { m.t, h.t = was, was }()
	const jobs, slot = 4, 16384
	if err := m.vm.Work(agent.Request{Path: "/dev/" + data, Jobs: jobs, Size: slot, Len: 16 << 20, Seed: 77}); err != nil {
		t.Fatal(err)
	}
	sound := func() {
		t.Helper()
		first, err := m.vm.Worked(false, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		poll(t, "the first machine writes", func() error {
			p, err := m.vm.Worked(false, time.Minute)
			if err != nil || len(p.Errors) > 0 || p.Running != jobs {
				t.Fatalf("it sees %+v %v", p, err)
			}
			if p.Writes < first.Writes+50 {
				return fmt.Errorf("%d writes", p.Writes-first.Writes)
			}
			return nil
		})
	}
	sock := filepath.Join(h.dir, "vm2.sock")
	shm, remove, err := hosttest.Memory(256 << 20)
	if err != nil {
		t.Log("the second machine's memory is a file on disk:", err)
		shm, remove = t.TempDir(), func() {}
	}
	t.Cleanup(remove)
	memory := filepath.Join(shm, "memory")
	for _, victim := range []struct {
		name string
		mem  string
		end  func(v *machine)
	}{
		{"killed", "", func(v *machine) { v.vm.Kill() }},
		{"truncated", memory, func(v *machine) {
			// QEMU would meet the hole and die before vtgt does.
			hosttest.Stop(t, v.vm.PID())
			if err := os.Truncate(memory, 0); err != nil {
				t.Fatal(err)
			}
			// Something to say to the guest, where vtgt is idle by now.
			h.vtgt("lun", "add", "vm2", "more", "--lun", "1")
			e := h.awaitExport("vm2", "failed")
			if !strings.Contains(e.Reason, "was truncated by its owner") {
				t.Errorf("the reason is %q", e.Reason)
			}
			sound()
			v.vm.Kill()
		}},
	} {
		v := bootVHost(t, guest.Options{MemMB: 192, MemFile: victim.mem, Args: vhostDevice("c", sock, "")})
		v.t = t
		before := h.awaitExport("vm2", "connected").VHost.Counters
		dev := "/dev/" + v.disk(0, "0:0")
		if err := v.vm.Work(agent.Request{Path: dev, Jobs: 8, Size: 65536, Len: 32 << 20, Seed: 78}); err != nil {
			t.Fatal(err)
		}
		poll(t, "the second machine writes", func() error {
			if n := h.exports()["vm2"].VHost.Counters.Requests; n < before.Requests+200 {
				return fmt.Errorf("%d requests", n-before.Requests)
			}
			return nil
		})
		victim.end(v)
		e := h.awaitExport("vm2", "listening")
		t.Logf("%s: %q; %d violations", victim.name, e.Reason, e.VHost.Counters.Violations)
		// The store may still be at what the dead machine wanted.
		poll(t, victim.name+": nothing is left of it", func() error {
			if e := h.exports()["vm2"]; e.VHost.InFlight != 0 || e.Stuck != 0 {
				return fmt.Errorf("%+v %+v", e, e.VHost)
			}
			return nil
		})
		sound()
	}
	p, err := m.vm.Worked(true, time.Minute)
	if err != nil || len(p.Errors) > 0 {
		t.Fatalf("the first machine sees %+v %v", p.Errors, err)
	}
	if e := h.exports()["vm1"]; e.State != "connected" || e.VHost.Counters.Connections != 1 || e.VHost.Counters.Violations != 0 {
		t.Errorf("%+v %+v", e, e.VHost)
	}
}
