package scsi

import "encoding/binary"

// READ CAPACITY(10) and (16): SBC-3 §5.15, §5.16.

const (
	capacity10Len = 8
	capacity16Len = 32
)

func runReadCapacity10(t *Task) {
	b := t.scratch(capacity10Len)
	binary.BigEndian.PutUint32(b, uint32(min(t.lastLBA(), 0xffffffff)))
	binary.BigEndian.PutUint32(b[4:], uint32(t.unit.blockSize))
	t.reply(b, capacity10Len)
}

func runReadCapacity16(t *Task) {
	b := t.scratch(capacity16Len)
	c := &t.unit.conf
	capacity16(b, t.lastLBA(), c.BlockSize, physicalBlock(c, t.unit.info()), c.Thin)
	t.reply(b, lenBytesAx4(t))
}

// lastLBA is the LBA of the last block; 0 for a medium without any, which has no
// better way to be told.
func (t *Task) lastLBA() uint64 { return max(t.unitBlocks(), 1) - 1 }

// capacity16 fills b with READ CAPACITY(16) parameter data.
func capacity16(b []byte, last uint64, block, physical int, thin bool) {
	clear(b)
	binary.BigEndian.PutUint64(b, last)
	binary.BigEndian.PutUint32(b[8:], uint32(block))
	for p := block; p < physical && b[13] < 15; p *= 2 {
		b[13]++ // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT
	}
	if thin {
		b[14] = 0x80 | 0x40 // LBPME, LBPRZ
	}
}
