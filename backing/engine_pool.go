package backing

import (
	"errors"
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
)

// work does what an Op's phase says, on a worker, and sends it home.
func (q *fileQueue) work(op *Op) {
	q.run(op)
	op.st.post()
}

// run does what an Op's phase says.
func (q *fileQueue) run(op *Op) {
	s, st := q.s, &op.st
	switch st.phase {
	case phaseJudge:
		op.Err = s.stableFailed(st.ref.d, op.Err)
	case phaseWhole:
		op.Err = s.runWhole(op)
	}
	st.phase = phaseEnd
}

// runWhole does all that is left of op by calls that may sleep.
func (s *fileStore) runWhole(op *Op) error {
	d := op.st.ref.d
	switch op.Kind {
	case Read:
		err := s.readWhole(d, op)
		op.N = op.st.pos
		return err
	case Write:
		if s.latched.Load() {
			return ErrLatched
		}
		err := s.writeWhole(d, op)
		op.N = op.st.pos
		return err
	case Discard, Zero:
		if s.latched.Load() {
			return ErrLatched
		}
		if err := s.zeroWhole(d, op); err != nil {
			return err
		}
		if s.stable(op) {
			return s.settle(d)
		}
		return nil
	case Copy:
		if s.latched.Load() {
			return ErrLatched
		}
		if err := s.copyWhole(d, op); err != nil {
			return err
		}
		if s.stable(op) {
			return s.settle(d)
		}
		return nil
	case Extents:
		return extents(d.fd, op)
	}
	return ErrNotSupported
}

// settle makes what this operation changed stable.
func (s *fileStore) settle(d *desc) error {
	s.syncs.Add(1)
	defer s.syncs.Add(-1)
	if err := s.fdatasync(d.fd); err != nil {
		return s.latch("sync", err)
	}
	return nil
}

func (s *fileStore) readWhole(d *desc, op *Op) error {
	st := &op.st
	if st.bounce != nil {
		return s.bounceWhole(d, op)
	}
	for st.pos < op.Len {
		if st.cancel.Load() {
			return ErrCanceled
		}
		n, err := retry(sys.Preadv2, d.fd, st.vector(), op.Off+st.pos, 0)
		if err != nil {
			return err
		}
		if n == 0 {
			return errShort
		}
		st.pos += int64(n)
	}
	return nil
}

func (s *fileStore) writeWhole(d *desc, op *Op) error {
	st := &op.st
	if s.stable(op) {
		s.syncs.Add(1)
		defer s.syncs.Add(-1)
	}
	if st.bounce != nil {
		return s.bounceWhole(d, op)
	}
	// With a part already written inline (never of a stable write) nothing
	// changes: that part asked for no more.
	for st.pos < op.Len {
		if st.cancel.Load() {
			return ErrCanceled
		}
		n, err := s.writePiece(d, op, st.vector(), op.Off+st.pos)
		if err != nil {
			return err
		}
		st.pos += int64(n)
	}
	return nil
}

// writePiece writes some of iov at off, stable where op asks for it.
func (s *fileStore) writePiece(d *desc, op *Op, iov []sys.Iovec, off int64) (int, error) {
	stable := s.stable(op)
	flags := 0
	if stable && !s.noDsync.Load() {
		flags = sys.RWF_DSYNC
	}
	n, err := retry(sys.Pwritev2, d.fd, iov, off, flags)
	if flags != 0 && errors.Is(err, syscall.EOPNOTSUPP) {
		s.noDsync.Store(true)
		flags = 0
		n, err = retry(sys.Pwritev2, d.fd, iov, off, 0)
	}
	switch {
	case err != nil && flags != 0:
		return 0, s.stableFailed(d, err)
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errShort // a block device that ended
	case stable && flags == 0:
		return n, s.settle(d)
	}
	return n, nil
}

// retry makes a vectored call until it is not interrupted.
func retry(call func(int, []sys.Iovec, int64, int) (int, sys.Errno), fd int, iov []sys.Iovec, off int64, flags int) (int, error) {
	for {
		n, e := call(fd, iov, off, flags)
		switch e {
		case 0:
			return n, nil
		case sys.EINTR:
			continue
		}
		return 0, e
	}
}
