package login

import (
	"fmt"
)

// Default values of keys that were not negotiated (RFC 7143 chapter 13).
const (
	defaultMaxRecvDataSegmentLength = 8192
	defaultMaxBurstLength           = 262144
	defaultFirstBurstLength         = 65536
	defaultTime2Wait                = 2
	defaultTime2Retain              = 20
)

// MaxLoginSegment is the longest data segment of a Login PDU, bytes: before a
// connection is in full feature phase the default MaxRecvDataSegmentLength holds in
// both directions (RFC 7143 §13.12).
const MaxLoginSegment = defaultMaxRecvDataSegmentLength

// Params is what a login has agreed upon: everything that a connection's full
// feature phase needs to know. It is a value; copy it freely.
type Params struct {
	// InitiatorName and TargetName are normalised; TargetName is empty in a
	// discovery session that named none.
	InitiatorName, TargetName string
	// InitiatorAlias as sent, at most 255 bytes; for display only.
	InitiatorAlias string
	ISID           [6]byte
	TSIH           uint16 // given by Config.Admit, or the initiator's where not 0
	CID            uint16
	TPGT           uint16 // target portal group tag
	Discovery      bool   // SessionType=Discovery
	AuthMethod     string // "None", or the method that the initiator passed
	AuthUser       string // the name that the initiator has proved, empty for None
	ProtocolLevel  uint8  // iSCSIProtocolLevel (RFC 7144 §7.1.1)

	// Digests of both directions: CRC32C where true.
	HeaderDigest, DataDigest bool

	InitialR2T, ImmediateData bool
	// MaxRecvDataSegmentLength bounds what the target receives in one data
	// segment, MaxXmitDataSegmentLength what it sends: the initiator's
	// MaxRecvDataSegmentLength. Bytes.
	MaxRecvDataSegmentLength, MaxXmitDataSegmentLength uint32
	MaxBurstLength, FirstBurstLength                   uint32 // bytes
	MaxOutstandingR2T, MaxConnections                  uint16
	DefaultTime2Wait, DefaultTime2Retain               uint16 // seconds
	ErrorRecoveryLevel                                 uint8
	DataPDUInOrder, DataSequenceInOrder                bool

	// ExpCmdSN and StatSN are what the next PDUs carry: the CmdSN that the first
	// non-immediate command will have, and the StatSN of the next response.
	ExpCmdSN, StatSN uint32
	// ExpStatSN is what the initiator's last Login Request said.
	ExpStatSN uint32
}

// defaults is the state before any negotiation.
func defaults() Params {
	return Params{
		InitialR2T:               true,
		ImmediateData:            true,
		MaxRecvDataSegmentLength: defaultMaxRecvDataSegmentLength,
		MaxXmitDataSegmentLength: defaultMaxRecvDataSegmentLength,
		MaxBurstLength:           defaultMaxBurstLength,
		FirstBurstLength:         defaultFirstBurstLength,
		MaxOutstandingR2T:        1,
		MaxConnections:           1,
		DefaultTime2Wait:         defaultTime2Wait,
		DefaultTime2Retain:       defaultTime2Retain,
		DataPDUInOrder:           true,
		DataSequenceInOrder:      true,
		AuthMethod:               "None",
		ProtocolLevel:            1,
	}
}

// join takes from the parameters of a session what its leading connection decided
// for all ("LO" in chapter 13).
func (p *Params) join(leading *Params) {
	p.InitialR2T, p.ImmediateData = leading.InitialR2T, leading.ImmediateData
	p.MaxBurstLength, p.FirstBurstLength = leading.MaxBurstLength, leading.FirstBurstLength
	p.MaxOutstandingR2T, p.MaxConnections = leading.MaxOutstandingR2T, leading.MaxConnections
	p.DefaultTime2Wait, p.DefaultTime2Retain = leading.DefaultTime2Wait, leading.DefaultTime2Retain
	p.ErrorRecoveryLevel, p.ProtocolLevel = leading.ErrorRecoveryLevel, leading.ProtocolLevel
	p.DataPDUInOrder, p.DataSequenceInOrder = leading.DataPDUInOrder, leading.DataSequenceInOrder
}

// InitiatorPort is the initiator port's name, InitiatorName,i,0xISID
// (RFC 7143 §4.2.7.1): the same for as long as SCSI calls it the same port.
func (p *Params) InitiatorPort() string {
	return fmt.Sprintf("%s,i,0x%x", p.InitiatorName, p.ISID[:])
}

// TargetPort is the target port's name, TargetName,t,0xTPGT.
func (p *Params) TargetPort() string { return TargetPort(p.TargetName, p.TPGT) }

// TargetPort is the name of the target port of portal group tpgt of target name.
func TargetPort(name string, tpgt uint16) string { return fmt.Sprintf("%s,t,0x%04x", name, tpgt) }
