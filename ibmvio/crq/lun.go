package crq

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/scsi"
)

// Bounds of addresses: 6, 3 and 5 bits.
const (
	MaxID, MaxChannel, MaxLUN = 63, 7, 31
)

// Address is where a client finds a logical unit: the LUN field of its units is SAM's
// logical unit addressing method (SAM-5 §4.7.7.4), with the bus number as channel.
type Address struct {
	ID, Channel, LUN uint8
}

// ParseLUN takes a LUN field apart. Peripheral device addressing (SAM-5 §4.7.7.2) of bus
// 0, which well-meaning clients use, is id 0. ok is false for fields of other methods,
// and of more levels than one.
func ParseLUN(l scsi.LUN) (a Address, ok bool) {
	v := binary.BigEndian.Uint64(l[:])
	switch {
	case v&(1<<48-1) != 0:
		return a, false
	case v>>62 == 2:
		return Address{ID: uint8(v >> 56 & MaxID), Channel: uint8(v >> 53 & MaxChannel), LUN: uint8(v >> 48 & MaxLUN)}, true
	case v>>56 == 0 && v>>48 <= MaxLUN:
		return Address{LUN: uint8(v >> 48)}, true
	}
	return a, false
}

// Encode makes the LUN field of a, as Linux's ibmvscsi does.
func (a Address) Encode() (l scsi.LUN) {
	binary.BigEndian.PutUint16(l[:], 0x8000|uint16(a.ID&MaxID)<<8|uint16(a.Channel&MaxChannel)<<5|uint16(a.LUN&MaxLUN))
	return l
}
