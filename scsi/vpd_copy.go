package scsi

import (
	"encoding/binary"
	"math/bits"
)

// Third-party copy descriptor types (SPC-4 §7.8.17).
const (
	tpcTokenLimits = 0x0000
	tpcCommands    = 0x0001
	tpcParameters  = 0x0004
	tpcDescriptors = 0x0008
	tpcTokens      = 0x0106
	tpcTokenTypes  = 0x0108
	tpcOperations  = 0x8001
	tpcHeldData    = 0xc001
)

// appendVPDCopy appends page 8Fh, third-party copy (SPC-4 §7.8.17), for a unit with
// those rows.
func appendVPDCopy(b []byte, rows []*command, blockSize int) []byte {
	b = appendPage(b, vpdCopy)

	bs := uint64(blockSize)
	b, at := appendCopyDesc(b, tpcTokenLimits) // SBC-3 §6.6.7
	b = append(b, make([]byte, 32)...)
	binary.BigEndian.PutUint16(b[at+10:], maxTokenRanges)
	binary.BigEndian.PutUint32(b[at+12:], maxTokenTimeout)
	binary.BigEndian.PutUint32(b[at+16:], tokenTimeout)
	binary.BigEndian.PutUint64(b[at+20:], maxTokenBytes/bs)
	binary.BigEndian.PutUint64(b[at+28:], optimalTokenBytes/bs)
	b = copyDescEnd(b, at)

	b, at = appendCopyDesc(b, tpcCommands)
	b = append(b, 0)
	for _, op := range []uint8{0x83, 0x84} {
		b = append(b, op, 0)
		n := len(b)
		for _, r := range rows {
			if r.op == op {
				b = append(b, byte(r.sa))
			}
		}
		b[n-1] = byte(len(b) - n)
	}
	b[at+4] = byte(len(b) - at - 5)
	b = copyDescEnd(b, at)

	b, at = appendCopyDesc(b, tpcParameters)
	b = append(b, make([]byte, 28)...)
	binary.BigEndian.PutUint16(b[at+8:], maxCopyTargets)
	binary.BigEndian.PutUint16(b[at+10:], maxCopySegments)
	binary.BigEndian.PutUint32(b[at+12:], maxCopyDescLen)
	b = copyDescEnd(b, at)

	b, at = appendCopyDesc(b, tpcDescriptors)
	b = append(b, byte(len(copyDescriptors)))
	b = append(b, copyDescriptors...)
	b = copyDescEnd(b, at)

	b, at = appendCopyDesc(b, tpcTokens)
	b = append(b, make([]byte, 44+48)...) // REMOTE TOKENS 0: of this copy manager alone
	binary.BigEndian.PutUint32(b[at+24:], maxTokenTimeout)
	binary.BigEndian.PutUint16(b[at+46:], 48)
	d := b[at+48:] // block ROD device type specific features
	binary.BigEndian.PutUint16(d[2:], 44)
	binary.BigEndian.PutUint64(d[8:], maxTokenBytes)
	binary.BigEndian.PutUint64(d[16:], optimalTokenBytes)
	binary.BigEndian.PutUint64(d[24:], optimalTokenBytes)
	binary.BigEndian.PutUint64(d[32:], optimalTokenBytes)
	b = copyDescEnd(b, at)

	b, at = appendCopyDesc(b, tpcTokenTypes)
	b = append(b, make([]byte, 4+2*64)...)
	binary.BigEndian.PutUint16(b[at+6:], 2*64)
	binary.BigEndian.PutUint32(b[at+8:], rodAccessUponReference)
	b[at+12] = 0x03 // TOKEN_IN, TOKEN_OUT
	binary.BigEndian.PutUint32(b[at+72:], rodZero)
	b[at+76] = 0x02 // TOKEN_IN
	b = copyDescEnd(b, at)

	b, at = appendCopyDesc(b, tpcOperations)
	b = append(b, make([]byte, 32)...)
	binary.BigEndian.PutUint32(b[at+4:], maxCopies)
	binary.BigEndian.PutUint32(b[at+8:], maxCopies)
	binary.BigEndian.PutUint32(b[at+12:], maxCopySegmentLen)
	b[at+16] = byte(bits.TrailingZeros(uint(blockSize)))
	b = copyDescEnd(b, at)

	b, at = appendCopyDesc(b, tpcHeldData)
	b = append(b, make([]byte, 28)...) // none
	b = copyDescEnd(b, at)
	return pageEnd(b)
}

// appendCopyDesc appends the header of a third-party copy descriptor, which begins at
// at.
func appendCopyDesc(b []byte, kind uint16) (_ []byte, at int) {
	return append(b, byte(kind>>8), byte(kind), 0, 0), len(b)
}

// copyDescEnd pads the descriptor that begins at at to a multiple of four and fills in
// its length.
func copyDescEnd(b []byte, at int) []byte {
	for (len(b)-at)%4 != 0 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at-4))
	return b
}
