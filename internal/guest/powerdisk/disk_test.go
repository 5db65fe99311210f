package powerdisk

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
)

func newDisk(t *testing.T, size int) *Disk {
	t.Helper()
	p := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(p, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func sector(v byte) []byte { return bytes.Repeat([]byte{v}, SectorSize) }

func (d *Disk) is(t *testing.T, n int64, want byte) {
	t.Helper()
	b := make([]byte, SectorSize)
	if err := d.read(b, n*SectorSize); err != nil || !bytes.Equal(b, sector(want)) {
		t.Errorf("sector %d is %#x, want %#x (%v)", n, b[0], want, err)
	}
}

// TestStall: the write that is not answered is one that a cut may tear.
func TestStall(t *testing.T) {
	d := newDisk(t, 8*SectorSize)
	stalled := d.StallAfter(1)
	if err := d.write(sector(1), 0, false); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- d.write(sector(2), SectorSize, false) }()
	tempotest.Recv(t, stalled, "the stall")
	d.PowerCut(rand.New(rand.NewPCG(1, 2)), 1)
	if tempotest.Recv(t, over, "its end") == nil {
		t.Error("the write was answered")
	}
	d.PowerOn()
	d.is(t, 0, 1)
	d.is(t, 1, 2)
	if err := d.write(sector(3), 0, false); err != nil {
		t.Error("after the cut:", err)
	}
}

func TestPowerCut(t *testing.T) {
	d := newDisk(t, 8*SectorSize)
	rng := rand.New(rand.NewPCG(1, 2))
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(d.write(sector(1), 0, false))
	try(d.flush())
	try(d.write(sector(2), 0, false))
	try(d.write(sector(6), SectorSize, false))
	try(d.write(sector(3), SectorSize, true)) // stable alone
	d.is(t, 0, 2)
	d.PowerCut(rng, 0)
	if err := d.write(sector(9), 0, false); err == nil {
		t.Error("a write without power")
	}
	d.PowerOn()
	d.is(t, 0, 1)
	d.is(t, 1, 3)
	try(d.write(sector(4), 0, false))
	try(d.write(sector(5), 0, false))
	d.PowerCut(rng, 1)
	d.PowerOn()
	d.is(t, 0, 5)
	if s := d.Stats(); s.Lost != 2 || s.Kept != 2 {
		t.Errorf("%+v", s)
	}
}

// A client that nobody here wrote.
func TestQEMU(t *testing.T) {
	qemuIO, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Skip("qemu-io is not installed (package qemu-utils)")
	}
	d := newDisk(t, 1<<20)
	path, err := d.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	client := func(commands ...string) {
		t.Helper()
		args := []string{"-f", "raw"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, err := exec.Command(qemuIO, append(args, "nbd:unix:"+path+":exportname=d")...).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("failed")) {
			t.Fatalf("%v: %s", err, out)
		}
	}
	client("write -P 7 4096 65536", "read -P 7 4096 65536", "flush", "write -f -P 8 0 512", "read -P 0 512 3584")
	d.PowerCut(rand.New(rand.NewPCG(1, 2)), 0)
	d.PowerOn()
	client("read -P 7 4096 65536", "read -P 8 0 512")
	if s := d.Stats(); s.Flushes == 0 || s.Writes == 0 {
		t.Errorf("%+v", s)
	}
}
