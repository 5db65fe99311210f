package ibmvio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/srp/iu"
)

const (
	// maxIU is the longest information unit on VIO, bytes, in both directions.
	maxIU = 256
	// defaultLimit is the request limit that a client begins with. Linux keeps
	// two of it for task management and has at most 100 commands under way.
	defaultLimit = 256
	// maxTransfer is what a client is told that one command may move, bytes.
	maxTransfer = 4 << 20
	// maxDesc bounds the descriptors of one buffer: 8 MiB in pages of 4 KiB.
	maxDesc = 2048
	// maxMADs is how many management datagrams a client may have under way.
	maxMADs = 8
	// retryFull is how long an answer waits for room in the client's queue, and
	// resumeWait how long a client may take to begin anew after event 6 before
	// it gets event 2.
	retryFull  = 2 * time.Millisecond
	resumeWait = 20 * time.Second
)

// adapterConfig describes an adapter. Name, Loop and Initiator have no default.
type adapterConfig struct {
	Name      string // of the export, for messages
	Loop      *loop.Loop
	Initiator [16]byte
	Limit     int           // of requests (256)
	Deadline  time.Duration // scsi.DefaultDeadline
	Log       *slog.Logger
	// Changed hears of each change of State, on the loop. nil: nobody asks.
	Changed func(State)
}

// State says how far the client has come.
type State uint8

// The states.
const (
	NoClient  State = iota // no queue, or nobody has said INIT
	Resetting              // commands of an earlier life are ending
	Connected              // INIT has been answered
	LoggedIn               // and so has the login, or firmware sends without one
	maxStates              // of them
)

func (s State) String() string {
	return [maxStates]string{"no client", "resetting", "connected", "logged in"}[s]
}

// adapter is the server's half of one virtual SCSI adapter: it outlives the virtual
// machine's connection. What is not said to be shared is its loop's.
type adapter struct {
	conf  adapterConfig
	loop  *loop.Loop
	count counters
	lines lines
	info  clientInfo
	tmu   sync.Mutex // for setTargets
	table atomic.Pointer[targets]

	hyp    Hypervisor // nil: no virtual machine
	epoch  uint32     // the client's present beginning
	gen    uint32     // of the slots: what belongs to another one is dead
	state  State
	ch     iu.Channel
	bare   bool // commands come without a login
	fast   bool // fast fail is enabled
	os     crq.OS
	owed   int32 // credit to give back
	paused bool

	serving int // requests from their arrival to their response
	mads    int
	parked  [4]*slot // empty units, for what the server may want to say some day
	free    *slot
	slots   int
	arrived slotList
	full    slotList // responses that the client's queue had no room for
	retry   loop.Timer

	resets   int  // ports that are being reset
	failed   bool // a reset has failed
	begun    bool // INIT came: it is answered after the reset
	answer   bool // with INIT COMPLETE
	resumed  bool // event 6 was sent: the client knows of the loss
	used     bool // commands were submitted since the last reset
	greeting loop.Timer
	batch    loop.Node
	lostOps  opList
	lostNode loop.Node
	notices  notices
}

