package scsi

import "fmt"

// Status is a SCSI status code (SAM-5 §5.3.1).
type Status uint8

// The status codes.
const (
	StatusGood                Status = 0x00
	StatusCheckCondition      Status = 0x02
	StatusConditionMet        Status = 0x04
	StatusBusy                Status = 0x08
	StatusReservationConflict Status = 0x18
	StatusTaskSetFull         Status = 0x28
	StatusACAActive           Status = 0x30
	StatusTaskAborted         Status = 0x40
)

func (s Status) String() string {
	switch s {
	case StatusGood:
		return "GOOD"
	case StatusCheckCondition:
		return "CHECK CONDITION"
	case StatusConditionMet:
		return "CONDITION MET"
	case StatusBusy:
		return "BUSY"
	case StatusReservationConflict:
		return "RESERVATION CONFLICT"
	case StatusTaskSetFull:
		return "TASK SET FULL"
	case StatusACAActive:
		return "ACA ACTIVE"
	case StatusTaskAborted:
		return "TASK ABORTED"
	}
	return fmt.Sprintf("status %#02x", uint8(s))
}

// TaskAttr is a task attribute (SAM-5 §8.6). The numbers are SRP's and
// virtio-scsi's; iSCSI maps its own.
type TaskAttr uint8

// The task attributes.
const (
	Simple      TaskAttr = 0
	HeadOfQueue TaskAttr = 1
	Ordered     TaskAttr = 2
	ACA         TaskAttr = 4
)

func (a TaskAttr) String() string {
	switch a {
	case Simple:
		return "SIMPLE"
	case HeadOfQueue:
		return "HEAD OF QUEUE"
	case Ordered:
		return "ORDERED"
	case ACA:
		return "ACA"
	}
	return fmt.Sprintf("attribute %d", uint8(a))
}
