package guesttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
	"github.com/vtgt/vtgt/internal/guest/ledger"
	"github.com/vtgt/vtgt/internal/guest/powerdisk"
	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// Paths in the guest.
const (
	guestVtgt   = "/bin/vtgt"
	guestData   = "/data"
	guestConfig = guestData + "/vtgt.yaml"
	guestNew    = "/tmp/new.yaml"
	guestSocket = "/run/vtgt.sock"
)

// diskSize of each disk, bytes.
const diskSize = 24 << 20

// station is a guest that runs vtgt on disks that lose power: one for the
// configuration and the state, and one for each promise, so that no flush of one
// promise's disk makes good what another left out.
type station struct {
	t      *testing.T
	im     *guest.Image
	initrd string
	dir    string
	disks  []*powerdisk.Disk // 0 is for the configuration
	args   []string          // of QEMU, for the disks
	port   int               // of vtgt, on this host

	vm  *guest.VM
	pid int // of vtgt in the guest
}

// device is the guest's name of disk i.
func device(i int) string { return fmt.Sprintf("/dev/vd%c", 'a'+i) }

// folder is where the file system of promise p is mounted.
func folder(p promise) string { return "/disk/" + p.name }

func store(i int, p promise) string {
	if p.block {
		return "block:" + device(i+1)
	}
	return "file:" + folder(p) + "/disk.img"
}

