package wire

import (
	"encoding/binary"
	"fmt"
)

// The version spoken here. Another major number is another protocol; a device with a
// higher minor one has frames that a server does not have to use.
const (
	Major = 1
	Minor = 0
)

const (
	// HeaderLen is the length of every frame's header.
	HeaderLen = 24
	// MaxData is the most that one READ or WRITE moves, bytes.
	MaxData = 1 << 20
	// MaxName is the longest name of a VM, bytes.
	MaxName = 64
	// MaxFrame is the longest frame, bytes.
	MaxFrame = HeaderLen + 8 + MaxData
)

// Type is what a frame is. Answers have the request's and [Reply].
type Type uint16

// The frames of the device, then those of the server.
const (
	TypeHello Type = 1 // the device's state, first of all
	TypeCRQ   Type = 2 // an entry of the client's H_SEND_CRQ
	TypeEvent Type = 3 // news of the client or the VM

	TypeRead  Type = 16 // copy from the client's memory
	TypeWrite Type = 17 // copy to the client's memory
	TypeSend  Type = 18 // put an entry into the client's queue

	Reply Type = 0x8000
)

func (t Type) String() string {
	s, known := "", true
	switch t &^ Reply {
	case TypeHello:
		s = "HELLO"
	case TypeCRQ:
		s = "CRQ"
	case TypeEvent:
		s = "EVENT"
	case TypeRead:
		s = "READ"
	case TypeWrite:
		s = "WRITE"
	case TypeSend:
		s = "SEND"
	default:
		known = false
	}
	switch {
	case !known:
		return fmt.Sprintf("frame type %#04x", uint16(t))
	case t&Reply != 0:
		return s + " answer"
	}
	return s
}

// Flags go with the server's requests.
type Flags uint16

const (
	// Quiet: an answer only where the request fails. Not for READ, which is always
	// answered.
	Quiet Flags = 1 << iota
	// Link: where this request fails, the next one is skipped; where that has the flag,
	// too, the one after it as well, and so on.
	Link
)

// Status is the outcome of a request.
type Status uint16

// The outcomes; the names of hypercall results are what PAPR gives for the like.
const (
	OK        Status = 0
	Closed    Status = 1 // H_CLOSED: the client has no queue registered
	Full      Status = 2 // H_DROPPED: the client's queue is full
	Address   Status = 3 // H_DEST_PARM, H_SOURCE_PARM: not mapped for this; a part may have been moved
	Parameter Status = 4 // H_PARAMETER: a length of 0, or too long
	Stale     Status = 5 // the epoch is over
	Skipped   Status = 6 // a linked request before it failed
)

func (s Status) String() string {
	switch s {
	case OK:
		return "ok"
	case Closed:
		return "the client has no queue"
	case Full:
		return "the client's queue is full"
	case Address:
		return "an address that the client has not mapped"
	case Parameter:
		return "bad length"
	case Stale:
		return "the client has begun anew"
	case Skipped:
		return "skipped"
	}
	return fmt.Sprintf("status %#x", uint16(s))
}

// Frame is one whole frame. Payload aliases the bytes that it was made of.
type Frame struct {
	Type Type
	// Code is a Flags of requests, a Status of answers, an EventKind of events.
	Code    uint16
	Epoch   uint32
	ID      uint64
	Payload []byte
}

// Offsets in the header.
const (
	offLen   = 0
	offType  = 4
	offCode  = 6
	offEpoch = 8
	offZero  = 12
	offID    = 16
)

// Side says who has sent what is read.
type Side bool

// The sides.
const (
	Device Side = false
	Server Side = true
)

// Split takes the first frame off b, which side has sent; n is its length, 0 where b
// does not hold it whole. An error is a peer that breaks a rule: the connection is to
// end.
func Split(b []byte, side Side) (f Frame, n int, err error) {
	if len(b) < HeaderLen {
		return Frame{}, 0, nil
	}
	size := binary.BigEndian.Uint32(b[offLen:])
	f.Type = Type(binary.BigEndian.Uint16(b[offType:]))
	f.Code = binary.BigEndian.Uint16(b[offCode:])
	f.Epoch = binary.BigEndian.Uint32(b[offEpoch:])
	f.ID = binary.BigEndian.Uint64(b[offID:])
	least, most, ok := bounds(f, side)
	switch {
	case !ok:
		return Frame{}, 0, fmt.Errorf("%v with code %#x: not known", f.Type, f.Code)
	case size < least || size > most:
		return Frame{}, 0, fmt.Errorf("%v of %d bytes: %d to %d are possible", f.Type, size, least, most)
	case uint64(len(b)) < HeaderLen+uint64(size):
		return Frame{}, 0, nil
	}
	n = HeaderLen + int(size)
	f.Payload = b[HeaderLen:n:n]
	return f, n, nil
}

// bounds gives the payload's length that a frame of side may have.
func bounds(f Frame, side Side) (least, most uint32, ok bool) {
	if side == Server {
		switch f.Type {
		case TypeHello | Reply:
			return 4, 4, f.Code <= uint16(Skipped)
		case TypeRead:
			return 12, 12, f.Code&^uint16(Quiet|Link) == 0
		case TypeWrite:
			return 9, 8 + MaxData, f.Code&^uint16(Quiet|Link) == 0
		case TypeSend:
			return EntryLen, EntryLen, f.Code&^uint16(Quiet|Link) == 0
		}
		return 0, 0, false
	}
	switch f.Type {
	case TypeHello:
		return helloLen, helloLen + MaxName, f.Code == 0
	case TypeCRQ:
		return EntryLen, EntryLen, f.Code == 0
	case TypeEvent:
		return eventLen, eventLen, true // later ones are to be passed over
	case TypeRead | Reply:
		if Status(f.Code) == OK {
			return 1, MaxData, true
		}
		return 0, 0, true
	case TypeWrite | Reply, TypeSend | Reply:
		return 0, 0, true
	}
	return 0, 0, false
}

// appendHeader appends the header of a payload of n bytes.
func appendHeader(b []byte, t Type, code uint16, epoch uint32, id uint64, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	b = binary.BigEndian.AppendUint16(b, code)
	b = binary.BigEndian.AppendUint32(b, epoch)
	b = append(b, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint64(b, id)
}
