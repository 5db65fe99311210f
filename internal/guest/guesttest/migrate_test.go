package guesttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

const migrateConfig = `disks:
  - {name: data, store: "file:SHARED/data.img", create: true, size: 64MiB, cache: writethrough,
     serial: moves-1, reservations: "SHARED/data.pr", migratable: true}
targets:
  - {name: vm, luns: [{lun: 0, disk: data}], vhost: {socket: "DIR/vm.sock", initiator: 6f1c0d5e-9a3b-4c41-8d57-0c6f5e2f7a01}}
`

// TestMigrate moves a guest that writes and verifies from one QEMU and vtgt to another of
// each, and back, over one file: what is in its memory arrives whole, its disk is served
// by one of them at a time, and its reservation stays.
func TestMigrate(t *testing.T) {
	cache := wantGuest(t)
	qemu, err := cache.QEMU10()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := cache.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	sg, err := cache.Package("sg3-utils")
	if err != nil {
		t.Fatal(err)
	}
	libs, err := cache.Package("libsgutils2-1.46-2")
	if err != nil {
		t.Fatal(err)
	}
	_, seed := random(t)
	n := rounds(t, "VTGT_MIGRATE_ROUNDS", 2)
	shared := t.TempDir()
	hosts := []*host{newHost(t), newHost(t)}
	for _, h := range hosts {
		h.write(h.config(strings.ReplaceAll(migrateConfig, "SHARED", shared)))
		h.start()
	}
	image := &guest.Image{Kernel: kernel, Boot: []string{"virtio_pci", "virtio_scsi", "sd_mod", "sg", "crc32c_generic"},
		Binaries: []guest.Binary{{Root: sg, Path: "/usr/bin/sg_persist", Libs: []string{libs}}}}
	archive, err := image.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// boot starts a machine at a host; round 0 begins, others wait for the guest.
	boot := func(round int) (*guest.VM, *qmp, string) {
		t.Helper()
		h := hosts[round%2]
		mon, in := filepath.Join(h.dir, fmt.Sprintf("q%d", round)), filepath.Join(h.dir, fmt.Sprintf("in%d", round))
		dir := filepath.Join(h.dir, fmt.Sprint(round))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		o := guest.Options{
			Dir: dir, QEMU: qemu, CPUs: 2, MemMB: 256, Life: time.Hour, Image: image, Initramfs: archive,
			Args: []string{"-qmp", "unix:" + mon + ",server=on,wait=off",
				"-chardev", "socket,id=c,path=" + filepath.Join(h.dir, "vm.sock") + ",reconnect-ms=200",
				"-device", "vhost-user-scsi-pci,chardev=c,num_queues=2"},
		}
		if round > 0 {
			o.Incoming = "unix:" + in
		}
		vm, err := guest.Boot(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(vm.Kill)
		return vm, monitor(t, mon), in
	}
	vm, mon, _ := boot(0)
	const dev, jobs, slot, area = "/dev/sda", 8, 8192, 32 << 20
	if _, err := vm.Await(dev, patience); err != nil {
		t.Fatal(err)
	}
	if err := vm.Put("/sys/block/sda/device/timeout", "120"); err != nil {
		t.Fatal(err)
	}
	persist := func(args ...string) string {
		t.Helper()
		out, err := vm.Run(append(append([]string{"/usr/bin/sg_persist", "--no-inquiry"}, args...), dev)...)
		if err != nil {
			t.Fatalf("sg_persist %q: %v: %s", args, err, out)
		}
		return out
	}
	persist("--out", "--register-ignore", "--param-sark=0xabc")
	persist("--out", "--reserve", "--param-rk=0xabc", "--prout-type=5")
	// cached are blocks that the guest has in its page cache when it is copied, where
	// vtgt has put them.
	const cached, cachedBytes = area, 16 << 20
	page := func(op agent.Op) {
		t.Helper()
		if _, err := vm.Do(agent.Request{Op: op, Path: dev, Seed: seed, Off: cached, Len: cachedBytes, Size: 1 << 20, Direct: op == agent.Fill}, patience); err != nil {
			t.Fatal(err)
		}
	}
	page(agent.Fill)
	if err := vm.Work(agent.Request{Path: dev, Jobs: jobs, Size: slot, Len: area, Seed: seed}); err != nil {
		t.Fatal(err)
	}
	sound(t, vm, jobs, 100)
	for round := 1; round <= n; round++ {
		next, nextMon, in := boot(round)
		if err := vm.Put("/proc/sys/vm/drop_caches", "3"); err != nil {
			t.Fatal(err)
		}
		page(agent.Check)
		mon.do("migrate-set-parameters", map[string]any{"max-bandwidth": 64 << 20, "downtime-limit": 2000})
		begin := time.Now()
		mon.do("migrate", map[string]any{"uri": "unix:" + in})
		var st map[string]any
		poll(t, "migration", func() error {
			st = mon.do("query-migrate", nil)
			switch st["status"] {
			case "completed":
				return nil
			case "failed", "cancelled":
				t.Fatalf("round %d: %v", round, st)
			}
			return fmt.Errorf("%v", st)
		})
		vm.Kill()
		vm, mon = next, nextMon
		poll(t, "the machine runs", func() error {
			if s := mon.do("query-status", nil); s["status"] != "running" {
				return fmt.Errorf("%v", s)
			}
			return nil
		})
		page(agent.Check)
		p := sound(t, vm, jobs, 100)
		t.Logf("round %d: %d writes, %d reads, longest %d ms; migrated in %.1f s, down for %v ms", round, p.Writes, p.Reads, p.Longest, time.Since(begin).Seconds(), st["downtime"])
		if e := hosts[round%2].exports()["vm"]; e.VHost.Counters.Violations != 0 {
			t.Errorf("round %d: %+v", round, e.VHost)
		}
		if out := persist("--in", "--read-reservation"); !strings.Contains(out, "0xabc") {
			t.Errorf("round %d: the reservation: %s", round, out)
		}
	}
	p := endWork(t, vm)
	for _, h := range hosts {
		h.stop()
	}
	checkSlots(t, filepath.Join(shared, "data.img"), seed, slot, p.Sequence)
}
