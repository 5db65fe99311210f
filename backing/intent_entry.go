package backing

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
)

// The intent log of a store, a file of its own. All numbers are big-endian.
//
//	0     superblock, 4096 bytes, of which 64 count
//	      0 "VTGTALOG"   8 version 2 (4)   12 length of a slot (4)   16 slots (4)
//	      20 zero (4)    24 the store's identity (16)   40 zero (20)   60 CRC32C of 0..59 (4)
//	4096  slots, one after the other: a header of 4096 bytes, of which 64 count, then the data
//	      0 "VTGTAENT"   8 sequence number (8)   16 offset in the store (8)   24 bytes (4)
//	      28 zero (4)   32 the store's identity (16)   48 XXH64 of the data (8)   56 zero (4)
//	      60 CRC32C of 0..59 (4)
//
// A slot whose header does not begin with the magic, or one of whose checksums is wrong,
// is empty: its data have not been written to the store.
//
// The data's checksum is no CRC: much of what is written has CRCs of its own, and the
// CRC32C of blocks that each end with their CRC32C is the same whatever they hold, so that
// a slot of which a loss of power had left old blocks was taken for whole. Version 1 had
// that, in place of the zeros at 28; what such a log holds is replayed as it was.

const (
	intentHead    = 4096
	intentCount   = 64 // bytes of a head that count
	intentVersion = 2

	intentSuperMagic = "VTGTALOG"
	intentEntryMagic = "VTGTAENT"

	// intentMax is the most that one Write with Atomic may have: 256 blocks of 4096
	// bytes.
	intentMax = 1 << 20
)

// intentID tells stores apart, so that a log is not replayed onto another one.
type intentID [16]byte

// intentSuper is the superblock.
type intentSuper struct {
	slot  int // bytes
	slots int
	id    intentID
	old   bool // version 1
}

// size is the length of the whole log in bytes.
func (s *intentSuper) size() int64 { return intentHead + int64(s.slot)*int64(s.slots) }

// at is where slot i begins.
func (s *intentSuper) at(i int) int64 { return intentHead + int64(i)*int64(s.slot) }

func (s *intentSuper) encode(b []byte) {
	clear(b[:intentCount])
	copy(b, intentSuperMagic)
	binary.BigEndian.PutUint32(b[8:], intentVersion)
	binary.BigEndian.PutUint32(b[12:], uint32(s.slot))
	binary.BigEndian.PutUint32(b[16:], uint32(s.slots))
	copy(b[24:], s.id[:])
	sealHead(b)
}

// decodeIntentSuper reads a superblock. blank: there is none.
func decodeIntentSuper(b []byte) (s intentSuper, blank bool, err error) {
	b = b[:intentCount]
	if isZero(b) {
		return s, true, nil
	}
	if string(b[:8]) != intentSuperMagic || !headSealed(b) {
		return s, false, fmt.Errorf("it does not begin as one")
	}
	switch v := binary.BigEndian.Uint32(b[8:]); v {
	case 1:
		s.old = true
	case intentVersion:
	default:
		return s, false, fmt.Errorf("version %d is not known", v)
	}
	slot, slots := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	if slot <= intentHead || slot > intentHead+intentMax || slot%512 != 0 || slots == 0 || slots > 1<<20 {
		return s, false, fmt.Errorf("%d slots of %d bytes", slots, slot)
	}
	s.slot, s.slots = int(slot), int(slots)
	copy(s.id[:], b[24:])
	return s, false, nil
}

// intentEntry is the header of a slot.
type intentEntry struct {
	seq uint64
	off int64
	n   int
	sum uint64 // of the data
	id  intentID
}

func (e *intentEntry) encode(b []byte) {
	clear(b[:intentHead])
	copy(b, intentEntryMagic)
	binary.BigEndian.PutUint64(b[8:], e.seq)
	binary.BigEndian.PutUint64(b[16:], uint64(e.off))
	binary.BigEndian.PutUint32(b[24:], uint32(e.n))
	copy(b[32:], e.id[:])
	binary.BigEndian.PutUint64(b[48:], e.sum)
	sealHead(b)
}

// sumIntent is the checksum of an entry's data.
func sumIntent(b []byte) uint64 { return xxhash.Sum64(b) }

// decodeIntentEntry reads a slot with its data, old: of version 1; false: it is empty.
// e.n never exceeds the slot.
func decodeIntentEntry(b []byte, old bool) (e intentEntry, ok bool) {
	if len(b) < intentHead || string(b[:8]) != intentEntryMagic || !headSealed(b) {
		return e, false
	}
	e.seq = binary.BigEndian.Uint64(b[8:])
	off, n := binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint32(b[24:])
	if off > 1<<62 || n == 0 || int64(n) > int64(len(b)-intentHead) {
		return e, false
	}
	e.off, e.n = int64(off), int(n)
	e.sum = binary.BigEndian.Uint64(b[48:])
	copy(e.id[:], b[32:])
	data := b[intentHead : intentHead+e.n]
	if old {
		return e, crc32.Checksum(data, castagnoli) == binary.BigEndian.Uint32(b[28:])
	}
	return e, sumIntent(data) == e.sum
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sealHead(b []byte) {
	binary.BigEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

func headSealed(b []byte) bool {
	return binary.BigEndian.Uint32(b[60:]) == crc32.Checksum(b[:60], castagnoli)
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
