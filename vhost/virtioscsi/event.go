package virtioscsi

import "encoding/binary"

// EventLen is the size in bytes of a buffer on the event queue (VIRTIO 1.2 §5.6.6.3).
const EventLen = 16

// EventKind says what has happened.
type EventKind uint32

// The kinds. EventsMissed is a flag beside any of them: some were lost before.
const (
	NoEvent        EventKind = 0
	TransportReset EventKind = 1
	AsyncNotify    EventKind = 2
	ParamChange    EventKind = 3
	EventsMissed   EventKind = 0x80000000
)

// The reasons of a TransportReset.
const (
	ReasonHard    = 0
	ReasonRescan  = 1 // the logical unit is there
	ReasonRemoved = 2 // it is not any more
)

// ReasonCapacity is the reason of a ParamChange: ASC in bits 0 to 7, ASCQ in bits 8 to
// 15, here CAPACITY DATA HAS CHANGED. Linux looks again for 2A/00, 2A/01 and 2A/09 only.
const ReasonCapacity = 0x2a | 0x09<<8

// Event is a filled buffer of the event queue.
type Event [EventLen]byte

// Set fills it.
func (e *Event) Set(k EventKind, l LUN, reason uint32) {
	binary.LittleEndian.PutUint32(e[0:], uint32(k))
	copy(e[4:12], l[:])
	binary.LittleEndian.PutUint32(e[12:], reason)
}

// Kind is what has happened.
func (e *Event) Kind() EventKind { return EventKind(binary.LittleEndian.Uint32(e[0:])) }

// LUN is where.
func (e *Event) LUN() LUN { return LUN(e[4:12]) }

// Reason says more of it.
func (e *Event) Reason() uint32 { return binary.LittleEndian.Uint32(e[12:]) }
