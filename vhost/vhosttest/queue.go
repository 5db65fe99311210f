package vhosttest

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// ErrTimeout: the device did not answer in time.
var ErrTimeout = errors.New("no answer from the device")

// ErrFull: the ring has no room for the request.
var ErrFull = errors.New("the ring is full")

// A Queue is one virtqueue as its driver sees it. It belongs to one goroutine.
type Queue struct {
	c     *Client
	index int
	ring  *vringtest.Driver
	base  uint32
	fresh bool // laid anew, and not started since: the control path's

	kick, call, err *bell
	// Spin waits for answers by looking, without asking for notifications.
	Spin bool
	// Kicks and Calls count notifications sent and received.
	Kicks, Calls uint64

	place     vringtest.Layout
	reqs      []*Request // by head
	done      []*Request // completed and not given by Next yet, a ring
	first, n  int
	slots     uint64
	slotMem   []byte
	out, in   []Buf
	cuts      []Buf
	scratch   uint64 // for Exec: out, then in
	exec      *Request
	execBytes int
}

func newQueue(c *Client, index int) (*Queue, error) {
	q := &Queue{c: c, index: index, execBytes: c.o.Scratch}
	size := c.o.Size
	need := vringtest.Place(0, size, c.o.Table).End
	at, err := c.Mem.Alloc(int(need), pageBytes)
	if err != nil {
		return nil, err
	}
	q.place = vringtest.Place(at, size, c.o.Table)
	if q.slots, err = c.Mem.Alloc(slotBytes*size, pageBytes); err != nil {
		return nil, err
	}
	q.slotMem = c.Mem.At(q.slots, slotBytes*size)
	q.out = make([]Buf, 0, 64)
	q.in = make([]Buf, 0, 64)
	q.cuts = make([]Buf, 0, 256)
	if q.kick, err = newBell(false); err != nil {
		return nil, err
	}
	if q.call, err = newBell(true); err != nil {
		return nil, err
	}
	if q.err, err = newBell(true); err != nil {
		return nil, err
	}
	return q, q.reset()
}

// reset lays the ring anew.
func (q *Queue) reset() error {
	var err error
	size := q.c.o.Size
	// Event idx is set when it is negotiated: the layout does not depend on it.
	lay := vringtest.NewDriver
	if q.packed() {
		lay = vringtest.NewPacked
	}
	if q.ring, err = lay(q.c.Mem, q.place, false); err != nil {
		return err
	}
	q.fresh = true
	if q.base = q.ring.Base(); !q.packed() {
		q.base = uint32(q.c.o.StartIndex)
		q.ring.SetIndex(q.c.o.StartIndex)
	}
	q.reqs = make([]*Request, size)
	q.done = make([]*Request, size)
	q.first, q.n = 0, 0
	return nil
}

// renew readies the ring for a start. Kicks of before are lost, as QEMU loses them.
func (q *Queue) renew() error {
	q.kick.take()
	// Else the ring's goroutine may be at it.
	if q.fresh {
		q.fresh = false
		q.ring.EventIdx = q.c.Features&FeatureEventIdx != 0
		q.ring.SetIndex(uint16(q.base))
	}
	return nil
}

// packed tells whether the driver wants packed rings.
func (q *Queue) packed() bool { return q.c.o.Features&FeatureRingPacked != 0 }

func (q *Queue) close() error {
	var err error
	for _, b := range []*bell{q.kick, q.call, q.err} {
		if b != nil {
			err = errors.Join(err, b.close())
		}
	}
	return err
}

// Ring is the driver's half, for tests that do what a driver must not.
func (q *Queue) Ring() *vringtest.Driver { return q.ring }

// Index is the virtqueue's: 0 control, 1 events, then requests.
func (q *Queue) Index() int { return q.index }

// Base is what the next SET_VRING_BASE says: after Client.Stop the back end's answer.
func (q *Queue) Base() uint32 { return q.base }

