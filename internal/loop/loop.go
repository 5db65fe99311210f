package loop

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/uring"
)

// eventBatch is how many sources one round serves at most.
const eventBatch = 128

// deferPasses bounds how often a round goes back to nodes that deferred nodes
// have deferred: what is left then waits for the sources to be served.
const deferPasses = 8

// trimEvery is the time between two looks at idle buffer memory.
const trimEvery = time.Second

// Loop is one event loop. Post, Do, Later, Group, ID, AddLoad, Load and OnLoop may be
// called on any goroutine, everything else on the loop only.
type Loop struct {
	g  *Group
	id int

	// What other threads write, on cache lines of its own.
	_      [64]byte
	mail   mailbox
	asleep atomic.Uint32 // 1: blocked or about to; whoever changes it to 0 wakes
	wakers atomic.Int32  // threads between that change and the end of their wake-up
	_      [48]byte
	load   atomic.Int64
	stop   atomic.Bool
	tid    atomic.Int64
	ended  chan struct{} // closed when the thread has ended
	_      [40]byte

	now    int64
	looked int64 // the round that asked epoll last began then
	slept  int64 // the wait before this round slept from then on; 0: it did not
	called bool  // the last sleep was ended by a message, not by a source
	// expected: Expect was called since the loop last had nothing to do.
	expected bool
	behind   bool
	relieved int
	epfd     int
	evfd     int
	srcs     []slotEntry
	free     []int32
	wheel    wheel
	slabs    *slab.Cache
	ring     *uring.Ring
	noRing   bool
	spin     spinner
	asks     asker
	hot      []*PollNode
	trim     Timer
	lag      lag

	stopping  bool  // stop was seen: the ring is being drained
	stopTimer Timer // bounds that
	gaveUp    bool

	// The state of the present round. It is kept here and not in variables so
	// that a round can go on after a panic that Config.Recover took.
	stage   int
	evs     [eventBatch]sys.EpollEvent
	evNext  int
	evCount int
	posted  *Node // taken from mail, not yet handled
	defHead *Node // deferred
	defTail *Node
	defRun  *Node // deferred, of the present pass
	passes  int

	ectl  sys.EpollEvent // argument memory of epoll_ctl
	ts    sys.Timespec   // argument memory of waits
	stats Stats
}

// Stats are counters of one loop. They are read on the loop (Do).
type Stats struct {
	Rounds, Sleeps, Spins, SpinHits uint64
	Events, Posted, Expired         uint64
	Recovered                       uint64
}

func newLoop(g *Group, id int) (*Loop, error) {
	l := &Loop{g: g, id: id, ended: make(chan struct{})}
	var err error
	if l.epfd, err = sys.NewEpoll(); err != nil {
		return nil, fmt.Errorf("%w: raise the limit of open files (ulimit -n)", err)
	}
	if l.evfd, err = sys.NewEventfd(); err != nil {
		sys.Close(l.epfd)
		return nil, fmt.Errorf("%w: raise the limit of open files (ulimit -n)", err)
	}
	// Slot 0 is the mailbox's eventfd. Edge-triggered, it never needs to be
	// read: every write is an edge.
	l.srcs = append(l.srcs, slotEntry{})
	l.ectl = sys.EpollEvent{Events: sys.EPOLLIN | sys.EPOLLET}
	if errno := sys.EpollCtl(l.epfd, sys.EpollAdd, l.evfd, &l.ectl); errno != 0 {
		sys.Close(l.evfd)
		sys.Close(l.epfd)
		return nil, fmt.Errorf("watch eventfd: %w", errno)
	}
	l.slabs = g.cfg.Slabs.NewCache()
	l.noRing = g.cfg.NoUring
	l.spin.max = int64(g.cfg.Spin)
	l.asks.max = askSpins * l.spin.max
	l.trim.Init((*trimmer)(l))
	l.stopTimer.Init((*stopper)(l))
	started := make(chan struct{})
	go l.run(started)
	<-started
	return l, nil
}

