package iu

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/scsi"
)

// Lengths of the fixed parts, bytes.
const (
	RspLen    = 36
	AERReqLen = 36
	// RspDataLen is the length of the response data: three reserved bytes and
	// the response code.
	RspDataLen = 4
	// MaxRspLen is the longest SRP_RSP that a target sends.
	MaxRspLen = RspLen + RspDataLen + scsi.MaxSense
)

// RspFlags say what an SRP_RSP holds (SRP r16a §6.9).
type RspFlags uint8

// The flags.
const (
	RspValid RspFlags = 1 << iota // response data
	SnsValid                      // sense data
	DOOver                        // data-out residual count: so much was missing
	DOUnder                       // so much was left
	DIOver                        // data-in residual count, the same
	DIUnder
)

// RspCode is the RSP_CODE of the response data (SRP r16a §6.9).
type RspCode uint8

// The codes.
const (
	CodeComplete      RspCode = 0 // no failure; task management function complete
	CodeInvalidFields RspCode = 2 // request fields invalid
	CodeNotSupported  RspCode = 4 // task management function not supported
	CodeFailed        RspCode = 5 // task management function failed
)

// CodeOf is the answer to a task management function. SAM-5 has ABORT TASK complete
// where there is no such task.
func CodeOf(r scsi.TMResponse) RspCode {
	switch r {
	case scsi.TMComplete, scsi.TMSucceeded, scsi.TMNoTask:
		return CodeComplete
	case scsi.TMNoLUN, scsi.TMIncorrectLUN, scsi.TMRejected:
		return CodeInvalidFields
	case scsi.TMNotSupported:
		return CodeNotSupported
	}
	return CodeFailed
}

// Rsp is the fixed part of SRP_RSP (SRP r16a §6.9): response data and sense data, in
// this order, come behind it.
type Rsp [RspLen]byte

// AsRsp looks at b, which Check has found whole, as one.
func AsRsp(b []byte) *Rsp { return (*Rsp)(b[:RspLen]) }

// Reset makes an empty one.
func (u *Rsp) Reset() {
	clear(u[:])
	u[0] = byte(TypeRsp)
}

// SolNot is the SOLNT bit.
func (u *Rsp) SolNot() SolNot { return SolNot(u[1]) }

// SetSolNot sets it.
func (u *Rsp) SetSolNot(s SolNot) { u[1] = byte(s) }

// Delta is the REQUEST LIMIT DELTA.
func (u *Rsp) Delta() int32 { return int32(binary.BigEndian.Uint32(u[4:])) }

// SetDelta sets it.
func (u *Rsp) SetDelta(n int32) { binary.BigEndian.PutUint32(u[4:], uint32(n)) }

// Tag is the tag of the request.
func (u *Rsp) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *Rsp) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }

// Flags are the flags.
func (u *Rsp) Flags() RspFlags { return RspFlags(u[18]) }

// SetFlags sets them.
func (u *Rsp) SetFlags(f RspFlags) { u[18] = byte(f) }

// Status is the SCSI status.
func (u *Rsp) Status() scsi.Status { return scsi.Status(u[19]) }

// SetStatus sets it.
func (u *Rsp) SetStatus(s scsi.Status) { u[19] = byte(s) }

// OutResidual is the DATA-OUT RESIDUAL COUNT, bytes.
func (u *Rsp) OutResidual() uint32 { return binary.BigEndian.Uint32(u[20:]) }

// SetOutResidual sets it.
func (u *Rsp) SetOutResidual(n uint32) { binary.BigEndian.PutUint32(u[20:], n) }

// InResidual is the DATA-IN RESIDUAL COUNT, bytes.
func (u *Rsp) InResidual() uint32 { return binary.BigEndian.Uint32(u[24:]) }

// SetInResidual sets it.
func (u *Rsp) SetInResidual(n uint32) { binary.BigEndian.PutUint32(u[24:], n) }

// SenseLen is the length of the sense data, bytes, where SnsValid.
func (u *Rsp) SenseLen() uint32 { return binary.BigEndian.Uint32(u[28:]) }

// DataLen is the length of the response data, bytes, where RspValid.
func (u *Rsp) DataLen() uint32 { return binary.BigEndian.Uint32(u[32:]) }

