package iscsi

import (
	"encoding/binary"
	"encoding/hex"
)

// transportID writes the TransportID of an iSCSI initiator port to dst (at least 260
// bytes) and returns its length: TPID FORMAT 01b, protocol identifier 5h, the name,
// ",i,0x" and the ISID, null-terminated and padded to a multiple of four
// (SPC-4 §7.6.4.6).
//
// Where nameOnly it is the one without an ISID, TPID FORMAT 00b.
func transportID(dst []byte, name string, isid [6]byte, nameOnly bool) int {
	const head, minLen = 4, 24
	clear(dst[:min(len(dst), 260)])
	dst[0] = 0x05
	n := head + copy(dst[head:], name)
	if !nameOnly {
		dst[0] |= 0x40
		n += copy(dst[n:], ",i,0x")
		n += hex.Encode(dst[n:], isid[:])
	}
	n = max((n+1+3)&^3, minLen) // at least one null byte
	binary.BigEndian.PutUint16(dst[2:], uint16(n-head))
	return n
}
