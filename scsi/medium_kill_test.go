package scsi

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

const (
	killSize = 64 << 10
	killStep = 8 << 10 // one write of an overwrite
)

// killMemory loses power with the store: at Save number at, before it is done or after.
type killMemory struct {
	rigMemory
	crash   func()
	crashed atomic.Bool
	at      int // -1: it is not what is hit
	after   bool
	calls   int
}

var errPower = errors.New("no power")

func (m *killMemory) Save(name string, b []byte) error {
	if m.crashed.Load() {
		return errPower
	}
	hit := m.calls == m.at
	m.calls++
	if !hit {
		return m.rigMemory.Save(name, b)
	}
	if m.after {
		_ = m.rigMemory.Save(name, b)
	}
	m.crash()
	return errPower
}

// keyedStore is a store in memory with a volatile write cache, and with a key that is
// replaced as a whole or not at all (what a change of the key has to be is tested where
// it is done).
type keyedStore struct {
	backing.Store
	rekeys bool
	key    atomic.Int64
}

func (s *keyedStore) Info() *backing.Info {
	i := *s.Store.Info()
	i.Volatile, i.Rekeys = true, s.rekeys
	return &i
}

func (s *keyedStore) Queue(l *loop.Loop) (backing.Queue, error) {
	q, err := s.Store.Queue(l)
	return &keyedQueue{q, s}, err
}

type keyedQueue struct {
	backing.Queue
	s *keyedStore
}

func (q *keyedQueue) Submit(op *backing.Op) bool {
	if op.Kind != backing.Rekey || !q.s.rekeys {
		return q.Queue.Submit(op)
	}
	q.s.key.Add(1)
	op.N, op.Err = 0, nil
	return true
}

// hurried is a store on which time flies for operations on the medium: the place of
// each second write is saved as if mediumSaves had passed, and the speed, which makes
// the writes short, holds up none.
type hurried struct{ backing.Store }

func (h hurried) Queue(l *loop.Loop) (backing.Queue, error) {
	q, err := h.Store.Queue(l)
	return hurriedQueue{q}, err
}

type hurriedQueue struct{ backing.Queue }

func (q hurriedQueue) Submit(op *backing.Op) bool {
	if w, ok := op.Owner.(*mediumOwner); ok && op.Kind == backing.Write {
		o := (*mediumOp)(w)
		o.begun -= int64(time.Hour)
		if op.Off/killStep%2 == 1 {
			o.saved -= int64(mediumSaves)
		}
	}
	return q.Queue.Submit(op)
}

// killRig is a disk that loses its power, and the units over it one after the other.
type killRig struct {
	t    *testing.T
	g    *loop.Group
	kind *killKind
	key  *keyedStore
	f    *backingtest.Fault
	m    *killMemory
}

// killKind is a kind of SANITIZE.
type killKind struct {
	what   string
	sa     int
	list   []byte
	thin   bool
	rekeys bool
	is     []byte // what repeats on the medium after it
}

var killKinds = []killKind{
	{what: "overwrite", sa: sanitizeOverwrite, list: overwriteList(2|0x80, 1, 2), is: []byte{0xfe, 0xfd}},
	{what: "block erase", sa: sanitizeBlockErase, thin: true, is: []byte{0}},
	{what: "cryptographic erase", sa: sanitizeCryptoErase, thin: true, rekeys: true, is: []byte{0}},
}

var killOld = fill(killSize, 'x')