// newAdapter makes an adapter without targets: setTargets is to follow.
func newAdapter(c adapterConfig) *adapter {
	if c.Limit <= 0 {
		c.Limit = defaultLimit
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &adapter{conf: c, loop: c.Loop}
	a.table.Store(&targets{})
	a.ch.Policy = iu.Policy{MaxToTarget: maxIU, MaxToInitiator: maxIU, Limit: int32(c.Limit)}
	a.batch.Init((*batchEnd)(a))
	a.lostNode.Init((*lostEnd)(a))
	a.retry.Init((*retryTimer)(a))
	a.greeting.Init((*resumeTimer)(a))
	a.notices.op.Owner, a.notices.op.Kind = (*noticeEnd)(a), OpSend
	return a
}

// attach has h serve the client from now on.
func (a *adapter) attach(h Hypervisor, g Greeting) {
	a.drop()
	a.hyp, a.epoch, a.paused = h, g.Epoch, g.Paused
	switch {
	case g.Registered && g.Served:
		a.resume()
	case g.Registered:
		// The INIT that it may have sent found nobody.
		a.notify(crq.Message(crq.InitMsg, crq.Init))
	}
}

// resume tells the client that its server has moved: it sends INIT, and everything again
// that was not answered.
func (a *adapter) resume() {
	a.resumed = true
	a.count.Resumes.Add(1)
	a.notify(crq.Message(crq.Transport, crq.Migrated))
	a.loop.After(&a.greeting, resumeWait)
}

// resumeTimer is an adapter whose client did not take event 6.
type resumeTimer adapter

// Expired falls back on event 2: everything that was not answered fails at the client.
func (h *resumeTimer) Expired(t *loop.Timer) {
	a := (*adapter)(h)
	if !a.resumed || a.hyp == nil || a.state != NoClient {
		return
	}
	if a.paused {
		a.loop.After(t, resumeWait)
		return
	}
	a.resumed = false
	a.warn("the client does not begin anew after transport event 6: event 2 is sent", nil)
	a.notify(crq.Message(crq.Transport, crq.PartnerDeregistered))
}

// notices are entries about no request that wait for their turn.
type notices struct {
	op   Op
	busy bool
	n    int
	list [16]struct {
		e     crq.Entry
		epoch uint32
	}
}

// notify sends an entry that is about no request. Of a client that asks for more of them
// than it takes some stay unsent.
func (a *adapter) notify(e crq.Entry) {
	q := &a.notices
	if q.n == len(q.list) {
		return
	}
	q.list[q.n].e, q.list[q.n].epoch = e, a.epoch
	q.n++
	a.sendNotice()
}

// sendNotice sends the first one that waits.
func (a *adapter) sendNotice() {
	q := &a.notices
	if q.busy || q.n == 0 {
		return
	}
	q.op.Entry, q.op.Epoch, q.busy = q.list[0].e, q.list[0].epoch, true
	q.n--
	copy(q.list[:], q.list[1:1+q.n])
	a.do(&q.op)
}

// noticeEnd is an adapter that hears of the end of a notice.
type noticeEnd adapter

func (h *noticeEnd) Ended(op *Op) {
	a, q := (*adapter)(h), &h.notices
	q.busy = false
	if op.Err == ErrFull && op.Epoch == a.epoch && q.n < len(q.list) {
		copy(q.list[1:], q.list[:q.n])
		q.list[0].e, q.list[0].epoch = op.Entry, op.Epoch
		q.n++
		a.retryLater()
		return
	}
	a.sendNotice()
}

// lost is the end of h's service.
func (a *adapter) lost(h Hypervisor) {
	if a.hyp != h {
		return
	}
	a.hyp = nil
	a.drop()
}

// notice takes news of the client's queue.
func (a *adapter) notice(n Notice, epoch uint32) {
	switch n {
	case Registered:
		a.drop()
		a.epoch = epoch
	case Freed, Reset:
		a.drop()
		a.epoch = epoch
	case Paused, Running:
		a.paused = n == Paused
	}
}

// drop forgets the client: nothing that is under way is answered.
func (a *adapter) drop() {
	a.forget(false)
	a.begun, a.resumed = false, false
	a.loop.Stop(&a.greeting)
	a.set(NoClient)
	a.reset(false)
}

// forget makes everything that is under way dead; keep: but what waits to be served.
func (a *adapter) forget(keep bool) {
	a.gen++
	a.serving, a.mads, a.owed = 0, 0, 0
	a.bare, a.fast = false, false
	a.ch.Reset()
	for i, s := range a.parked {
		if s != nil {
			a.parked[i] = nil
			a.put(s)
		}
	}
	for s := a.full.pop(); s != nil; s = a.full.pop() {
		a.put(s)
	}
	if !keep {
		a.notices.n = 0
		a.arrived.prune(a)
		return
	}
	for s := a.arrived.first; s != nil; s = s.next {
		s.gen = a.gen
		if s.format == crq.MAD {
			a.mads++
		} else {
			a.serving++
		}
	}
}

// begin answers INIT (answer) or INIT COMPLETE, when nothing of an earlier life is left.
func (a *adapter) begin(epoch uint32, answer bool) {
	a.forget(false)
	a.loop.Stop(&a.greeting)
	a.epoch, a.begun, a.answer = epoch, true, answer
	a.os = crq.OSUnknown
	a.info.clear()
	a.count.Inits.Add(1)
	a.set(Resetting)
	a.reset(a.resumed)
	a.settled()
}

// reset ends all commands of the client. force: even where there were none, so that
// each logical unit has a unit attention condition.
func (a *adapter) reset(force bool) {
	if a.resets > 0 || !a.used && !force {
		return // no command is submitted while it lasts: this one will do
	}
	a.used = false
	list := a.table.Load().list
	a.resets = len(list)
	for _, t := range list {
		t.port.Reset(func(ok bool) { a.loop.Later(func() { a.resetDone(ok) }) })
	}
}

func (a *adapter) resetDone(ok bool) {
	a.failed = a.failed || !ok
	if a.resets--; a.resets > 0 {
		return
	}
	if a.failed {
		// Of what is stuck in a store a WRITE could land after the client's next
		// one: nothing goes on until it has ended.
		a.failed, a.used = false, true
		a.warn("commands of the client's earlier life are stuck in the store: the client waits", nil)
		a.reset(true)
		return
	}
	a.settled()
}

// settled goes on after a reset.
func (a *adapter) settled() {
	if a.resets > 0 {
		return
	}
	if a.begun {
		if a.resumed {
			a.resumed = false
			a.absorb()
			return
		}
		a.begun = false
		if a.answer {
			a.notify(crq.Message(crq.InitMsg, crq.InitComplete))
		}
		a.set(Connected)
	}
	a.dispatch()
}

// violation ends the session of a client that broke a rule: it is to begin anew.
func (a *adapter) violation(why error) {
	a.count.Violations.Add(1)
	a.warn("the client broke the protocol and is disconnected", why)
	a.drop()
	a.notify(crq.Message(crq.Transport, crq.PartnerDeregistered))
}

// do has the hypervisor do op.
func (a *adapter) do(op *Op) {
	if a.hyp == nil {
		op.Err = ErrLost
		a.lostOps.push(op)
		if !a.lostNode.Queued() {
			a.loop.Defer(&a.lostNode)
		}
		return
	}
	a.hyp.Do(op)
	a.flushLater()
}

// lostEnd is an adapter that ends operations which nobody can do.
type lostEnd adapter

func (h *lostEnd) Handle(*loop.Node) {
	list := h.lostOps
	h.lostOps = opList{}
	for op := list.pop(); op != nil; op = list.pop() {
		op.Owner.Ended(op)
	}
}

func (a *adapter) flushLater() {
	if !a.batch.Queued() {
		a.loop.Defer(&a.batch)
	}
}

// batchEnd is an adapter at the end of a round.
type batchEnd adapter

func (h *batchEnd) Handle(*loop.Node) {
	a := (*adapter)(h)
	for _, t := range a.table.Load().list {
		if t.kick {
			t.kick = false
			t.q.Kick()
		}
	}
	if a.hyp != nil {
		a.hyp.Kick()
	}
}

func (a *adapter) set(s State) {
	if a.state == s {
		return
	}
	a.state = s
	a.info.state.Store(uint32(s))
	if f := a.conf.Changed; f != nil {
		f(s)
	}
}

// close ends the nexuses. It sleeps; stuck is the number of requests that the deadline
// has passed by.
func (a *adapter) close(deadline time.Duration) (stuck int) {
	a.tmu.Lock()
	defer a.tmu.Unlock()
	list := a.table.Load().list
	done := make(chan int, len(list))
	for _, t := range list {
		t.port.Close(deadline, func(n int) { done <- n })
	}
	for range list {
		stuck += <-done
	}
	a.loop.Do(func() {
		a.loop.Stop(&a.retry)
		a.loop.Stop(&a.greeting)
	})
	return stuck
}

// stuck is how many requests are with the core or the store beyond a deadline.
func (a *adapter) stuck() (n int64) {
	for _, t := range a.table.Load().list {
		n += t.port.Stats().Stuck
	}
	return n
}

// lines bounds the lines that a client can cause in the log.
type lines struct {
	next    time.Time
	dropped int
}

const lineEvery = 10 * time.Second

// warn logs what a client did, or counts it where lines come too often. On the loop.
func (a *adapter) warn(what string, err error) {
	l := &a.lines
	now := time.Now()
	if now.Before(l.next) {
		l.dropped++
		return
	}
	l.next = now.Add(lineEvery)
	args := []any{"export", a.conf.Name, "suppressed", l.dropped}
	if err != nil {
		args = append(args, "err", err)
	}
	l.dropped = 0
	a.conf.Log.Log(context.Background(), slog.LevelWarn, "vio: "+what, args...)
}

// Errors that end a client's session.
var (
	errLength = errors.New("an information unit of a length that VIO does not have (1 to 256 bytes)")
	errFlood  = errors.New("more than twice as many requests as the request limit")
	errMADs   = errors.New("too many management datagrams at a time")
	errUnit   = errors.New("an information unit at an address that is not mapped")
)

// entry takes an entry of the client's, which is in its beginning epoch.
func (a *adapter) entry(e *crq.Entry, epoch uint32) {
	a.count.Entries.Add(1)
	switch e.Header() {
	case crq.InitMsg:
		switch e.Format() {
		case crq.Init:
			a.begin(epoch, true)
		case crq.InitComplete:
			a.begin(epoch, false)
		}
		return
	case crq.Payload:
	default:
		a.count.Ignored.Add(1)
		return
	}
	if a.state < Connected || epoch != a.epoch {
		a.count.Ignored.Add(1) // of a life before INIT
		return
	}
	switch f := e.Format(); f {
	case crq.SRP, crq.MAD:
		n := e.Length()
		if n == 0 || n > maxIU {
			a.violation(errLength)
			return
		}
		a.fetch(f, n, e.Pointer(), e.Timeout())
	case crq.Inline:
		if e.Status() == crq.Ping {
			r := *e
			r.SetStatus(crq.PingResponse)
			a.notify(r)
			return
		}
		a.count.Ignored.Add(1)
	default:
		a.violation(fmt.Errorf("an entry of format %d", f))
	}
}
