package daemon

import (
	"context"
	"encoding/binary"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// roomy is a store whose file system is said to have some room.
type roomy struct {
	backing.Store
	avail *atomic.Int64
}

func (r roomy) Space() (backing.Space, error) {
	return backing.Space{Available: r.avail.Load(), Total: 100 << 30}, nil
}

// TestSpace: the real file system's numbers come through, and an initiator hears once
// that the room falls below the threshold.
func TestSpace(t *testing.T) {
	w := newWorld(t)
	p := w.file("a.img", 1<<20)
	var avail atomic.Int64
	avail.Store(50 << 30)
	d := w.startWith(w.config("disks: [{name: a, store: \"file:"+p+"\"}]\ntargets:\n- {name: one, luns: [{lun: 0, disk: a}], iscsi: {iqn: "+iqn1+"}}\n"),
		Options{space: backing.SpaceOf, spaceTick: 5 * time.Millisecond, Open: func(spec string, o backing.Options) (backing.Store, error) {
			st, err := backing.Open(spec, o)
			if err != nil {
				return nil, err
			}
			s, err := backing.SpaceOf(st)
			if err != nil || s.Total <= 0 || s.Available <= 0 || s.Available > s.Total {
				t.Errorf("the real file system: %+v, %v", s, err)
			}
			return roomy{st, &avail}, nil
		}})
	c := dial(t, d, iqn1, host)
	run := func() int {
		t.Helper()
		k, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)})
		if err != nil {
			t.Fatal(err)
		}
		return sense(k)
	}
	for run() != 0 {
	}
	until := time.Now().Add(30 * time.Second)
	wait := func(want int) {
		t.Helper()
		for {
			got := run()
			if got == want {
				return
			}
			if got != 0 || time.Now().After(until) {
				t.Fatalf("%06x, want %06x", got, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	avail.Store(5 << 30)
	wait(0x063807)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_ = d.Events(ctx, SinceAll, true, func(es []Event) error {
		for _, e := range es {
			if strings.Contains(e.Detail, "low on room: its file system has 5GiB left") {
				cancel()
			}
		}
		return nil
	})
	if ctx.Err() != context.Canceled {
		t.Error("no event")
	}
	// Once for each time.
	for range 50 {
		time.Sleep(time.Millisecond)
		if got := run(); got != 0 {
			t.Fatalf("again: %06x", got)
		}
	}
}

// TestFull: a thin disk on a small file system of its own. An initiator is warned, then
// writes fail with SPACE ALLOCATION FAILED WRITE PROTECT and nothing else, and UNMAP
// makes them succeed again.
func TestFull(t *testing.T) {
	w := newWorld(t)
	if err := syscall.Mount("tmpfs", w.dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("a file system of its own cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(w.dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	p := w.file("a.img", 64<<20)
	d := w.startWith(w.config("disks: [{name: a, store: \"file:"+p+"\"}]\ntargets:\n- {name: one, luns: [{lun: 0, disk: a}], iscsi: {iqn: "+iqn1+"}}\n"),
		Options{space: backing.SpaceOf, spaceTick: 2 * time.Millisecond})
	c := dial(t, d, iqn1, host)
	run := func(cmd iscsitest.Command) int {
		t.Helper()
		k, err := c.Run(&cmd)
		if err != nil {
			t.Fatal(err)
		}
		return sense(k)
	}
	tur := iscsitest.Command{CDB: make([]byte, 6)}
	for run(tur) != 0 {
	}
	const mib = 2048 // blocks
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i) | 1
	}
	write := func(lba uint32) int {
		cdb := make([]byte, 10)
		cdb[0] = 0x2a
		binary.BigEndian.PutUint32(cdb[2:], lba)
		binary.BigEndian.PutUint16(cdb[7:], mib)
		return run(iscsitest.Command{CDB: cdb, Out: data})
	}
	const warning, full = 0x063807, 0x072707
	fill := func(from uint32) (end uint32) {
		t.Helper()
		warned := false
		for lba := from; lba < 64*mib; {
			s := write(lba)
			switch {
			case s == 0:
				lba += mib
			case s == warning:
				warned = true
			case s == full:
				// The watch looks every 2 ms, the writes may have been faster.
				for end := time.Now().Add(30 * time.Second); !warned && time.Now().Before(end); time.Sleep(time.Millisecond) {
					warned = run(tur) == warning
				}
				if !warned {
					t.Error("no warning")
				}
				return lba
			default:
				t.Fatalf("a write at block %d: %06x", lba, s)
			}
		}
		t.Fatal("64 MiB fit into 16 MiB")
		return 0
	}
	end := fill(0)
	if end == 0 {
		t.Fatal("nothing could be written")
	}
	// What is shown is what the last look found.
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		s := d.Disks()[0].Space
		if s != nil && s.Total == 16<<20 && s.Used >= int64(end)*512 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("space %+v after %d bytes", s, int64(end)*512)
		}
	}
	// Others read what is there; over what is allocated one can write.
	if s := write(0); s != 0 {
		t.Errorf("a write over allocated blocks: %06x", s)
	}
	p0 := make([]byte, 24)
	binary.BigEndian.PutUint16(p0, 22)
	binary.BigEndian.PutUint16(p0[2:], 16)
	binary.BigEndian.PutUint32(p0[16:], end)
	if s := run(iscsitest.Command{CDB: []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, Out: p0}); s != 0 {
		t.Fatalf("UNMAP: %06x", s)
	}
	// Seen again, so that the next crossing is one.
	for end := time.Now().Add(30 * time.Second); d.Disks()[0].Space.Available < 4<<20; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after UNMAP: %+v", d.Disks()[0].Space)
		}
	}
	fill(0)
}
