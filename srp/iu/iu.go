package iu

import (
	"encoding/binary"
	"fmt"
)

// Type is the type code of an information unit, its byte 0 (SRP r16a §6.1).
type Type uint8

// The types. 00h to 3Fh are requests of the initiator, 40h to 7Fh its responses, 80h
// to BFh requests of the target, C0h to FFh its responses.
const (
	TypeLoginReq Type = 0x00
	TypeTskMgmt  Type = 0x01
	TypeCmd      Type = 0x02
	TypeILogout  Type = 0x03
	TypeCredRsp  Type = 0x41
	TypeAERRsp   Type = 0x42
	TypeTLogout  Type = 0x80
	TypeCredReq  Type = 0x81
	TypeAERReq   Type = 0x82
	TypeLoginRsp Type = 0xc0
	TypeRsp      Type = 0xc1
	TypeLoginRej Type = 0xc2
)

func (t Type) String() string {
	switch t {
	case TypeLoginReq:
		return "SRP_LOGIN_REQ"
	case TypeTskMgmt:
		return "SRP_TSK_MGMT"
	case TypeCmd:
		return "SRP_CMD"
	case TypeILogout:
		return "SRP_I_LOGOUT"
	case TypeCredRsp:
		return "SRP_CRED_RSP"
	case TypeAERRsp:
		return "SRP_AER_RSP"
	case TypeTLogout:
		return "SRP_T_LOGOUT"
	case TypeCredReq:
		return "SRP_CRED_REQ"
	case TypeAERReq:
		return "SRP_AER_REQ"
	case TypeLoginRsp:
		return "SRP_LOGIN_RSP"
	case TypeRsp:
		return "SRP_RSP"
	case TypeLoginRej:
		return "SRP_LOGIN_REJ"
	}
	return fmt.Sprintf("IU type %#02x", uint8(t))
}

// MinLen is the length of the fixed part of an information unit of type t, bytes; 0
// for a type that SRP does not have.
func (t Type) MinLen() int {
	switch t {
	case TypeLoginReq:
		return LoginReqLen
	case TypeTskMgmt:
		return TskMgmtLen
	case TypeCmd:
		return CmdLen
	case TypeLoginRsp:
		return LoginRspLen
	case TypeRsp:
		return RspLen
	case TypeLoginRej:
		return LoginRejLen
	case TypeAERReq:
		return AERReqLen
	case TypeILogout, TypeTLogout, TypeCredReq, TypeCredRsp, TypeAERRsp:
		return ShortLen
	}
	return 0
}

// Error says what is wrong with an information unit. It is comparable.
type Error uint8

// What can be wrong.
const (
	// ErrType: SRP has no such type, or not in this direction.
	ErrType Error = iota + 1
	// ErrShort: shorter than its type, or than its own length fields, ask for.
	ErrShort
	// ErrFormat: a buffer format that SRP r16a does not have.
	ErrFormat
	// ErrField: a reserved bit of a length field is set.
	ErrField
	// ErrDescriptor: a buffer descriptor whose address wraps around, a table
	// whose length is no number of descriptors or less than what is inline.
	ErrDescriptor
	// ErrTooMany: more descriptors than the caller allows.
	ErrTooMany
	// ErrLength: the descriptors hold less than the total length says.
	ErrLength
)

func (e Error) Error() string {
	switch e {
	case ErrType:
		return "not a type of SRP information unit that may come here"
	case ErrShort:
		return "SRP information unit too short"
	case ErrFormat:
		return "SRP buffer format unknown"
	case ErrField:
		return "reserved bits of a length are set in an SRP information unit"
	case ErrDescriptor:
		return "bad SRP buffer descriptor"
	case ErrTooMany:
		return "too many SRP buffer descriptors"
	case ErrLength:
		return "SRP buffer descriptors hold less than their total length"
	}
	return fmt.Sprintf("SRP error %d", uint8(e))
}

// Check gives the type of the information unit b after checking that its fixed part
// is there.
func Check(b []byte) (Type, error) {
	if len(b) == 0 {
		return 0, ErrShort
	}
	t := Type(b[0])
	switch n := t.MinLen(); {
	case n == 0:
		return t, ErrType
	case len(b) < n:
		return t, ErrShort
	}
	return t, nil
}

// Tag reads the tag of any information unit that is whole by Check: bytes 8 to 15.
func Tag(b []byte) uint64 { return binary.BigEndian.Uint64(b[8:16]) }

// SolNot are the solicited notification bits of a request (SRP r16a §6.8, §6.9).
type SolNot uint8

// The bits. In responses and in the target's requests bit 0 alone, SOLNT, is defined.
const (
	SolNt   SolNot = 1 << 0
	SCSolNt SolNot = 1 << 1 // notify on success
	UCSolNt SolNot = 1 << 2 // notify on failure
)

// Response gives the byte for the response to a request with bits s.
func (s SolNot) Response(success bool) SolNot {
	if success {
		return s >> 1 & 1
	}
	return s >> 2 & 1
}

// ShortLen is the length of those units that have a tag and at most one number.
const ShortLen = 16

// Short is SRP_I_LOGOUT, SRP_T_LOGOUT, SRP_CRED_REQ, SRP_CRED_RSP or SRP_AER_RSP
// (SRP r16a §6.5, §6.6, §6.10, §6.11, §6.13).
type Short [ShortLen]byte

// AsShort looks at b, which Check has found whole, as one.
func AsShort(b []byte) *Short { return (*Short)(b) }

// Reset makes the unit one of type t, everything else zero.
func (u *Short) Reset(t Type) {
	clear(u[:])
	u[0] = byte(t)
}

// Type is the type.
func (u *Short) Type() Type { return Type(u[0]) }

// SolNot is the SOLNT bit of the target's requests.
func (u *Short) SolNot() SolNot { return SolNot(u[1]) }

// SetSolNot sets it.
func (u *Short) SetSolNot(s SolNot) { u[1] = byte(s) }

// Delta is the REQUEST LIMIT DELTA of SRP_CRED_REQ; signed.
func (u *Short) Delta() int32 { return int32(binary.BigEndian.Uint32(u[4:])) }

// SetDelta sets it.
func (u *Short) SetDelta(n int32) { binary.BigEndian.PutUint32(u[4:], uint32(n)) }

// Reason is the reason code of SRP_T_LOGOUT; 0: none given.
func (u *Short) Reason() uint32 { return binary.BigEndian.Uint32(u[4:]) }

// SetReason sets it.
func (u *Short) SetReason(n uint32) { binary.BigEndian.PutUint32(u[4:], n) }

// Tag is the tag.
func (u *Short) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *Short) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }
