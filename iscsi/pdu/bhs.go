package pdu

import (
	"encoding/binary"
	"fmt"
)

// BHSLen is the length of a basic header segment in bytes.
const BHSLen = 48

// MaxDataSegmentLength is what the 24-bit DataSegmentLength field can say, and so
// the bound of MaxRecvDataSegmentLength (RFC 7143 §13.12), bytes.
const MaxDataSegmentLength = 1<<24 - 1

// MaxAHSLength is what the TotalAHSLength field can say, in bytes.
const MaxAHSLength = 255 * 4

// ReservedTag is the reserved value of an initiator or target task tag
// (RFC 7143 §11.2.1.8, §11.18.4).
const ReservedTag = 0xffffffff

// BHS is a basic header segment as it stands on the wire (RFC 7143 §11.2.1).
//
// Accessors are grouped by PDU in the files of this package. Those in this file
// are common to all or many; each says where it applies.
type BHS [BHSLen]byte

const (
	bhsImmediate = 0x40 // byte 0
	bhsOpcode    = 0x3f // byte 0
	bhsFinal     = 0x80 // byte 1
	bhsContinue  = 0x40 // byte 1: Text and Login
)

// Reset zeroes the header, sets the opcode, and leaves everything else to the
// caller. Every PDU whose byte 1 has no other use has its F bit set.
func (h *BHS) Reset(o Opcode) {
	clear(h[:])
	h[0] = byte(o)
	switch o {
	case OpSCSICommand, OpLoginRequest, OpTextRequest, OpDataOut,
		OpLoginResponse, OpTextResponse, OpDataIn:
	default:
		h[1] = bhsFinal
	}
}

func (h *BHS) u16(i int) uint16       { return binary.BigEndian.Uint16(h[i : i+2]) }
func (h *BHS) u32(i int) uint32       { return binary.BigEndian.Uint32(h[i : i+4]) }
func (h *BHS) put16(i int, v uint16)  { binary.BigEndian.PutUint16(h[i:i+2], v) }
func (h *BHS) put32(i int, v uint32)  { binary.BigEndian.PutUint32(h[i:i+4], v) }
func (h *BHS) bit(i int, m byte) bool { return h[i]&m != 0 }
func (h *BHS) setBit(i int, m byte, on bool) {
	if on {
		h[i] |= m
	} else {
		h[i] &^= m
	}
}

// Opcode is byte 0 without the I bit.
func (h *BHS) Opcode() Opcode { return Opcode(h[0] & bhsOpcode) }

// SetOpcode sets the opcode and leaves the I bit.
func (h *BHS) SetOpcode(o Opcode) { h[0] = h[0]&^bhsOpcode | byte(o)&bhsOpcode }

// Immediate is the I bit of requests: immediate delivery (§11.2.1.1).
func (h *BHS) Immediate() bool { return h.bit(0, bhsImmediate) }

// SetImmediate sets the I bit.
func (h *BHS) SetImmediate(on bool) { h.setBit(0, bhsImmediate, on) }

// Final is the F bit (T in Login PDUs).
func (h *BHS) Final() bool { return h.bit(1, bhsFinal) }

// SetFinal sets the F bit.
func (h *BHS) SetFinal(on bool) { h.setBit(1, bhsFinal, on) }

// Continue is the C bit of Text and Login PDUs.
func (h *BHS) Continue() bool { return h.bit(1, bhsContinue) }

// SetContinue sets the C bit.
func (h *BHS) SetContinue(on bool) { h.setBit(1, bhsContinue, on) }

// AHSLength is the total length of the additional header segments in bytes, a
// multiple of 4 up to [MaxAHSLength] (the field counts words).
func (h *BHS) AHSLength() int { return int(h[4]) * 4 }

// SetAHSLength sets TotalAHSLength; n is in bytes, a multiple of 4 up to
// [MaxAHSLength].
func (h *BHS) SetAHSLength(n int) { h[4] = byte(n / 4) }

// DataSegmentLength is in bytes, without padding and digest.
func (h *BHS) DataSegmentLength() int { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }

// SetDataSegmentLength sets the length of the data segment, bytes without padding.
func (h *BHS) SetDataSegmentLength(n int) { h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n) }

// LUN is the eight bytes of the logical unit number, where the PDU has one.
func (h *BHS) LUN() [8]byte { return [8]byte(h[8:16]) }

