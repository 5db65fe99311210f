package scsitest

import (
	"encoding/binary"
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
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
)

// SoakOptions modify Soak. The zero value is fit for use.
type SoakOptions struct {
	// Time to run; 0: VTGT_SCSITEST_SECONDS, else 2 s.
	Time time.Duration
	// Delay is the longest pause of the store; 0: 300 us.
	Delay time.Duration
	// Depth is the number of tasks that each lane keeps going; 0: 16.
	Depth int
	// Loops in the group; 0: 4.
	Loops int
	// Faults has the store fail now and then, with errors, short and torn
	// transfers.
	Faults bool
	// Stop has the unit stop at errors now and then (scsi.OnErrorStop), and
	// somebody resume it. It needs Faults.
	Stop bool
	Seed uint64
}

const (
	soakBlock = 512
	// soakSize is the size of the medium that is always there, in blocks; the
	// resizing happens above it.
	soakSize = 512
	soakMore = 128
	// counterLBA is the block that COMPARE AND WRITE counts in.
	counterLBA = 40
	// soakMaxBlocks is the longest READ and WRITE.
	soakMaxBlocks = 16
)

// SoakBytes is the size that Soak's store must be able to have.
const SoakBytes = (soakSize + soakMore) * soakBlock

// Soak drives one unit through two targets, three nexuses and four lanes: SIMPLE,
// ORDERED and HEAD OF QUEUE tasks of all kinds mixed, commands that run alone,
// aborts, resets, COMPARE AND WRITE, resizes, LUN removals, and errors of the store.
// open opens the store, which can be resized; Soak closes it. It checks that
//
//   - every task ends exactly once, and before the answer to a task management
//     function that affects it,
//   - an error of the store becomes the sense data that belong to it,
//   - its buffers are not touched afterwards (they fault),
//   - an ORDERED task starts when every task submitted before it has ended, and no
//     task submitted after an ORDERED or HEAD OF QUEUE task starts before its end,
//   - COMPARE AND WRITE increments add up exactly, and no READ sees half of one,
//   - nothing is left when all is closed.
func Soak(tb testing.TB, open func(g *loop.Group) (backing.Store, error), o SoakOptions) {
	tb.Helper()
	if o.Time == 0 {
		o.Time = 2 * time.Second
		if s := os.Getenv("VTGT_SCSITEST_SECONDS"); s != "" {
			n, err := strconv.ParseFloat(s, 64)
			if err != nil {
				tb.Fatalf("VTGT_SCSITEST_SECONDS=%q: %v", s, err)
			}
			o.Time = time.Duration(n * float64(time.Second))
		}
	}
	if o.Delay == 0 {
		o.Delay = 300 * time.Microsecond
	}
	if o.Depth == 0 {
		o.Depth = 16
	}
	if o.Loops == 0 {
		o.Loops = 4
	}
	g, err := loop.NewGroup(loop.Config{Loops: o.Loops, Strict: true})
	if err != nil {
		tb.Fatal(err)
	}
	st, err := open(g)
	if err != nil {
		tb.Fatal(err)
	}
	defer closeAll(tb, st, g)
	if err := st.Resize(SoakBytes); err != nil {
		tb.Fatal(err)
	}
	ds := &DelayStore{Store: st, Max: o.Delay}
	s := &soak{tb: tb, o: o, g: g, live: make(map[*byte]*soakReq)}
	// Outside, so that a fault hits a whole operation and not half of one.
	s.fault = backingtest.NewFault(ds)
	ds.Started = s.started
	s.rig = NewRig(tb, g, s.fault, scsi.UnitConfig{Name: "soak", Thin: true})
	s.rig.Dump = s.dump
	s.run()
	if tb.Failed() {
		return
	}
	tb.Logf("%d tasks (%d aborted, %d cancelled in the store), %d task management functions, %d increments, %d resizes, %d LUN removals, %d tasks met an error of the store, %d stops",
		s.tasks.Load(), s.aborted.Load(), ds.Canceled(), s.tmfs.Load(), s.increments.Load(), s.resizes, s.removals, s.failed.Load(), s.stops.Load())
	if o.Faults && o.Time >= time.Second && s.failed.Load() == 0 {
		tb.Error("no task met an error of the store")
	}
	if o.Stop && o.Time >= time.Second && s.stops.Load() == 0 {
		tb.Error("the unit never stopped")
	}
}

