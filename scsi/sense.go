package scsi

import (
	"encoding/binary"
	"fmt"
)

// SenseKey is a sense key (SPC-4 §4.5.6).
type SenseKey uint8

// The sense keys.
const (
	NoSense        SenseKey = 0x0
	RecoveredError SenseKey = 0x1
	NotReady       SenseKey = 0x2
	MediumError    SenseKey = 0x3
	HardwareError  SenseKey = 0x4
	IllegalRequest SenseKey = 0x5
	UnitAttention  SenseKey = 0x6
	DataProtect    SenseKey = 0x7
	BlankCheck     SenseKey = 0x8
	CopyAborted    SenseKey = 0xa
	AbortedCommand SenseKey = 0xb
	Miscompare     SenseKey = 0xe
	Completed      SenseKey = 0xf
)

// ASC is an additional sense code (high byte) with its qualifier (low byte),
// SPC-4 annex F.
type ASC uint16

func (a ASC) String() string { return fmt.Sprintf("%02x/%02x", uint8(a>>8), uint8(a)) }

// The additional sense codes that the core uses.
const (
	ASCNone                         ASC = 0x0000
	ASCOperationInProgress          ASC = 0x0016
	ASCFormatInProgress             ASC = 0x0404
	ASCSanitizeInProgress           ASC = 0x041b
	ASCFormatCommandFailed          ASC = 0x3101
	ASCSanitizeCommandFailed        ASC = 0x3103
	ASCBecomingReady                ASC = 0x0401
	ASCInitCommandRequired          ASC = 0x0402
	ASCManualIntervention           ASC = 0x0403
	ASCWriteError                   ASC = 0x0c00
	ASCUnrecoveredReadError         ASC = 0x1100
	ASCParamListLengthError         ASC = 0x1a00
	ASCMiscompareDuringVerify       ASC = 0x1d00
	ASCInvalidCommandOpCode         ASC = 0x2000
	ASCLBAOutOfRange                ASC = 0x2100
	ASCInvalidFieldInCDB            ASC = 0x2400
	ASCLUNNotSupported              ASC = 0x2500
	ASCInvalidFieldInParamList      ASC = 0x2600
	ASCParamNotSupported            ASC = 0x2601
	ASCParamValueInvalid            ASC = 0x2602
	ASCWriteProtected               ASC = 0x2700
	ASCSoftwareWriteProtected       ASC = 0x2702
	ASCSpaceAllocationFailed        ASC = 0x2707
	ASCPowerOnOrReset               ASC = 0x2900
	ASCPowerOn                      ASC = 0x2901
	ASCBusReset                     ASC = 0x2902
	ASCBusDeviceReset               ASC = 0x2903
	ASCNexusLoss                    ASC = 0x2907
	ASCModeParametersChanged        ASC = 0x2a01
	ASCLogParametersChanged         ASC = 0x2a02
	ASCReservationsPreempted        ASC = 0x2a03
	ASCReservationsReleased         ASC = 0x2a04
	ASCRegistrationsPreempted       ASC = 0x2a05
	ASCAsymmetricAccessStateChanged ASC = 0x2a06
	ASCCapacityDataHasChanged       ASC = 0x2a09
	ASCTimestampChanged             ASC = 0x2a10
	ASCCommandsClearedByAnother     ASC = 0x2f00
	ASCThinThresholdReached         ASC = 0x3807
	ASCSavingParametersNotSupported ASC = 0x3900
	ASCCommandsClearedByISCSI       ASC = 0x477f
	ASCMediumNotPresent             ASC = 0x3a00
	ASCInquiryDataHasChanged        ASC = 0x3f03
	ASCDeviceIdentifierChanged      ASC = 0x3f05
	ASCReportedLUNsDataHasChanged   ASC = 0x3f0e
	ASCInternalTargetFailure        ASC = 0x4400
	ASCCommandSequenceError         ASC = 0x2c00
	ASCInvalidMessage               ASC = 0x4900
	ASCOverlappedCommands           ASC = 0x4e00
	ASCMediumRemovalPrevented       ASC = 0x5302
	ASCInsufficientResources        ASC = 0x5503
	ASCTaskAbortedByTMF             ASC = 0x2f00
)

