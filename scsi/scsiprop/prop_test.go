package scsiprop

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
)

// clients is how many there are.
const clients = 16

// patience bounds every wait: nothing may hang.
const patience = 60 * time.Second

// seconds is how long the property is looked at: VTGT_PROP_SECONDS, else a moment.
func seconds(tb testing.TB) time.Duration {
	s := os.Getenv("VTGT_PROP_SECONDS")
	if s == "" {
		if testing.Short() {
			return time.Second
		}
		return 3 * time.Second
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		tb.Fatalf("VTGT_PROP_SECONDS=%q: %v", s, err)
	}
	return time.Duration(n * float64(time.Second))
}

// TestDisk is the property: rounds of random commands by sixteen clients on four lanes
// of three nexuses to a unit, with copies within it and to and from another one, on four loops, and of each round a history that is checked. In
// every second round task management functions come in between, in every third the
// store fails now and then.
func TestDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		thin bool
	}{{"discards", true}, {"zeroes", false}} {
		t.Run(c.name, func(t *testing.T) { property(t, newMemory(c.thin, blocks), seconds(t)/2) })
	}
}

// world is a unit with everything around it.
type world struct {
	tb      testing.TB
	rig     *scsitest.Rig
	fault   *backingtest.Fault
	memory  *memory
	other   *memory // of the unit at LUN 1
	nexuses []*nexus
	clients []*client
	clock   atomic.Int64
	seen    [all]atomic.Uint64 // see maker

	// Of the round.

	faults  *faults
	managed bool // there are task management functions
	mu      sync.Mutex
	h       history
	failed  int

	tasks, aborted, functions, errors, attentions, swaps, differed, copies atomic.Int64
}

// nexus is a front end.
type nexus struct {
	w *world
	n *scsi.Nexus
}

func (*nexus) Event(scsi.Event)       {}
func (*nexus) TransportID([]byte) int { return 0 }

// Done notes the time before anything else can follow from it.
func (n *nexus) Done(t *scsi.Task) {
	c := t.Ref.(*client)
	c.ret = n.w.clock.Add(1)
	c.done <- struct{}{}
}

// client runs one command at a time.
type client struct {
	w     *world
	id    int
	nexus *nexus
	lane  *scsi.Lane
	m     *maker
	rand  *rand.Rand
	task  scsi.Task
	tag   atomic.Uint64
	ret   int64
	done  chan struct{}
}

// faults are those of a round.
type faults struct {
	sense int
	most  int // of them
}