// ID is the loop's index in Group.Loops.
func (l *Loop) ID() int { return l.id }

// Group is the group that the loop belongs to.
func (l *Loop) Group() *Group { return l.g }

// Slabs is the loop's buffer memory. On the loop only.
func (l *Loop) Slabs() *slab.Cache { return l.slabs }

// AddLoad changes the loop's load, the measure of Group.Pick: 1 for each ring or
// connection, as a rule.
func (l *Loop) AddLoad(n int) { l.load.Add(int64(n)) }

// Load is the sum of AddLoad.
func (l *Loop) Load() int64 { return l.load.Load() }

// Now is the time at which the round began: ns since the group was made,
// monotonic, the same clock on every loop of a group.
func (l *Loop) Now() int64 { return l.now }

// OnLoop reports whether the caller runs on the loop's thread. It costs a cheap
// system call.
func (l *Loop) OnLoop() bool { return int64(sys.Gettid()) == l.tid.Load() }

// Stats returns the loop's counters. On the loop only.
func (l *Loop) Stats() Stats { return l.stats }

// Post has n handled on the loop, after everything that was posted before by the
// same goroutine. Any goroutine; never blocks; allocates nothing.
//
// The caller must know that n is not queued. A second Post of a queued node is a
// bug: it is ignored and counted (Group.Misuse), or panics with Config.Strict.
// After the loop has ended nodes are not handled any more.
func (l *Loop) Post(n *Node) {
	if !l.PostOnce(n) {
		l.g.misused("a node was posted that is queued already")
	}
}

// PostOnce is Post for nodes that several goroutines post: when n is queued
// already it does nothing and returns false, and what the caller wrote before is
// seen by that Handle.
func (l *Loop) PostOnce(n *Node) bool {
	if !n.queued.CompareAndSwap(0, 1) {
		return false
	}
	l.mail.push(n)
	if l.asleep.Load() != 0 {
		l.wake()
	}
	return true
}

// Expect says that a source's peer has all its answers, so that its next request is what
// the loop is about to wait for: the loop may look for it before it sleeps, where that has
// paid lately. On the loop only.
func (l *Loop) Expect() { l.expected = true }

// SetBehind says whether the source that is being served has more than it has given: what
// is long may then be left to a worker, while the loop takes the rest. On the loop only.
func (l *Loop) SetBehind(b bool) { l.behind = b }

// Behind is what SetBehind said. On the loop only.
func (l *Loop) Behind() bool { return l.behind }

// Relieve changes, by n, how many long operations of its sources a worker does in the
// loop's place while the loop takes more of them. On the loop only.
func (l *Loop) Relieve(n int) { l.relieved += n }

// Relieved is the sum of Relieve. On the loop only.
func (l *Loop) Relieved() int { return l.relieved }

// wake ends the loop's sleep if nobody else does.
func (l *Loop) wake() {
	// wakers keeps evfd open until the write is done.
	l.wakers.Add(1)
	if l.asleep.CompareAndSwap(1, 0) {
		l.g.spin.call()
		sys.EventfdSignal(l.evfd)
	}
	l.wakers.Add(-1)
}

// Defer has n handled at the end of this round, before the loop sleeps, in the
// order of the calls. On the loop only. Double use is treated as by Post.
func (l *Loop) Defer(n *Node) {
	if n.queued.Load() != 0 {
		l.g.misused("a node was deferred that is queued already")
		return
	}
	n.queued.Store(1)
	n.next = nil
	if l.defTail == nil {
		l.defHead = n
	} else {
		l.defTail.next = n
	}
	l.defTail = n
}

// After has t expire once d after Now, never earlier, and later by up to 66 us
// and the length of a round. An armed timer is armed anew. At most 52 days;
// longer ones expire then. On the loop only.
func (l *Loop) After(t *Timer, d time.Duration) {
	if t.next != nil {
		l.wheel.remove(t)
	}
	l.wheel.add(t, l.now+max(int64(d), 0))
}

