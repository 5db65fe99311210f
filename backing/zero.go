package backing

import (
	"errors"
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
)

// zeros is what a write of zeros writes; never written to.
var zeros = make([]byte, 64<<10)

// zeroWhole does a Discard or a Zero by the best call that the file has. It
// sleeps.
func (s *fileStore) zeroWhole(d *desc, op *Op) error {
	if op.Kind == Discard && !s.p.Load().DiscardZeroes {
		return s.discardDevice(d, op)
	}
	off, end := op.Off, op.Off+op.Len
	if s.block {
		// A device takes whole blocks; exclusive has done ragged edges.
		a, b := roundUp(off, int64(s.lbs)), roundDown(end, int64(s.lbs))
		if a >= b {
			return s.writeZeros(d, op, off, end)
		}
		if err := s.writeZeros(d, op, off, a); err != nil {
			return err
		}
		if err := s.writeZeros(d, op, b, end); err != nil {
			return err
		}
		off, end = a, b
	}
	if op.Kind == Discard || op.Flags&NoUnmap == 0 {
		ok, err := tryFalloc(d.fd, sys.FALLOC_FL_PUNCH_HOLE|sys.FALLOC_FL_KEEP_SIZE, off, end-off, &s.noPunch)
		if ok || err != nil {
			return err
		}
	}
	ok, err := tryFalloc(d.fd, sys.FALLOC_FL_ZERO_RANGE|sys.FALLOC_FL_KEEP_SIZE, off, end-off, &s.noZeroRange)
	if ok || err != nil {
		return err
	}
	return s.writeZeros(d, op, off, end)
}

// flag is what a refusal is remembered in.
type flag interface {
	Load() bool
	Store(bool)
}

// tryFalloc reports whether the call was there.
func tryFalloc(fd int, mode uint32, off, n int64, no flag) (bool, error) {
	if no.Load() {
		return false, nil
	}
	err := sys.Fallocate(fd, mode, off, n)
	switch {
	case err == nil:
		return true, nil
	case sys.IsNotSupported(err):
		no.Store(true)
		return false, nil
	}
	return false, err
}

// discardDevice passes the whole granules of the range on to a device that does
// not promise zeros. It is advice: one that has lost the ability is not an error.
func (s *fileStore) discardDevice(d *desc, op *Op) error {
	g := int64(s.p.Load().DiscardGranularity)
	a := (op.Off + g - 1) / g * g
	b := (op.Off + op.Len) / g * g
	if a >= b || s.noDiscard.Load() {
		return nil
	}
	err := sys.BlockDiscard(d.fd, a, b-a)
	if err != nil && sys.IsNotSupported(err) {
		s.noDiscard.Store(true)
		return nil
	}
	return err
}

// writeZeros writes zeros over [off, end).
func (s *fileStore) writeZeros(d *desc, op *Op, off, end int64) error {
	if off >= end {
		return nil
	}
	var iov [64]sys.Iovec
	for off < end {
		if op.st.cancel.Load() {
			return ErrCanceled
		}
		v := iov[:0]
		for n := end - off; n > 0 && len(v) < len(iov); {
			c := min(n, int64(len(zeros)))
			v = sys.AppendIovecs(v, [][]byte{zeros[:c]})
			n -= c
		}
		n, err := retry(sys.Pwritev2, d.fd, v, off, 0)
		if err != nil {
			return err
		}
		if n == 0 {
			return errShort
		}
		off += int64(n)
	}
	return nil
}

// extents reports data and holes from op.Off on.
func extents(fd int, op *Op) error {
	off, end := op.Off, op.Off+op.Len
	for int(op.N) < len(op.Ext) && off < end {
		next, err := sys.SeekData(fd, off)
		switch {
		case errors.Is(err, syscall.ENXIO):
			next = end
		case errors.Is(err, syscall.EINVAL):
			return ErrNotSupported
		case err != nil:
			return err
		}
		e := Extent{Off: off}
		if next > off {
			next = min(next, end)
		} else {
			e.Allocated = true
			next, err = sys.SeekHole(fd, off)
			if errors.Is(err, syscall.ENXIO) {
				next = end // truncated meanwhile
			} else if err != nil {
				return err
			}
			next = min(next, end)
			if next <= off { // punched meanwhile: look again
				continue
			}
		}
		e.Len = next - off
		op.Ext[op.N] = e
		op.N++
		off = next
	}
	return nil
}
