package scsi

import (
	"encoding/binary"
	"fmt"
)

// LUN is a logical unit number as it stands on the wire: eight bytes, big-endian
// (SAM-5 §4.7).
type LUN [8]byte

// Well-known logical unit numbers (SAM-5 §4.7.7.5.1, SPC-4 §8).
var (
	LUNReportLUNs = LUN{0xc1, 0x01}
)

// MaxLUN is the largest LUN number that flat space addressing holds.
const MaxLUN = 1<<14 - 1

// EncodeLUN makes the wire form of LUN number n (0..MaxLUN): peripheral device
// addressing below 256, flat space addressing above (SAM-5 §4.7.7).
func EncodeLUN(n uint16) LUN {
	var l LUN
	if n > 0xff {
		n |= 0x4000
	}
	binary.BigEndian.PutUint16(l[:], n)
	return l
}

// Number decodes a single-level LUN in peripheral (bus 0) or flat space
// addressing; ok is false for everything else.
func (l LUN) Number() (n uint16, ok bool) {
	v := binary.BigEndian.Uint64(l[:])
	if v&(1<<48-1) != 0 {
		return 0, false
	}
	h := uint16(v >> 48)
	switch h >> 14 {
	case 0:
		if h>>8 != 0 { // a bus other than 0
			return 0, false
		}
		return h, true
	case 1:
		return h & 0x3fff, true
	}
	return 0, false
}

func (l LUN) String() string {
	if n, ok := l.Number(); ok {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%x", l[:])
}