// Out is the number of requests that the device has not answered, or whose answers
// were not reaped.
func (q *Queue) Out() int { return q.ring.Out() }

// Submit lays r into the ring, which was started once; the device sees it with the next Kick. ErrFull: there is
// no room. It allocates nothing.
func (q *Queue) Submit(r *Request) error {
	head, ok := q.ring.PeekFree()
	if !ok {
		return ErrFull
	}
	out, in := q.out[:0], q.in[:0]
	if !r.Raw {
		slot := q.slots + slotBytes*uint64(head)
		mem := q.slotMem[slotBytes*int(head):]
		req, resp := slot, slot+slotResp
		r.reqMem, r.respMem = mem[:ReqBytes], mem[slotResp:slotResp+RespBytes]
		if r.ReqAt != 0 {
			req, r.reqMem = r.ReqAt, q.c.Mem.At(r.ReqAt, ReqBytes)
		}
		if r.RespAt != 0 {
			resp, r.respMem = r.RespAt, q.c.Mem.At(r.RespAt, RespBytes)
		}
		r.encode(r.reqMem)
		r.respMem[11] = untouched
		out = append(out, Buf{Addr: req, Len: ReqBytes})
		in = append(in, Buf{Addr: resp, Len: RespBytes})
	}
	out, in = append(out, r.Out...), append(in, r.In...)
	if r.Merge {
		out, in = merge(out), merge(in)
	}
	q.out, q.in = out, in
	if r.Split != nil || r.SplitIn != nil {
		q.cuts = cut(q.cuts[:0], out, r.Split)
		n := len(q.cuts)
		q.cuts = cut(q.cuts, in, r.SplitIn)
		out, in = q.cuts[:n:n], q.cuts[n:]
	}
	r.Done, r.Written, r.Response, r.Status, r.SenseLen, r.Resid = false, 0, untouched, 0xff, 0, 0
	h, ok := q.ring.Add(out, in, r.Indirect)
	if !ok {
		return ErrFull
	}
	r.Head = h
	q.reqs[h] = r
	return nil
}

// Kick shows the device what was submitted and notifies it if it wants that.
func (q *Queue) Kick() {
	if q.ring.Kick() {
		q.Notify()
	}
}

// Notify notifies the device whether it wants that or not.
func (q *Queue) Notify() {
	q.Kicks++
	q.kick.ring()
}

// reap takes the answers that are there.
func (q *Queue) reap() error {
	for {
		h, n, ok, err := q.ring.Used()
		if err != nil || !ok {
			return err
		}
		r := q.reqs[h]
		q.reqs[h] = nil
		if r == nil {
			return fmt.Errorf("answer to head %d, which nobody submitted", h)
		}
		r.Written, r.Done = n, true
		if !r.Raw {
			r.decode(r.respMem)
		}
		q.done[(q.first+q.n)%len(q.done)] = r
		q.n++
	}
}

// Next gives the next answered request, nil if there is none now. An error is
// something that a device must not do.
func (q *Queue) Next() (*Request, error) {
	if q.n == 0 {
		if err := q.reap(); err != nil {
			return nil, err
		}
		if q.n == 0 {
			return nil, nil
		}
	}
	r := q.done[q.first]
	q.done[q.first] = nil
	q.first = (q.first + 1) % len(q.done)
	q.n--
	return r, nil
}

// spinLooks is a mask: so many looks, some 300 us, come between two of the longer kind.
const spinLooks = 1<<16 - 1

