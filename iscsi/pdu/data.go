package pdu

// Flags of byte 1 of a SCSI Data-In (RFC 7143 §11.7.1).
const (
	dataAck    = 0x40
	dataStatus = 0x01
)

// Acknowledge is the A bit of a Data-In: the target asks for a DataACK SNACK
// (ErrorRecoveryLevel above 0 only).
func (h *BHS) Acknowledge() bool { return h.bit(1, dataAck) }

// SetAcknowledge sets the A bit.
func (h *BHS) SetAcknowledge(on bool) { h.setBit(1, dataAck, on) }

// HasStatus is the S bit of a Data-In: it carries the status of the command.
func (h *BHS) HasStatus() bool { return h.bit(1, dataStatus) }

// SetHasStatus sets the S bit.
func (h *BHS) SetHasStatus(on bool) { h.setBit(1, dataStatus, on) }

// DesiredDataTransferLength is of R2T, bytes (§11.8.6).
func (h *BHS) DesiredDataTransferLength() uint32 { return h.u32(44) }

// SetDesiredDataTransferLength sets it, bytes.
func (h *BHS) SetDesiredDataTransferLength(v uint32) { h.put32(44, v) }
