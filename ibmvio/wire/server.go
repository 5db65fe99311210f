package wire

import (
	"encoding/binary"
	"fmt"
)

// AppendWelcome appends the answer to a HELLO that is accepted. Only then CRQ frames
// come, and requests may be made.
func AppendWelcome(b []byte) []byte { return appendWelcome(b, OK) }

// AppendRefusal appends the answer to a HELLO of another version; the device says so in
// QEMU's log, closes, and tries again later.
func AppendRefusal(b []byte) []byte { return appendWelcome(b, Parameter) }

func appendWelcome(b []byte, s Status) []byte {
	b = appendHeader(b, TypeHello|Reply, uint16(s), 0, 0, 4)
	b = binary.BigEndian.AppendUint16(b, Major)
	return binary.BigEndian.AppendUint16(b, Minor)
}

// AppendRead appends a request for n bytes at I/O bus address ioba.
func AppendRead(b []byte, fl Flags, epoch uint32, id, ioba uint64, n uint32) []byte {
	b = appendHeader(b, TypeRead, uint16(fl), epoch, id, 12)
	b = binary.BigEndian.AppendUint64(b, ioba)
	return binary.BigEndian.AppendUint32(b, n)
}

// AppendWrite appends a request to write n bytes at I/O bus address ioba, without the
// bytes: they are what the stream goes on with.
func AppendWrite(b []byte, fl Flags, epoch uint32, id, ioba uint64, n uint32) []byte {
	b = appendHeader(b, TypeWrite, uint16(fl), epoch, id, 8+int(n))
	return binary.BigEndian.AppendUint64(b, ioba)
}

// AppendSend appends a request to put an entry into the client's queue.
func AppendSend(b []byte, fl Flags, epoch uint32, id uint64, entry *[EntryLen]byte) []byte {
	return append(appendHeader(b, TypeSend, uint16(fl), epoch, id, EntryLen), entry[:]...)
}

// Transfer is a READ or WRITE as the device gets it.
type Transfer struct {
	// Address is an I/O bus address, Len the number of bytes.
	Address uint64
	Len     uint32
	// Data are the bytes of a WRITE.
	Data []byte
}

// ParseTransfer reads a READ or WRITE; its length may be one that the device refuses.
func ParseTransfer(f Frame) (Transfer, error) {
	p := f.Payload
	switch {
	case f.Type == TypeRead && len(p) == 12:
		return Transfer{Address: binary.BigEndian.Uint64(p), Len: binary.BigEndian.Uint32(p[8:])}, nil
	case f.Type == TypeWrite && len(p) > 8:
		return Transfer{Address: binary.BigEndian.Uint64(p), Len: uint32(len(p) - 8), Data: p[8:]}, nil
	}
	return Transfer{}, fmt.Errorf("%v of %d bytes instead of a READ or WRITE", f.Type, len(p))
}