// soak is one run.
type soak struct {
	tb    testing.TB
	o     SoakOptions
	g     *loop.Group
	rig   *Rig
	nexus []*soakNexus
	lanes []*soakLane
	stop  atomic.Bool
	idle  atomic.Int32 // lanes that have stopped
	fault *backingtest.Fault

	tasks, aborted, tmfs, increments atomic.Int64
	failed, stops                    atomic.Int64
	resizes, removals                int

	// mu guards the register of tasks, which only the test needs.
	mu    sync.Mutex
	clock uint64
	live  map[*byte]*soakReq // by their first byte of data
	errs  int
}

// soakNexus is a front end.
type soakNexus struct {
	s  *soak
	n  *scsi.Nexus
	id int
}

func (n *soakNexus) Event(scsi.Event)         {}
func (n *soakNexus) TransportID(d []byte) int { return transportID(d, n.n.ID()) }
func (n *soakNexus) Done(t *scsi.Task)        { t.Ref.(*soakReq).done() }

// soakLane keeps tasks going on one lane. It belongs to its loop.
type soakLane struct {
	s       *soak
	nx      *soakNexus
	ln      *scsi.Lane
	lun     scsi.LUN
	id      int
	rand    *rand.Rand
	node    loop.Node
	all     []*soakReq
	free    []*soakReq
	tmf     scsi.TMF
	tmfBusy bool
	tmfFrom uint64 // the clock at Manage
	tmfReq  *soakReq
	tmfSub  uint64 // tmfReq's submission
	tag     uint64
	stopped bool
	// reserved: its last exclusive command was a RESERVE.
	reserved bool

	// The counter's owner on this lane: one increment at a time.
	counting bool
	known    [soakBlock]byte // the counter block as last read
	read     bool            // known is that
	mine     uint64          // increments of this lane that are known to have happened
	unsure   bool            // the last one was aborted
}

// soakReq is a request of a lane.
type soakReq struct {
	scsi.Task
	ln      *soakLane
	buf     *Buffer
	data    []byte
	vec     [2][]byte
	kind    reqKind
	busy    bool
	lba     uint32
	blocks  uint16
	ended   uint64 // the clock at Done
	subFrom uint64 // the clock before and after Submit; subTo 0: not returned
	subTo   uint64
	passed  string // who started before it had ended, for s.mu
}

type reqKind uint8

const (
	reqRead reqKind = iota
	reqWrite
	reqCountRead
	reqCount
	reqMedium // changes or looks at the medium, in no order that shows
	reqOther
)

func (s *soak) errorf(format string, args ...any) {
	s.errs++
	if s.errs <= 10 {
		s.tb.Errorf(format, args...)
	}
}

// fail is errorf without s.mu.
func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errorf(format, args...)
}