func newStation(t *testing.T) *station {
	t.Helper()
	c := wantGuest(t)
	k, err := c.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	s := &station{t: t, dir: t.TempDir(), im: &guest.Image{
		Kernel: k,
		Boot:   []string{"virtio_pci", "virtio_net", "virtio_blk", "crc32c_generic", "ext4"},
		Files:  map[string]string{guestVtgt: vtgtBinary(t)},
	}}
	if s.initrd, err = s.im.Build(s.dir); err != nil {
		t.Fatal(err)
	}
	// Block stores begin empty: a book takes what it does not know for damage.
	image, empty := filepath.Join(s.dir, "disk.img"), filepath.Join(s.dir, "empty.img")
	for _, p := range []string{image, empty} {
		if err := os.WriteFile(p, make([]byte, diskSize), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		mkfs = "/sbin/mkfs.ext4"
	}
	if out, err := exec.Command(mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v %s; run make deps", err, out)
	}
	for i := range 1 + len(promises) {
		from := image
		if i > 0 && promises[i-1].block {
			from = empty
		}
		d, err := powerdisk.New(from)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		socket, err := d.Serve()
		if err != nil {
			t.Fatal(err)
		}
		s.disks = append(s.disks, d)
		s.args = append(s.args,
			"-blockdev", fmt.Sprintf("driver=nbd,node-name=d%d,export=d,server.type=unix,server.path=%s", i, socket),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,write-cache=on", i))
	}
	t.Cleanup(func() {
		if s.vm != nil {
			if t.Failed() {
				t.Logf("the guest's console:\n%s", s.vm.Console())
			}
			s.vm.Kill()
		}
	})
	return s
}

func (s *station) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// boot starts the guest with the disks as they are.
func (s *station) boot() {
	s.t.Helper()
	s.port = int(hosttest.Port(s.t).Port())
	vm, err := guest.Boot(guest.Options{
		Image: s.im, Initramfs: s.initrd, Dir: s.dir, Net: true, Forward: map[int]int{s.port: 3260}, MemMB: 320, CPUs: 2,
		Args: s.args,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.vm = vm
	s.ok(vm.Put("/proc/sys/vm/dirty_writeback_centisecs", "0"))
	// What nobody syncs is to be lost: neither the kernel's flusher nor the
	// journal's own commits come to help.
	s.ok(vm.Mount(device(0), guestData, "ext4", "commit=3600"))
	for i, p := range promises {
		if !p.block {
			s.ok(vm.Mount(device(i+1), folder(p), "ext4", "commit=3600"))
		}
	}
}

func (s *station) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// serve starts vtgt in the guest and waits until it answers.
func (s *station) serve(spawn func(...string) (int, error)) {
	s.t.Helper()
	pid, err := spawn(guestVtgt, "serve", "--config", guestConfig)
	s.ok(err)
	s.pid = pid
	poll(s.t, "vtgt serves in the guest", func() error {
		c, err := connect(s.addr(), 97)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// cut is the loss of power: QEMU dies, and so does what the disks had in their
// caches, but for the share keep. It returns the number of sectors lost.
func (s *station) cut(rng *rand.Rand, keep float64) (lost int64) {
	s.vm.Kill()
	s.vm = nil
	for _, d := range s.disks {
		lost -= d.Stats().Lost
		d.PowerCut(rng, keep)
		d.PowerOn()
		lost += d.Stats().Lost
	}
	return lost
}

// config is the configuration in the guest.
func (s *station) config(extra int) string {
	return "version: 1\n" + crashConfig(store, extra) +
		"iscsi: {portals: [\"0.0.0.0:3260\"], loginTimeout: 2m, pingTimeout: 2m}\napi: {socket: " + guestSocket + "}\nstate: " + guestData + "/state\n"
}

// apply gives vtgt a configuration that it has not read from its own file, and returns
// the disks as they are then. All of it is stable when apply returns.
func (s *station) apply(extra int) (map[string]api.Disk, error) {
	if err := s.vm.Put(guestNew, s.config(extra)); err != nil {
		return nil, err
	}
	if _, err := s.vm.Run(guestVtgt, "--socket", guestSocket, "apply", "-f", guestNew); err != nil {
		return nil, err
	}
	out, err := s.vm.Run(guestVtgt, "--socket", guestSocket, "get", "disks", "-o", "json")
	if err != nil {
		return nil, err
	}
	return parseDisks(s.t, out), nil
}

func (s *station) served() map[string]api.Disk {
	s.t.Helper()
	out, err := s.vm.Run(guestVtgt, "--socket", guestSocket, "get", "disks", "-o", "json")
	s.ok(err)
	return parseDisks(s.t, out)
}

// yaml is vtgt's configuration file in the guest.
func (s *station) yaml() string {
	s.t.Helper()
	text, err := s.vm.Read(guestConfig)
	s.ok(err)
	return text
}

// TestPowerLoss runs vtgt on a disk that loses power while it is written to. Whatever
// was acknowledged as stable must be there afterwards: data by FUA, by SYNCHRONIZE
// CACHE, of a unit without a volatile cache, and by WRITE ATOMIC, which also must be whole
// or not there at all where it was not acknowledged; the YAML and the identities after
// `vtgt apply`; registrations and the reservation with APTPL. Then the same with vtgt's syncs switched off, which must be noticed.
func TestPowerLoss(t *testing.T) {
	s := newStation(t)
	rng, seed := random(t)
	n := rounds(t, "VTGT_POWER_ROUNDS", 2)
	books := crashBooks(seed)
	s.boot()
	s.ok(s.vm.PutSync(guestConfig, s.config(0)))
	s.serve(s.vm.Spawn)
	checkPolicy(t, s.addr())
	extra := 0
	var hosts fence
	for round := range n {
		begin := time.Now()
		before := acks(books)
		w := startWriters(t, s.addr(), books)
		busy(t, w, books, before, 20)
		extra++
		known, err := s.apply(extra)
		s.ok(err)
		kept := extra
		// One more is under way when it happens, in every other round.
		late := make(chan struct{})
		if vm := s.vm; rng.IntN(2) == 0 {
			extra++
			text := s.config(extra)
			go func() {
				defer close(late)
				if vm.Put(guestNew, text) == nil {
					_, _ = vm.Do(agent.Request{Op: agent.Exec, Args: []string{guestVtgt, "--socket", guestSocket, "apply", "-f", guestNew}}, patience)
				}
			}()
		} else {
			close(late)
		}
		// Last, so that nobody else's sync makes it stable, as far as that goes.
		hosts.ok(t, hosts.act(s.addr()))
		fenced := make(chan struct{})
		if rng.IntN(2) == 0 {
			fenced, err = hosts.during(s.addr())
			hosts.ok(t, err)
		} else {
			close(fenced)
		}
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		// In the midst of what one of them does: the pauses between are long.
		tempotest.Recv(t, s.disks[1+atomicLUN()].StallAfter(rng.IntN(40)), "writes of the atomic disk")
		keep := []float64{0, 0.1, 0.5, 0.9}[rng.IntN(4)]
		lost := s.cut(rng, keep)
		w.wait(t)
		<-late
		<-fenced

		s.boot()
		s.serve(s.vm.Spawn)
		for _, err := range checkBooks(t, s.addr(), books) {
			if err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if err := hosts.check(s.addr()); err != nil {
			t.Errorf("round %d: fence: %v", round, err)
		}
		sameIdentities(t, known, s.served())
		if text := s.yaml(); text != s.config(kept) && text != s.config(extra) {
			t.Errorf("round %d: the YAML is neither what was applied nor what was being applied:\n%s", round, text)
		}
		t.Logf("round %d: %d writes acknowledged; the disk kept %.0f%% of what was not flushed and lost %d sectors; %.1f s",
			round, sum(acks(books))-sum(before), 100*keep, lost, time.Since(begin).Seconds())
		if t.Failed() {
			return
		}
	}

	// The defect: vtgt does not sync. The test itself keeps the YAML of one
	// change, so that the identity can be asked for afterwards; its sync would make
	// vtgt's state stable too, so it comes first.
	s.ok(s.vm.Signal(s.pid, int(syscall.SIGTERM), patience))
	s.serve(s.vm.SpawnNoSync)
	extra += 2
	text := s.config(extra)
	s.ok(s.vm.PutSync(guestConfig, text))
	s.ok(s.vm.Put(guestNew, text))
	before := acks(books)
	w := startWriters(t, s.addr(), books)
	busy(t, w, books, before, 20)
	stable := hosts
	hosts.ok(t, hosts.act(s.addr()))
	if _, err := s.vm.Run(guestVtgt, "--socket", guestSocket, "apply", "-f", guestNew); err != nil {
		t.Fatal(err)
	}
	known := s.served()
	// And another that vtgt itself puts into the YAML.
	s.ok(s.vm.Put(guestNew, s.config(extra+1)))
	if _, err := s.vm.Run(guestVtgt, "--socket", guestSocket, "apply", "-f", guestNew); err != nil {
		t.Fatal(err)
	}
	if s.yaml() != s.config(extra+1) {
		t.Error("apply did not keep the YAML")
	}
	s.cut(rng, 0)
	w.wait(t)
	s.boot()
	s.serve(s.vm.Spawn)
	for i, err := range checkBooks(t, s.addr(), books) {
		var le *ledger.LostError
		if !errors.As(err, &le) {
			t.Errorf("vtgt did not sync, and book %d, %s, finds nothing lost: %v", i, books[i].Name(), err)
		} else {
			t.Logf("without syncs, as it should be: %d sectors of %s (%v) lost", le.Lost, le.Name, le.Mode)
		}
	}
	if err := hosts.check(s.addr()); err == nil {
		t.Error("vtgt did not sync, and the reservation with APTPL is there")
	}
	if err := stable.check(s.addr()); err != nil {
		t.Errorf("vtgt did not sync, and the reservation before is not there: %v", err)
	}
	last := fmt.Sprintf("extra%d", extra-1)
	if now := s.served(); known[last].Serial == "" || now[last].Serial == known[last].Serial {
		t.Errorf("vtgt did not sync, and %s still has its serial number %q", last, now[last].Serial)
	}
	if s.yaml() != text {
		t.Error("vtgt did not sync, and the YAML is not the one before")
	}
	s.ok(s.vm.Poweroff())
	s.vm = nil
}
