package ledger

import (
	"encoding/binary"
	"hash/crc32"
)

// SectorSize is the logical block that the book is about, bytes: what storage
// writes as a whole or not at all.
const SectorSize = 512

// Layout of a sector, little-endian: magic, run, number of the write, LBA, filling,
// and a CRC32C of all that as the last four bytes.
const (
	offMagic = 0
	offRun   = 8
	offSeq   = 16
	offLBA   = 24
	offFill  = 32
	offSum   = SectorSize - 4
)

const magic = 0x7274674c65646772

// fill makes the sector of write seq at lba.
func fill(b []byte, run, seq, lba uint64) {
	binary.LittleEndian.PutUint64(b[offMagic:], magic)
	binary.LittleEndian.PutUint64(b[offRun:], run)
	binary.LittleEndian.PutUint64(b[offSeq:], seq)
	binary.LittleEndian.PutUint64(b[offLBA:], lba)
	for i := offFill; i < offSum; i++ {
		b[i] = byte(seq) ^ byte(lba>>3) ^ byte(i)
	}
	binary.LittleEndian.PutUint32(b[offSum:], sum(b))
}

func sum(b []byte) uint32 {
	return crc32.Checksum(b[:offSum], crc32.MakeTable(crc32.Castagnoli))
}

// sector is what a sector says of itself.
type sector struct {
	valid         bool // written by fill, whole
	zero          bool
	run, seq, lba uint64
}

func parse(b []byte) sector {
	s := sector{zero: true}
	for _, v := range b {
		if v != 0 {
			s.zero = false
			break
		}
	}
	s.valid = binary.LittleEndian.Uint64(b[offMagic:]) == magic && binary.LittleEndian.Uint32(b[offSum:]) == sum(b)
	s.run = binary.LittleEndian.Uint64(b[offRun:])
	s.seq = binary.LittleEndian.Uint64(b[offSeq:])
	s.lba = binary.LittleEndian.Uint64(b[offLBA:])
	return s
}
