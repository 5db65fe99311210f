package crq

import (
	"encoding/binary"
	"fmt"
)

// EntryLen is the length of an entry, bytes.
const EntryLen = 16

// Entry is one entry of a command/response queue.
type Entry [EntryLen]byte

// Header is byte 0 of an entry: what kind it is.
type Header uint8

// The headers.
const (
	Free      Header = 0x00 // the slot is free
	Payload   Header = 0x80 // command or response
	InitMsg   Header = 0xc0
	Transport Header = 0xff // a transport event: of the hypervisor
)

func (h Header) String() string {
	switch h {
	case Free:
		return "free"
	case Payload:
		return "command"
	case InitMsg:
		return "init"
	case Transport:
		return "transport event"
	}
	return fmt.Sprintf("CRQ header %#02x", uint8(h))
}

// Format is byte 1 of an entry: what it is within its kind.
type Format uint8

// Formats of init messages.
const (
	Init         Format = 1
	InitComplete Format = 2
)

// Formats of commands and responses.
const (
	SRP    Format = 1
	MAD    Format = 2
	OS400  Format = 3
	AIX    Format = 4
	Linux  Format = 5
	Inline Format = 6 // the message is in the entry: PING
)

// Formats of transport events.
const (
	PartnerFailed       Format = 1
	PartnerDeregistered Format = 2
	Migrated            Format = 6
	PrepareSuspend      Format = 9
	Resume              Format = 0x0a
)

// Status is byte 3 of an entry.
type Status uint8

// The status codes.
const (
	OK             Status = 0x00
	NonRecoverable Status = 0x01
	TooLong        Status = 0x02 // violates the maximum transfer
	PartnerPanic   Status = 0x03
	DeviceBusy     Status = 0x08
	AdapterFail    Status = 0x10 // fast fail, too
	OK2            Status = 0x99
	Ping           Status = 0xf5 // of an inline message
	PingResponse   Status = 0xf6
)

// Header is the kind.
func (e *Entry) Header() Header { return Header(e[0]) }

// Format is what it is within its kind.
func (e *Entry) Format() Format { return Format(e[1]) }

// Status is the status.
func (e *Entry) Status() Status { return Status(e[3]) }

// SetStatus sets it.
func (e *Entry) SetStatus(s Status) { e[3] = byte(s) }

// Timeout is how long the client waits for the response, seconds; 0: it does not say.
func (e *Entry) Timeout() uint16 { return binary.BigEndian.Uint16(e[4:]) }

// SetTimeout sets it.
func (e *Entry) SetTimeout(s uint16) { binary.BigEndian.PutUint16(e[4:], s) }

// Length is the length of the information unit, bytes.
func (e *Entry) Length() int { return int(binary.BigEndian.Uint16(e[6:])) }

// Pointer is the I/O bus address of the client's information unit; in a response it is
// the tag of the request.
func (e *Entry) Pointer() uint64 { return binary.BigEndian.Uint64(e[8:]) }

// Command is an entry that tells of an information unit of n bytes at address p.
func Command(f Format, n int, p uint64) (e Entry) {
	e[0], e[1] = byte(Payload), byte(f)
	binary.BigEndian.PutUint16(e[6:], uint16(n))
	binary.BigEndian.PutUint64(e[8:], p)
	return e
}

// Message is an init message or a transport event.
func Message(h Header, f Format) (e Entry) {
	e[0], e[1] = byte(h), byte(f)
	return e
}
