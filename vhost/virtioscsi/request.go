package virtioscsi

import (
	"encoding/binary"
	"fmt"

	"github.com/vtgt/vtgt/scsi"
)

// Sizes in bytes: struct virtio_scsi_req_cmd with a CDB of 32 and struct
// virtio_scsi_resp_cmd with 96 of sense data (VIRTIO 1.2 §5.6.6.1).
const (
	CDBLen   = 32
	SenseLen = 96
	ReqLen   = 19 + CDBLen
	RespLen  = 12 + SenseLen
)

// Req is the device-readable part of a request on a request queue, without its data.
type Req [ReqLen]byte

// LUN is the address of the logical unit.
func (r *Req) LUN() LUN { return LUN(r[0:8]) }

// Tag identifies the command among those that the device has.
func (r *Req) Tag() uint64 { return binary.LittleEndian.Uint64(r[8:]) }

// Attr is the task attribute. The device passes over the priority, as the CRN.
func (r *Req) Attr() scsi.TaskAttr {
	switch r[16] {
	case attrOrdered:
		return scsi.Ordered
	case attrHead:
		return scsi.HeadOfQueue
	case attrACA:
		return scsi.ACA
	}
	return scsi.Simple
}

// The task attributes.
const (
	attrSimple  = 0
	attrOrdered = 1
	attrHead    = 2
	attrACA     = 3
)

// CDB is the command descriptor block, padded with zeroes; a view.
func (r *Req) CDB() *[CDBLen]byte { return (*[CDBLen]byte)(r[19:]) }

// Set fills the header; it is the driver's side.
func (r *Req) Set(l LUN, tag uint64, a scsi.TaskAttr, cdb []byte) {
	*r = Req{}
	copy(r[0:8], l[:])
	binary.LittleEndian.PutUint64(r[8:], tag)
	switch a {
	case scsi.Ordered:
		r[16] = attrOrdered
	case scsi.HeadOfQueue:
		r[16] = attrHead
	case scsi.ACA:
		r[16] = attrACA
	default:
		r[16] = attrSimple
	}
	copy(r[19:], cdb)
}

// Resp is the device-writable part of a request on a request queue, which stands
// before its data.
type Resp [RespLen]byte

// Set makes a whole response. residual is how many bytes of the data buffers were not
// moved; sense at most SenseLen bytes.
func (r *Resp) Set(c Response, st scsi.Status, residual uint32, sense []byte) {
	*r = Resp{}
	r[10], r[11] = byte(st), byte(c)
	binary.LittleEndian.PutUint32(r[4:], residual)
	binary.LittleEndian.PutUint32(r[0:], uint32(copy(r[12:], sense)))
}

// Response says what became of the request; the status is valid where it is S_OK.
func (r *Resp) Response() Response { return Response(r[11]) }

// Status is the SCSI status.
func (r *Resp) Status() scsi.Status { return scsi.Status(r[10]) }

// Residual is how many bytes of the data buffers were not moved.
func (r *Resp) Residual() uint32 { return binary.LittleEndian.Uint32(r[4:]) }

// Sense is the sense data, a view.
func (r *Resp) Sense() []byte {
	return r[12 : 12+min(binary.LittleEndian.Uint32(r[0:]), SenseLen)]
}

// Response is the device's answer to a request (VIRTIO_SCSI_S_*).
type Response uint8

// The answers. Those from FunctionSucceeded on are the control queue's alone; its
// FUNCTION COMPLETE is OK.
const (
	OK Response = iota
	Overrun
	Aborted
	BadTarget
	Reset
	Busy
	TransportFailure
	TargetFailure
	NexusFailure
	Failure
	FunctionSucceeded
	FunctionRejected
	IncorrectLUN
)

var responses = [...]string{"OK", "OVERRUN", "ABORTED", "BAD_TARGET", "RESET", "BUSY", "TRANSPORT_FAILURE",
	"TARGET_FAILURE", "NEXUS_FAILURE", "FAILURE", "FUNCTION_SUCCEEDED", "FUNCTION_REJECTED", "INCORRECT_LUN"}

func (r Response) String() string {
	if int(r) < len(responses) {
		return responses[r]
	}
	return fmt.Sprintf("Response(%#x)", uint8(r))
}
