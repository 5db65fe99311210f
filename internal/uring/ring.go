package uring

import (
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// Ring is one io_uring. All methods are for the thread that made it.
type Ring struct {
	maps
	fd   int
	tail uint32 // of the submission ring, not yet shown to the kernel

	slots    []*Req // in flight, by user data
	free     []int32
	inFlight int
	canceled uint64

	pollFD int32 // watched beside the requests; -1: none
	armed  bool  // its poll is with the kernel

	arg sys.UringWaitArg
	ts  sys.Timespec
}

// Options of New; the zero value is fit for use.
type Options struct {
	// Entries is the size of the submission ring; 0 means 256.
	Entries int
	// InFlight bounds the requests in flight; 0 means four times Entries.
	InFlight int
}

// User data below tagReq are the ring's own.
const (
	tagIgnore = 0
	tagPoll   = 1
	tagReq    = 16
)

const (
	opPollAdd     = 6
	opAsyncCancel = 14

	sqFlagOverflow = 1 << 1
	sqFlagTaskrun  = 1 << 2

	sqeSkipSuccess = 1 << 6
	cancelAny      = 1 << 2
	pollIn         = 1
)

// spareCQEs is room in the completion ring for what is not a request: the poll
// and failed cancels.
const spareCQEs = 64

const needed = sys.UringFeatSingleMmap | sys.UringFeatNoDrop | sys.UringFeatExtArg | sys.UringFeatCQESkip

// ErrUnusable: this kernel's io_uring lacks what the package needs (Linux 6.1).
var ErrUnusable = errors.New("io_uring lacks needed features")

// New makes a ring for the calling thread, which must be locked (runtime.LockOSThread).
// It fails where io_uring is forbidden (sysctl kernel.io_uring_disabled, seccomp)
// or too old.
func New(o Options) (*Ring, error) {
	if o.Entries <= 0 {
		o.Entries = 256
	}
	if o.InFlight <= 0 {
		o.InFlight = 4 * o.Entries
	}
	p := sys.UringParams{
		Flags: sys.UringSetupCQSize | sys.UringSetupClamp | sys.UringSetupTaskrunFlag |
			sys.UringSetupSingleIssuer | sys.UringSetupDeferTaskrun,
		CQEntries: uint32(o.InFlight + spareCQEs), // the kernel rounds up
	}
	fd, errno := sys.UringSetup(uint32(o.Entries), &p)
	if errno != 0 {
		if errno == sys.EINVAL {
			return nil, fmt.Errorf("io_uring_setup: %w", ErrUnusable)
		}
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	if p.Features&needed != needed {
		sys.Close(fd)
		return nil, fmt.Errorf("%w: features %#x", ErrUnusable, p.Features)
	}
	r := &Ring{fd: fd, pollFD: -1}
	if err := r.open(fd, &p); err != nil {
		sys.Close(fd)
		return nil, err
	}
	r.tail = load(r.sqTail)
	n := min(o.InFlight, int(p.CQEntries)-spareCQEs)
	r.slots = make([]*Req, n)
	r.free = make([]int32, n)
	for i := range r.free {
		r.free[i] = int32(n - 1 - i)
	}
	return r, nil
}

// Watch makes Wait end when fd is readable, too; -1 for no descriptor. It is set
// once, before the first Wait.
func (r *Ring) Watch(fd int) { r.pollFD = int32(fd) }

// InFlight is the number of requests between Submit and ReqDone.
func (r *Ring) InFlight() int { return r.inFlight }

// Cap is the most that InFlight can be.
func (r *Ring) Cap() int { return len(r.slots) }

// Submit puts q into the submission ring; the kernel sees it at the next Kick or
// Wait, or when the ring is full. false: too many in flight, or the kernel takes
// none at the moment: keep q and try again after some ReqDone, or use a worker.
// q must not be in flight.
func (r *Ring) Submit(q *Req) bool {
	if len(r.free) == 0 {
		return false
	}
	e := r.entry()
	if e == nil {
		return false
	}
	n := len(r.free) - 1
	slot := r.free[n]
	r.free = r.free[:n]
	r.slots[slot] = q
	q.slot = slot + 1
	q.Res = 0
	r.inFlight++

	e.opcode = uint8(q.Op)
	e.fd = int32(q.FD)
	e.off = uint64(q.Off)
	e.opFlags = q.Flags
	e.userData = tagReq + uint64(slot)
	switch q.Op {
	case Readv, Writev:
		e.setIov(q.Iov)
	case Fsync:
		e.len = uint32(q.Len)
	case Fallocate: // its mode is in len, its length in addr
		e.addr, e.len, e.opFlags = uint64(q.Len), q.Flags, 0
	}
	r.tail++
	return true
}

// entry is a cleared entry of the submission ring at tail, after a Kick if there
// is no room; nil when the kernel takes none.
func (r *Ring) entry() *sqe {
	if r.tail-load(r.sqHead) >= r.sqEntries {
		r.Kick()
		if r.tail-load(r.sqHead) >= r.sqEntries {
			return nil
		}
	}
	e := &r.sqes[r.tail&r.sqMask]
	*e = sqe{}
	return e
}

// gathered publishes the entries up to tail and says how many the kernel has not
// taken yet.
func (r *Ring) gathered() uint32 {
	store(r.sqTail, r.tail)
	return r.tail - load(r.sqHead)
}

// Kick passes what was submitted to the kernel; without waiting. What the kernel
// does not take at the moment goes with the next Kick or Wait.
func (r *Ring) Kick() {
	for n := r.gathered(); n != 0; n = r.gathered() {
		_, errno := sys.UringEnter(r.fd, n, 0)
		if errno != 0 && errno != sys.EINTR {
			return
		}
	}
}

// Cancel asks the kernel to end q early: Res is -ECANCELED (or -EINTR) then. q
// ends in any case by ReqDone. A request that is not in flight is left alone. The
// wish goes with the next Kick or Wait.
func (r *Ring) Cancel(q *Req) {
	if q.slot == 0 {
		return
	}
	e := r.entry()
	if e == nil {
		return
	}
	e.opcode = opAsyncCancel
	e.flags = sqeSkipSuccess
	e.fd = -1
	e.addr = tagReq + uint64(q.slot-1)
	e.userData = tagIgnore
	r.tail++
}

// CancelAll is Cancel of everything that is in flight.
func (r *Ring) CancelAll() {
	r.Kick() // so that it finds all
	e := r.entry()
	if e == nil {
		return
	}
	e.opcode = opAsyncCancel
	e.flags = sqeSkipSuccess
	e.fd = -1
	e.opFlags = cancelAny | 1 // IORING_ASYNC_CANCEL_ALL
	e.userData = tagIgnore
	r.tail++
	r.Kick()
}

// Ready reports that Reap has something to do. It costs two loads.
func (r *Ring) Ready() bool {
	return load(r.cqTail) != load(r.cqHead) || load(r.sqFlags)&(sqFlagTaskrun|sqFlagOverflow) != 0
}

// Reap calls ReqDone for every request that has ended; without waiting. It must
// not be called by a ReqDone.
func (r *Ring) Reap() {
	if load(r.sqFlags)&(sqFlagTaskrun|sqFlagOverflow) != 0 {
		// Let the kernel finish what it left to this thread. EINTR and the
		// like only mean: next round.
		sys.UringEnter(r.fd, 0, sys.UringEnterGetEvents)
	}
	// Up to the tail of now: requests that end while owners submit new ones
	// wait for the next round, so that other sources have their turn.
	for tail := load(r.cqTail); ; {
		head := *r.cqHead // only this thread writes it
		if head == tail {
			return
		}
		c := r.cqes[head&r.cqMask]
		store(r.cqHead, head+1)
		switch {
		case c.userData >= tagReq:
			r.done(int32(c.userData-tagReq), c.res)
		case c.userData == tagPoll:
			r.armed = false
		}
	}
}

// done ends the request in a slot.
func (r *Ring) done(slot int32, res int32) {
	q := r.slots[slot]
	r.slots[slot] = nil
	r.free = append(r.free, slot)
	r.inFlight--
	q.slot = 0
	q.Res = res
	q.Owner.ReqDone(q)
}

// Wait submits what was gathered and sleeps until a request ends, the watched
// descriptor is readable, or ns nanoseconds have passed (ns < 0: no limit). It
// calls no ReqDone: Reap does. readable: the watched descriptor woke it. false
// as second result: the kernel takes no requests at the moment and did not wait.
func (r *Ring) Wait(ns int64) (readable, waited bool) {
	if r.pollFD >= 0 && !r.armed {
		e := r.entry()
		if e == nil {
			return false, false // to sleep would be to miss the descriptor
		}
		e.opcode = opPollAdd
		e.fd = r.pollFD
		e.opFlags = pollIn
		e.userData = tagPoll
		r.tail++
		r.armed = true
	}
	var arg *sys.UringWaitArg
	if ns >= 0 {
		arg = &r.arg
		arg.SetTimeout(ns, &r.ts)
	}
	_, errno := sys.UringWait(r.fd, r.gathered(), arg)
	switch errno {
	case 0, sys.EINTR, sys.ETIME:
		waited = true
	}
	for i, tail := *r.cqHead, load(r.cqTail); i != tail; i++ {
		if r.cqes[i&r.cqMask].userData == tagPoll {
			readable = true
		}
	}
	return readable, waited
}

// Close cancels what is in flight, waits up to two seconds for its end (ReqDone
// is called) and closes the ring. If something is in flight still, it says so and
// leaves the ring open: the kernel may yet write into the buffers.
func (r *Ring) Close() error {
	r.pollFD = -1
	if r.inFlight > 0 {
		r.CancelAll()
	}
	for range 200 {
		if r.Reap(); r.inFlight == 0 {
			break
		}
		r.Wait(10_000_000)
	}
	if r.inFlight > 0 {
		return fmt.Errorf("uring: %d requests cannot be canceled", r.inFlight)
	}
	r.maps.close()
	fd := r.fd
	r.fd = -1
	return sys.Close(fd)
}
