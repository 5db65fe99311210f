package backing

import (
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
)

// nullStore discards writes and reads zeros. It measures what everything above
// a store costs.
type nullStore struct {
	infoBox
	closed atomic.Bool
}

func openNull(spec, rest string, o Options) (Store, error) {
	if err := needSize(spec, rest, o); err != nil {
		return nil, err
	}
	s := &nullStore{}
	s.p.Store(&Info{Size: o.Size, BlockAlign: 1, DiscardGranularity: 1, DiscardZeroes: true, ReadOnly: o.ReadOnly, Extents: true, Cached: true})
	return s, nil
}

func (s *nullStore) Queue(*loop.Loop) (Queue, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	return &nullQueue{s: s}, nil
}

func (s *nullStore) Resize(size int64) error {
	if size <= 0 || size%512 != 0 {
		return ErrRange
	}
	s.change(func(i *Info) bool { i.Size = size; return true })
	return nil
}

func (s *nullStore) Reopen() error { return nil }

func (s *nullStore) Close() error { s.closed.Store(true); return nil }

type nullQueue struct {
	s      *nullStore
	closed bool
}

func (q *nullQueue) Submit(op *Op) bool {
	op.N = 0
	if q.closed {
		op.Err = ErrClosed
		return true
	}
	if op.Err = op.check(q.s.Info()); op.Err != nil {
		return true
	}
	switch op.Kind {
	case Read:
		if op.Err = gmem.Try(stepClear, op.Bufs); op.Err == nil {
			op.N = op.Len
		}
	case Write:
		op.N = op.Len
	case Sync, Discard, Zero:
	case Extents:
		if op.Len > 0 && len(op.Ext) > 0 {
			op.Ext[0] = Extent{Off: op.Off, Len: op.Len}
			op.N = 1
		}
	default:
		op.Err = ErrNotSupported
	}
	return true
}

func (q *nullQueue) Kick()      {}
func (q *nullQueue) Cancel(*Op) {}

func (q *nullQueue) Close(done func()) {
	q.closed = true
	done()
}
