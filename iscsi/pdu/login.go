package pdu

import "fmt"

// Version is the only version of the protocol there is (RFC 7143 §11.12.4).
const Version = 0x00

// Stage is a stage of a connection's login (CSG and NSG, §11.12.3).
type Stage uint8

// The login stages.
const (
	SecurityNegotiation    Stage = 0
	OperationalNegotiation Stage = 1
	FullFeaturePhase       Stage = 3
)

func (s Stage) String() string {
	switch s {
	case SecurityNegotiation:
		return "SecurityNegotiation"
	case OperationalNegotiation:
		return "LoginOperationalNegotiation"
	case FullFeaturePhase:
		return "FullFeaturePhase"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// Transit is the T bit of Login PDUs (the bit of F).
func (h *BHS) Transit() bool { return h.bit(1, bhsFinal) }

// SetTransit sets the T bit.
func (h *BHS) SetTransit(on bool) { h.setBit(1, bhsFinal, on) }

// CSG is the current stage of a Login PDU.
func (h *BHS) CSG() Stage { return Stage(h[1] >> 2 & 3) }

// SetCSG sets the current stage.
func (h *BHS) SetCSG(s Stage) { h[1] = h[1]&^0x0c | byte(s&3)<<2 }

// NSG is the next stage of a Login PDU, valid where T is set.
func (h *BHS) NSG() Stage { return Stage(h[1] & 3) }

// SetNSG sets the next stage.
func (h *BHS) SetNSG(s Stage) { h[1] = h[1]&^0x03 | byte(s&3) }

// VersionMax is of Login PDUs.
func (h *BHS) VersionMax() uint8 { return h[2] }

// SetVersionMax sets it.
func (h *BHS) SetVersionMax(v uint8) { h[2] = v }

// VersionMin is of a Login Request; in a Login Response the same byte is
// Version-active.
func (h *BHS) VersionMin() uint8 { return h[3] }

// SetVersionMin sets Version-min (Version-active in a response).
func (h *BHS) SetVersionMin(v uint8) { h[3] = v }

// VersionActive is of a Login Response.
func (h *BHS) VersionActive() uint8 { return h[3] }

// SetVersionActive sets it.
func (h *BHS) SetVersionActive(v uint8) { h[3] = v }

// ISID is the initiator's part of the session identifier, of Login PDUs.
func (h *BHS) ISID() [6]byte { return [6]byte(h[8:14]) }

// SetISID sets it.
func (h *BHS) SetISID(v [6]byte) { copy(h[8:14], v[:]) }

// TSIH is the target session identifying handle, of Login PDUs.
func (h *BHS) TSIH() uint16 { return h.u16(14) }

// SetTSIH sets it.
func (h *BHS) SetTSIH(v uint16) { h.put16(14, v) }

// CID is the connection ID of a Login or Logout Request.
func (h *BHS) CID() uint16 { return h.u16(20) }

// SetCID sets it.
func (h *BHS) SetCID(v uint16) { h.put16(20, v) }

// LoginStatus is Status-Class (high byte) and Status-Detail (low byte) of a Login
// Response (§11.13.5).
type LoginStatus uint16

// The login statuses.
const (
	LoginSuccess                 LoginStatus = 0x0000
	LoginTargetMovedTemporarily  LoginStatus = 0x0101
	LoginTargetMovedPermanently  LoginStatus = 0x0102
	LoginInitiatorError          LoginStatus = 0x0200
	LoginAuthenticationFailure   LoginStatus = 0x0201
	LoginAuthorizationFailure    LoginStatus = 0x0202
	LoginNotFound                LoginStatus = 0x0203
	LoginTargetRemoved           LoginStatus = 0x0204
	LoginUnsupportedVersion      LoginStatus = 0x0205
	LoginTooManyConnections      LoginStatus = 0x0206
	LoginMissingParameter        LoginStatus = 0x0207
	LoginCantIncludeInSession    LoginStatus = 0x0208
	LoginSessionTypeNotSupported LoginStatus = 0x0209
	LoginSessionDoesNotExist     LoginStatus = 0x020a
	LoginInvalidDuringLogin      LoginStatus = 0x020b
	LoginTargetError             LoginStatus = 0x0300
	LoginServiceUnavailable      LoginStatus = 0x0301
	LoginOutOfResources          LoginStatus = 0x0302
)

// Class is the Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target
// error.
func (s LoginStatus) Class() uint8 { return uint8(s >> 8) }

// Detail is the Status-Detail.
func (s LoginStatus) Detail() uint8 { return uint8(s) }

func (s LoginStatus) String() string {
	t := ""
	switch s {
	case LoginSuccess:
		t = "success"
	case LoginTargetMovedTemporarily:
		t = "target moved temporarily"
	case LoginTargetMovedPermanently:
		t = "target moved permanently"
	case LoginInitiatorError:
		t = "initiator error"
	case LoginAuthenticationFailure:
		t = "authentication failure"
	case LoginAuthorizationFailure:
		t = "authorization failure"
	case LoginNotFound:
		t = "not found"
	case LoginTargetRemoved:
		t = "target removed"
	case LoginUnsupportedVersion:
		t = "unsupported version"
	case LoginTooManyConnections:
		t = "too many connections"
	case LoginMissingParameter:
		t = "missing parameter"
	case LoginCantIncludeInSession:
		t = "can't include in session"
	case LoginSessionTypeNotSupported:
		t = "session type not supported"
	case LoginSessionDoesNotExist:
		t = "session does not exist"
	case LoginInvalidDuringLogin:
		t = "invalid during login"
	case LoginTargetError:
		t = "target error"
	case LoginServiceUnavailable:
		t = "service unavailable"
	case LoginOutOfResources:
		t = "out of resources"
	default:
		return fmt.Sprintf("%04xh", uint16(s))
	}
	return fmt.Sprintf("%04xh %s", uint16(s), t)
}

// LoginStatus is of a Login Response.
func (h *BHS) LoginStatus() LoginStatus { return LoginStatus(h.u16(36)) }

// SetLoginStatus sets it.
func (h *BHS) SetLoginStatus(s LoginStatus) { h.put16(36, uint16(s)) }
