package backingtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

func TestFaultSuite(t *testing.T) {
	Run(t, Config{Allocates: true, Open: func(t *testing.T, g *loop.Group) backing.Store {
		return newFault(t, g)
	}})
}

// TestFaultSuiteDelayed is the suite with everything asynchronous.
func TestFaultSuiteDelayed(t *testing.T) {
	Run(t, Config{Allocates: true, Open: func(t *testing.T, g *loop.Group) backing.Store {
		f := newFault(t, g)
		f.Inject(Rule{Delay: 100 * time.Microsecond})
		return f
	}})
}

func newFault(t testing.TB, g *loop.Group) *Fault {
	t.Helper()
	st, err := backing.Open("mem:", backing.Options{Size: Size, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	return NewFault(st)
}

func newGroup(t testing.TB) *loop.Group {
	t.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func faultDriver(t testing.TB) (*Fault, *Driver) {
	t.Helper()
	g := newGroup(t)
	f := newFault(t, g)
	d, err := NewDriver(f, g.Loops()[0])
	if err != nil {
		t.Fatal(err)
	}
	return f, d
}

func TestFaultRules(t *testing.T) {
	f, d := faultDriver(t)
	p := bytes.Repeat([]byte{1}, 4096)
	f.Inject(Rule{Kinds: KindSet(backing.Write), Off: 8192, Len: 4096, Skip: 1, Count: 2, Err: syscall.EIO})
	for i, want := range []error{nil, syscall.EIO, syscall.EIO, nil} {
		if err := d.Write(8192, p, 0); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
		if err := d.Write(4096, p, 0); err != nil {
			t.Errorf("beside the range: %v", err)
		}
		if err := d.Read(8192, make([]byte, 4096)); err != nil {
			t.Errorf("another kind: %v", err)
		}
	}
	if n := f.Count(backing.Write); n != 8 {
		t.Errorf("Count(Write) is %d, want 8", n)
	}

	f.Clear()
	f.Inject(Rule{Kinds: KindSet(backing.Write), Count: 1, Err: syscall.EIO, Torn: 1000})
	q := bytes.Repeat([]byte{2}, 4096)
	if err := d.Write(8192, q, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("torn write: %v, want EIO", err)
	}
	got := make([]byte, 4096)
	if err := d.Read(8192, got); err != nil || got[999] != 2 || got[1000] != 1 {
		t.Errorf("after a torn write: %v, bytes %d %d, want 2 1", err, got[999], got[1000])
	}

	f.Clear()
	f.Inject(Rule{Kinds: KindSet(backing.Read), Count: 1, Short: 512})
	op := &backing.Op{Kind: backing.Read, Len: 4096, Bufs: [][]byte{got[:100], got[100:]}}
	if err := d.Do(op); err != nil || op.N != 512 {
		t.Errorf("short read: %v, N %d, want 512", err, op.N)
	}

	f.Clear()
	f.Inject(Rule{Count: 1, Delay: 30 * time.Millisecond})
	var begin int64 // by the round's clock, which delays count from
	d.L.Do(func() { begin = d.L.Now() })
	err := d.Sync()
	if took := time.Duration(d.L.Group().Now() - begin); err != nil || took < 30*time.Millisecond {
		t.Errorf("delayed sync: %v after %v", err, took)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestFaultHold(t *testing.T) {
	f, d := faultDriver(t)
	f.Inject(Rule{Kinds: KindSet(backing.Write), Count: 3, Hold: true})
	var ops [3]backing.Op
	var ends [3]<-chan struct{}
	for i := range ops {
		ops[i] = backing.Op{Kind: backing.Write, Off: int64(i) * 512, Len: 512, Bufs: [][]byte{bytes.Repeat([]byte{9}, 512)}}
		ends[i] = d.Start(&ops[i])
	}
	if !f.WaitHeld(3) {
		t.Fatal("not held")
	}
	got := make([]byte, 1536)
	if err := d.Read(0, got); err != nil || got[0] != 0 {
		t.Errorf("a held write has reached the store: %v %d", err, got[0])
	}
	d.L.Do(func() { d.Q.Cancel(&ops[1]) })
	<-ends[1]
	if !errors.Is(ops[1].Err, backing.ErrCanceled) {
		t.Errorf("canceled: %v", ops[1].Err)
	}
	f.Release(1)
	<-ends[0]
	if len(ends[2]) != 0 || f.Held() != 1 {
		t.Errorf("Release(1) released more")
	}
	closed := make(chan struct{})
	d.L.Do(func() { d.Q.Close(func() { close(closed) }) })
	select {
	case <-closed:
		t.Error("the queue ended with a held operation")
	case <-time.After(10 * time.Millisecond):
	}
	f.Release(-1)
	<-ends[2]
	<-closed
	for i, want := range []error{nil, backing.ErrCanceled, nil} {
		if !errors.Is(ops[i].Err, want) {
			t.Errorf("operation %d: %v, want %v", i, ops[i].Err, want)
		}
	}
}

// durability writes numbered blocks, syncing now and then, crashes, and checks
// that nothing acknowledged as stable was lost. It is what users of Fault do.
func durability(g *loop.Group, f *Fault, seed uint64) error {
	l := g.Loops()[0]
	if err := f.Volatile(l); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for range 4 {
		d, err := NewDriver(f, l)
		if err != nil {
			return err
		}
		stable := map[int64]byte{} // block -> at least this version
		wrote := map[int64]byte{}
		const blocks = 40
		for v := byte(1); v < 120; v++ {
			b := r.Int64N(blocks)
			fl := backing.Flags(0)
			if r.IntN(10) == 0 {
				fl = backing.FUA
			}
			if err := d.Write(b*4096, bytes.Repeat([]byte{v}, 4096), fl); err != nil {
				return err
			}
			wrote[b] = v
			if fl != 0 {
				stable[b] = v
			}
			if r.IntN(12) == 0 {
				if err := d.Sync(); err != nil {
					return err
				}
				for k, v := range wrote {
					stable[k] = v
				}
			}
		}
		f.Crash()
		if err := d.Write(0, make([]byte, 512), 0); !errors.Is(err, ErrCrashed) {
			return fmt.Errorf("write after the crash: %v", err)
		}
		if err := d.Close(); err != nil {
			return err
		}
		if err := f.Restart(l, func(int64) bool { return r.IntN(3) == 0 }); err != nil {
			return err
		}
		if d, err = NewDriver(f, l); err != nil {
			return err
		}
		got := make([]byte, 4096)
		for b, v := range stable {
			if err := d.Read(b*4096, got); err != nil {
				return err
			}
			for _, c := range got {
				if c < v {
					return fmt.Errorf("block %d went back to version %d, %d was stable", b, c, v)
				}
			}
		}
		if err := d.Zero(0, blocks*4096, backing.FUA); err != nil {
			return err
		}
		if err := d.Close(); err != nil {
			return err
		}
	}
	return nil
}

func TestCrash(t *testing.T) {
	g := newGroup(t)
	// mem: says that it is not volatile, so everything is stable at once.
	if err := durability(g, newFault(t, g), 1); err != nil {
		t.Fatal(err)
	}
	if err := durability(g, NewFault(cached{newFault(t, g)}), 2); err != nil {
		t.Fatal(err)
	}
}

// TestCrashFindsSwallowedSync shows that the durability check fails when a store
// swallows syncs.
func TestCrashFindsSwallowedSync(t *testing.T) {
	g := newGroup(t)
	f := NewFault(cached{newFault(t, g)})
	f.Inject(Rule{Kinds: KindSet(backing.Sync), Swallow: true})
	err := durability(g, f, 2)
	if err == nil {
		t.Fatal("a store that swallows syncs passes")
	}
	t.Log("as it should be:", err)
}

// TestCrashFindsLostFUA is the same for FUA writes that never arrive.
func TestCrashFindsLostFUA(t *testing.T) {
	g := newGroup(t)
	f := NewFault(cached{newFault(t, g)})
	f.Inject(Rule{Kinds: KindSet(backing.Write), Skip: 20, Count: 60, Swallow: true})
	if err := durability(g, f, 2); err == nil {
		t.Fatal("a store that loses writes passes")
	}
}

// cached makes a store say that it has a write cache.
type cached struct{ backing.Store }

func (c cached) Info() *backing.Info {
	i := *c.Store.Info()
	i.Volatile = true
	return &i
}
