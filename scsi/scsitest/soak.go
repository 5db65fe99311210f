package scsitest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
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
	Seed  uint64
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

// Soak drives one unit over st, a store of at least soakSize+soakMore blocks that
// can be resized, through two targets, three nexuses and four lanes: SIMPLE,
// ORDERED and HEAD OF QUEUE tasks mixed, aborts, resets, COMPARE AND WRITE, resizes,
// LUN removals. It checks that
//
//   - every task ends exactly once, and before the answer to a task management
//     function that affects it,
//   - its buffers are not touched afterwards (they fault),
//   - an ORDERED task starts when every task submitted before it has ended, and no
//     task submitted after an ORDERED or HEAD OF QUEUE task starts before its end,
//   - COMPARE AND WRITE increments add up exactly, and no READ sees half of one,
//   - nothing is left when all is closed.
func Soak(tb testing.TB, st backing.Store, o SoakOptions) {
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
	defer g.Close()
	ds := &DelayStore{Store: st, Max: o.Delay}
	s := &soak{tb: tb, o: o, g: g, live: make(map[*byte]*soakReq)}
	ds.Started = s.started
	if err := st.Resize((soakSize + soakMore) * soakBlock); err != nil {
		tb.Fatal(err)
	}
	s.rig = NewRig(tb, g, ds, scsi.UnitConfig{Name: "soak"})
	s.run()
	if tb.Failed() {
		return
	}
	tb.Logf("%d tasks (%d aborted, %d cancelled in the store), %d task management functions, %d increments, %d resizes, %d LUN removals",
		s.tasks.Load(), s.aborted.Load(), ds.Canceled(), s.tmfs.Load(), s.increments.Load(), s.resizes, s.removals)
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

	tasks, aborted, tmfs, increments atomic.Int64
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
func (n *soakNexus) TransportID(d []byte) int { return 0 }
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

	end := time.Now().Add(s.o.Time)
	r := rand.New(rand.NewPCG(s.o.Seed, 99))
	for time.Now().Before(end) {
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
	s.stop.Store(true)
	for _, ln := range s.lanes {
		ln.ln.Loop().PostOnce(&ln.node)
	}
	for limit := time.Now().Add(patience); int(s.idle.Load()) < len(s.lanes); {
		if time.Now().After(limit) {
			s.dump()
			s.tb.Fatal("tasks that do not end")
		}
		time.Sleep(time.Millisecond)
	}
	s.total()
	s.rig.Close()
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
