package vhosttest

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// Sizes of a request's headers, VIRTIO 1.2 §5.6.6.1 with the default cdb_size and
// sense_size.
const (
	ReqBytes   = 51
	RespBytes  = 108
	senseBytes = 96
)

// Responses, VIRTIO 1.2 §5.6.6.
const (
	RespOK                = 0
	RespOverrun           = 1
	RespAborted           = 2
	RespBadTarget         = 3
	RespReset             = 4
	RespBusy              = 5
	RespTransportFailure  = 6
	RespTargetFailure     = 7
	RespNexusFailure      = 8
	RespFailure           = 9
	RespFunctionSucceeded = 10
	RespFunctionRejected  = 11
	RespIncorrectLUN      = 12
)

// untouched is what the response byte holds until the device writes it.
const untouched = 0xee

// Buf is a buffer in guest memory.
type Buf = vringtest.Buf

// A Request is a SCSI command, or what else a queue takes, and its answer. It is made
// once and used again; from Submit to its completion it is the queue's.
type Request struct {
	LUN  [8]byte
	Tag  uint64
	Attr uint8 // virtio-scsi's: 0 SIMPLE, 1 ORDERED, 2 HEAD OF QUEUE, 3 ACA
	Prio uint8
	CDB  [32]byte

	Out, In []Buf // data in guest memory
	// Indirect puts the descriptors into a table.
	Indirect bool
	// Split cuts the readable bytes, header and data as one row, before each of
	// these offsets, SplitIn the writable ones. They ascend.
	Split, SplitIn []int
	// Merge makes one descriptor of pieces that touch each other.
	Merge bool
	// ReqAt and RespAt are where the headers are to lie; 0: the queue chooses.
	ReqAt, RespAt uint64
	// Raw requests have no headers: Out and In are all. Their answer is Written.
	Raw bool

	// The answer.
	Done      bool
	Head      uint16
	Written   uint32 // bytes, as the used ring says
	Response  uint8
	Status    uint8
	Qualifier uint16
	Resid     uint32
	SenseLen  uint32
	Sense     [senseBytes]byte

	reqMem, respMem []byte
}

// LUN is the LUN field for a target and a single-level LUN, as Linux makes it.
func LUN(target uint8, lun uint16) [8]byte {
	l := [8]byte{1, target, byte(lun >> 8), byte(lun)}
	if lun > 255 {
		l[2] |= 0x40
	}
	return l
}

// SetCDB makes cdb the command.
func (r *Request) SetCDB(cdb ...byte) {
	clear(r.CDB[:])
	copy(r.CDB[:], cdb)
}

// Key, ASC and ASCQ of the sense data, whichever format they have; 0 without any.
func (r *Request) SenseCode() (key byte, asc uint16) {
	s := r.Sense[:min(r.SenseLen, senseBytes)]
	switch {
	case len(s) < 4:
		return 0, 0
	case s[0]&0x7f >= 0x72:
		return s[1] & 15, uint16(s[2])<<8 | uint16(s[3])
	case len(s) >= 14:
		return s[2] & 15, uint16(s[12])<<8 | uint16(s[13])
	}
	return s[2] & 15, 0
}

func (r *Request) encode(b []byte) {
	_ = b[ReqBytes-1]
	copy(b, r.LUN[:])
	binary.LittleEndian.PutUint64(b[8:], r.Tag)
	b[16], b[17], b[18] = r.Attr, r.Prio, 0
	copy(b[19:], r.CDB[:])
}

func (r *Request) decode(b []byte) {
	_ = b[RespBytes-1]
	r.SenseLen = binary.LittleEndian.Uint32(b)
	r.Resid = binary.LittleEndian.Uint32(b[4:])
	r.Qualifier = binary.LittleEndian.Uint16(b[8:])
	r.Status, r.Response = b[10], b[11]
	if r.SenseLen > 0 {
		copy(r.Sense[:], b[12:RespBytes])
	}
}

// cut appends bufs to dst, divided before each of the offsets.
func cut(dst, bufs []Buf, at []int) []Buf {
	pos := 0
	for _, b := range bufs {
		for len(at) > 0 && at[0] < pos+int(b.Len) {
			if n := at[0] - pos; n > 0 {
				dst = append(dst, Buf{Addr: b.Addr, Len: uint32(n)})
				b.Addr += uint64(n)
				b.Len -= uint32(n)
				pos += n
			}
			at = at[1:]
		}
		pos += int(b.Len)
		dst = append(dst, b)
	}
	return dst
}

// merge joins neighbours in place.
func merge(bufs []Buf) []Buf {
	n := 0
	for _, b := range bufs {
		if n > 0 && bufs[n-1].Addr+uint64(bufs[n-1].Len) == b.Addr {
			bufs[n-1].Len += b.Len
			continue
		}
		bufs[n] = b
		n++
	}
	return bufs[:n]
}
