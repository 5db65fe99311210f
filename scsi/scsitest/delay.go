package scsitest

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

// DelayStore wraps a store: it lets operations wait, overtake each other, and
// moves the data of READs and WRITEs in two parts with a pause between them, so
// that operations which must exclude each other and do not are found out.
type DelayStore struct {
	backing.Store
	// Max is the longest pause. Some operations get none and end inline.
	Max time.Duration
	// Started, when set, hears of every operation when it starts, on its loop.
	Started func(op *backing.Op)

	canceled atomic.Int64
	ops      atomic.Int64
}

// Canceled is the number of operations that Cancel ended early.
func (s *DelayStore) Canceled() int64 { return s.canceled.Load() }

// Queue is a queue of the wrapped store with delays.
func (s *DelayStore) Queue(l *loop.Loop) (backing.Queue, error) {
	q, err := s.Store.Queue(l)
	if err != nil {
		return nil, err
	}
	d := &delayQueue{s: s, q: q, l: l, rand: rand.New(rand.NewPCG(1, uint64(s.ops.Add(1)))), live: make(map[*backing.Op]*delayed)}
	return d, nil
}

// delayQueue belongs to its loop.
type delayQueue struct {
	s      *DelayStore
	q      backing.Queue
	l      *loop.Loop
	rand   *rand.Rand
	live   map[*backing.Op]*delayed
	free   []*delayed
	closed func()
}

// delayed is an operation on its way.
type delayed struct {
	q     *delayQueue
	op    *backing.Op
	timer loop.Timer
	part  backing.Op // what the inner queue sees
	half  int64      // 0: the operation is not split
	stage int        // 0: waits to start; 1, 2: the first, second part
	bufs  [][]byte
}

func (q *delayQueue) pause() time.Duration {
	return time.Duration(q.rand.Int64N(int64(q.s.Max) + 1))
}

func (q *delayQueue) Submit(op *backing.Op) bool {
	op.N, op.Err = 0, nil
	if q.closed != nil {
		op.Err = backing.ErrClosed
		return true
	}
	var d *delayed
	if n := len(q.free); n > 0 {
		d, q.free = q.free[n-1], q.free[:n-1]
	} else {
		d = &delayed{q: q}
		d.timer.Init(d)
		d.part.Owner = d
	}
	d.op, d.stage, d.half = op, 0, 0
	if (op.Kind == backing.Read || op.Kind == backing.Write) && op.Len >= 512 {
		d.half = op.Len / 512 / 2 * 512
		if d.half == 0 {
			d.half = 256
		}
		if a := int64(q.s.Info().BlockAlign); d.half%a != 0 || op.Len%a != 0 {
			d.half = 0
		}
	}
	q.live[op] = d
	if q.rand.IntN(4) == 0 {
		return d.run()
	}
	q.l.After(&d.timer, q.pause())
	return false
}

// Expired starts the next part.
func (d *delayed) Expired(*loop.Timer) {
	op := d.op
	if d.run() {
		op.Owner.OpDone(op)
	}
}

// run starts the next part; true: the operation has ended.
func (d *delayed) run() bool {
	q, op := d.q, d.op
	if d.stage == 0 && q.s.Started != nil {
		q.s.Started(op)
	}
	d.stage++
	p := &d.part
	p.Kind, p.Flags, p.Off, p.Len, p.Bufs, p.Ext = op.Kind, op.Flags, op.Off, op.Len, op.Bufs, op.Ext
	p.Src, p.SrcOff = op.Src, op.SrcOff
	if d.half != 0 {
		from, n := int64(0), d.half
		if d.stage == 2 {
			from, n = d.half, op.Len-d.half
		}
		d.bufs = cut(d.bufs[:0], op.Bufs, from, n)
		p.Off, p.Len, p.Bufs = op.Off+from, n, d.bufs
	}
	if !q.q.Submit(p) {
		q.q.Kick()
		return false
	}
	return d.ended()
}

// OpDone is the end of a part that did not end at once.
func (d *delayed) OpDone(*backing.Op) {
	op := d.op
	if d.ended() {
		op.Owner.OpDone(op)
	}
}

// ended takes in the end of a part; true: the operation has ended.
func (d *delayed) ended() bool {
	q, op, p := d.q, d.op, &d.part
	op.N += p.N
	op.Err = p.Err
	if p.Err == nil && d.half != 0 && d.stage == 1 {
		q.l.After(&d.timer, q.pause()/4)
		return false
	}
	q.done(d)
	return true
}

func (q *delayQueue) done(d *delayed) {
	delete(q.live, d.op)
	d.op = nil
	q.free = append(q.free, d)
	if q.closed != nil && len(q.live) == 0 {
		q.q.Close(q.closed)
	}
}

func (q *delayQueue) Kick() { q.q.Kick() }

// Cancel ends what has not started. What has goes on to its end: half a block
// must not be left behind.
func (q *delayQueue) Cancel(op *backing.Op) {
	d := q.live[op]
	if d == nil || d.stage != 0 || q.rand.IntN(8) == 0 {
		return
	}
	q.l.Stop(&d.timer)
	q.s.canceled.Add(1)
	op.Err = backing.ErrCanceled
	q.done(d)
	op.Owner.OpDone(op)
}

func (q *delayQueue) Close(done func()) {
	q.closed = done
	if len(q.live) == 0 {
		q.q.Close(done)
	}
}

// cut appends the part [from, from+n) of v to dst.
func cut(dst, v [][]byte, from, n int64) [][]byte {
	for _, b := range v {
		l := int64(len(b))
		if from >= l {
			from -= l
			continue
		}
		if n == 0 {
			break
		}
		b = b[from:]
		from = 0
		b = b[:min(int64(len(b)), n)]
		n -= int64(len(b))
		dst = append(dst, b)
	}
	return dst
}
