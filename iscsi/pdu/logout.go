package pdu

import "fmt"

// LogoutReason is the reason code of a Logout Request (RFC 7143 §11.14.1).
type LogoutReason uint8

// The reasons.
const (
	LogoutCloseSession    LogoutReason = 0
	LogoutCloseConnection LogoutReason = 1
	LogoutRecovery        LogoutReason = 2
)

func (r LogoutReason) String() string {
	switch r {
	case LogoutCloseSession:
		return "close the session"
	case LogoutCloseConnection:
		return "close the connection"
	case LogoutRecovery:
		return "remove the connection for recovery"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// LogoutResponse is the Response field of a Logout Response (§11.15.1).
type LogoutResponse uint8

// The responses.
const (
	LogoutSuccess             LogoutResponse = 0
	LogoutCIDNotFound         LogoutResponse = 1
	LogoutRecoveryUnsupported LogoutResponse = 2
	LogoutCleanupFailed       LogoutResponse = 3
)

func (r LogoutResponse) String() string {
	switch r {
	case LogoutSuccess:
		return "closed successfully"
	case LogoutCIDNotFound:
		return "CID not found"
	case LogoutRecoveryUnsupported:
		return "connection recovery not supported"
	case LogoutCleanupFailed:
		return "cleanup failed"
	}
	return fmt.Sprintf("response %d", uint8(r))
}

// LogoutReason is of a Logout Request.
func (h *BHS) LogoutReason() LogoutReason { return LogoutReason(h[1] & 0x7f) }

// SetLogoutReason sets it.
func (h *BHS) SetLogoutReason(r LogoutReason) { h[1] = bhsFinal | byte(r)&0x7f }

// Time2Wait is of a Logout Response, seconds.
func (h *BHS) Time2Wait() uint16 { return h.u16(40) }

// SetTime2Wait sets it, seconds.
func (h *BHS) SetTime2Wait(v uint16) { h.put16(40, v) }

// Time2Retain is of a Logout Response, seconds.
func (h *BHS) Time2Retain() uint16 { return h.u16(42) }

// SetTime2Retain sets it, seconds.
func (h *BHS) SetTime2Retain(v uint16) { h.put16(42, v) }
