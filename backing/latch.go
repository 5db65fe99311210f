package backing

import (
	"errors"
	"fmt"
	"syscall"

	"sync"

	"github.com/vtgt/vtgt/internal/loop"
)

// syncer joins the Syncs of one store: one runs, all that come meanwhile wait
// together for the next one.
type syncer struct {
	s   *fileStore
	job loop.Job

	mu      sync.Mutex
	active  bool
	running opList
	waiting opList
}

// submit starts or joins. The Op is posted to its loop when it has ended.
func (y *syncer) submit(op *Op) {
	op.st.where = whereSync
	y.mu.Lock()
	if y.active {
		y.waiting.push(op)
		y.mu.Unlock()
		return
	}
	y.active = true
	y.running.push(op)
	y.mu.Unlock()
	y.s.syncs.Add(1)
	y.s.wg.Add(1)
	y.s.jobs.Submit(&y.job)
}

// cancel takes op out if it only waits.
func (y *syncer) cancel(op *Op) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.waiting.remove(op)
}

// RunJob syncs until nobody waits.
func (y *syncer) RunJob(*loop.Job) {
	s := y.s
	defer s.wg.Done()
	for {
		err := s.syncNow()
		y.mu.Lock()
		ended := y.running
		y.running, y.waiting = y.waiting, opList{}
		more := !y.running.empty()
		if !more {
			// Before the Ops end: who hears of a Sync's end may count on
			// inline writes again.
			y.active = false
			s.syncs.Add(-1)
		}
		y.mu.Unlock()
		for op := ended.pop(); op != nil; op = ended.pop() {
			op.Err = err
			op.st.post()
		}
		if !more {
			return
		}
	}
}

// syncNow makes everything written so far stable, or latches. It sleeps.
func (s *fileStore) syncNow() error {
	if s.latched.Load() {
		return ErrLatched
	}
	d := s.acquire()
	err := s.fdatasync(d.fd)
	if err != nil {
		err = s.latch("sync", err)
	}
	d.release(false)
	return err
}

// latch refuses all further writes and syncs and gives the error of the
// operation that failed.
func (s *fileStore) latch(what string, err error) error {
	if !s.latched.Swap(true) {
		s.log.Error("data may be lost: the store refuses writes until it is re-opened",
			"store", s.spec, "failed", what, "error", err)
		s.tellLatch()
	}
	return fmt.Errorf("%s of %s: %w", what, s.spec, err)
}

// tellLatch has Info say what is so.
func (s *fileStore) tellLatch() {
	s.change(func(i *Info) bool {
		is := s.latched.Load()
		changed := i.Latched != is
		i.Latched = is
		return changed
	})
}

// stableFailed judges the failure of a write that was to be stable. The kernel
// tells of a lost write once only, so such an error must latch, but a write that
// found no space, for one, may have failed before anything was at stake: the
// witness knows. It sleeps.
func (s *fileStore) stableFailed(d *desc, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		if d.witness >= 0 && s.fdatasync(d.witness) == nil {
			return err
		}
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EFAULT):
		return err // refused at the door
	}
	return s.latch("stable write", err)
}
