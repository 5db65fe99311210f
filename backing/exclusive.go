package backing

import (
	"sync"
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

// exclusive serializes the operations of a direct store that must read a block
// to write a part of it. While one runs no other operation may change the store:
// its neighbours' data would be written back as they were.
//
// Everybody else pays one atomic add and one load: a queue raises its count of
// writes, then looks at the gate; exclusive raises the gate, then looks at the
// counts. (Go's atomics are sequentially consistent.) Who finds the gate up
// joins the list, so that order of arrival is kept and nobody starves.
type exclusive struct {
	s    *fileStore
	gate atomic.Int32 // operations in the list or running
	job  loop.Job
	ops  atomic.Uint64 // operations that took this way

	mu   sync.Mutex
	list opList
	busy bool
	buf  []byte // mmap'd, aligned; the worker's
}

const exclBuf = 256 << 10

// add queues op.
func (x *exclusive) add(op *Op) {
	op.st.where = whereExcl
	x.ops.Add(1)
	x.mu.Lock()
	x.list.push(op)
	x.gate.Add(1)
	x.mu.Unlock()
	x.poke()
}

// poke starts the worker if there is something to do and nobody writes.
func (x *exclusive) poke() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.busy || x.list.empty() || x.s.writing() {
		return
	}
	x.busy = true
	x.s.wg.Add(1)
	x.s.jobs.Submit(&x.job)
}

func (x *exclusive) cancel(op *Op) bool {
	x.mu.Lock()
	ok := x.list.remove(op)
	if ok {
		x.gate.Add(-1)
	}
	x.mu.Unlock()
	return ok
}

// RunJob does all that is in the list, one after the other.
func (x *exclusive) RunJob(*loop.Job) {
	defer x.s.wg.Done()
	for {
		x.mu.Lock()
		op := x.list.pop()
		if op == nil {
			x.busy = false
			x.mu.Unlock()
			return
		}
		x.mu.Unlock()
		if x.buf == nil {
			b, err := sys.MapAnonymous(exclBuf)
			if err != nil {
				op.Err = err
			}
			x.buf = b
		}
		if op.Err == nil {
			op.Err = x.s.runExclusive(op, x.buf)
		}
		x.gate.Add(-1)
		op.st.post()
	}
}

func (x *exclusive) close() {
	if x.buf != nil {
		_ = sys.Unmap(x.buf)
		x.buf = nil
	}
}