func (s *soak) run() {
	tg1, p1 := s.rig.Target("one", 0)
	tg2, p2 := s.rig.Target("two", 5)
	_ = tg1
	loops := s.g.Loops()
	for i, w := range []struct {
		port  *scsi.Port
		lun   uint16
		lanes []int
	}{{p1, 0, []int{0, 1}}, {p1, 0, []int{2}}, {p2, 5, []int{3}}} {
		nx := &soakNexus{s: s, id: i}
		var err error
		if nx.n, err = w.port.Attach(scsi.InitiatorID(fmt.Sprint("initiator", i)), nx); err != nil {
			s.tb.Fatal(err)
		}
		s.nexus = append(s.nexus, nx)
		for _, l := range w.lanes {
			ln := &soakLane{s: s, nx: nx, id: len(s.lanes), lun: scsi.EncodeLUN(w.lun)}
			ln.rand = rand.New(rand.NewPCG(s.o.Seed, uint64(ln.id)))
			if ln.ln, err = nx.n.Lane(loops[l%len(loops)]); err != nil {
				s.tb.Fatal(err)
			}
			ln.node.Init(ln)
			ln.tmf.Lane = ln.ln
			ln.tmf.Done = ln.managed
			ln.tmf.Deadline = patience / 3
			for range s.o.Depth {
				r := &soakReq{ln: ln, buf: NewBuffer(s.tb, soakMaxBlocks*soakBlock)}
				r.Ref = r
				ln.all = append(ln.all, r)
				ln.free = append(ln.free, r)
			}
			s.lanes = append(s.lanes, ln)
		}
	}
	for _, ln := range s.lanes {
		ln.ln.Loop().PostOnce(&ln.node)
	}

	if s.o.Stop {
		end := make(chan struct{})
		over := make(chan struct{})
		go s.resumer(end, over)
		defer func() { close(end); <-over }()
	}
	begun := time.Now()
	// On a busy machine the time may be over before all that is to happen has.
	enough := func() bool {
		d := time.Since(begun)
		missing := s.o.Time >= time.Second && (s.o.Faults && s.failed.Load() == 0 || s.o.Stop && s.stops.Load() == 0)
		return d > s.o.Time && !missing || d > patience
	}
	r := rand.New(rand.NewPCG(s.o.Seed, 99))
	for !enough() {
		if s.o.Faults {
			s.inject(r)
		}
		time.Sleep(time.Duration(5+r.IntN(30)) * time.Millisecond)
		if r.IntN(2) == 0 {
			s.resizes++
			n := int64(soakSize + r.IntN(soakMore+1))
			if err := s.rig.Unit.Store().Resize(n * soakBlock); err != nil {
				s.fail("resize: %v", err)
			}
			continue
		}
		s.removals++
		s.rig.Wait("Unmap", func(done func(int)) {
			if err := tg2.Unmap(5, patience/2, done); err != nil {
				s.tb.Fatal(err)
			}
		})
		s.noneLeft(s.lanes[3])
		time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
		if err := tg2.Map(5, s.rig.Unit, scsi.MapOptions{}); err != nil {
			s.tb.Fatal(err)
		}
	}
	s.fault.Clear()
	s.stop.Store(true)
	for _, ln := range s.lanes {
		ln.ln.Loop().PostOnce(&ln.node)
	}
	if !tempotest.Settles(func() bool { return int(s.idle.Load()) == len(s.lanes) }) {
		s.rig.dump()
		s.tb.Fatal("tasks that do not end")
	}
	s.total()
	s.rig.Close()
}

// soakFaults are what befalls the store's operations, with what a task may say then
// (see storeFault).
var soakFaults = []backingtest.Rule{
	{Err: syscall.EIO},
	{Err: backing.ErrLatched, Kinds: backingtest.KindSet(backing.Write, backing.Sync, backing.Discard, backing.Zero)},
	{Err: syscall.ENOSPC, Kinds: backingtest.KindSet(backing.Write, backing.Discard, backing.Zero)},
	{Err: syscall.ENOMEM},
	{Err: syscall.EIO, Delay: 2 * time.Millisecond},
	{Delay: 5 * time.Millisecond},
	{Err: backing.ErrNotSupported, Kinds: backingtest.KindSet(backing.Discard, backing.Zero)},
	// Not where COMPARE AND WRITE counts: half a block is what it must not see.
	{Err: syscall.EIO, Torn: 700, Kinds: backingtest.KindSet(backing.Write), Off: (counterLBA + 1) * soakBlock, Len: 1 << 40},
	{Short: 700, Kinds: backingtest.KindSet(backing.Read, backing.Write), Off: (counterLBA + 1) * soakBlock, Len: 1 << 40},
}

