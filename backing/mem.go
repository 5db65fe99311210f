package backing

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/prefetch"
	"github.com/vtgt/vtgt/internal/sys"
)

const (
	// memPiece bounds how long one copy keeps a loop: 256 KiB take about 30 us.
	memPiece = 256 << 10
	// memPage is the unit of allocation and of extents.
	memPage = 4096
)

// memStore keeps a disk in private anonymous memory. The address space for
// growth is reserved at open, so that Resize never moves what other loops copy.
type memStore struct {
	infoBox
	mem []byte // the whole reservation; access up to the largest size so far
	// alloc has one bit for each page that may hold data. See touch.
	alloc []atomic.Uint64

	mu     sync.Mutex // resize and the life of queues
	access int64
	queues int
	idle   *sync.Cond
	closed bool
}

func openMem(spec, rest string, o Options) (Store, error) {
	if err := needSize(spec, rest, o); err != nil {
		return nil, err
	}
	// Room to grow costs only address space.
	reserve := max(roundUp(o.Size, memPage)*4, 1<<30)
	if reserve < o.Size || int64(int(reserve)) != reserve {
		reserve = roundUp(o.Size, memPage)
	}
	mem, err := sys.MapReserve(int(reserve))
	if err != nil {
		return nil, &OpenError{Spec: spec, Problem: fmt.Sprintf("no address space for %d bytes: %v", o.Size, err), Hint: "choose a smaller size", Err: err}
	}
	s := &memStore{mem: mem, alloc: make([]atomic.Uint64, (reserve/memPage+63)/64)}
	s.idle = sync.NewCond(&s.mu)
	if err := s.allow(o.Size); err != nil {
		_ = sys.MapRelease(mem)
		return nil, &OpenError{Spec: spec, Problem: fmt.Sprintf("no memory for %d bytes: %v", o.Size, err), Hint: "choose a smaller size", Err: err}
	}
	s.p.Store(&Info{Size: o.Size, BlockAlign: 1, PhysicalBlock: memPage, DiscardGranularity: memPage,
		DiscardZeroes: true, ReadOnly: o.ReadOnly, Extents: true, Cached: true,
		AtomicMax: intentMax}) // a crash leaves nothing at all
	return s, nil
}

func roundUp(n, to int64) int64   { return (n + to - 1) &^ (to - 1) }
func roundDown(n, to int64) int64 { return n &^ (to - 1) }

// allow makes the first size bytes accessible.
func (s *memStore) allow(size int64) error {
	end := roundUp(size, memPage)
	if end <= s.access {
		return nil
	}
	if end > int64(len(s.mem)) {
		return fmt.Errorf("%w: a mem: store grows to %d bytes at most", ErrNotSupported, len(s.mem))
	}
	if err := sys.MapAllow(s.mem[s.access:end]); err != nil {
		return err
	}
	s.access = end
	return nil
}

