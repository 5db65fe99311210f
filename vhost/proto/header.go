package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// HeaderSize is the length of a message's header in bytes.
const HeaderSize = 12

// MaxBody is the longest body that is taken, bytes: more than any message that a
// front end of a virtio-scsi device has (GET_CONFIG with 268), and few enough that a
// size that lies costs nothing.
const MaxBody = 4096

// Flags of a message.
type Flags uint32

// The bits of Flags.
const (
	FlagVersion   Flags = 1 // the protocol's only version
	FlagReply     Flags = 1 << 2
	FlagNeedReply Flags = 1 << 3 // with ProtocolReplyAck: answer 0 or an error
	flagVersions  Flags = 3
)

// ErrSize: a message's body has another size than its kind has.
var ErrSize = errors.New("vhost-user: wrong size")

// A Header begins each message.
type Header struct {
	Request Request
	Flags   Flags
	Size    uint32 // of the body, bytes
}

// ParseHeader reads the header of a message and checks its version and size. What it
// could read it returns with an error too.
func ParseHeader(b *[HeaderSize]byte) (Header, error) {
	h := Header{
		Request: Request(ne.Uint32(b[0:])),
		Flags:   Flags(ne.Uint32(b[4:])),
		Size:    ne.Uint32(b[8:]),
	}
	if v := h.Flags & flagVersions; v != FlagVersion {
		return h, fmt.Errorf("vhost-user: %v in version %d of the protocol, this is version 1", h.Request, v)
	}
	if h.Size > MaxBody {
		return h, fmt.Errorf("%w: %v with a body of %d bytes", ErrSize, h.Request, h.Size)
	}
	return h, nil
}

// NeedReply tells whether the sender waits for the outcome of a message that has no
// answer of its own.
func (h Header) NeedReply() bool { return h.Flags&FlagNeedReply != 0 }

// Append appends a message to dst: its header, then body.
func Append(dst []byte, r Request, f Flags, body []byte) []byte {
	dst = ne.AppendUint32(dst, uint32(r))
	dst = ne.AppendUint32(dst, uint32(f&^flagVersions|FlagVersion))
	dst = ne.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...)
}

// AppendReply appends the answer to a message of kind r.
func AppendReply(dst []byte, r Request, body []byte) []byte {
	return Append(dst, r, FlagReply, body)
}

type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// ne is the byte order of all fields.
var ne order = binary.NativeEndian
