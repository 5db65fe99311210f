package backing_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

func TestIntent(t *testing.T) {
	backingtest.Run(t, backingtest.Config{Open: func(t *testing.T, g *loop.Group) backing.Store {
		dir := t.TempDir()
		return open(t, "file:"+filepath.Join(dir, "a.img"), backing.Options{Size: 8 << 20, Create: true, Group: g,
			AtomicLog: filepath.Join(dir, "a.log"), AtomicLogSize: 1 << 20, AtomicMax: 128 << 10})
	}})
}

// cached is a store whose writes need a Sync.
type cached struct{ backing.Store }

func (s cached) Info() *backing.Info {
	i := *s.Store.Info()
	i.Volatile, i.AtomicMax = true, 0
	return &i
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

// intentRig is a store with a log, both on media that lose power together.
type intentRig struct {
	t         testing.TB
	g         *loop.Group
	data, log *backingtest.Fault
	made      bool // the log was
	off       bool
}

const (
	intentData = 64 << 10
	intentMax  = 16 << 10
	intentSize = 4096 + 2*(4096+intentMax)
)

func newIntentRig(t testing.TB, g *loop.Group, off bool) *intentRig {
	r := &intentRig{t: t, g: g, off: off}
	mem := func(size int64) *backingtest.Fault {
		f := backingtest.NewFault(cached{open(t, "mem:", backing.Options{Size: size, Group: g})})
		if err := f.Volatile(g.Loops()[0]); err != nil {
			t.Fatal(err)
		}
		return f
	}
	r.data, r.log = mem(intentData), mem(intentSize)
	return r
}

// keepOpen is a store that Close leaves as it is: it is opened again.
type keepOpen struct{ backing.Store }

func (keepOpen) Close() error { return nil }

func (r *intentRig) open() (backing.Store, error) {
	return backing.WithIntentLog(keepOpen{r.data}, r.g, intentMax, intentSize,
		func(size int64) (backing.Store, error) {
			if size > 0 {
				r.made = true
			}
			if !r.made {
				return nil, nil
			}
			return keepOpen{r.log}, nil
		}, func() error { r.made = false; return nil }, r.off)
}

func (r *intentRig) crash() { r.data.Crash(); r.log.Crash() }

// restart is the return of power: of what was not stable, what keep says is there.
func (r *intentRig) restart(keep func(int64) bool) {
	r.t.Helper()
	for _, f := range []*backingtest.Fault{r.data, r.log} {
		f.Clear()
		if err := f.Restart(r.g.Loops()[0], keep); err != nil {
			r.t.Fatal(err)
		}
	}
}

// intentSteps are the operations of one Atomic write, in their order, and of a replay.
var intentSteps = []struct {
	what   string
	log    bool
	kind   backing.Kind
	skip   int
	replay bool
}{
	{"read of the old data", false, backing.Read, 0, false},
	{"the log's slot", true, backing.Write, 0, false},
	{"the data", false, backing.Write, 0, false},
	{"the clearing of the slot", true, backing.Write, 1, false},
	{"replay: read of the superblock", true, backing.Read, 0, true},
	{"replay: read of the slot", true, backing.Read, 3, true},
	{"replay: the data", false, backing.Write, 0, true},
	{"replay: the clearing of the slot", true, backing.Write, 0, true},
	{"replay: the log made ready", true, backing.Write, 1, true},
	{"replay: the superblock", true, backing.Write, 3, true},
	{"replay: the last sync", true, backing.Sync, 0, true},
}

// kills crashes a store at every step of an Atomic write and of the replay after it, with
// torn writes and with every choice of what survives, and gives the number of times in
// which the range held neither all of the old nor all of the new data.
func kills(t *testing.T, off bool) (torn, cases int) {
	g := newGroup(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	old, now := make([]byte, intentData), make([]byte, intentMax)
	for i := range old {
		old[i] = byte(rnd.Uint32()) | 1
	}
	for i := range now {
		now[i] = byte(rnd.Uint32()) &^ 1 // differs everywhere
	}
	const at = 3 * 512
	keeps := []func(int64) bool{
		func(int64) bool { return false },
		func(int64) bool { return true }, // kill -9: the host goes on
		func(int64) bool { return rnd.IntN(2) == 0 },
		func(int64) bool { return rnd.IntN(4) == 0 },
	}
	for _, step := range intentSteps {
		if off && step.replay {
			continue // there is nothing to replay
		}
		for _, cut := range []int64{0, 512, 4096, 4096 + 512, 8192, 1 << 20} {
			for _, keep := range keeps {
				r := newIntentRig(t, g, off)
				// The contents before are stable, the log is there and has been used.
				first, err := r.open()
				if err != nil {
					t.Fatal(err)
				}
				d := intentDriver(t, first, g)
				if err := d.Write(0, old, backing.FUA); err != nil {
					t.Fatal(err)
				}
				if err := d.Write(at, old[at:at+len(now)], backing.Atomic); err != nil {
					t.Fatal(err)
				}
				rule := backingtest.Rule{Kinds: backingtest.KindSet(step.kind), Skip: step.skip, Torn: cut, Crash: r.crash}
				f := r.data
				if step.log {
					f = r.log
				}
				if step.replay {
					// First the crash that leaves something to replay.
					r.data.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Torn: 1024, Crash: r.crash})
				} else {
					f.Inject(rule)
				}
				err = d.Write(at, now, backing.Atomic)
				good := err == nil
				if err != nil && !errors.Is(err, backingtest.ErrCrashed) {
					t.Fatal(err)
				}
				endAll(t, d, first)
				r.crash()
				r.restart(keep)
				if step.replay {
					f.Inject(rule)
					if st, err := r.open(); err == nil {
						endAll(t, nil, st)
					} else if !errors.Is(err, backingtest.ErrCrashed) {
						t.Fatal(err)
					}
					r.crash()
					r.restart(keep)
				}
				st, err := r.open()
				if err != nil {
					t.Fatalf("%s: %v", step.what, err)
				}
				d = intentDriver(t, st, g)
				is := make([]byte, intentData)
				if err := d.Read(0, is); err != nil {
					t.Fatal(err)
				}
				cases++
				part := is[at : at+len(now)]
				switch {
				case bytes.Equal(part, now):
				case bytes.Equal(part, old[at:at+len(now)]) && !good:
				default:
					torn++
					if !off {
						t.Errorf("killed at %s, %d bytes of it written: the write is torn or lost (it was answered: %v)", step.what, cut, good)
					}
				}
				copy(part, old[at:])
				if !bytes.Equal(is, old) {
					t.Errorf("killed at %s: what is beside it has changed", step.what)
				}
				endAll(t, d, st)
				_ = r.data.Close()
				_ = r.log.Close()
			}
		}
	}
	return torn, cases
}

