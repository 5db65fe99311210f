package pdu

import "fmt"

// TMF is the Function field of a Task Management Function Request (RFC 7143
// §11.5.1; from 9 on RFC 7144 §4).
type TMF uint8

// The task management functions.
const (
	AbortTask       TMF = 1
	AbortTaskSet    TMF = 2
	ClearACA        TMF = 3
	ClearTaskSet    TMF = 4
	LogicalReset    TMF = 5 // LOGICAL UNIT RESET
	TargetWarmReset TMF = 6
	TargetColdReset TMF = 7
	TaskReassign    TMF = 8
	QueryTask       TMF = 9
	QueryTaskSet    TMF = 10
	NexusReset      TMF = 11
	QueryAsyncEvent TMF = 12
)

func (f TMF) String() string {
	switch f {
	case AbortTask:
		return "ABORT TASK"
	case AbortTaskSet:
		return "ABORT TASK SET"
	case ClearACA:
		return "CLEAR ACA"
	case ClearTaskSet:
		return "CLEAR TASK SET"
	case LogicalReset:
		return "LOGICAL UNIT RESET"
	case TargetWarmReset:
		return "TARGET WARM RESET"
	case TargetColdReset:
		return "TARGET COLD RESET"
	case TaskReassign:
		return "TASK REASSIGN"
	case QueryTask:
		return "QUERY TASK"
	case QueryTaskSet:
		return "QUERY TASK SET"
	case NexusReset:
		return "I_T NEXUS RESET"
	case QueryAsyncEvent:
		return "QUERY ASYNCHRONOUS EVENT"
	}
	return fmt.Sprintf("function %d", uint8(f))
}

// TMFResponse is the Response field of a Task Management Function Response
// (§11.6.1).
type TMFResponse uint8

// The task management responses.
const (
	TMFComplete                TMFResponse = 0
	TMFNoTask                  TMFResponse = 1
	TMFNoLUN                   TMFResponse = 2
	TMFStillAllegiant          TMFResponse = 3
	TMFReassignmentUnsupported TMFResponse = 4
	TMFUnsupported             TMFResponse = 5
	TMFAuthorizationFailed     TMFResponse = 6
	TMFSucceeded               TMFResponse = 7 // RFC 7144 §4.2: the query functions
	TMFRejected                TMFResponse = 255
)

func (r TMFResponse) String() string {
	switch r {
	case TMFComplete:
		return "function complete"
	case TMFNoTask:
		return "task does not exist"
	case TMFNoLUN:
		return "LUN does not exist"
	case TMFStillAllegiant:
		return "task still allegiant"
	case TMFReassignmentUnsupported:
		return "task allegiance reassignment not supported"
	case TMFUnsupported:
		return "task management function not supported"
	case TMFAuthorizationFailed:
		return "function authorization failed"
	case TMFSucceeded:
		return "function succeeded"
	case TMFRejected:
		return "function rejected"
	}
	return fmt.Sprintf("response %d", uint8(r))
}

// Function is the function of a Task Management Function Request.
func (h *BHS) Function() TMF { return TMF(h[1] & 0x7f) }

// SetFunction sets it.
func (h *BHS) SetFunction(f TMF) { h[1] = bhsFinal | byte(f)&0x7f }

// ReferencedTaskTag is of a Task Management Function Request (§11.5.4).
func (h *BHS) ReferencedTaskTag() uint32 { return h.u32(20) }

// SetReferencedTaskTag sets it.
func (h *BHS) SetReferencedTaskTag(v uint32) { h.put32(20, v) }

// RefCmdSN is of a Task Management Function Request: the CmdSN of the task to be
// aborted (§11.5.5).
func (h *BHS) RefCmdSN() uint32 { return h.u32(32) }

// SetRefCmdSN sets it.
func (h *BHS) SetRefCmdSN(v uint32) { h.put32(32, v) }
