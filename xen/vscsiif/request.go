package vscsiif

import (
	"encoding/binary"
	"fmt"

	"github.com/vtgt/vtgt/scsi"
)

// Lengths of vscsiif.h, bytes and entries.
const (
	PageSize   = 4096
	SlotLen    = 252
	RequestLen = SlotLen
	MaxCDB     = 16 // VSCSIIF_MAX_COMMAND_SIZE
	MaxDirect  = 26 // VSCSIIF_SG_TABLESIZE
	SenseLen   = 96 // VSCSIIF_SENSE_BUFFERSIZE
	SegmentLen = 8  // of a segment descriptor
	// PerPage is how many segment descriptors a page of them holds.
	PerPage = PageSize / SegmentLen
	// Indirect in a request's number of segments says that they are pages of
	// segment descriptors (VSCSIIF_SG_GRANT).
	Indirect = 0x80
)

// An Action is what a request asks for.
type Action uint8

// The actions. 4 was SG_PRESET.
const (
	ActCDB   Action = 1
	ActAbort Action = 2
	ActReset Action = 3
)

func (a Action) String() string {
	switch a {
	case ActCDB:
		return "CDB"
	case ActAbort:
		return "ABORT"
	case ActReset:
		return "RESET"
	}
	return fmt.Sprintf("%#x", uint8(a))
}

// A Direction is where a command's data go (enum dma_data_direction of Linux).
type Direction uint8

// The directions.
const (
	Bidirectional Direction = 0
	ToDevice      Direction = 1
	FromDevice    Direction = 2
	NoData        Direction = 3
)

// Request is struct vscsiif_request, a private copy.
type Request [RequestLen]byte

// ID is rqid: the front end's name of the request.
func (r *Request) ID() uint16 { return binary.LittleEndian.Uint16(r[0:]) }

// Action is act.
func (r *Request) Action() Action { return Action(r[2]) }

// CDBLen is cmd_len, not checked.
func (r *Request) CDBLen() int { return int(r[3]) }

// CDB is cmnd.
func (r *Request) CDB() *[MaxCDB]byte { return (*[MaxCDB]byte)(r[4:]) }

// Address is which device it is for.
func (r *Request) Address() Address {
	le := binary.LittleEndian
	return Address{le.Uint16(r[22:]), le.Uint16(r[24:]), le.Uint16(r[26:])}
}

// Ref is ref_rqid: the request that ABORT is about.
func (r *Request) Ref() uint16 { return binary.LittleEndian.Uint16(r[28:]) }

// Direction is sc_data_direction, not checked.
func (r *Request) Direction() Direction { return Direction(r[30]) }

// Segments is nr_segments: how many entries are used, and whether they are pages of
// descriptors. The number is not checked.
func (r *Request) Segments() (n int, indirect bool) {
	return int(r[31] &^ Indirect), r[31]&Indirect != 0
}

// Segment is entry i, 0 to MaxDirect-1.
func (r *Request) Segment(i int) Segment { return ParseSegment(r[32+SegmentLen*i:]) }

// An Address is channel, target and LUN of a device as the front end sees it.
type Address struct{ Channel, Target, LUN uint16 }

// Segment is struct scsiif_request_segment: a piece of a granted page.
type Segment struct {
	Ref      uint32
	Off, Len uint16 // bytes
}

// ParseSegment decodes the first SegmentLen bytes of b.
func ParseSegment(b []byte) Segment {
	_ = b[7]
	le := binary.LittleEndian
	return Segment{le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:])}
}

// Append appends the descriptor to dst.
func (s Segment) Append(dst []byte) []byte {
	le := binary.LittleEndian
	return le.AppendUint16(le.AppendUint16(le.AppendUint32(dst, s.Ref), s.Off), s.Len)
}

// InPage tells whether the segment lies in one page.
func (s Segment) InPage() bool { return int(s.Off)+int(s.Len) <= PageSize }

// InTable tells whether the segment is a piece of a page of whole descriptors.
func (s Segment) InTable() bool { return s.InPage() && s.Len > 0 && s.Len%SegmentLen == 0 }

// Set makes the request that a front end sends, for tests.
func (r *Request) Set(id uint16, act Action, a Address, cdb []byte, d Direction) {
	*r = Request{}
	le := binary.LittleEndian
	le.PutUint16(r[0:], id)
	r[2], r[3] = byte(act), byte(copy(r[4:20], cdb))
	le.PutUint16(r[22:], a.Channel)
	le.PutUint16(r[24:], a.Target)
	le.PutUint16(r[26:], a.LUN)
	r[30] = byte(d)
}

// SetRef sets ref_rqid.
func (r *Request) SetRef(id uint16) { binary.LittleEndian.PutUint16(r[28:], id) }

// SetSegments sets the entries, at most MaxDirect.
func (r *Request) SetSegments(list []Segment, indirect bool) {
	r[31] = byte(len(list))
	if indirect {
		r[31] |= Indirect
	}
	for i, s := range list {
		s.Append(r[32+SegmentLen*i : 32+SegmentLen*i])
	}
}

// A Host is a host result: what became of a request apart from SCSI
// (XEN_VSCSIIF_RSLT_HOST_*).
type Host uint8

// The host results that this target gives.
const (
	HostOK        Host = 0
	HostNoConnect Host = 1 // no such device
	HostAbort     Host = 5
	HostError     Host = 7
	HostReset     Host = 8
	HostRequeue   Host = 13
)

// The results of ABORT and RESET.
const (
	ResetSuccess int32 = 0x2002
	ResetFailed  int32 = 0x2003
)

// Result makes rslt of a CDB.
func Result(h Host, s scsi.Status) int32 { return int32(h)<<16 | int32(s) }

// Response is struct vscsiif_response.
type Response [SlotLen]byte

// Set makes a response. Of sense at most SenseLen bytes are taken; residual is in
// bytes.
func (r *Response) Set(id uint16, result int32, residual uint32, sense []byte) {
	clear(r[:])
	le := binary.LittleEndian
	le.PutUint16(r[0:], id)
	r[3] = byte(copy(r[4:4+SenseLen], sense))
	le.PutUint32(r[100:], uint32(result))
	le.PutUint32(r[104:], residual)
}

// ID is rqid.
func (r *Response) ID() uint16 { return binary.LittleEndian.Uint16(r[0:]) }

// Result is rslt.
func (r *Response) Result() int32 { return int32(binary.LittleEndian.Uint32(r[100:])) }

// Residual is residual_len.
func (r *Response) Residual() uint32 { return binary.LittleEndian.Uint32(r[104:]) }

// Sense is the sense data.
func (r *Response) Sense() []byte { return r[4 : 4+min(int(r[3]), SenseLen)] }
