package scsi

import (
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// The gate's order of operations on the real code: lanes on four loops hammer one
// unit with tasks that pass the open gate, while one of them runs exclusive tasks
// one after the other. A device server of two commands notes who runs. The model
// (gate_model_test.go) says why each order is needed; this finds it broken.

// stressServer has operation codes 0 (like a READ) and 1 (exclusive).
type stressServer struct {
	plain, excl command
	running     [4]struct {
		n atomic.Int32 // plain tasks that run on that lane
		_ [124]byte
	}
	alone  atomic.Int32
	beside atomic.Int64 // found: a plain and an exclusive task at once
}

func (s *stressServer) lookup(cdb []byte) *command {
	if cdb[0] == 0 {
		return &s.plain
	}
	return &s.excl
}
func (s *stressServer) hasOp(uint8) bool { return true }
func (s *stressServer) reset()           {}

func newStressServer() *stressServer {
	s := &stressServer{}
	usage := make([]byte, 6)
	s.plain = command{op: 0, sa: noSA, usage: usage, flags: cmdFast, run: func(t *Task) {
		n := &s.running[t.CDB[5]&3].n
		n.Add(1)
		if s.alone.Load() != 0 {
			s.beside.Add(1)
		}
		n.Add(-1)
		t.good()
	}}
	s.excl = command{op: 1, sa: noSA, usage: usage, flags: cmdExclusive, run: func(t *Task) {
		s.alone.Add(1)
		// Long enough for a lane that slipped through to be seen.
		for range 30 {
			for i := range s.running {
				if s.running[i].n.Load() != 0 {
					s.beside.Add(1)
				}
			}
		}
		s.alone.Add(-1)
		t.good()
	}}
	s.plain.prepare()
	s.excl.prepare()
	// The last byte names the lane.
	s.plain.mask, s.excl.mask = cdbMask{ready: true}, cdbMask{ready: true}
	return s
}

// stressLane keeps one task going in batches.
type stressLane struct {
	ln    *Lane
	t     Task
	node  loop.Node
	ended uint64
	busy  bool
	stop  *atomic.Bool
	over  chan struct{}
	batch int
}

func (l *stressLane) Event(Event)            {}
func (l *stressLane) TransportID([]byte) int { return 0 }
func (l *stressLane) Done(*Task) {
	l.busy = false
	l.ended++
	l.ln.loop.PostOnce(&l.node)
}

func (l *stressLane) Handle(*loop.Node) {
	for range l.batch {
		if l.busy {
			return // Done posts
		}
		if l.stop.Load() {
			if l.over != nil {
				close(l.over)
				l.over = nil
			}
			return
		}
		l.busy = true
		l.ln.Submit(&l.t)
	}
	l.ln.loop.PostOnce(&l.node)
}

func TestGateStress(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one processor: what is to be found needs two")
	}
	d := time.Second
	if s := os.Getenv("VTGT_SCSITEST_SECONDS"); s != "" {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		d = time.Duration(n * float64(time.Second))
	}
	g, err := loop.NewGroup(loop.Config{Loops: 4})
	if err != nil {
		t.Fatal(err)
	}
	st, err := backing.Open("null:", backing.Options{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUnit(UnitConfig{Name: "d0", Shared: true}, st)
	if err != nil {
		t.Fatal(err)
	}
	srv := newStressServer()
	u.server = srv
	tg := NewTarget(TargetConfig{Name: "t0"})
	if err := tg.Map(0, u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	p := tg.NewPort(PortConfig{RelID: 1})
	var stop atomic.Bool
	var lanes []*stressLane
	for i, l := range g.Loops() {
		s := &stressLane{stop: &stop, over: make(chan struct{}), batch: 1000}
		n, err := p.Attach(InitiatorID([]string{"a", "b", "c", "d"}[i]), s)
		if err != nil {
			t.Fatal(err)
		}
		if s.ln, err = n.Lane(l); err != nil {
			t.Fatal(err)
		}
		s.node.Init(s)
		s.t.CDBLen = 6
		s.t.CDB[5] = byte(i)
		if i == 0 {
			s.t.CDB[0], s.batch = 1, 20
		}
		lanes = append(lanes, s)
	}
	overs := make([]chan struct{}, len(lanes))
	for i, l := range lanes {
		overs[i] = l.over
		l.ln.loop.PostOnce(&l.node)
	}
	time.Sleep(d)
	stop.Store(true)
	limit := time.After(tempotest.Patience)
	for i, l := range lanes {
		select {
		case <-overs[i]:
		case <-limit:
			// A lost wake-up: say where.
			u.mu.Lock()
			w := 0
			for x := u.waiting.head; x != nil; x = x.sched.qnext {
				w++
			}
			t.Errorf("gate %#x, class alone %d, %d tasks wait", u.gate.Load(), u.alone, w)
			for j, o := range lanes {
				t.Errorf("lane %d: %d in flight; its task is in state %d of class %d", j, o.t.lu.inflight.Load(), o.t.sched.state, o.t.sched.class)
			}
			u.mu.Unlock()
			t.Fatalf("the task of lane %d (CDB % x) did not end: a wake-up was lost", i, l.t.CDB[:6])
		}
	}
	if n := srv.beside.Load(); n != 0 {
		t.Errorf("%d times a task ran beside an exclusive one", n)
	}
	t.Logf("%d exclusive tasks beside %d, %d and %d plain ones", lanes[0].ended, lanes[1].ended, lanes[2].ended, lanes[3].ended)
	stuck := make(chan int, 1)
	tg.Close(tempotest.Patience/2, func(n int) { stuck <- n })
	if n := <-stuck; n != 0 {
		t.Errorf("%d tasks stuck", n)
	}
	u.Close(tempotest.Patience/2, func(n int) { stuck <- n })
	<-stuck
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	g.Close()
}

// wakeLane submits one task in each round: the exclusive one begins a round, the
// other follows.
type wakeLane struct {
	ln    *Lane
	t     Task
	node  loop.Node
	round *atomic.Int64
	excl  bool
	last  int64
	busy  bool
	stop  *atomic.Bool
	over  chan struct{}
	spins int
	begun time.Time
}

// wakeRounds and wakeTime bound TestGateWake: on a busy machine the threads take
// turns, and a round takes as long as a turn.
const (
	wakeRounds = 50_000
	wakeTime   = 3 * time.Second
)

func (l *wakeLane) Event(Event)            {}
func (l *wakeLane) TransportID([]byte) int { return 0 }
func (l *wakeLane) Done(*Task) {
	l.busy = false
	l.ln.loop.PostOnce(&l.node)
}

func (l *wakeLane) Handle(*loop.Node) {
	if l.busy || l.over == nil {
		return // Done posts
	}
	if l.excl {
		if l.last == wakeRounds || l.last&15 == 0 && time.Since(l.begun) > wakeTime {
			close(l.over)
			l.over = nil
			return
		}
		l.last++
		l.round.Store(l.last)
		l.spins = (l.spins*1103515245 + 12345) & 0x7fffffff
		for range l.spins >> 16 & 0xff { // meet the other at any of its steps
			l.round.Load()
		}
	} else {
		for l.round.Load() == l.last {
			if l.stop.Load() {
				close(l.over)
				l.over = nil
				return
			}
		}
		l.last = l.round.Load()
	}
	l.busy = true
	l.ln.Submit(&l.t)
}

// TestGateWake: an exclusive task waits for the one plain task that runs, again and
// again; nobody else comes by who could wake it. Each round is a race between the end
// of the plain task and the exclusive one's look at the counters.
func TestGateWake(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("one processor: what is to be found needs two")
	}
	g, err := loop.NewGroup(loop.Config{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	st, err := backing.Open("null:", backing.Options{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUnit(UnitConfig{Name: "d0", Shared: true}, st)
	if err != nil {
		t.Fatal(err)
	}
	u.server = newStressServer()
	tg := NewTarget(TargetConfig{Name: "t0"})
	if err := tg.Map(0, u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	p := tg.NewPort(PortConfig{RelID: 1})
	var round atomic.Int64
	var stop atomic.Bool
	var ls [2]*wakeLane
	var overs [2]chan struct{}
	for i := range ls {
		overs[i] = make(chan struct{})
		l := &wakeLane{round: &round, stop: &stop, excl: i == 0, over: overs[i], begun: time.Now()}
		n, err := p.Attach(InitiatorID([]string{"excl", "plain"}[i]), l)
		if err != nil {
			t.Fatal(err)
		}
		if l.ln, err = n.Lane(g.Loops()[i]); err != nil {
			t.Fatal(err)
		}
		l.node.Init(l)
		l.t.CDBLen = 6
		if l.excl {
			l.t.CDB[0] = 1
		}
		ls[i] = l
	}
	for _, l := range ls {
		l.ln.loop.PostOnce(&l.node)
	}
	select {
	case <-overs[0]:
	case <-time.After(tempotest.Patience):
		stop.Store(true)
		time.Sleep(10 * time.Millisecond)
		u.mu.Lock()
		defer u.mu.Unlock()
		var in []int64
		for _, lu := range u.lanes {
			in = append(in, lu.inflight.Load())
		}
		t.Fatalf("round %d: the exclusive task waits (gate %#x), in flight on the lanes: %v: a wake-up was lost",
			round.Load(), u.gate.Load(), in)
	}
	stop.Store(true)
	select {
	case <-overs[1]:
	case <-time.After(tempotest.Patience):
		t.Fatal("the plain task did not end: a wake-up was lost")
	}
	stuck := make(chan int, 1)
	tg.Close(tempotest.Patience/2, func(n int) { stuck <- n })
	if n := <-stuck; n != 0 {
		t.Errorf("%d tasks stuck", n)
	}
	u.Close(tempotest.Patience/2, func(n int) { stuck <- n })
	<-stuck
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	g.Close()
}