// senseFault is how a command ends whose buffers the initiator has taken away: DATA
// PHASE ERROR.
var senseFault = Sense{Key: AbortedCommand, ASC: 0x4b00}

// Sense is sense data before it is encoded. The zero value is NO SENSE.
type Sense struct {
	Key SenseKey
	ASC ASC
	// Info is the INFORMATION field, valid where HasInfo.
	Info    uint64
	HasInfo bool
	// SKS is the sense-key specific field (SPC-4 §4.5.2.4), valid where its
	// first byte has SKSV (80h) set.
	SKS [3]byte
}

// InvalidCDBField is ILLEGAL REQUEST, INVALID FIELD IN CDB that points at bit
// bit (0..7; -1: none) of byte byte_ of the CDB.
func InvalidCDBField(byte_, bit int) Sense {
	return Sense{Key: IllegalRequest, ASC: ASCInvalidFieldInCDB, SKS: fieldPointer(0xc0, byte_, bit)}
}

// InvalidParamField is ILLEGAL REQUEST, INVALID FIELD IN PARAMETER LIST that
// points at bit bit (-1: none) of byte byte_ of the parameter list.
func InvalidParamField(byte_, bit int) Sense {
	return Sense{Key: IllegalRequest, ASC: ASCInvalidFieldInParamList, SKS: fieldPointer(0x80, byte_, bit)}
}

func fieldPointer(b0 byte, byte_, bit int) [3]byte {
	if bit >= 0 {
		b0 |= 0x08 | byte(bit&7)
	}
	return [3]byte{b0, byte(byte_ >> 8), byte(byte_)}
}

// Progress sets the sense-key specific field to a progress indication of
// n/65536 (SPC-4 §4.5.2.4.4).
func (s Sense) Progress(n uint16) Sense {
	s.SKS = [3]byte{0x80, byte(n >> 8), byte(n)}
	return s
}

// Sizes of encoded sense data.
const (
	fixedSenseLen = 18
	// MaxSense is the room for sense data in a Task, bytes. 96 is what
	// virtio-scsi (§5.6.4) and Linux set aside.
	MaxSense = 96
)

// Encode writes s to dst (at least MaxSense bytes) in descriptor format (response
// code 72h) or in fixed format (70h), and returns its length. SPC-4 §4.5.
func (s Sense) Encode(dst []byte, descriptor bool) int {
	clear(dst[:MaxSense])
	if !descriptor {
		dst[0] = 0x70
		dst[2] = byte(s.Key)
		dst[7] = fixedSenseLen - 8
		dst[12], dst[13] = byte(s.ASC>>8), byte(s.ASC)
		// The four-byte field cannot hold more: VALID stays zero (SPC-4 §4.5.3).
		if s.HasInfo && s.Info <= 0xffffffff {
			dst[0] |= 0x80
			binary.BigEndian.PutUint32(dst[3:], uint32(s.Info))
		}
		copy(dst[15:18], s.SKS[:])
		return fixedSenseLen
	}
	dst[0] = 0x72
	dst[1] = byte(s.Key)
	dst[2], dst[3] = byte(s.ASC>>8), byte(s.ASC)
	n := 8
	if s.HasInfo {
		d := dst[n:]
		d[0], d[1], d[2] = 0x00, 0x0a, 0x80
		binary.BigEndian.PutUint64(d[4:], s.Info)
		n += 12
	}
	if s.SKS[0]&0x80 != 0 {
		d := dst[n:]
		d[0], d[1] = 0x02, 0x06
		copy(d[4:7], s.SKS[:])
		n += 8
	}
	dst[7] = byte(n - 8)
	return n
}