func newKillRig(t *testing.T, g *loop.Group, kind *killKind) *killRig {
	t.Helper()
	st, err := backing.Open("mem:", backing.Options{Size: killSize, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	r := &killRig{t: t, g: g, kind: kind, key: &keyedStore{Store: st, rekeys: kind.rekeys}}
	r.f = backingtest.NewFault(r.key)
	r.m = &killMemory{at: -1}
	r.m.crash = r.crash
	d, err := backingtest.NewDriver(r.f, g.Loops()[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(0, killOld, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.f.Volatile(g.Loops()[0]); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *killRig) crash() {
	r.f.Crash()
	r.m.crashed.Store(true)
}

// unit is the next process; end ends it.
func (r *killRig) unit() (n *rigNexus, end func()) {
	r.t.Helper()
	c := goldenConf()
	c.Memory, c.Group, c.Thin, c.SanitizeSpeed = r.m, r.g, r.kind.thin, 16*killStep
	u, err := NewUnit(c, hurried{r.f})
	if err != nil {
		r.t.Fatal(err)
	}
	k := &rig{tb: r.t, g: r.g, u: u, tg: NewTarget(TargetConfig{Name: "t"})}
	if err := k.tg.Map(0, u, MapOptions{}); err != nil {
		r.t.Fatal(err)
	}
	k.p = k.tg.NewPort(goldenPort)
	n = k.fresh()
	n.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	return n, func() {
		r.t.Helper()
		stuck := make(chan int, 2)
		u.Close(tempotest.Patience/2, func(n int) { stuck <- n })
		k.tg.Close(tempotest.Patience/2, func(n int) { stuck <- n })
		for range 2 {
			if n := tempotest.Recv(r.t, stuck, "the end of a unit"); n != 0 {
				r.t.Fatalf("%d tasks stuck", n)
			}
		}
	}
}

// settle waits until the power is gone or nothing has the medium.
func (r *killRig) settle(n *rigNexus) {
	r.t.Helper()
	tempotest.Wait(r.t, "the crash, or the end of the operation", func() bool {
		_, busy := n.r.u.MediumOperation()
		return !busy || r.m.crashed.Load()
	})
}

// restart is the return of power: of what was not stable, what keep says is there.
func (r *killRig) restart(keep func(int64) bool) {
	r.t.Helper()
	r.crash()
	r.f.Clear()
	r.m.at = -1
	if err := r.f.Restart(r.g.Loops()[0], keep); err != nil {
		r.t.Fatal(err)
	}
	r.m.crashed.Store(false)
}

// medium is what stands in the store, below everything.
func (r *killRig) medium() []byte {
	r.t.Helper()
	d, err := backingtest.NewDriver(r.key, r.g.Loops()[0])
	if err != nil {
		r.t.Fatal(err)
	}
	b := make([]byte, killSize)
	if err := d.Read(0, b); err != nil {
		r.t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		r.t.Fatal(err)
	}
	return b
}

const (
	killTUR  = "00 00 00 00 00 00"
	killRead = "28 00 00000000 00 0080 00" // all of it
)

// judge is the first look at what survived: whole old, or on its way to the whole new.
func (r *killRig) judge(what string, begun bool, seen map[string]int) {
	r.t.Helper()
	done := bytes.Repeat(r.kind.is, killSize/len(r.kind.is))
	// The operation, where there is one, comes no further than its first step.
	r.f.Inject(backingtest.Rule{Hold: true, Count: 1,
		Kinds: backingtest.KindSet(backing.Write, backing.Zero, backing.Discard, backing.Sync, backing.Rekey, backing.Purge)})
	n, end := r.unit()
	defer end()
	if _, busy := n.r.u.MediumOperation(); busy {
		seen["goes on"]++
		if !begun {
			r.t.Errorf("%s: an operation goes on that was never kept", what)
		}
		for _, cdb := range []string{killTUR, killRead} {
			if o := n.do(cdb, nil, killSize).outcome(); len(o) < 8 || o[:8] != "02 04/1b" {
				r.t.Errorf("%s: while it goes on, %s is answered %s", what, cdb, o)
			}
		}
		if !r.f.WaitHeld(1) {
			r.t.Fatalf("%s: it does not go on", what)
		}
		r.f.Release(-1)
		n.waitMedium()
	} else if !begun {
		seen["old"]++
		done = killOld
	} else {
		seen["new"]++
	}
	r.f.Clear()
	n.expect("good", killTUR, nil, 0)
	if b := n.expect("good", killRead, nil, killSize).in(); !bytes.Equal(b, done) {
		at := 0
		for at < len(b) && b[at] == done[at] {
			at++
		}
		r.t.Errorf("%s: the unit is ready, and byte %d of the medium is not what it has to be (%d bytes of the old data are there)",
			what, at, bytes.Count(b, killOld[:1]))
	}
	if changed := r.key.key.Load() > 0; changed != (begun && r.kind.rekeys) {
		r.t.Errorf("%s: is the key another: %v", what, changed)
	}
	if b, _ := r.m.Load(mediumRecordName); b != nil {
		r.t.Errorf("%s: kept after the end: %s", what, b)
	}
}

// TestSanitizeKilled: the power goes at every step of a SANITIZE, that is at each
// operation on the store (torn, and with several choices of what survives of it) and
// at each save of the record (before and after), and again at some step of what goes on
// after it. The next unit has all of the old data if nothing was begun; else it goes
// on to the end and lets nobody read before that.
func TestSanitizeKilled(t *testing.T) {
	g, err := loop.NewGroup(loop.Config{Loops: 1, NoUring: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	rnd := rand.New(rand.NewPCG(5, 6))
	keeps := []func(int64) bool{
		func(int64) bool { return false },
		func(int64) bool { return true }, // kill -9: the host goes on
		func(int64) bool { return rnd.IntN(2) == 0 },
	}
	for i := range killKinds {
		kind := &killKinds[i]
		seen := map[string]int{}
		// one runs a case; false: it came to its end before that step.
		one := func(what string, again bool, keep func(int64) bool, arm func(r *killRig)) bool {
			r := newKillRig(t, g, kind)
			n, end := r.unit()
			arm(r)
			n.sanitize(sanitizeIMMED, kind.sa, kind.list)
			r.settle(n)
			hit := r.m.crashed.Load()
			end()
			r.m.mu.Lock()
			begun := r.m.saves > 0
			r.m.mu.Unlock()
			r.restart(keep)
			if b, _ := r.m.Load(mediumRecordName); b == nil && !bytes.Equal(r.medium(), bytes.Repeat(kind.is, killSize/len(kind.is))) && begun {
				t.Errorf("%s: the record is gone, and the medium is not sanitized", what)
			}
			if begun && again {
				r.f.Inject(backingtest.Rule{Skip: rnd.IntN(6), Torn: 512 * rnd.Int64N(4), Crash: r.crash})
				n, end := r.unit()
				r.settle(n)
				end()
				r.restart(keep)
			}
			r.judge(what, begun, seen)
			if err := r.f.Close(); err != nil {
				t.Fatal(err)
			}
			return hit
		}
		steps, saves, cases := 0, 0, 0
		for k, hit := 0, true; hit; k++ {
			steps = k
			for j, torn := range []int64{0, 512, 4096 + 512} {
				for w, keep := range keeps {
					what := fmt.Sprintf("%s, killed at step %d, %d bytes of it written, choice %d", kind.what, k, torn, w)
					hit = one(what, (k+j+w)%2 == 1, keep, func(r *killRig) {
						r.f.Inject(backingtest.Rule{Skip: k, Torn: torn, Crash: r.crash})
					})
					cases++
				}
			}
		}
		for k, hit := 0, true; hit; k++ {
			saves = k
			for _, after := range []bool{false, true} {
				for w, keep := range keeps {
					what := fmt.Sprintf("%s, killed at save %d (after it: %v), choice %d", kind.what, k, after, w)
					hit = one(what, w == 1, keep, func(r *killRig) { r.m.at, r.m.after = k, after })
					cases++
				}
			}
		}
		for _, o := range []string{"old", "goes on", "new"} {
			if seen[o] == 0 {
				t.Errorf("%s: outcomes %v: %q is not among them", kind.what, seen, o)
			}
		}
		t.Logf("%s: %d operations, %d saves, %d cases: %v", kind.what, steps, saves, cases, seen)
	}
}
