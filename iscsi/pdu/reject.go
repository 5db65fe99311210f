package pdu

import "fmt"

// RejectReason is the reason of a Reject (RFC 7143 §11.17.1).
type RejectReason uint8

// The reasons.
const (
	RejectDataDigest       RejectReason = 0x02 // the initiator may send again
	RejectSNACK            RejectReason = 0x03
	RejectProtocolError    RejectReason = 0x04
	RejectUnsupported      RejectReason = 0x05
	RejectTooManyImmediate RejectReason = 0x06
	RejectTaskInProgress   RejectReason = 0x07
	RejectInvalidDataACK   RejectReason = 0x08
	RejectInvalidField     RejectReason = 0x09
	RejectOutOfResources   RejectReason = 0x0a // cannot make a target transfer tag
	RejectNegotiationReset RejectReason = 0x0b // deprecated
	RejectWaitingForLogout RejectReason = 0x0c
)

func (r RejectReason) String() string {
	switch r {
	case RejectDataDigest:
		return "data digest error"
	case RejectSNACK:
		return "SNACK reject"
	case RejectProtocolError:
		return "protocol error"
	case RejectUnsupported:
		return "command not supported"
	case RejectTooManyImmediate:
		return "too many immediate commands"
	case RejectTaskInProgress:
		return "task in progress"
	case RejectInvalidDataACK:
		return "invalid data ACK"
	case RejectInvalidField:
		return "invalid PDU field"
	case RejectOutOfResources:
		return "long operation reject, out of resources"
	case RejectNegotiationReset:
		return "negotiation reset"
	case RejectWaitingForLogout:
		return "waiting for logout"
	}
	return fmt.Sprintf("reason %#02x", uint8(r))
}

// RejectReason is of a Reject.
func (h *BHS) RejectReason() RejectReason { return RejectReason(h[2]) }

// MakeReject makes h a Reject with its ITT field reserved. The data segment of a
// Reject is the rejected header (BHS and AHS, §11.17.4); the caller sets its length
// and the sequence numbers.
func (h *BHS) MakeReject(r RejectReason) {
	h.Reset(OpReject)
	h[2] = byte(r)
	h.SetITT(ReservedTag)
}