// Stop disarms t and reports whether it was armed; it does not expire then. On
// the loop only.
func (l *Loop) Stop(t *Timer) bool {
	if t.next == nil {
		return false
	}
	l.wheel.remove(t)
	return true
}

// doNode carries a function to the loop.
type doNode struct {
	Node
	f    func()
	done chan struct{}
}

func (d *doNode) Handle(*Node) {
	defer close(d.done)
	d.f()
}

// Do runs f on the loop and waits for its end; on the loop it calls it directly.
// For the control path: a loop that calls Do of another serves nobody meanwhile,
// and two that do so to each other wait for ever. It returns false when the loop
// has ended without running f.
func (l *Loop) Do(f func()) bool {
	if l.OnLoop() {
		f()
		return true
	}
	d := &doNode{f: f, done: make(chan struct{})}
	d.Init(d)
	l.Post(&d.Node)
	select {
	case <-d.done:
		return true
	case <-l.ended:
	}
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// laterNode is a message of Later.
type laterNode struct {
	Node
	f func()
}

func (n *laterNode) Handle(*Node) { n.f() }

// Later runs f on the loop and does not wait for it; f never runs inside Later. On any
// goroutine. For the control path: it allocates.
func (l *Loop) Later(f func()) {
	n := &laterNode{f: f}
	n.Init(n)
	l.Post(&n.Node)
}

// misused reports a bug of a caller.
func (g *Group) misused(what string) {
	g.misuse.Add(1)
	if g.cfg.Strict {
		panic("loop: " + what)
	}
}

// trimmer is the loop as the handler of its trim timer.
type trimmer Loop

func (t *trimmer) Expired(*Timer) {
	l := (*Loop)(t)
	if l.slabs.Trim() {
		l.After(&l.trim, trimEvery)
	}
}

// run is the loop's thread. It stays locked, so that the thread ends with it.
func (l *Loop) run(started chan struct{}) {
	runtime.LockOSThread()
	l.tid.Store(int64(sys.Gettid()))
	l.now = l.g.Now()
	l.wheel.init(l.now)
	close(started)
	for !l.rounds() {
	}
	l.end()
}

// rounds runs rounds until the loop is to stop. With Config.Recover it returns
// false after a panic that was taken; the next call goes on where it stopped.
func (l *Loop) rounds() (stopped bool) {
	if f := l.g.cfg.Recover; f != nil {
		defer func() {
			if stopped {
				return
			}
			if v := recover(); v != nil {
				if !f(l, v) {
					panic(v)
				}
				l.stats.Recovered++
			}
		}()
	}
	for {
		l.round()
		if l.stop.Load() && l.drained() {
			return true
		}
	}
}

// drainTime is how long a stopping loop waits for requests of its ring.
const drainTime = 2 * time.Second

// drained reports, after stop, that nothing is left that the loop could serve.
func (l *Loop) drained() bool {
	if !l.stopping {
		l.stopping = true
		if l.ring != nil && l.ring.InFlight() > 0 {
			l.ring.CancelAll()
			l.After(&l.stopTimer, drainTime)
		}
	}
	if !l.mail.empty() || l.defHead != nil {
		return false
	}
	return l.ring == nil || l.ring.InFlight() == 0 || l.gaveUp
}

// stopper is the loop as the handler of its stop timer.
type stopper Loop

func (s *stopper) Expired(*Timer) { s.gaveUp = true }

// Ring is the loop's io_uring, made at the first call; nil where io_uring is
// forbidden, too old or not wanted (Config.NoUring): then workers do the work.
// What was submitted is kicked before the loop sleeps, at the latest. On the loop
// only.
func (l *Loop) Ring() *uring.Ring {
	if l.ring != nil || l.noRing {
		return l.ring
	}
	r, err := uring.New(uring.Options{})
	if err != nil {
		l.noRing = true
		l.g.cfg.Log.Info("no io_uring: worker threads do direct I/O", "loop", l.id, "err", err)
		return nil
	}
	r.Watch(l.epfd)
	l.ring = r
	return r
}
