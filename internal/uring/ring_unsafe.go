package uring

import (
	"sync/atomic"
	"unsafe"

	"github.com/vtgt/vtgt/internal/sys"
)

// sqe is struct io_uring_sqe.
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64
	addr     uint64
	len      uint32
	opFlags  uint32
	userData uint64
	_        [24]byte
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// maps are the rings in memory shared with the kernel. The kernel is trusted:
// indices that it writes are taken as they are, masked.
type maps struct {
	ringMem, sqeMem         []byte
	sqHead, sqTail, sqFlags *uint32
	cqHead, cqTail          *uint32
	sqMask, cqMask          uint32
	sqEntries, cqEntries    uint32
	sqes                    []sqe
	cqes                    []cqe
}

func (m *maps) open(fd int, p *sys.UringParams) error {
	n := max(p.SQOff.Array+p.SQEntries*4, p.CQOff.CQEs+p.CQEntries*uint32(unsafe.Sizeof(cqe{})))
	var err error
	if m.ringMem, err = sys.MapShared(fd, sys.UringOffSQRing, int(n)); err != nil {
		return err
	}
	if m.sqeMem, err = sys.MapShared(fd, sys.UringOffSQEs, int(p.SQEntries)*int(unsafe.Sizeof(sqe{}))); err != nil {
		m.close()
		return err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&m.ringMem[off])) }
	m.sqHead, m.sqTail, m.sqFlags = word(p.SQOff.Head), word(p.SQOff.Tail), word(p.SQOff.Flags)
	m.cqHead, m.cqTail = word(p.CQOff.Head), word(p.CQOff.Tail)
	m.sqEntries, m.cqEntries = p.SQEntries, p.CQEntries
	m.sqMask, m.cqMask = p.SQEntries-1, p.CQEntries-1
	m.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&m.sqeMem[0])), p.SQEntries)
	m.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&m.ringMem[p.CQOff.CQEs])), p.CQEntries)
	// The array maps positions to entries; the identity serves.
	for i, a := uint32(0), unsafe.Slice(word(p.SQOff.Array), p.SQEntries); i < p.SQEntries; i++ {
		a[i] = i
	}
	return nil
}

func (m *maps) close() {
	for _, b := range [][]byte{m.ringMem, m.sqeMem} {
		if b != nil {
			_ = sys.Unmap(b)
		}
	}
	*m = maps{}
}

func load(p *uint32) uint32     { return atomic.LoadUint32(p) }
func store(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

// setIov points the entry at the request's vector.
func (e *sqe) setIov(iov []sys.Iovec) {
	if len(iov) == 0 {
		return
	}
	e.addr = uint64(uintptr(unsafe.Pointer(&iov[0])))
	e.len = uint32(len(iov))
}