// Wait waits for the next answered request, at most d (0: Options.Timeout).
func (q *Queue) Wait(d time.Duration) (*Request, error) {
	if d == 0 {
		d = q.c.o.Timeout
	}
	var end time.Time
	for spins := 0; ; spins++ {
		r, err := q.Next()
		if r != nil || err != nil {
			return r, err
		}
		if q.Spin {
			if spins&spinLooks != spinLooks {
				continue
			}
			// Who spins leaves the processor now and then: there may be one. Seldom:
			// from a locked thread that is a sleep and a wake-up of two threads.
			runtime.Gosched()
		}
		now := time.Now()
		switch {
		case end.IsZero():
			end = now.Add(d)
		case now.After(end):
			return nil, fmt.Errorf("queue %d: %w in %v", q.index, ErrTimeout, d)
		}
		if q.Spin {
			continue
		}
		if !q.ring.EnableCall() {
			q.Calls += q.call.wait(end.Sub(now))
		}
		q.ring.DisableCall()
	}
}

// Do submits r and waits for its answer. Answers of others that come meanwhile are kept
// for Next.
func (q *Queue) Do(r *Request) error {
	if err := q.Submit(r); err != nil {
		return err
	}
	q.Kick()
	return q.Await(r, 0)
}

// Await waits until r is answered, at most d (0: Options.Timeout), and takes it from
// what Next will give.
func (q *Queue) Await(r *Request, d time.Duration) error {
	if d == 0 {
		d = q.c.o.Timeout
	}
	end := time.Now().Add(d)
	for {
		for i := range q.n {
			if q.done[(q.first+i)%len(q.done)] == r {
				q.drop(i)
				return nil
			}
		}
		n := q.n
		if err := q.reap(); err != nil {
			return err
		}
		if q.n != n {
			continue
		}
		now := time.Now()
		if now.After(end) {
			return fmt.Errorf("queue %d, CDB % x: %w in %v", q.index, r.CDB[:16], ErrTimeout, d)
		}
		if q.Spin {
			runtime.Gosched()
			continue
		}
		if !q.ring.EnableCall() {
			q.Calls += q.call.wait(end.Sub(now))
		}
		q.ring.DisableCall()
	}
}

// drop removes the answer at place i of those that wait for Next.
func (q *Queue) drop(i int) {
	size := len(q.done)
	for ; i < q.n-1; i++ {
		q.done[(q.first+i)%size] = q.done[(q.first+i+1)%size]
	}
	q.n--
	q.done[(q.first+q.n)%size] = nil
}

// Failed waits until the back end says by the ring's error eventfd that the ring has
// failed, at most d.
func (q *Queue) Failed(d time.Duration) bool { return q.err.wait(d) > 0 }

// Exec runs cdb on lun to its answer, with data copied in and out: out is what the
// device reads, in the room for what it writes, which is zero at first.
func (q *Queue) Exec(lun [8]byte, cdb, out, in []byte) (*Request, error) {
	clear(in)
	return q.ExecOver(lun, cdb, out, in)
}

// ExecOver is Exec with room that has in's contents at first.
func (q *Queue) ExecOver(lun [8]byte, cdb, out, in []byte) (*Request, error) {
	if q.exec == nil {
		a, err := q.c.Mem.Alloc(2*q.execBytes, pageBytes)
		if err != nil {
			return nil, err
		}
		q.scratch, q.exec = a, &Request{}
	}
	if len(out) > q.execBytes || len(in) > q.execBytes {
		return nil, fmt.Errorf("Exec moves %d bytes at most", q.execBytes)
	}
	r := q.exec
	r.LUN = lun
	r.Tag++
	r.SetCDB(cdb...)
	r.Out, r.In = r.Out[:0], r.In[:0]
	if len(out) > 0 {
		copy(q.c.Mem.At(q.scratch, len(out)), out)
		r.Out = append(r.Out, Buf{Addr: q.scratch, Len: uint32(len(out))})
	}
	back := q.scratch + uint64(q.execBytes)
	if len(in) > 0 {
		copy(q.c.Mem.At(back, len(in)), in)
		r.In = append(r.In, Buf{Addr: back, Len: uint32(len(in))})
	}
	if err := q.Do(r); err != nil {
		return nil, err
	}
	copy(in, q.c.Mem.At(back, max(len(in), 1)))
	return r, nil
}