func property(tb testing.TB, mem *memory, d time.Duration) {
	g, err := loop.NewGroup(loop.Config{Loops: 4, Strict: true})
	if err != nil {
		tb.Fatal(err)
	}
	defer g.Close()
	w := &world{tb: tb, memory: mem, other: newMemory(false, others)}
	w.fault = backingtest.NewFault(&scsitest.DelayStore{Store: mem, Max: 50 * time.Microsecond})
	w.rig = scsitest.NewRig(tb, g, w.fault, scsi.UnitConfig{Thin: true, Removable: true, NAA: nameOf(0)})
	behind := &scsitest.DelayStore{Store: w.other, Max: 50 * time.Microsecond}
	if mem.info.DiscardZeroes { // the other half of the time there is no such operation
		stores := map[backing.Store]*memory{w.fault: mem, behind: w.other}
		mem.stores, w.other.stores = stores, stores
	}
	other, err := scsi.NewUnit(scsi.UnitConfig{Name: "other", Shared: true, NAA: nameOf(1)}, behind)
	if err != nil {
		tb.Fatal(err)
	}
	t1, p1 := w.rig.Target("one", 0)
	t2, p2 := w.rig.Target("two", 0)
	for _, tg := range []*scsi.Target{t1, t2} {
		if err := tg.Map(1, other, scsi.MapOptions{}); err != nil {
			tb.Fatal(err)
		}
	}
	for i, p := range []*scsi.Port{p1, p1, p2} {
		n := &nexus{w: w}
		if n.n, err = p.Attach(scsi.InitiatorID(fmt.Sprint("initiator", i)), n); err != nil {
			tb.Fatal(err)
		}
		w.nexuses = append(w.nexuses, n)
	}
	seed := uint64(time.Now().UnixNano())
	for i, n := range []*nexus{w.nexuses[0], w.nexuses[0], w.nexuses[1], w.nexuses[2]} {
		ln, err := n.n.Lane(g.Loops()[i])
		if err != nil {
			tb.Fatal(err)
		}
		for range 4 {
			c := &client{w: w, id: len(w.clients), nexus: n, lane: ln, done: make(chan struct{}, 1)}
			c.rand = rand.New(rand.NewPCG(seed, uint64(c.id)))
			c.m = &maker{rand: c.rand, id: uint64(c.id + 1), seen: &w.seen}
			c.tag.Store(uint64(c.id))
			c.task.Ref = c
			w.clients = append(w.clients, c)
		}
	}
	defer func() {
		if tb.Failed() {
			return // what is left may never end
		}
		w.rig.Close()
		w.rig.Wait("the other unit's close", func(done func(int)) { other.Close(patience, done) })
		tb.Logf("%d commands (%d aborted, %d met an error of the store, %d a unit attention), %d swaps, %d miscompares, %d copies, %d blocks moved, %d functions",
			w.tasks.Load(), w.aborted.Load(), w.errors.Load(), w.attentions.Load(), w.swaps.Load(), w.differed.Load(), w.copies.Load(),
			mem.moved.Load()+w.other.moved.Load(), w.functions.Load())
	}()
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	end := time.Now().Add(d)
	for round := 0; round < 6 || time.Now().Before(end); round++ {
		if !w.round(round, rnd) {
			tb.Logf("round %d", round)
			return
		}
	}
	for what, n := range map[string]*atomic.Int64{"was aborted": &w.aborted, "met an error of the store": &w.errors,
		"swapped a block": &w.swaps, "found a difference": &w.differed, "copied": &w.copies} {
		if n.Load() == 0 {
			tb.Errorf("no command %s", what)
		}
	}
}

// round runs some commands of every client and checks what they saw. False: it is all
// over.
func (w *world) round(round int, rnd *rand.Rand) bool {
	var first [all]uint64
	for i := range blocks {
		first[i], _ = word(w.memory.b[i][:])
	}
	for i := range others {
		first[blocks+i], _ = word(w.other.b[i][:])
	}
	w.h, w.faults, w.failed, w.managed = history{}, nil, 0, round%2 == 1
	w.fault.Clear()
	if round%3 == 2 {
		w.faults = w.inject(rnd)
	}
	var wg, managers sync.WaitGroup
	for _, c := range w.clients {
		wg.Go(func() {
			for range 60 {
				if !c.run(c.m.make()) {
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	if w.managed {
		for i, n := range w.nexuses {
			r := rand.New(rand.NewPCG(rnd.Uint64(), uint64(i)))
			managers.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(r.IntN(2000)) * time.Microsecond):
						if !w.manage(n, r) {
							return
						}
					}
				}
			})
		}
	}
	wg.Wait()
	close(stop)
	managers.Wait()
	w.fault.Clear()
	if w.faults != nil && w.failed > w.faults.most {
		w.tb.Errorf("%d commands failed, the store failed %d times at most", w.failed, w.faults.most)
	}
	w.faults = nil
	// What has become of it, by every nexus.
	for _, c := range []*client{w.clients[0], w.clients[8], w.clients[12]} {
		if !c.all(c.m.readOf(cdb10(0x28, 0, 0, blocks), 0, blocks), 0) || !c.all(c.m.readOther(0, others), blocks) {
			return false
		}
	}
	w.h.check(w.tb, &first)
	return !w.tb.Failed()
}

