package pdu

import "fmt"

// Flags of byte 1 of a SCSI Command (RFC 7143 §11.3.1).
const (
	cmdRead  = 0x40
	cmdWrite = 0x20
	cmdAttr  = 0x07
)

// TaskAttr is the ATTR field of a SCSI Command (§11.3.1).
type TaskAttr uint8

// The task attributes as iSCSI numbers them.
const (
	AttrUntagged    TaskAttr = 0
	AttrSimple      TaskAttr = 1
	AttrOrdered     TaskAttr = 2
	AttrHeadOfQueue TaskAttr = 3
	AttrACA         TaskAttr = 4
)

func (a TaskAttr) String() string {
	switch a {
	case AttrUntagged:
		return "untagged"
	case AttrSimple:
		return "simple"
	case AttrOrdered:
		return "ordered"
	case AttrHeadOfQueue:
		return "head of queue"
	case AttrACA:
		return "ACA"
	}
	return fmt.Sprintf("attribute %d", uint8(a))
}

// Read is the R bit of a SCSI Command: data are expected from the target.
func (h *BHS) Read() bool { return h.bit(1, cmdRead) }

// SetRead sets the R bit.
func (h *BHS) SetRead(on bool) { h.setBit(1, cmdRead, on) }

// Write is the W bit of a SCSI Command: data are to be sent to the target.
func (h *BHS) Write() bool { return h.bit(1, cmdWrite) }

// SetWrite sets the W bit.
func (h *BHS) SetWrite(on bool) { h.setBit(1, cmdWrite, on) }

// Attr is the task attribute of a SCSI Command.
func (h *BHS) Attr() TaskAttr { return TaskAttr(h[1] & cmdAttr) }

// SetAttr sets the task attribute.
func (h *BHS) SetAttr(a TaskAttr) { h[1] = h[1]&^cmdAttr | byte(a)&cmdAttr }

// ExpectedDataTransferLength is of a SCSI Command, bytes (§11.3.4).
func (h *BHS) ExpectedDataTransferLength() uint32 { return h.u32(20) }

// SetExpectedDataTransferLength sets it, bytes.
func (h *BHS) SetExpectedDataTransferLength(v uint32) { h.put32(20, v) }

// CDB is the CDB field of a SCSI Command, in place: 16 bytes, zero-padded; longer
// CDBs continue in an AHS, see [AHS].
func (h *BHS) CDB() []byte { return h[32:48:48] }

// SetCDB copies up to 16 bytes of cdb.
func (h *BHS) SetCDB(cdb []byte) {
	clear(h[32:48])
	copy(h[32:48], cdb)
}

// Response is byte 2 of a SCSI Response, Task Management Function Response or
// Logout Response.
func (h *BHS) Response() uint8 { return h[2] }

// SetResponse sets byte 2.
func (h *BHS) SetResponse(r uint8) { h[2] = r }

// iSCSI service responses of a SCSI Response (§11.4.3).
const (
	ResponseCompleted     = 0x00
	ResponseTargetFailure = 0x01
)

// Status is the SCSI status of a SCSI Response, and of a Data-In with the S bit.
func (h *BHS) Status() uint8 { return h[3] }

// SetStatus sets the SCSI status.
func (h *BHS) SetStatus(s uint8) { h[3] = s }

// Residual is a set of residual flags: of a SCSI Response (§11.4.1), and the two
// low ones of a Data-In with the S bit (§11.7.3).
type Residual uint8

// The residual flags: byte 1 of the header.
const (
	BidiOverflow  Residual = 0x10 // o
	BidiUnderflow Residual = 0x08 // u
	Overflow      Residual = 0x04 // O
	Underflow     Residual = 0x02 // U

	residualMask = BidiOverflow | BidiUnderflow | Overflow | Underflow
)

func (r Residual) String() string {
	s := ""
	for _, f := range [...]struct {
		r Residual
		s string
	}{{BidiOverflow, "o"}, {BidiUnderflow, "u"}, {Overflow, "O"}, {Underflow, "U"}} {
		if r&f.r != 0 {
			s += f.s
		}
	}
	if rest := r &^ residualMask; rest != 0 {
		s += fmt.Sprintf("+%#02x", uint8(rest))
	}
	if s == "" {
		return "none"
	}
	return s
}

// ResidualFlags returns the residual flags.
func (h *BHS) ResidualFlags() Residual { return Residual(h[1]) & residualMask }

// SetResidual sets the residual flags and the residual count, bytes. In a Data-In,
// r must be 0, [Overflow] or [Underflow].
func (h *BHS) SetResidual(r Residual, n uint32) {
	h[1] = h[1]&^byte(residualMask) | byte(r&residualMask)
	h.put32(44, n)
}

// ResidualCount is of a SCSI Response and of a Data-In with the S bit, bytes.
func (h *BHS) ResidualCount() uint32 { return h.u32(44) }

// SNACKTag is of a SCSI Response (§11.4.5), and of an R-Data SNACK.
func (h *BHS) SNACKTag() uint32 { return h.u32(20) }

// SetSNACKTag sets the SNACK tag.
func (h *BHS) SetSNACKTag(v uint32) { h.put32(20, v) }

// ExpDataSN is of a SCSI Response (§11.4.8) and of a task reassignment.
func (h *BHS) ExpDataSN() uint32 { return h.u32(36) }

// SetExpDataSN sets ExpDataSN.
func (h *BHS) SetExpDataSN(v uint32) { h.put32(36, v) }

// BidiReadResidual is of a SCSI Response, bytes (§11.4.6).
func (h *BHS) BidiReadResidual() uint32 { return h.u32(40) }

// SetBidiReadResidual sets it, bytes.
func (h *BHS) SetBidiReadResidual(v uint32) { h.put32(40, v) }
