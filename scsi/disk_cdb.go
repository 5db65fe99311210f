package scsi

import "encoding/binary"

// Bits of byte 1 of the READ, WRITE and VERIFY CDBs (SBC-3 §5).
const (
	cdbDPO = 1 << 4
	cdbFUA = 1 << 3
)

// lbaRange decodes the LOGICAL BLOCK ADDRESS and the length of t's CDB in blocks.
// All commands of one CDB length keep them at the same place (SPC-4 §4.2.2); the
// short length fields of the few that have one lie at the end of that place. For
// commands whose length 0 means "to the end of the medium" that is resolved
// here; for those that carry their ranges in the parameter list the answer is
// the whole medium.
func (t *Task) lbaRange() (lba, blocks uint64) {
	c := &t.CDB
	switch c[0] >> 5 {
	case 0:
		lba = uint64(c[1]&0x1f)<<16 | uint64(c[2])<<8 | uint64(c[3])
		blocks = uint64(c[4])
		if blocks == 0 {
			blocks = 256
		}
		return lba, blocks
	case 1, 2:
		lba = uint64(binary.BigEndian.Uint32(c[2:]))
		blocks = uint64(binary.BigEndian.Uint16(c[7:]))
	case 5:
		lba = uint64(binary.BigEndian.Uint32(c[2:]))
		blocks = uint64(binary.BigEndian.Uint32(c[6:]))
	case 4:
		lba = binary.BigEndian.Uint64(c[2:])
		blocks = uint64(binary.BigEndian.Uint32(c[10:]))
	}
	switch c[0] {
	case opWriteAtomic: // ATOMIC BOUNDARY stands before it
		blocks = uint64(binary.BigEndian.Uint16(c[12:]))
	case opUnmap:
		return 0, ^uint64(0)
	case opWriteSame10, opWriteSame16, opSyncCache10, opSyncCache16, opPreFetch10, opPreFetch16:
		if end := t.unitBlocks(); blocks == 0 && lba < end {
			blocks = end - lba
		}
	}
	return lba, blocks
}

// unitBlocks is the capacity in blocks, 0 without a unit.
func (t *Task) unitBlocks() uint64 {
	if t.unit == nil {
		return 0
	}
	return uint64(t.unit.blocks())
}

// blockLen is the logical block length in bytes. Without a unit (Lengths may ask
// for a LUN that is not mapped) it is 512, which only has to be some number.
func (t *Task) blockLen() int64 {
	if t.unit == nil {
		return 512
	}
	return int64(t.unit.blockSize)
}

// extent is the checked range of t in blocks. When it leaves the medium the task
// has ended with LOGICAL BLOCK ADDRESS OUT OF RANGE and ok is false. A range of
// no blocks is checked too: it may begin at the end, not beyond.
func (t *Task) extent() (lba, blocks uint64, ok bool) {
	lba, blocks = t.lbaRange()
	if !inRange(lba, blocks, t.unitBlocks()) {
		t.check(Sense{Key: IllegalRequest, ASC: ASCLBAOutOfRange})
		return 0, 0, false
	}
	return lba, blocks, true
}

// inRange reports whether [lba, lba+n) lies in a medium of end blocks, without
// ever adding what a peer gave.
func inRange(lba, n, end uint64) bool { return lba <= end && n <= end-lba }

// The length functions of the table: bytes that a CDB asks to move.

func lenBlocks(t *Task) int64 {
	_, n := t.lbaRange()
	return int64(n) * t.blockLen() // at most 2^32 blocks: no overflow
}

func lenTwiceBlocks(t *Task) int64 { return 2 * lenBlocks(t) }

func lenOneBlock(t *Task) int64 { return t.blockLen() }

// lenWriteSame16 is one block, none with NDOB (SBC-3 §5.43).
func lenWriteSame16(t *Task) int64 {
	if t.CDB[1]&1 != 0 {
		return 0
	}
	return t.blockLen()
}

// lenVerify follows BYTCHK: 00b no data, 01b every block, 11b one (SBC-3 §5.31).
func lenVerify(t *Task) int64 {
	switch t.CDB[1] >> 1 & 3 {
	case 1:
		return lenBlocks(t)
	case 3:
		if _, n := t.lbaRange(); n > 0 {
			return t.blockLen()
		}
	}
	return 0
}

func lenByte4(t *Task) int64    { return int64(t.CDB[4]) }
func lenBytes3(t *Task) int64   { return int64(binary.BigEndian.Uint16(t.CDB[3:])) }
func lenBytes7(t *Task) int64   { return int64(binary.BigEndian.Uint16(t.CDB[7:])) }
func lenBytes6x4(t *Task) int64 { return int64(binary.BigEndian.Uint32(t.CDB[6:])) }
func lenBytesAx4(t *Task) int64 { return int64(binary.BigEndian.Uint32(t.CDB[10:])) }
func lenCapacity10(*Task) int64 { return capacity10Len }