// all runs cmd, a READ of a whole unit, lba its first block, in spite of unit attentions.
// False: it is all over.
func (c *client) all(cmd *command, lba int) bool {
	w := c.w
	for range 20 {
		before := len(w.h.of[lba])
		if w.tb.Failed() || !c.run(cmd) {
			return false
		}
		if len(w.h.of[lba]) > before {
			return true
		}
	}
	w.tb.Error("unit attentions without end")
	return false
}

// run runs one command and notes what it means. False: it is all over.
func (c *client) run(cmd *command) bool {
	w, t := c.w, &c.task
	clear(t.CDB[:])
	t.CDBLen = uint8(copy(t.CDB[:], cmd.cdb))
	t.LUN, t.Attr = scsi.EncodeLUN(cmd.lun), scsi.Simple
	switch c.rand.IntN(16) {
	case 0:
		t.Attr = scsi.Ordered
	case 1:
		t.Attr = scsi.HeadOfQueue
	}
	t.DataOut, t.DataIn, t.Offered = cut(c.rand, cmd.out), nil, int64(len(cmd.out))
	in := make([]byte, cmd.room)
	t.DataIn = cut(c.rand, in)
	t.Tag = c.tag.Load() + 1<<8 // unlike any other client's
	c.tag.Store(t.Tag)
	w.tasks.Add(1)
	call := w.clock.Add(1)
	c.lane.Loop().Do(func() {
		c.lane.Submit(t)
		c.lane.Kick()
	})
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-c.done:
	case <-limit.C:
		st := w.rig.Unit.Stats()
		w.tb.Errorf("%s (% x) does not end; in flight %d, waiting %d", cmd.name, cmd.cdb, st.InFlight, st.Waiting)
		return false
	}
	facts, err := c.outcome(cmd, in)
	if err != nil {
		w.tb.Errorf("%s (% x), lane client %d: %v", cmd.name, cmd.cdb, c.id, err)
		return false
	}
	for i := range facts {
		facts[i].what = cmd.name
	}
	w.mu.Lock()
	w.h.add(c.id, call, c.ret, facts)
	w.mu.Unlock()
	return true
}

// cut divides b into buffers, as a front end may.
func cut(r *rand.Rand, b []byte) (v [][]byte) {
	for len(b) > 0 {
		n := len(b)
		if r.IntN(3) == 0 {
			n = 1 + r.IntN(len(b))
		}
		v, b = append(v, b[:n]), b[n:]
	}
	return v
}

// outcome says what the end of a command tells.
func (c *client) outcome(cmd *command, in []byte) ([]fact, error) {
	w, t := c.w, &c.task
	if t.Aborted {
		w.aborted.Add(1)
		return cmd.doubt, nil
	}
	code, info, has := sense(t)
	switch {
	case t.Status == scsi.StatusCheckCondition && code>>16 == uaKey:
		w.attentions.Add(1)
		return nil, nil
	case cmd.want != 0:
		if t.Status != scsi.StatusCheckCondition || code != cmd.want {
			return nil, fmt.Errorf("%v, sense %06x; want %06x", t.Status, code, cmd.want)
		}
		return nil, nil
	case t.Status == scsi.StatusGood, t.Status == scsi.StatusConditionMet && cmd.met:
		if cmd.name == "COMPARE AND WRITE" {
			w.swaps.Add(1)
		}
		if cmd.copies {
			w.copies.Add(1)
		}
		if cmd.read == nil {
			for _, f := range cmd.meant {
				if f.kind == write || f.kind == swap {
					w.seen[f.lba].Store(f.w)
				}
			}
			return cmd.meant, nil
		}
		return cmd.read(in[:t.InLen])
	case t.Status != scsi.StatusCheckCondition:
		return nil, errors.New(t.Status.String())
	case code == miscompare && cmd.differs != nil:
		if !has {
			return nil, errors.New("a MISCOMPARE without INFORMATION")
		}
		w.differed.Add(1)
		return cmd.differs(info)
	case cmd.copies && code>>16 == copyAborted && (w.managed || w.faults != nil):
		// What it did was aborted at the other unit, or met an error of the store.
		w.mu.Lock()
		if !w.managed {
			w.failed++
		}
		w.mu.Unlock()
		return cmd.doubt, nil
	case w.faults != nil && code == w.faults.sense:
		w.errors.Add(1)
		w.mu.Lock()
		w.failed++
		w.mu.Unlock()
		if has && info >= blocks {
			return nil, fmt.Errorf("INFORMATION %d is no block", info)
		}
		return cmd.doubt, nil
	}
	return nil, fmt.Errorf("sense %06x", code)
}