// SetLUN sets the logical unit number.
func (h *BHS) SetLUN(l [8]byte) { copy(h[8:16], l[:]) }

// ITT is the initiator task tag.
func (h *BHS) ITT() uint32 { return h.u32(16) }

// SetITT sets the initiator task tag.
func (h *BHS) SetITT(v uint32) { h.put32(16, v) }

// TTT is the target transfer tag (NOP, Text, Data-Out, Data-In, R2T, SNACK).
func (h *BHS) TTT() uint32 { return h.u32(20) }

// SetTTT sets the target transfer tag.
func (h *BHS) SetTTT(v uint32) { h.put32(20, v) }

// CmdSN is the command sequence number of a request that has one.
func (h *BHS) CmdSN() uint32 { return h.u32(24) }

// SetCmdSN sets CmdSN.
func (h *BHS) SetCmdSN(v uint32) { h.put32(24, v) }

// ExpStatSN is in every initiator PDU.
func (h *BHS) ExpStatSN() uint32 { return h.u32(28) }

// SetExpStatSN sets ExpStatSN.
func (h *BHS) SetExpStatSN(v uint32) { h.put32(28, v) }

// StatSN is in target PDUs (in Data-In only where it carries status).
func (h *BHS) StatSN() uint32 { return h.u32(24) }

// SetStatSN sets StatSN.
func (h *BHS) SetStatSN(v uint32) { h.put32(24, v) }

// ExpCmdSN is in every target PDU.
func (h *BHS) ExpCmdSN() uint32 { return h.u32(28) }

// SetExpCmdSN sets ExpCmdSN.
func (h *BHS) SetExpCmdSN(v uint32) { h.put32(28, v) }

// MaxCmdSN is in every target PDU.
func (h *BHS) MaxCmdSN() uint32 { return h.u32(32) }

// SetMaxCmdSN sets MaxCmdSN.
func (h *BHS) SetMaxCmdSN(v uint32) { h.put32(32, v) }

// SetSNs sets StatSN, ExpCmdSN and MaxCmdSN of a target PDU at once.
func (h *BHS) SetSNs(stat, expCmd, maxCmd uint32) {
	h.put32(24, stat)
	h.put32(28, expCmd)
	h.put32(32, maxCmd)
}

// DataSN is of Data-Out and Data-In, R2TSN of R2T, and the DataSN/R2TSN of Reject:
// all the same bytes.
func (h *BHS) DataSN() uint32 { return h.u32(36) }

// SetDataSN sets DataSN, R2TSN or DataSN/R2TSN.
func (h *BHS) SetDataSN(v uint32) { h.put32(36, v) }

// R2TSN is of R2T (the bytes of DataSN).
func (h *BHS) R2TSN() uint32 { return h.u32(36) }

// SetR2TSN sets R2TSN.
func (h *BHS) SetR2TSN(v uint32) { h.put32(36, v) }

// BufferOffset is of Data-Out, Data-In and R2T, bytes.
func (h *BHS) BufferOffset() uint32 { return h.u32(40) }

// SetBufferOffset sets the buffer offset, bytes.
func (h *BHS) SetBufferOffset(v uint32) { h.put32(40, v) }

// Pad is the number of padding bytes behind n bytes of data (§11.1).
func Pad(n int) int { return -n & 3 }

// PaddedLen is n rounded up to the four bytes that every segment is a multiple of.
func PaddedLen(n int) int { return (n + 3) &^ 3 }

// WireLen is the number of bytes that the whole PDU takes, given which digests are
// in use: header, AHS, header digest, data with padding, data digest (which a PDU
// without data does not have, §11.1).
func (h *BHS) WireLen(headerDigest, dataDigest bool) int {
	n := BHSLen + h.AHSLength()
	if headerDigest {
		n += DigestLen
	}
	if d := h.DataSegmentLength(); d > 0 {
		n += PaddedLen(d)
		if dataDigest {
			n += DigestLen
		}
	}
	return n
}

// String is for logs and test failures: the opcode and the tags.
func (h *BHS) String() string {
	i := ""
	if h.Immediate() && h.Opcode().FromInitiator() {
		i = " (immediate)"
	}
	return fmt.Sprintf("%v%s ITT %#08x data %d", h.Opcode(), i, h.ITT(), h.DataSegmentLength())
}