// PutSense puts sense data behind the fixed part in b, the whole unit, and gives the
// unit's length. b needs room for them.
func PutSense(b []byte, sense []byte) int {
	u := AsRsp(b)
	u.SetFlags(u.Flags() | SnsValid)
	binary.BigEndian.PutUint32(u[28:], uint32(len(sense)))
	return RspLen + copy(b[RspLen:], sense)
}

// PutCode puts response data behind the fixed part in b, the whole unit, and gives the
// unit's length.
func PutCode(b []byte, c RspCode) int {
	u := AsRsp(b)
	u.SetFlags(u.Flags() | RspValid)
	binary.BigEndian.PutUint32(u[32:], RspDataLen)
	copy(b[RspLen:RspLen+RspDataLen], []byte{0, 0, 0, byte(c)})
	return RspLen + RspDataLen
}

// Response is an SRP_RSP with its variable parts found. The slice points into the unit.
type Response struct {
	*Rsp
	HasCode bool
	Code    RspCode
	Sense   []byte
}

// ParseRsp takes the unit b apart.
func ParseRsp(b []byte) (r Response, err error) {
	switch t, err := Check(b); {
	case err != nil:
		return r, err
	case t != TypeRsp:
		return r, ErrType
	}
	r.Rsp = AsRsp(b)
	rest := b[RspLen:]
	if r.Flags()&RspValid != 0 {
		n := r.DataLen()
		if uint64(n) > uint64(len(rest)) || n < RspDataLen {
			return r, ErrShort
		}
		r.HasCode, r.Code = true, RspCode(rest[3])
		rest = rest[n:]
	}
	if r.Flags()&SnsValid != 0 {
		n := r.SenseLen()
		if uint64(n) > uint64(len(rest)) {
			return r, ErrShort
		}
		r.Sense = rest[:n:n]
	}
	return r, nil
}

// AERReq is the fixed part of SRP_AER_REQ (SRP r16a §6.12): sense data come behind it.
type AERReq [AERReqLen]byte

// AsAERReq looks at b, which Check has found whole, as one.
func AsAERReq(b []byte) *AERReq { return (*AERReq)(b[:AERReqLen]) }

// Reset makes an empty one.
func (u *AERReq) Reset() {
	clear(u[:])
	u[0] = byte(TypeAERReq)
}

// SolNot is the SOLNT bit.
func (u *AERReq) SolNot() SolNot { return SolNot(u[1]) }

// SetSolNot sets it.
func (u *AERReq) SetSolNot(s SolNot) { u[1] = byte(s) }

// Delta is the REQUEST LIMIT DELTA.
func (u *AERReq) Delta() int32 { return int32(binary.BigEndian.Uint32(u[4:])) }

// SetDelta sets it.
func (u *AERReq) SetDelta(n int32) { binary.BigEndian.PutUint32(u[4:], uint32(n)) }

// Tag is the tag.
func (u *AERReq) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *AERReq) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }

// LUN is the logical unit number.
func (u *AERReq) LUN() scsi.LUN { return scsi.LUN(u[20:28]) }

// SetLUN sets it.
func (u *AERReq) SetLUN(l scsi.LUN) { copy(u[20:28], l[:]) }

// SenseLen is the length of the sense data, bytes.
func (u *AERReq) SenseLen() uint32 { return binary.BigEndian.Uint32(u[28:]) }

// ParseAERReq takes the unit b apart; the sense data point into it.
func ParseAERReq(b []byte) (u *AERReq, sense []byte, err error) {
	switch t, err := Check(b); {
	case err != nil:
		return nil, nil, err
	case t != TypeAERReq:
		return nil, nil, ErrType
	}
	u = AsAERReq(b)
	n := u.SenseLen()
	if uint64(n) > uint64(len(b)-AERReqLen) {
		return u, nil, ErrShort
	}
	return u, b[AERReqLen : AERReqLen+n : AERReqLen+n], nil
}

// PutAERSense puts sense data behind the fixed part in b, the whole unit, and gives
// the unit's length.
func PutAERSense(b []byte, sense []byte) int {
	binary.BigEndian.PutUint32(b[28:], uint32(len(sense)))
	return AERReqLen + copy(b[AERReqLen:], sense)
}