// inject has the store fail now and then for a round, each time in the same way.
func (w *world) inject(r *rand.Rand) *faults {
	read := backingtest.KindSet(backing.Read, backing.Extents)
	write := backingtest.KindSet(backing.Write, backing.Zero, backing.Discard, backing.Sync)
	cases := []struct {
		rule  backingtest.Rule
		sense int
	}{
		{backingtest.Rule{Kinds: read, Err: syscall.EIO}, 0x031100},
		{backingtest.Rule{Kinds: read, Err: syscall.ENOMEM}, 0x0b5503},
		{backingtest.Rule{Kinds: backingtest.KindSet(backing.Read), Short: blockSize}, 0x031100},
		{backingtest.Rule{Kinds: write, Err: syscall.EIO}, 0x030c00},
		{backingtest.Rule{Kinds: write, Err: backing.ErrLatched}, 0x030c00},
		{backingtest.Rule{Kinds: write, Err: syscall.ENOSPC}, 0x072707},
		{backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Short: blockSize}, 0x030c00},
		{backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Err: syscall.EIO, Torn: blockSize}, 0x030c00},
	}
	c := cases[r.IntN(len(cases))]
	f := &faults{sense: c.sense}
	for range 1 + r.IntN(20) {
		c.rule.Skip, c.rule.Count = r.IntN(200), 1
		w.fault.Inject(c.rule)
		f.most++
	}
	return f
}

// manage runs a task management function. False: it is all over.
func (w *world) manage(n *nexus, r *rand.Rand) bool {
	w.functions.Add(1)
	of := w.clients[r.IntN(len(w.clients))]
	fs := []scsi.TMFunc{scsi.AbortTask, scsi.AbortTask, scsi.AbortTask, scsi.AbortTask, scsi.AbortTaskSet, scsi.AbortTaskSet,
		scsi.ClearTaskSet, scsi.LUNReset, scsi.TargetWarmReset, scsi.TargetColdReset, scsi.NexusReset,
		scsi.QueryTask, scsi.QueryTaskSet, scsi.QueryAsyncEvent}
	ch := make(chan struct{})
	m := &scsi.TMF{Func: fs[r.IntN(len(fs))], LUN: scsi.EncodeLUN(0), Lane: of.lane, Deadline: patience, Done: func(*scsi.TMF) { close(ch) }}
	n = of.nexus
	m.Tag = of.tag.Load()
	n.n.Manage(m)
	limit := time.NewTimer(2 * patience)
	defer limit.Stop()
	select {
	case <-ch:
	case <-limit.C:
		w.tb.Errorf("%v: no answer", m.Func)
		return false
	}
	switch m.Response {
	case scsi.TMComplete, scsi.TMNoTask:
	case scsi.TMSucceeded:
		if m.Func != scsi.QueryTask && m.Func != scsi.QueryTaskSet && m.Func != scsi.QueryAsyncEvent {
			w.tb.Errorf("%v: %v", m.Func, m.Response)
		}
	default:
		w.tb.Errorf("%v: %v", m.Func, m.Response)
	}
	return true
}