func intentDriver(t *testing.T, st backing.Store, g *loop.Group) *backingtest.Driver {
	t.Helper()
	d, err := backingtest.NewDriver(st, g.Loops()[1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func endAll(t *testing.T, d *backingtest.Driver, st backing.Store) {
	t.Helper()
	if d != nil {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAtomicKilled: killed at every step, an Atomic write is there as a whole or not at
// all; without the log it is not.
func TestAtomicKilled(t *testing.T) {
	torn, cases := kills(t, false)
	if torn != 0 {
		t.Errorf("torn in %d of %d cases", torn, cases)
	}
	without, cases := kills(t, true)
	if without == 0 {
		t.Errorf("without the intent log nothing was torn in %d cases: this test finds nothing", cases)
	}
	t.Logf("%d cases; torn with the log: %d, without: %d", cases, torn, without)
}

// A write that fails leaves the old data, and the log is empty after it.
func TestAtomicFails(t *testing.T) {
	g := newGroup(t)
	for _, step := range intentSteps[:4] {
		r := newIntentRig(t, g, false)
		st, err := r.open()
		if err != nil {
			t.Fatal(err)
		}
		d := intentDriver(t, st, g)
		old, now := bytes.Repeat([]byte{1}, intentMax), bytes.Repeat([]byte{2}, intentMax)
		if err := d.Write(0, old, backing.Atomic); err != nil {
			t.Fatal(err)
		}
		defect := errors.New("defect")
		f := r.data
		if step.log {
			f = r.log
		}
		f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(step.kind), Skip: step.skip, Count: 1, Err: defect, Torn: 8192})
		if err := d.Write(0, now, backing.Atomic); !errors.Is(err, defect) {
			t.Errorf("%s fails: %v", step.what, err)
		}
		is := make([]byte, intentMax)
		if err := d.Read(0, is); err != nil {
			t.Fatal(err)
		}
		if cleared := step.skip == 1; !cleared && !bytes.Equal(is, old) || cleared && !bytes.Equal(is, now) {
			t.Errorf("%s fails: the range begins with %d and ends with %d", step.what, is[0], is[len(is)-1])
		}
		if step.skip == 1 && r.made {
			t.Error("a log that could not be cleared is still there")
		}
		err = d.Write(0, now, backing.Atomic)
		if broken := step.skip == 1; broken != (err != nil) {
			t.Errorf("after that: %v", err)
		}
		if err == nil {
			if err := d.Write(0, old, 0); err != nil {
				t.Fatal(err)
			}
		}
		endAll(t, d, st)
		// Nothing comes back.
		if st, err = r.open(); err != nil {
			t.Fatal(err)
		}
		d = intentDriver(t, st, g)
		want := is
		if step.skip != 1 {
			want = old
		}
		got := make([]byte, intentMax)
		if err := d.Read(0, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s fails: after opening it again the range begins with %d", step.what, got[0])
		}
		endAll(t, d, st)
	}
}

// More Atomic writes at a time than the log has slots, on two loops; some are canceled.
func TestAtomicMany(t *testing.T) {
	g := newGroup(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	st := open(t, "file:"+filepath.Join(dir, "a.img"), backing.Options{Size: 1 << 20, Create: true, Group: g,
		AtomicLog: log, AtomicLogSize: 3 * (8192 + 4096), AtomicMax: 8192})
	if _, err := os.Stat(log); err == nil {
		t.Error("the log is there before it is needed")
	}
	var ds []*backingtest.Driver
	for _, l := range g.Loops() {
		d, err := backingtest.NewDriver(st, l)
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, d)
	}
	ops := make([]*backing.Op, 40)
	ends := make([]<-chan struct{}, len(ops))
	for i := range ops {
		b := bytes.Repeat([]byte{byte(i + 1)}, 8192)
		ops[i] = &backing.Op{Kind: backing.Write, Flags: backing.Atomic, Off: int64(i) * 8192, Len: 8192, Bufs: [][]byte{b[:100], b[100:]}}
		d := ds[i%2]
		ends[i] = d.Start(ops[i])
		if i%5 == 0 {
			d.L.Do(func() { d.Q.Cancel(ops[i]) })
		}
	}
	for i, op := range ops {
		tempotest.Recv(t, ends[i], "the end of a write")
		is := make([]byte, 8192)
		if err := ds[0].Read(op.Off, is); err != nil {
			t.Fatal(err)
		}
		want := byte(i + 1)
		if errors.Is(op.Err, backing.ErrCanceled) {
			want = 0
		} else if op.Err != nil || op.N != op.Len {
			t.Errorf("write %d: %v, N %d", i, op.Err, op.N)
		}
		if !bytes.Equal(is, bytes.Repeat([]byte{want}, 8192)) {
			t.Errorf("write %d (%v): it reads %d … %d", i, op.Err, is[0], is[8191])
		}
	}
	if err := ds[0].Do(&backing.Op{Kind: backing.Write, Flags: backing.Atomic, Len: 8192 + 512, Bufs: [][]byte{make([]byte, 8192+512)}}); !errors.Is(err, backing.ErrNotSupported) {
		t.Errorf("a longer one: %v", err)
	}
	// The log has copies of what was written, until it is purged.
	has := func() bool {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return len(bytes.Trim(b[4096:], "\x00")) > 0
	}
	if !has() {
		t.Error("nothing in the log: where did the writes go?")
	}
	if err := ds[0].Do(&backing.Op{Kind: backing.Purge}); err != nil {
		t.Fatal(err)
	}
	if has() {
		t.Error("the purged log holds something")
	}
	for _, d := range ds {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// A log that belongs to another file is not replayed: neither is that file opened, nor
// is it changed.
func TestAtomicForeign(t *testing.T) {
	g := newGroup(t)
	dir := t.TempDir()
	img, log := filepath.Join(dir, "a.img"), filepath.Join(dir, "a.log")
	o := backing.Options{Size: 1 << 20, Create: true, Group: g, AtomicLog: log, AtomicLogSize: 1 << 20, AtomicMax: 64 << 10}
	st := open(t, "file:"+img, o)
	d := intentDriver(t, st, g)
	if err := d.Write(0, bytes.Repeat([]byte{7}, 4096), backing.Atomic); err != nil {
		t.Fatal(err)
	}
	endAll(t, d, st)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// As a crash before the last step leaves it.
	copy(b[8192:], bytes.Repeat([]byte{7}, 4096))
	backing.RestoreEntry(b[4096:4096+4096+64<<10], 7, 0, 4096, backing.FileID(t, img))
	if err := os.WriteFile(log, b, 0o600); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(img)
	if err := os.Rename(img, img+".was"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img, make([]byte, len(whole)), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := backing.Open("file:"+img, o); err == nil {
		endAll(t, nil, st)
		t.Error("it was opened")
	} else {
		t.Log(err)
	}
	if is, _ := os.ReadFile(img); len(bytes.Trim(is, "\x00")) != 0 {
		t.Error("the other file was changed")
	}
	// With its own it is.
	if err := os.Rename(img+".was", img); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(img, make([]byte, len(whole)), 0o600); err != nil { // the write is lost
		t.Fatal(err)
	}
	st = open(t, "file:"+img, o)
	endAll(t, nil, st)
	if is, _ := os.ReadFile(img); !bytes.Equal(is, whole) {
		t.Error("it was not replayed")
	}
}

// FuzzIntentLog: whatever a log holds, nothing outside of it is read, and what comes of
// it fits.
func FuzzIntentLog(f *testing.F) {
	b := make([]byte, 8192)
	backing.RestoreEntry(b, 3, 512, 1024, [16]byte{1})
	f.Add(b)
	f.Add(append([]byte("VTGTALOG"), make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) { backing.DecodeLog(t, b) })
}

// A read-only store never shows a part of a write: with a log that holds one it is
// refused, with an empty one it is served, and neither is written to.
func TestAtomicReadOnly(t *testing.T) {
	g := newGroup(t)
	dir := t.TempDir()
	img, log := filepath.Join(dir, "a.img"), filepath.Join(dir, "a.log")
	o := backing.Options{Size: 1 << 20, Create: true, Group: g, AtomicLog: log, AtomicLogSize: 1 << 20, AtomicMax: 64 << 10}
	st := open(t, "file:"+img, o)
	d := intentDriver(t, st, g)
	if err := d.Write(0, bytes.Repeat([]byte{7}, 4096), backing.Atomic); err != nil {
		t.Fatal(err)
	}
	endAll(t, d, st)
	ro := backing.Options{Group: g, AtomicLog: log, AtomicLogSize: 1 << 20, ReadOnly: true}
	for _, p := range []string{img, log} {
		if err := os.Chmod(p, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	st = open(t, "file:"+img, ro)
	if n := st.Info().AtomicMax; n != 0 {
		t.Errorf("AtomicMax %d of a read-only store", n)
	}
	endAll(t, nil, st)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	backing.RestoreEntry(b[4096:4096+4096+64<<10], 7, 0, 4096, backing.FileID(t, img))
	if err := os.Chmod(log, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := backing.Open("file:"+img, ro); err == nil {
		endAll(t, nil, st)
		t.Error("it is served read-only although its log holds a write")
	}
	if is, _ := os.ReadFile(log); !bytes.Equal(is, b) {
		t.Error("the log was changed")
	}
}
