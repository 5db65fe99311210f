package backing

import (
	"errors"
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
)

// A Copy from one file to another of the same file system: by sharing blocks where the
// file system can (FICLONERANGE: xfs, btrfs), which moves no data, else inside the
// kernel (copy_file_range), holes as holes.

// copyChunk is how much is copied between two looks at cancel: some 2 ms.
const copyChunk = 4 << 20

// copySource is a store whose bytes are those of a file, one to one.
type copySource interface{ copyFile() *fileStore }

func (s *fileStore) copyFile() *fileStore { return s }

func (s *intentStore) copyFile() *fileStore {
	if c, ok := s.data.(copySource); ok {
		return c.copyFile()
	}
	return nil
}

// copyWhole does a Copy. It sleeps.
func (s *fileStore) copyWhole(d *desc, op *Op) error {
	c, ok := op.Src.(copySource)
	if !ok || op.Flags&NoUnmap != 0 {
		// Shared blocks and holes would not be the store's own.
		return ErrNotSupported
	}
	src := c.copyFile()
	if src == nil || s.block || src.block {
		return ErrNotSupported
	}
	if i := src.Info(); op.SrcOff < 0 || op.SrcOff > i.Size || op.Len > i.Size-op.SrcOff {
		return ErrRange
	}
	sd, err := src.open()
	if err != nil {
		return err
	}
	defer sd.release(false)
	if sd.st.Dev != d.st.Dev {
		return ErrNotSupported
	}
	if sd.st.Ino == d.st.Ino && op.Off < op.SrcOff+op.Len && op.SrcOff < op.Off+op.Len {
		return ErrNotSupported
	}
	whole := int64(0) // what can be shared
	if bs := int64(d.st.BlockSize); bs > 0 && bs&(bs-1) == 0 && (op.Off|op.SrcOff)&(bs-1) == 0 {
		whole = roundDown(op.Len, bs)
	}
	direct := s.direct || src.direct
	if direct && whole != op.Len {
		return ErrNotSupported // the page cache is not to be filled
	}
	st := &op.st
	if whole > 0 && !s.noClone.Load() {
		switch err := sys.CloneRange(d.fd, op.Off, sd.fd, op.SrcOff, whole); {
		case err == nil:
			st.pos = whole
		case sys.IsNotSupported(err):
			s.noClone.Store(true)
		case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EXDEV):
			// Not these two ranges.
		default:
			return err
		}
	}
	if direct && st.pos != op.Len {
		return ErrNotSupported
	}
	for st.pos < op.Len {
		if st.cancel.Load() {
			return ErrCanceled
		}
		n, err := s.copyPiece(d, op, sd)
		if err != nil {
			return err
		}
		st.pos += n
	}
	op.N = op.Len
	return nil
}

// copyPiece copies some of what is left.
func (s *fileStore) copyPiece(d *desc, op *Op, sd *desc) (int64, error) {
	off, from, left := op.Off+op.st.pos, op.SrcOff+op.st.pos, op.Len-op.st.pos
	data, err := sys.SeekData(sd.fd, from)
	switch {
	case errors.Is(err, syscall.ENXIO): // a hole to the end
		data = from + left
	case errors.Is(err, syscall.EINVAL):
		data = from // cannot tell
	case err != nil:
		return 0, err
	}
	if data > from {
		n := min(data-from, left)
		z := Op{Kind: Zero, Off: off, Len: n}
		return n, s.zeroWhole(d, &z)
	}
	n := min(left, copyChunk)
	if hole, err := sys.SeekHole(sd.fd, from); err == nil && hole > from {
		n = min(n, hole-from)
	}
	m, err := sys.CopyRange(d.fd, off, sd.fd, from, int(n))
	switch {
	case err == nil && m == 0:
		return 0, errShort // cut meanwhile
	case err == nil:
		return int64(m), nil
	case sys.IsNotSupported(err), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.EXDEV), errors.Is(err, syscall.ETXTBSY):
		return 0, ErrNotSupported
	}
	return 0, err
}

// open is acquire for those who do not have a queue: the store may be closed.
func (s *fileStore) open() (*desc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.d.refs.Add(1)
	return s.d, nil
}