// inject changes what goes wrong in the store.
func (s *soak) inject(r *rand.Rand) {
	s.fault.Clear()
	for range 1 + r.IntN(3) {
		f := soakFaults[r.IntN(len(soakFaults))]
		f.Skip, f.Count = r.IntN(40), 1+r.IntN(6)
		s.fault.Inject(f)
	}
	if s.o.Stop {
		s.rig.Unit.SetOnError(scsi.OnError(r.IntN(3)))
	}
}

// resumer is the operator of a unit that stops, until end is closed.
func (s *soak) resumer(end, over chan struct{}) {
	defer close(over)
	r := rand.New(rand.NewPCG(s.o.Seed, 98))
	for {
		select {
		case <-end:
			return
		case <-time.After(time.Duration(r.IntN(8000)) * time.Microsecond):
		}
		if s.rig.Unit.State().Stopped {
			s.stops.Add(1)
			if err := s.rig.Unit.Resume(); err != nil {
				s.fail("Resume: %v", err)
			}
		}
	}
}

// noneLeft: a LUN was removed, so no task on it that was submitted before may
// still have buffers. Those submitted since end without the store.
func (s *soak) noneLeft(ln *soakLane) {
	s.mu.Lock()
	from := s.clock
	s.mu.Unlock()
	// Whatever is there now was refused or is about to be: one turn of the
	// loop later it has gone.
	ln.ln.Loop().Do(func() {})
	ln.ln.Loop().Do(func() {})
	ln.ln.Loop().Do(func() {
		for _, r := range ln.all {
			if r.busy && r.subTo != 0 && r.subTo <= from {
				s.fail("task %d is in flight although its LUN was removed", r.Tag)
			}
		}
	})
}

// dump says what hangs.
func (s *soak) dump() {
	st := s.rig.Unit.Stats()
	s.tb.Logf("in flight %d, waiting %d, stuck %d", st.InFlight, st.Waiting, st.Stuck)
	for _, ln := range s.lanes {
		ln.ln.Loop().Do(func() {
			s.tb.Logf("lane %d: stopped %v, TMF under way %v (%v)", ln.id, ln.stopped, ln.tmfBusy, ln.tmf.Func)
			for _, r := range ln.all {
				if r.busy {
					s.tb.Logf("  task %d: CDB % x, %v, submitted %d", r.Tag, r.CDB[:16], r.Attr, r.subFrom)
				}
			}
		})
	}
}

// total checks the sum of the increments.
func (s *soak) total() {
	i := NewInitiator(s.tb, s.rig.targets[0].NewPort(scsi.PortConfig{RelID: 9}), "judge", s.g.Loops()[0], 0)
	// Somebody's RESERVE may be in force.
	if r := i.Manage(scsi.LUNReset, 0, 0); r != scsi.TMComplete {
		s.tb.Fatal(r)
	}
	i.ClearUA()
	t := i.Do(CDB10(0x28, counterLBA, 1), nil, soakBlock)
	if t.Status != scsi.StatusGood {
		s.tb.Fatalf("READ of the counter: %v", t.Status)
	}
	b := t.DataIn[0]
	var sum uint64
	for _, ln := range s.lanes {
		have := binary.BigEndian.Uint64(b[8+8*ln.id:])
		if have != ln.mine && !(ln.unsure && have == ln.mine+1) {
			s.tb.Errorf("lane %d: the counter block says %d increments, %d were acknowledged", ln.id, have, ln.mine)
		}
		sum += have
	}
	if n := binary.BigEndian.Uint64(b); n != sum {
		s.tb.Errorf("the counter is %d, the lanes' increments are %d", n, sum)
	}
	if sum == 0 {
		s.tb.Error("no COMPARE AND WRITE succeeded")
	}
	s.increments.Store(int64(sum))
}
