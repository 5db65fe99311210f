package guesttest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

// With writethrough requests end in another order than they came, so that some are in
// flight, and others that came later are not, whenever vtgt dies: without the record
// of requests in flight they are lost.
const reconnectConfig = `disks:
  - {name: data, store: "file:DIR/data.img", create: true, size: 64MiB, cache: writethrough}
targets:
  - {name: vm, luns: [{lun: 0, disk: data}], vhost: {socket: "DIR/vm.sock"}}
`

// TestReconnect kills vtgt with SIGKILL under a guest that writes and verifies, and
// starts it again: the guest's QEMU reconnects, the requests that were in flight are
// answered by the new process, and the guest notices nothing but a pause.
func TestReconnect(t *testing.T) {
	cache := wantGuest(t)
	qemu, err := cache.QEMU10()
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := cache.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	rng, seed := random(t)
	n := rounds(t, "VTGT_RECONNECT_ROUNDS", 3)
	h := newHost(t)
	h.write(h.config(reconnectConfig))
	h.start()
	vm, err := guest.Boot(guest.Options{
		Dir: t.TempDir(), QEMU: qemu, CPUs: 2, MemMB: 320, Life: time.Hour,
		Image: &guest.Image{Kernel: kernel, Boot: []string{"virtio_pci", "virtio_scsi", "sd_mod", "crc32c_generic"}},
		Args: []string{"-chardev", "socket,id=c,path=" + filepath.Join(h.dir, "vm.sock") + ",reconnect-ms=200",
			"-device", "vhost-user-scsi-pci,chardev=c,num_queues=2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	const dev, jobs, slot, area = "/dev/sda", 16, 8192, 32 << 20
	beginWork(t, vm, agent.Request{Path: dev, Jobs: jobs, Size: slot, Len: area, Seed: seed})
	sound := func(more uint64) agent.Progress {
		t.Helper()
		return sound(t, vm, jobs, more)
	}
	sound(100)
	for round := range n {
		pauseFor(rng, 500)
		h.kill()
		pauseFor(rng, 1500)
		h.start()
		begin := time.Now()
		p := sound(100)
		t.Logf("round %d: %d writes, %d reads, longest %d ms; writing again after %.1f s", round, p.Writes, p.Reads, p.Longest, time.Since(begin).Seconds())
	}
	p := endWork(t, vm)
	h.stop()
	checkSlots(t, filepath.Join(h.dir, "data.img"), seed, slot, p.Sequence)
}

// beginWork waits for the disk /dev/sda and has writers work on it.
func beginWork(t *testing.T, vm *guest.VM, q agent.Request) {
	t.Helper()
	if _, err := vm.Await(q.Path, patience); err != nil {
		t.Fatal(err)
	}
	// A request that is lost still times out while the test runs; one that is late on
	// a busy machine does not.
	if err := vm.Put("/sys/block/sda/device/timeout", "120"); err != nil {
		t.Fatal(err)
	}
	if err := vm.Work(q); err != nil {
		t.Fatal(err)
	}
}

// endWork stops the writers, who have seen no error, and the guest, which says nothing of
// one either.
func endWork(t *testing.T, vm *guest.VM) agent.Progress {
	t.Helper()
	p, err := vm.Worked(true, 2*patience)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Errors) > 0 {
		t.Fatalf("the guest sees %v", p.Errors)
	}
	quiet(t, vm)
	if err := vm.Poweroff(); err != nil {
		t.Error(err)
	}
	return p
}

// sound wants all writers at work, and waits until they have written more.
func sound(t *testing.T, vm *guest.VM, jobs int, more uint64) (p agent.Progress) {
	t.Helper()
	first, err := vm.Worked(false, patience)
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "the guest writes", func() error {
		if p, err = vm.Worked(false, patience); err != nil {
			t.Fatal(err)
		}
		if len(p.Errors) > 0 || p.Running != jobs {
			t.Fatalf("the guest sees %+v\n%s", p, vm.Console())
		}
		if p.Writes < first.Writes+more {
			return fmt.Errorf("%d writes, %d wanted, one takes %d ms", p.Writes, first.Writes+more, p.Longest)
		}
		return nil
	})
	return p
}

// quiet wants nothing in the guest's log about its disk.
func quiet(t *testing.T, vm *guest.VM) {
	t.Helper()
	log, err := vm.Log()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"I/O error", "abort", "Sense Key", "timed out", "offline"} {
		if lines := linesWith(log, "sd 0:", bad); len(lines) > 0 {
			t.Errorf("the guest's log: %q", lines)
		}
	}
}

// checkSlots wants the host's file to hold what the guest's writers remember.
func checkSlots(t *testing.T, path string, seed uint64, size int64, sequence []uint32) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, want := make([]byte, size), make([]byte, size)
	written := 0
	for i, seq := range sequence {
		if seq == 0 {
			continue
		}
		written++
		off := int64(i) * size
		if _, err := f.ReadAt(got, off); err != nil {
			t.Fatal(err)
		}
		agent.Slot(want, seed, off, seq)
		if string(got) != string(want) {
			t.Fatalf("slot %d of the file is not what write %d left", i, seq)
		}
	}
	if written == 0 {
		t.Error("nothing was written")
	}
}
