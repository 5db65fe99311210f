package guesttest

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
	"github.com/vtgt/vtgt/internal/handover/handovertest"
)

// TestParked kills vtgt with SIGKILL under a guest of the host's QEMU, which cannot
// connect anew if it is QEMU 7.2. The parent of vtgt keeps its descriptors, as systemd
// does, and the next vtgt goes on with them: the guest sees no error. With
// VTGT_PARK_ROUNDS, that often.
func TestParked(t *testing.T) {
	kernel, err := wantGuest(t).Kernel()
	if err != nil {
		t.Fatal(err)
	}
	rng, seed := random(t)
	n := rounds(t, "VTGT_PARK_ROUNDS", 2)
	h := newHost(t)
	h.write(h.config(reconnectConfig))
	h.parent = handovertest.New(t, filepath.Join(h.dir, "notify"))
	h.start()
	vm, err := guest.Boot(guest.Options{
		Dir: t.TempDir(), CPUs: 2, MemMB: 320, Life: time.Hour,
		Image: &guest.Image{Kernel: kernel, Boot: []string{"virtio_pci", "virtio_scsi", "sd_mod", "crc32c_generic"}},
		Args:  vhostDevice("c", filepath.Join(h.dir, "vm.sock"), ",num_queues=2"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	const dev, jobs, slot, area = "/dev/sda", 16, 8192, 32 << 20
	beginWork(t, vm, agent.Request{Path: dev, Jobs: jobs, Size: slot, Len: area, Seed: seed})
	sound(t, vm, jobs, 100)
	for round := range n {
		pauseFor(rng, 500)
		h.kill()
		pauseFor(rng, 1000)
		h.start()
		p := sound(t, vm, jobs, 100)
		t.Logf("round %d: %d writes, %d reads, longest %d ms", round, p.Writes, p.Reads, p.Longest)
	}
	p := endWork(t, vm)
	h.stop()
	checkSlots(t, filepath.Join(h.dir, "data.img"), seed, slot, p.Sequence)
}

// pauseFor varies at which moment of the load something happens.
func pauseFor(rng *rand.Rand, most int) {
	time.Sleep(time.Duration(rng.IntN(most)) * time.Millisecond)
}
