package iu

import (
	"encoding/binary"
	"fmt"
)

// Lengths of the login units, bytes.
const (
	LoginReqLen = 64
	LoginRspLen = 52
	LoginRejLen = 32
)

// PortID is the identifier of an initiator or target port: an identifier extension
// and a GUID, eight bytes each.
type PortID [16]byte

// Formats is a set of buffer formats, as logins name it.
type Formats uint16

// The formats.
const (
	FormatsDirect   Formats = 1 << 1
	FormatsIndirect Formats = 1 << 2
)

// Request flags of a login.
const (
	// MultiChannel masks the MULTI-CHANNEL ACTION field: 0 ends other channels
	// of the nexus, 1 keeps them.
	MultiChannel = 0x03
	LOSolNt      = 0x10 // SOLNT for SRP_T_LOGOUT
	CRSolNt      = 0x20 // SOLNT for SRP_CRED_REQ
	AESolNt      = 0x40 // SOLNT for SRP_AER_REQ
)

// LoginReq is SRP_LOGIN_REQ (SRP r16a §6.2).
type LoginReq [LoginReqLen]byte

// AsLoginReq looks at b, which Check has found whole, as one.
func AsLoginReq(b []byte) *LoginReq { return (*LoginReq)(b[:LoginReqLen]) }

// Reset makes an empty one.
func (u *LoginReq) Reset() {
	clear(u[:])
	u[0] = byte(TypeLoginReq)
}

// Tag is the tag.
func (u *LoginReq) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *LoginReq) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }

// MaxIULen is the REQUESTED MAXIMUM INITIATOR TO TARGET IU LENGTH, bytes.
func (u *LoginReq) MaxIULen() uint32 { return binary.BigEndian.Uint32(u[16:]) }

// SetMaxIULen sets it.
func (u *LoginReq) SetMaxIULen(n uint32) { binary.BigEndian.PutUint32(u[16:], n) }

// Formats are the buffer formats that the initiator needs.
func (u *LoginReq) Formats() Formats { return Formats(binary.BigEndian.Uint16(u[24:])) }

// SetFormats sets them.
func (u *LoginReq) SetFormats(f Formats) { binary.BigEndian.PutUint16(u[24:], uint16(f)) }

// Flags are the request flags.
func (u *LoginReq) Flags() uint8 { return u[26] }

// SetFlags sets them.
func (u *LoginReq) SetFlags(f uint8) { u[26] = f }

// InitiatorPort is the initiator port identifier.
func (u *LoginReq) InitiatorPort() PortID { return PortID(u[32:48]) }

// SetInitiatorPort sets it.
func (u *LoginReq) SetInitiatorPort(p PortID) { copy(u[32:48], p[:]) }

// TargetPort is the target port identifier.
func (u *LoginReq) TargetPort() PortID { return PortID(u[48:64]) }

// SetTargetPort sets it.
func (u *LoginReq) SetTargetPort(p PortID) { copy(u[48:64], p[:]) }

// LoginRsp is SRP_LOGIN_RSP (SRP r16a §6.3).
type LoginRsp [LoginRspLen]byte

// AsLoginRsp looks at b, which Check has found whole, as one.
func AsLoginRsp(b []byte) *LoginRsp { return (*LoginRsp)(b[:LoginRspLen]) }

// Reset makes an empty one.
func (u *LoginRsp) Reset() {
	clear(u[:])
	u[0] = byte(TypeLoginRsp)
}

// Delta is the REQUEST LIMIT DELTA: the limit that the initiator begins with.
func (u *LoginRsp) Delta() int32 { return int32(binary.BigEndian.Uint32(u[4:])) }

// SetDelta sets it.
func (u *LoginRsp) SetDelta(n int32) { binary.BigEndian.PutUint32(u[4:], uint32(n)) }

// Tag is the tag.
func (u *LoginRsp) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *LoginRsp) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }

// MaxToTarget is the MAXIMUM INITIATOR TO TARGET IU LENGTH, bytes.
func (u *LoginRsp) MaxToTarget() uint32 { return binary.BigEndian.Uint32(u[16:]) }

// SetMaxToTarget sets it.
func (u *LoginRsp) SetMaxToTarget(n uint32) { binary.BigEndian.PutUint32(u[16:], n) }

// MaxToInitiator is the MAXIMUM TARGET TO INITIATOR IU LENGTH, bytes.
func (u *LoginRsp) MaxToInitiator() uint32 { return binary.BigEndian.Uint32(u[20:]) }

// SetMaxToInitiator sets it.
func (u *LoginRsp) SetMaxToInitiator(n uint32) { binary.BigEndian.PutUint32(u[20:], n) }

// Formats are the buffer formats that the target supports.
func (u *LoginRsp) Formats() Formats { return Formats(binary.BigEndian.Uint16(u[24:])) }

// SetFormats sets them.
func (u *LoginRsp) SetFormats(f Formats) { binary.BigEndian.PutUint16(u[24:], uint16(f)) }

// Flags is the MULTI-CHANNEL RESULT: 0 no other channel, 1 ended, 2 kept.
func (u *LoginRsp) Flags() uint8 { return u[26] }

// SetFlags sets it.
func (u *LoginRsp) SetFlags(f uint8) { u[26] = f }

// LoginReason says why a login was rejected (SRP r16a §6.4).
type LoginReason uint32

// The reasons.
const (
	RejNoChannel     LoginReason = 0x00010000 + iota // unable to establish the channel, no reason given
	RejResources                                     // insufficient resources
	RejIUTooLarge                                    // the requested IU length is too large
	RejNoAssociation                                 // unable to associate the channel with the nexus
	RejFormats                                       // unsupported buffer format
	RejMultiChannel                                  // several channels in a nexus are not supported
	RejChannelLimit                                  // no more channels in this nexus
)

func (r LoginReason) String() string {
	switch r {
	case RejNoChannel:
		return "unable to establish RDMA channel"
	case RejResources:
		return "insufficient RDMA channel resources"
	case RejIUTooLarge:
		return "requested initiator to target IU length is too large"
	case RejNoAssociation:
		return "unable to associate RDMA channel with the I_T nexus"
	case RejFormats:
		return "unsupported data buffer descriptor format"
	case RejMultiChannel:
		return "multiple RDMA channels for an I_T nexus are not supported"
	case RejChannelLimit:
		return "no more RDMA channels for this I_T nexus"
	}
	return fmt.Sprintf("reason %#08x", uint32(r))
}

// LoginRej is SRP_LOGIN_REJ (SRP r16a §6.4).
type LoginRej [LoginRejLen]byte

// AsLoginRej looks at b, which Check has found whole, as one.
func AsLoginRej(b []byte) *LoginRej { return (*LoginRej)(b[:LoginRejLen]) }

// Reset makes an empty one.
func (u *LoginRej) Reset() {
	clear(u[:])
	u[0] = byte(TypeLoginRej)
}

// Reason is the reason.
func (u *LoginRej) Reason() LoginReason { return LoginReason(binary.BigEndian.Uint32(u[4:])) }

// SetReason sets it.
func (u *LoginRej) SetReason(r LoginReason) { binary.BigEndian.PutUint32(u[4:], uint32(r)) }

// Tag is the tag.
func (u *LoginRej) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *LoginRej) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }

// Formats are the buffer formats that the target supports.
func (u *LoginRej) Formats() Formats { return Formats(binary.BigEndian.Uint16(u[24:])) }

// SetFormats sets them.
func (u *LoginRej) SetFormats(f Formats) { binary.BigEndian.PutUint16(u[24:], uint16(f)) }
