package backingtest

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

// ErrCrashed ends every operation between Fault.Crash and Fault.Restart.
var ErrCrashed = errors.New("the store has crashed")

// Kinds is a set of operation kinds; the zero value means all of them.
type Kinds uint32

// KindSet makes a set.
func KindSet(ks ...backing.Kind) Kinds {
	var s Kinds
	for _, k := range ks {
		s |= 1 << k
	}
	return s
}

func (s Kinds) has(k backing.Kind) bool { return s == 0 || s&(1<<k) != 0 }

// Rule says what befalls some operations. The first rule that matches an
// operation applies, and no other.
type Rule struct {
	// Kinds and the range [Off, Off+Len) select operations: those of the kinds
	// that touch the range. Len 0 is everywhere. A Sync touches every range.
	Kinds    Kinds
	Off, Len int64
	// Skip lets the first matches pass, Count is how many are then hit; 0: all.
	Skip, Count int

	// Delay passes before the operation goes on.
	Delay time.Duration
	// Hold keeps it until Fault.Release. It can be canceled, unless it is Deaf: a
	// device that hangs.
	Hold, Deaf bool
	// Err ends it instead of the store. With Torn > 0 a Write first puts its
	// first Torn bytes into the store; N says 0 all the same.
	Err  error
	Torn int64
	// Short, when positive, moves only the first Short bytes of a Read or
	// Write and ends it without an error, with N = Short.
	Short int64
	// Crash is called when the operation reaches the store: it calls Fault.Crash, of
	// this store and others that lose power with it. Of a Write Torn bytes get there,
	// and they are no more stable than others.
	Crash func()
	// Swallow ends the operation well without doing it: a lying disk.
	Swallow bool
}

type rule struct {
	Rule
	seen, hit int
}

// Fault is a Store around another one that fails on command. Without a rule it
// passes everything on.
//
// With Volatile it also plays a disk with a write cache that loses power: it
// remembers which bytes a Sync or an FUA write has made stable, and Crash puts
// the store back to them.
type Fault struct {
	backing.Store

	mu     sync.Mutex
	rules  []*rule
	held   []*faultOp
	shadow *shadow

	crashed atomic.Bool
	counts  [16]atomic.Int64
}

// NewFault wraps st. Fault.Close closes it.
func NewFault(st backing.Store) *Fault { return &Fault{Store: st} }

// Stats are the store's.
func (f *Fault) Stats() backing.Stats { return backing.StatsOf(f.Store) }

// Space is the store's.
func (f *Fault) Space() (backing.Space, error) { return backing.SpaceOf(f.Store) }

// Inject adds a rule after those that are there.
func (f *Fault) Inject(r Rule) {
	f.mu.Lock()
	f.rules = append(f.rules, &rule{Rule: r})
	f.mu.Unlock()
}

// Clear removes every rule. What is held stays held.
func (f *Fault) Clear() {
	f.mu.Lock()
	f.rules = nil
	f.mu.Unlock()
}

// Held is the number of operations that are held.
func (f *Fault) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

// WaitHeld waits until n operations are held. It reports false after Timeout.
func (f *Fault) WaitHeld(n int) bool {
	for end := time.Now().Add(Timeout); f.Held() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Release lets the n operations go on that were held first, all for n < 0. Their
// rule is done with.
func (f *Fault) Release(n int) {
	f.mu.Lock()
	if n < 0 || n > len(f.held) {
		n = len(f.held)
	}
	ops := append([]*faultOp(nil), f.held[:n]...)
	f.held = append(f.held[:0], f.held[n:]...)
	f.mu.Unlock()
	for _, o := range ops {
		o.q.l.Post(&o.node)
	}
}

// Count is how many operations of kind k were submitted.
func (f *Fault) Count(k backing.Kind) int64 { return f.counts[k&15].Load() }

// match finds what befalls op.
func (f *Fault) match(op *backing.Op) (Rule, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		if !r.Kinds.has(op.Kind) {
			continue
		}
		if r.Len > 0 && op.Kind != backing.Sync && (op.Off >= r.Off+r.Len || op.Off+op.Len <= r.Off) {
			continue
		}
		if r.seen++; r.seen <= r.Skip {
			continue
		}
		if r.Count > 0 && r.hit == r.Count {
			continue
		}
		r.hit++
		return r.Rule, true
	}
	return Rule{}, false
}

// Queue wraps a queue of the store.
func (f *Fault) Queue(l *loop.Loop) (backing.Queue, error) {
	in, err := f.Store.Queue(l)
	if err != nil {
		return nil, err
	}
	return &faultQueue{f: f, l: l, in: in}, nil
}

type faultQueue struct {
	f      *Fault
	l      *loop.Loop
	in     backing.Queue
	live   []*faultOp
	free   []*faultOp
	closed bool
	done   func()
}

// faultOp carries a user's Op through the store.
type faultOp struct {
	q        *faultQueue
	user     *backing.Op
	op       backing.Op // the store's
	node     loop.Node
	timer    loop.Timer
	rule     Rule
	ruled    bool
	stage    stage
	canceled bool
	snap     []uint64 // what a Sync will have made stable
}

type stage uint8

const (
	stageDelay  stage = iota // on the timer
	stageHeld                // in Fault.held, or posted by Release
	stageInside              // with the store
	stageEnd                 // posted, to be told
)

func (q *faultQueue) Submit(user *backing.Op) bool {
	user.N, user.Err = 0, nil
	if q.closed {
		user.Err = backing.ErrClosed
		return true
	}
	f := q.f
	f.counts[user.Kind&15].Add(1)
	if f.crashed.Load() {
		user.Err = ErrCrashed
		return true
	}
	o := q.get()
	o.user = user
	o.rule, o.ruled = f.match(user)
	q.live = append(q.live, o)
	switch {
	case o.rule.Delay > 0:
		o.stage = stageDelay
		q.l.After(&o.timer, o.rule.Delay)
		return false
	case o.rule.Hold:
		o.hold()
		return false
	}
	if o.pass() {
		q.put(o)
		return true
	}
	return false
}

func (q *faultQueue) get() *faultOp {
	if n := len(q.free); n > 0 {
		o := q.free[n-1]
		q.free = q.free[:n-1]
		return o
	}
	o := &faultOp{q: q}
	o.op.Owner = o
	o.node.Init(o)
	o.timer.Init(o)
	return o
}

// put takes o out of the live ones.
func (q *faultQueue) put(o *faultOp) {
	for i, v := range q.live {
		if v == o {
			q.live = append(q.live[:i], q.live[i+1:]...)
			break
		}
	}
	o.user, o.canceled, o.snap = nil, false, nil
	o.op.Bufs, o.op.Ext = nil, nil
	q.free = append(q.free, o)
}

func (o *faultOp) hold() {
	o.stage = stageHeld
	o.q.f.mu.Lock()
	o.q.f.held = append(o.q.f.held, o)
	o.q.f.mu.Unlock()
}

// Expired ends a delay.
func (o *faultOp) Expired(*loop.Timer) {
	if o.rule.Hold {
		o.hold()
		return
	}
	o.goOn()
}

// Handle is called for a released Op, or to tell of an early end.
func (o *faultOp) Handle(*loop.Node) {
	switch {
	case o.stage == stageEnd:
		o.tell()
	case o.canceled:
		o.user.Err = backing.ErrCanceled
		o.tell()
	default:
		o.goOn()
	}
}

// goOn passes the Op on outside Submit.
func (o *faultOp) goOn() {
	if o.pass() {
		o.tell()
		return
	}
	o.q.in.Kick()
}

// pass applies the rule and gives the Op to the store; true: it has ended.
func (o *faultOp) pass() bool {
	f, u, r := o.q.f, o.user, &o.rule
	if f.crashed.Load() {
		u.Err = ErrCrashed
		return true
	}
	o.op.Kind, o.op.Flags, o.op.Off, o.op.Len, o.op.Bufs, o.op.Ext = u.Kind, u.Flags, u.Off, u.Len, u.Bufs, u.Ext
	o.op.Src, o.op.SrcOff = u.Src, u.SrcOff
	transfer := u.Kind == backing.Read || u.Kind == backing.Write
	switch {
	case r.Swallow:
		u.N = 0
		if transfer {
			u.N = u.Len
		}
		return true
	case r.Crash != nil:
		r.Crash()
		if r.Torn <= 0 || u.Kind != backing.Write {
			u.Err = ErrCrashed
			return true
		}
		o.cut(r.Torn)
	case r.Err != nil && !(r.Torn > 0 && u.Kind == backing.Write):
		u.Err = r.Err
		return true
	case r.Err != nil:
		o.cut(r.Torn)
	case r.Short > 0 && transfer:
		o.cut(r.Short)
	}
	o.stage = stageInside
	f.shadowBegin(o)
	if o.q.in.Submit(&o.op) {
		o.outcome()
		return true
	}
	return false
}

// cut shortens the store's Op to n bytes.
func (o *faultOp) cut(n int64) {
	n = min(n, o.op.Len)
	o.op.Len = n
	var bufs [][]byte
	for _, b := range o.user.Bufs {
		c := min(n, int64(len(b)))
		if c > 0 {
			bufs = append(bufs, b[:c])
		}
		n -= c
	}
	o.op.Bufs = bufs
}

// outcome takes over what the store said.
func (o *faultOp) outcome() {
	o.user.N, o.user.Err = o.op.N, o.op.Err
	o.q.f.shadowEnd(o)
	if o.rule.Err != nil {
		o.user.N, o.user.Err = 0, o.rule.Err
	}
	if o.q.f.crashed.Load() {
		o.user.N, o.user.Err = 0, ErrCrashed
	}
}

// OpDone hears of the store's end.
func (o *faultOp) OpDone(*backing.Op) {
	o.outcome()
	o.tell()
}

func (o *faultOp) tell() {
	q, u := o.q, o.user
	q.put(o)
	u.Owner.OpDone(u)
	q.closing()
}

func (q *faultQueue) Kick() { q.in.Kick() }

func (q *faultQueue) Cancel(user *backing.Op) {
	for _, o := range q.live {
		if o.user != user || o.canceled {
			continue
		}
		o.canceled = true
		switch o.stage {
		case stageInside:
			q.in.Cancel(&o.op)
		case stageDelay:
			if q.l.Stop(&o.timer) {
				o.early()
			}
		case stageHeld:
			if o.rule.Deaf {
				o.canceled = false
			} else if q.f.unhold(o) {
				o.early()
			} // else Release has posted it: Handle looks at canceled
		}
		return
	}
}

func (o *faultOp) early() {
	o.user.Err = backing.ErrCanceled
	o.stage = stageEnd
	o.q.l.Post(&o.node)
}

func (f *Fault) unhold(o *faultOp) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, v := range f.held {
		if v == o {
			f.held = append(f.held[:i], f.held[i+1:]...)
			return true
		}
	}
	return false
}

func (q *faultQueue) Close(done func()) {
	if q.closed {
		return
	}
	q.closed, q.done = true, done
	q.closing()
}

func (q *faultQueue) closing() {
	if !q.closed || len(q.live) > 0 || q.done == nil {
		return
	}
	done := q.done
	q.done = nil
	q.in.Close(done)
}
