package scsitest

import (
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// HoldStore wraps a store and keeps every READ and WRITE until it is let go, so
// that a test decides which tasks are in flight. Other operations pass.
type HoldStore struct {
	backing.Store

	mu   sync.Mutex
	held []*Held
	// deaf: Cancel does nothing, as with a device that hangs.
	deaf bool
}

// Held is an operation that waits to be let go.
type Held struct {
	Op   *backing.Op
	q    *holdQueue
	node loop.Node
	canc bool
}

// SetDeaf chooses whether Cancel is of no use.
func (s *HoldStore) SetDeaf(on bool) {
	s.mu.Lock()
	s.deaf = on
	s.mu.Unlock()
}

// Wait waits until n operations are held and returns them in order of arrival.
func (s *HoldStore) Wait(tb testing.TB, n int) []*Held {
	tb.Helper()
	var h []*Held
	if !tempotest.Settles(func() bool { h = s.all(); return len(h) == n }) {
		tb.Fatalf("%d operations are held, want %d", len(h), n)
	}
	return h
}

// Held gives the operations held now, in order of arrival.
func (s *HoldStore) Held() []*Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Held(nil), s.held...)
}

// Some waits until any operations are held and returns them in order of arrival.
func (s *HoldStore) Some(tb testing.TB) []*Held {
	tb.Helper()
	var h []*Held
	if !tempotest.Settles(func() bool { h = s.all(); return len(h) > 0 }) {
		tb.Fatal("no operation is held")
	}
	return h
}

func (s *HoldStore) all() []*Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Held(nil), s.held...)
}

// Stay checks that n operations are held and that it stays so for a while.
func (s *HoldStore) Stay(tb testing.TB, n int) []*Held {
	tb.Helper()
	s.Wait(tb, n)
	time.Sleep(20 * time.Millisecond)
	return s.Wait(tb, n)
}

// Go lets the operation go on.
func (h *Held) Go() {
	if h.q.s.take(h) {
		h.q.l.Post(&h.node)
	}
}

func (s *HoldStore) take(h *Held) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.held {
		if o == h {
			s.held = append(s.held[:i], s.held[i+1:]...)
			return true
		}
	}
	return false
}

// Queue is a queue that holds.
func (s *HoldStore) Queue(l *loop.Loop) (backing.Queue, error) {
	q, err := s.Store.Queue(l)
	if err != nil {
		return nil, err
	}
	return &holdQueue{s: s, q: q, l: l, live: make(map[*backing.Op]*Held)}, nil
}

// holdQueue belongs to its loop.
type holdQueue struct {
	s      *HoldStore
	q      backing.Queue
	l      *loop.Loop
	live   map[*backing.Op]*Held
	closed func()
}

func (q *holdQueue) Submit(op *backing.Op) bool {
	if op.Kind != backing.Read && op.Kind != backing.Write {
		return q.q.Submit(op)
	}
	h := &Held{Op: op, q: q}
	h.node.Init(h)
	q.live[op] = h
	q.s.mu.Lock()
	q.s.held = append(q.s.held, h)
	q.s.mu.Unlock()
	return false
}

// Handle runs the operation. It asks for a store that answers inline.
func (h *Held) Handle(*loop.Node) {
	q, op := h.q, h.Op
	delete(q.live, op)
	if h.canc {
		op.N, op.Err = 0, backing.ErrCanceled
	} else if !q.q.Submit(op) {
		panic("scsitest: HoldStore needs a store that answers inline")
	}
	op.Owner.OpDone(op)
	if q.closed != nil && len(q.live) == 0 {
		q.q.Close(q.closed)
		q.closed = nil
	}
}

func (q *holdQueue) Kick() {}

func (q *holdQueue) Cancel(op *backing.Op) {
	q.s.mu.Lock()
	deaf := q.s.deaf
	q.s.mu.Unlock()
	if h := q.live[op]; h != nil && !deaf && q.s.take(h) {
		h.canc = true
		q.l.Post(&h.node)
	}
}

func (q *holdQueue) Close(done func()) {
	if len(q.live) == 0 {
		q.q.Close(done)
		return
	}
	q.closed = done
}