func (s *memStore) Resize(size int64) error {
	if size <= 0 || size%512 != 0 {
		return fmt.Errorf("%w: size %d is not a positive multiple of 512", ErrRange, size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	old := s.Info().Size
	if err := s.allow(size); err != nil {
		return err
	}
	s.change(func(i *Info) bool { i.Size = size; return true })
	if size < old {
		// What is cut off must read zero when the store grows again. Access
		// stays: a copy that began before may still be there.
		s.zero(size, old-size, true)
	}
	return nil
}

func (s *memStore) Reopen() error { return nil }

// Close gives the memory back.
func (s *memStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for s.queues > 0 {
		s.idle.Wait()
	}
	mem := s.mem
	s.mem = nil
	return os.NewSyscallError("munmap", sys.MapRelease(mem))
}

// touch marks the pages of [off, off+n) as holding data. It is called before a
// copy and again after it, and a Discard clears the bits before it drops the
// pages: so a set bit may stand for a page of zeros, but a clear one never for data.
func (s *memStore) touch(off, n int64) {
	for p := off / memPage; p <= (off+n-1)/memPage; p++ {
		w, bit := &s.alloc[p/64], uint64(1)<<(p%64)
		if w.Load()&bit == 0 {
			w.Or(bit)
		}
	}
}

// zero makes [off, off+n) read zero, whole pages by giving them back.
func (s *memStore) zero(off, n int64, unmap bool) {
	end := off + n
	first, last := roundUp(off, memPage), roundDown(end, memPage)
	if !unmap || first >= last {
		if s.allocated(off, end) {
			clear(s.mem[off:end])
		}
		if !unmap {
			s.touch(off, n)
		}
		return
	}
	if s.allocated(off, first) {
		clear(s.mem[off:first])
	}
	if s.allocated(last, end) {
		clear(s.mem[last:end])
	}
	for p := first / memPage; p < last/memPage; p++ {
		if p%64 == 0 && p+64 <= last/memPage {
			s.alloc[p/64].Store(0)
			p += 63
			continue
		}
		s.alloc[p/64].And(^(uint64(1) << (p % 64)))
	}
	if err := sys.MapDrop(s.mem[first:last]); err != nil {
		clear(s.mem[first:last])
	}
}

// allocated reports whether any page of [off, end) may hold data: clearing a
// page that was never written would allocate it.
func (s *memStore) allocated(off, end int64) bool {
	for p := off / memPage; p*memPage < end; p++ {
		if s.alloc[p/64].Load()&(1<<(p%64)) != 0 {
			return true
		}
	}
	return false
}

// run is the length of the extent at off, at most to end.
func (s *memStore) run(off, end int64) Extent {
	at := func(p int64) bool { return s.alloc[p/64].Load()&(1<<(p%64)) != 0 }
	p := off / memPage
	e := Extent{Off: off, Allocated: at(p)}
	var same uint64
	if e.Allocated {
		same = ^uint64(0)
	}
	for p++; p*memPage < end; {
		if p%64 == 0 && s.alloc[p/64].Load() == same {
			p += 64
			continue
		}
		if at(p) != e.Allocated {
			break
		}
		p++
	}
	e.Len = min(p*memPage, end) - off
	return e
}

func (s *memStore) Queue(l *loop.Loop) (Queue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.queues++
	return &memQueue{s: s, l: l}, nil
}

// memQueue copies on the loop, in pieces: the first inside Submit, the others in
// later rounds so that nobody else starves.
type memQueue struct {
	s        *memStore
	l        *loop.Loop
	inflight int
	closed   bool
	done     func()
}

func (q *memQueue) Submit(op *Op) bool {
	op.N, op.Err = 0, nil
	if q.closed {
		op.Err = ErrClosed
		return true
	}
	if op.Err = op.check(q.s.Info()); op.Err != nil || op.Len == 0 {
		return true
	}
	switch op.Kind {
	case Read, Write, Discard, Zero:
		st := op.begin(q)
		if q.piece(op) {
			return true
		}
		q.inflight++
		q.l.Post(&st.node)
		return false
	case Sync:
	case Extents:
		q.s.extents(op)
	default:
		op.Err = ErrNotSupported
	}
	return true
}

// Near is Nearer's.
func (q *memQueue) Near(off, n int64) prefetch.Span {
	size := q.s.Info().Size
	if q.closed || off < 0 || n < 0 || off > size || n > size-off {
		return prefetch.Span{}
	}
	return prefetch.Of(q.s.mem[off : off+n])
}

// piece does the next piece and reports the end.
func (q *memQueue) piece(op *Op) bool {
	st, s := &op.st, q.s
	off, n := op.Off+st.pos, op.Len-st.pos
	switch op.Kind {
	case Read:
		n = min(n, memPiece)
		if op.Err = copyIn(op.Bufs, st.pos, s.mem[off:off+n]); op.Err != nil {
			return true
		}
		op.N += n
	case Write:
		n = min(n, memPiece)
		s.touch(off, n)
		op.Err = copyOut(s.mem[off:off+n], op.Bufs, st.pos)
		s.touch(off, n)
		if op.Err != nil {
			return true
		}
		op.N += n
	case Zero, Discard:
		unmap := op.Kind == Discard || op.Flags&NoUnmap == 0
		if unmap {
			// Giving pages back costs about 0.1 us each, far less than a copy.
			n = min(n, 16*memPiece)
		} else {
			n = min(n, memPiece)
		}
		s.zero(off, n, unmap)
	}
	st.pos += n
	return st.pos == op.Len
}

func (s *memStore) extents(op *Op) {
	off, end := op.Off, op.Off+op.Len
	for int(op.N) < len(op.Ext) && off < end {
		e := s.run(off, end)
		op.Ext[op.N] = e
		op.N++
		off += e.Len
	}
}

func (q *memQueue) ended(op *Op) {
	switch {
	case op.st.cancel.Load():
		op.Err = ErrCanceled
	case !q.piece(op):
		q.l.Post(&op.st.node)
		return
	}
	q.inflight--
	op.Owner.OpDone(op)
	q.closing()
}

func (q *memQueue) work(*Op)   {}
func (q *memQueue) reaped(*Op) {}
func (q *memQueue) Kick()      {}

func (q *memQueue) Cancel(op *Op) { op.st.cancel.Store(true) }

func (q *memQueue) Close(done func()) {
	if q.closed {
		return
	}
	q.closed, q.done = true, done
	q.closing()
}

func (q *memQueue) closing() {
	if !q.closed || q.inflight > 0 || q.done == nil {
		return
	}
	done := q.done
	q.done = nil
	s := q.s
	s.mu.Lock()
	s.queues--
	s.idle.Broadcast()
	s.mu.Unlock()
	done()
}
