package login

import (
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// Config is a target's side of a negotiation: what it offers and whom it asks. A
// zero number stands for the value named beside it. A Config is shared by all
// connections and never written.
type Config struct {
	// MaxRecvDataSegmentLength is what the target declares, bytes (262144).
	MaxRecvDataSegmentLength uint32
	// MaxBurstLength (1048576) and FirstBurstLength (262144) are the most that
	// the target agrees to, bytes.
	MaxBurstLength, FirstBurstLength uint32
	// MaxOutstandingR2T is the most that the target agrees to (16). The result
	// is what the initiator allows at most; the target may use fewer.
	MaxOutstandingR2T uint16
	// RequireInitialR2T makes the target insist on InitialR2T=Yes; else it
	// agrees to what the initiator offers.
	RequireInitialR2T bool
	// NoImmediateData makes the target answer ImmediateData=No.
	NoImmediateData bool
	// NoDigests makes the target answer None to every offer of digests that
	// has None in it.
	NoDigests bool
	// CmdWindow is the number of commands that the first responses allow:
	// MaxCmdSN is ExpCmdSN+CmdWindow-1 (128).
	CmdWindow uint32
	// Time2Wait (2) is the least and Time2Retain (0) the most that the target
	// agrees to, seconds. ErrorRecoveryLevel is 0, so there is nothing to retain.
	Time2Wait, Time2Retain uint16

	// MaxConnections is the most connections of a session that the target agrees
	// to (1), for targets of which Lookup says nothing else.
	MaxConnections uint16

	// TPGT is the target portal group tag of the portal, told to the initiators
	// of discovery sessions (1); those of normal sessions are told what Lookup
	// says.
	TPGT uint16

	// Lookup finds the target of a normal session, once, as soon as the
	// initiator has said who it is and whom it wants: p has InitiatorName,
	// TargetName, ISID, TSIH and CID set. It answers with what the initiator is
	// to be told and [pdu.LoginSuccess], or with the status of a refusal:
	// LoginNotFound, LoginAuthorizationFailure, LoginSessionDoesNotExist,
	// LoginTargetRemoved and so on. It may also redirect (class 1): then
	// TargetInfo.Redirect is where to.
	//
	// Where p.TSIH is not 0 the connection is to join a session that is there
	// already: TargetInfo.Leading says what its leading connection agreed upon.
	Lookup func(p *Params) (TargetInfo, pdu.LoginStatus)
	// Auth is nil where every initiator may log in without authentication.
	Auth Authenticator
	// Admit is called once, when a login (of a discovery session too) is about
	// to end well: it makes or finds the session, does what reinstatement asks
	// for (§6.3.5), and sets p.TSIH, not 0. Any status but success refuses the
	// login. Nil: the machine leaves TSIH as it is, 1 where it is 0.
	Admit func(p *Params) pdu.LoginStatus
}

// TargetInfo is what an initiator is told about the target that it logs in to.
type TargetInfo struct {
	Alias string // TargetAlias, not sent where empty; at most 255 bytes of UTF-8
	TPGT  uint16 // TargetPortalGroupTag of the portal
	// MaxConnections is as in Config, for this target; 0: what Config says.
	MaxConnections uint16
	// Leading are the parameters of the session that a connection with a TSIH
	// joins: the keys of its leading connection hold for all of them. Nil: the
	// defaults of RFC 7143. It is copied. ExpCmdSN and MaxCmdSN of the responses
	// are then the caller's to set: what is under way on other connections must
	// not be acknowledged here.
	Leading *Params
	// Redirect is the TargetAddress of a redirection, "host:port" or
	// "[v6]:port", for statuses of class 1.
	Redirect string
}

// Authenticator chooses and runs authentication methods (RFC 7143 chapter 12).
type Authenticator interface {
	// Methods are the values of AuthMethod that p's initiator may use with p's
	// target, preferred ones first; "None" among them where it may go without.
	// In a discovery session p.TargetName is empty.
	Methods(p *Params) []string
	// Start begins an exchange by a method other than None.
	Start(p *Params, method string) (Exchange, pdu.LoginStatus)
}

// Exchange is one authentication exchange.
type Exchange interface {
	// Step takes the keys that the initiator has sent since the last call
	// (AuthMethod itself and declarations such as InitiatorName are not among
	// them; none at all in the first call after the choice, as a rule) and
	// returns those to answer with. done: the initiator has proved itself, and
	// the target has said all it has to say. A status other than success ends
	// the login; LoginAuthenticationFailure for wrong proofs.
	//
	// An Exchange may have methods Why() string, what was wrong, for the log, and
	// User() string, for Params.AuthUser.
	Step(in []pdu.KeyValue) (out []pdu.KeyValue, done bool, st pdu.LoginStatus)
}

func or[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// withDefaults fills what is zero, and keeps what RFC 7143 allows.
func (c Config) withDefaults() Config {
	c.MaxRecvDataSegmentLength = min(max(or(c.MaxRecvDataSegmentLength, 256<<10), 512), pdu.MaxDataSegmentLength)
	c.MaxBurstLength = min(max(or(c.MaxBurstLength, 1<<20), 512), pdu.MaxDataSegmentLength)
	c.FirstBurstLength = min(max(or(c.FirstBurstLength, 256<<10), 512), c.MaxBurstLength)
	c.MaxOutstandingR2T = or(c.MaxOutstandingR2T, 16)
	c.CmdWindow = min(or(c.CmdWindow, 128), 1<<31-1)
	c.TPGT = or(c.TPGT, 1)
	c.MaxConnections = or(c.MaxConnections, 1)
	c.Time2Wait = min(or(c.Time2Wait, defaultTime2Wait), 3600)
	c.Time2Retain = min(c.Time2Retain, 3600)
	return c
}
