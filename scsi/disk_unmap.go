package scsi

import (
	"encoding/binary"
	"errors"

	"github.com/vtgt/vtgt/backing"
)

// UNMAP: SBC-3 §5.28.

const (
	unmapHeaderLen = 8
	unmapDescLen   = 16
)

func runUnmap(t *Task) {
	n := int(binary.BigEndian.Uint16(t.CDB[7:]))
	if n == 0 {
		t.good()
		return
	}
	if n < unmapHeaderLen {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return
	}
	p, ok := t.param(n)
	if !ok {
		return
	}
	// The list may lie in memory that the initiator goes on writing to: what is
	// checked here is a copy, and the copy is what is used.
	var h [unmapHeaderLen]byte
	copy(h[:], p)
	dataLen := int(binary.BigEndian.Uint16(h[0:])) + 2
	descs := int(binary.BigEndian.Uint16(h[2:]))
	if dataLen > n || descs > n-unmapHeaderLen {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return
	}
	count := descs / unmapDescLen // a descriptor in part is ignored
	if count > maxUnmapDescs {
		t.check(InvalidParamField(2, 7))
		return
	}
	if count == 0 {
		t.good()
		return
	}
	b := t.buf(count * unmapDescLen)
	if b == nil {
		return
	}
	copy(b, p[unmapHeaderLen:])
	end := t.unitBlocks()
	var total uint64
	for i := 0; i < count; i++ {
		lba, blocks := unmapDesc(b, i)
		if !inRange(lba, blocks, end) {
			t.check(Sense{Key: IllegalRequest, ASC: ASCLBAOutOfRange})
			return
		}
		total += blocks // at most maxUnmapDescs times 2^32
		if total > maxUnmapBlocks {
			t.check(InvalidParamField(unmapHeaderLen+i*unmapDescLen+8, 7))
			return
		}
	}
	d := &t.disk
	d.tmp, d.count, d.next = b, count, 0
	d.sync = t.unit.writeThrough() != 0
	t.unmapNext()
}

// unmapDesc decodes UNMAP block descriptor i of b.
func unmapDesc(b []byte, i int) (lba, blocks uint64) {
	b = b[i*unmapDescLen:]
	return binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:]))
}

// unmapNext starts the next descriptor that has blocks.
func (t *Task) unmapNext() {
	d := &t.disk
	bs := t.blockLen()
	for d.next < d.count {
		lba, blocks := unmapDesc(d.tmp, d.next)
		d.next++
		if blocks > 0 {
			t.deallocate(int64(lba)*bs, int64(blocks)*bs, unmapped)
			return
		}
	}
	t.settle()
}

func unmapped(t *Task) {
	// UNMAP is a request, not an order (SBC-3 §4.7.3.4): a store that can do
	// nothing about it leaves the blocks mapped with their data.
	if errors.Is(t.op.Err, backing.ErrNotSupported) || t.stored() {
		t.unmapNext()
	}
}
