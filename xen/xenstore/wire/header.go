package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of xs_wire.h, bytes.
const (
	HeaderLen  = 16
	MaxPayload = 4096
	MaxPath    = 3072 // of an absolute path
)

// A Type is what a message is about (enum xsd_sockmsg_type).
type Type uint32

// The types that this package's users send or get.
const (
	Directory          Type = 1
	Read               Type = 2
	GetPerms           Type = 3
	Watch              Type = 4
	Unwatch            Type = 5
	TransactionStart   Type = 6
	TransactionEnd     Type = 7
	GetDomainPath      Type = 10
	Write              Type = 11
	Mkdir              Type = 12
	Rm                 Type = 13
	SetPerms           Type = 14
	WatchEvent         Type = 15
	Error              Type = 16
	IsDomainIntroduced Type = 17
	DirectoryPart      Type = 22
)

// String names the type.
func (t Type) String() string {
	switch t {
	case Directory:
		return "DIRECTORY"
	case Read:
		return "READ"
	case GetPerms:
		return "GET_PERMS"
	case Watch:
		return "WATCH"
	case Unwatch:
		return "UNWATCH"
	case TransactionStart:
		return "TRANSACTION_START"
	case TransactionEnd:
		return "TRANSACTION_END"
	case GetDomainPath:
		return "GET_DOMAIN_PATH"
	case Write:
		return "WRITE"
	case Mkdir:
		return "MKDIR"
	case Rm:
		return "RM"
	case SetPerms:
		return "SET_PERMS"
	case WatchEvent:
		return "WATCH_EVENT"
	case Error:
		return "ERROR"
	case IsDomainIntroduced:
		return "IS_DOMAIN_INTRODUCED"
	case DirectoryPart:
		return "DIRECTORY_PART"
	}
	return fmt.Sprintf("%#x", uint32(t))
}

// A Header begins a message (struct xsd_sockmsg).
type Header struct {
	Type Type
	Req  uint32 // echoed in the answer
	Tx   uint32 // transaction, 0: none
	Len  uint32 // of the payload, bytes
}

// ErrLength: a payload beyond MaxPayload, or a header cut short.
var ErrLength = errors.New("xenstore message of a forbidden length")

// Append appends the header's 16 bytes to dst.
func (h Header) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.Type))
	dst = binary.LittleEndian.AppendUint32(dst, h.Req)
	dst = binary.LittleEndian.AppendUint32(dst, h.Tx)
	return binary.LittleEndian.AppendUint32(dst, h.Len)
}

// ParseHeader decodes the first 16 bytes of b.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, ErrLength
	}
	le := binary.LittleEndian
	h := Header{Type(le.Uint32(b)), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])}
	if h.Len > MaxPayload {
		return Header{}, ErrLength
	}
	return h, nil
}

// Message is a whole message: a header with the length of payload, and payload.
func Message(t Type, req, tx uint32, payload []byte) ([]byte, error) {
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("%w: %v of %d bytes, the most is %d", ErrLength, t, len(payload), MaxPayload)
	}
	b := make([]byte, 0, HeaderLen+len(payload))
	b = Header{t, req, tx, uint32(len(payload))}.Append(b)
	return append(b, payload...), nil
}
