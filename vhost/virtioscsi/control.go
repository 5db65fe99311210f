package virtioscsi

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/scsi"
)

// ControlType says what a request on the control queue is (VIRTIO_SCSI_T_*).
type ControlType uint32

// The types.
const (
	TypeTMF         ControlType = 0
	TypeANQuery     ControlType = 1
	TypeANSubscribe ControlType = 2
)

// TypeLen is the size of the type, with which every control request begins.
const TypeLen = 4

// DecodeType is the type of a control request of at least TypeLen bytes.
func DecodeType(b []byte) ControlType { return ControlType(binary.LittleEndian.Uint32(b)) }

// Sizes in bytes of the device-readable and device-writable parts (VIRTIO 1.2 §5.6.6.2).
const (
	TMFLen     = 24
	TMFRespLen = 1
	ANLen      = 16
	ANRespLen  = 5
)

// TMF is a task management request; its answer is one byte, a Response.
type TMF [TMFLen]byte

// Subtype is the function (VIRTIO_SCSI_T_TMF_*).
func (t *TMF) Subtype() uint32 { return binary.LittleEndian.Uint32(t[4:]) }

// LUN is the address that the function is about.
func (t *TMF) LUN() LUN { return LUN(t[8:16]) }

// Tag is the command that ABORT TASK and QUERY TASK are about.
func (t *TMF) Tag() uint64 { return binary.LittleEndian.Uint64(t[16:]) }

// Set fills the request; it is the driver's side.
func (t *TMF) Set(subtype uint32, l LUN, tag uint64) {
	*t = TMF{}
	binary.LittleEndian.PutUint32(t[0:], uint32(TypeTMF))
	binary.LittleEndian.PutUint32(t[4:], subtype)
	copy(t[8:], l[:])
	binary.LittleEndian.PutUint64(t[16:], tag)
}

// functions are the functions by subtype.
var functions = [...]scsi.TMFunc{scsi.AbortTask, scsi.AbortTaskSet, scsi.ClearACA, scsi.ClearTaskSet,
	scsi.NexusReset, scsi.LUNReset, scsi.QueryTask, scsi.QueryTaskSet}

// Func is the core's function for a subtype; ok is false for one that does not exist.
func Func(subtype uint32) (f scsi.TMFunc, ok bool) {
	if subtype >= uint32(len(functions)) {
		return 0, false
	}
	return functions[subtype], true
}

// Subtype is the inverse of Func.
func Subtype(f scsi.TMFunc) (subtype uint32, ok bool) {
	for i, g := range functions {
		if f == g {
			return uint32(i), true
		}
	}
	return 0, false
}

// TMFResponse is how the standard says what the core answers. ABORT TASK that finds no
// task is complete (SAM-5 §7.2).
func TMFResponse(r scsi.TMResponse) Response {
	switch r {
	case scsi.TMComplete, scsi.TMNoTask:
		return OK
	case scsi.TMSucceeded:
		return FunctionSucceeded
	case scsi.TMNoLUN, scsi.TMIncorrectLUN:
		return IncorrectLUN
	case scsi.TMNotSupported, scsi.TMRejected:
		return FunctionRejected
	}
	return Failure
}

// AN is an asynchronous notification query or subscription.
type AN [ANLen]byte

// LUN is the address that it is about.
func (a *AN) LUN() LUN { return LUN(a[4:12]) }

// Events are those that the driver asks for.
func (a *AN) Events() uint32 { return binary.LittleEndian.Uint32(a[12:]) }

// Set fills the request; it is the driver's side.
func (a *AN) Set(t ControlType, l LUN, events uint32) {
	*a = AN{}
	binary.LittleEndian.PutUint32(a[0:], uint32(t))
	copy(a[4:], l[:])
	binary.LittleEndian.PutUint32(a[12:], events)
}

// ANResp is the answer.
type ANResp [ANRespLen]byte

// Set fills it: actual are the events that are supported, or subscribed to.
func (a *ANResp) Set(actual uint32, r Response) {
	binary.LittleEndian.PutUint32(a[0:], actual)
	a[4] = byte(r)
}

// Actual are the events.
func (a *ANResp) Actual() uint32 { return binary.LittleEndian.Uint32(a[0:]) }

// Response is the outcome.
func (a *ANResp) Response() Response { return Response(a[4]) }
