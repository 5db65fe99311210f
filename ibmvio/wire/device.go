package wire

import (
	"encoding/binary"
	"fmt"
)

// EntryLen is the length of an entry of a CRQ.
const EntryLen = 16

const (
	helloLen = 64 // without the name
	eventLen = 16
)

// State are flags of HELLO.
type State uint32

const (
	// Registered: the client has a queue.
	Registered State = 1 << iota
	// Paused: the VM does not run; requests are executed when it does.
	Paused
	// Served: a server was connected since the client registered its queue. The
	// client's requests under way are lost with it: a transport event is due.
	Served
)

// Hello is the device's state at the time of the connection.
type Hello struct {
	Major, Minor uint16
	// Unit is the adapter's unit address, Liobn names its DMA window.
	Unit, Liobn uint32
	// MaxData is the most that one READ or WRITE may move, bytes.
	MaxData uint32
	// Window is the size of the DMA window, bytes.
	Window uint64
	State  State
	// Queue and QueueSize are the client's queue: an I/O bus address, and bytes. 0
	// where none is registered.
	Queue     uint64
	QueueSize uint32
	// UUID and Name are the VM's; zero and empty where it has none.
	UUID [16]byte
	Name string
	// Epoch is the client's present one; it stands in the header.
	Epoch uint32
}

// ParseHello reads a HELLO. Another major version than ours is no error here: what the
// device says of itself then may be wrong, and Refuse is the answer.
func ParseHello(f Frame) (Hello, error) {
	p := f.Payload
	if f.Type != TypeHello || len(p) < helloLen {
		return Hello{}, fmt.Errorf("%v of %d bytes instead of a HELLO", f.Type, len(p))
	}
	h := Hello{
		Major:   binary.BigEndian.Uint16(p),
		Minor:   binary.BigEndian.Uint16(p[2:]),
		Unit:    binary.BigEndian.Uint32(p[4:]),
		Liobn:   binary.BigEndian.Uint32(p[8:]),
		MaxData: binary.BigEndian.Uint32(p[12:]),
		Window:  binary.BigEndian.Uint64(p[16:]),
		State:   State(binary.BigEndian.Uint32(p[24:])),
		Queue:   binary.BigEndian.Uint64(p[32:]), QueueSize: binary.BigEndian.Uint32(p[40:]),
		UUID:  [16]byte(p[48:64]),
		Epoch: f.Epoch,
	}
	n := binary.BigEndian.Uint32(p[28:])
	if uint64(n) != uint64(len(p)-helloLen) {
		return Hello{}, fmt.Errorf("HELLO with %d bytes of a name of %d", len(p)-helloLen, n)
	}
	h.Name = string(p[helloLen:])
	if h.Major == Major && (h.MaxData == 0 || h.MaxData > MaxData) {
		return Hello{}, fmt.Errorf("HELLO with a most of %d bytes: 1 to %d are possible", h.MaxData, MaxData)
	}
	if h.State&Registered != 0 != (h.QueueSize != 0) {
		return Hello{}, fmt.Errorf("HELLO with state %#x and a queue of %d bytes", uint32(h.State), h.QueueSize)
	}
	return h, nil
}

// Append appends the frame; a longer name than MaxName is cut.
func (h *Hello) Append(b []byte) []byte {
	name := h.Name[:min(len(h.Name), MaxName)]
	b = appendHeader(b, TypeHello, 0, h.Epoch, 0, helloLen+len(name))
	b = binary.BigEndian.AppendUint16(b, h.Major)
	b = binary.BigEndian.AppendUint16(b, h.Minor)
	b = binary.BigEndian.AppendUint32(b, h.Unit)
	b = binary.BigEndian.AppendUint32(b, h.Liobn)
	b = binary.BigEndian.AppendUint32(b, h.MaxData)
	b = binary.BigEndian.AppendUint64(b, h.Window)
	b = binary.BigEndian.AppendUint32(b, uint32(h.State))
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = binary.BigEndian.AppendUint64(b, h.Queue)
	b = binary.BigEndian.AppendUint32(b, h.QueueSize)
	b = append(b, 0, 0, 0, 0)
	b = append(b, h.UUID[:]...)
	return append(b, name...)
}

// EventKind is what an EVENT tells.
type EventKind uint16

// The events. After the first three the frame's epoch is a new one.
const (
	EventRegistered EventKind = 1 // the client has registered a queue (H_REG_CRQ)
	EventFreed      EventKind = 2 // it has freed it (H_FREE_CRQ, quiesce)
	EventReset      EventKind = 3 // the machine was reset, the queue is gone
	EventPaused     EventKind = 4 // the VM does not run
	EventRunning    EventKind = 5 // it runs again
)

func (k EventKind) String() string {
	switch k {
	case EventRegistered:
		return "registered"
	case EventFreed:
		return "freed"
	case EventReset:
		return "reset"
	case EventPaused:
		return "paused"
	case EventRunning:
		return "running"
	}
	return fmt.Sprintf("event %d", uint16(k))
}

// Event is news of the client or the VM.
type Event struct {
	Kind  EventKind
	Epoch uint32
	// Queue and QueueSize are the client's queue after it, 0 without one.
	Queue     uint64
	QueueSize uint32
}

// ParseEvent reads an EVENT; a kind that is not known here means nothing.
func ParseEvent(f Frame) (Event, error) {
	if f.Type != TypeEvent || len(f.Payload) != eventLen {
		return Event{}, fmt.Errorf("%v of %d bytes instead of an EVENT", f.Type, len(f.Payload))
	}
	return Event{Kind: EventKind(f.Code), Epoch: f.Epoch,
		Queue: binary.BigEndian.Uint64(f.Payload), QueueSize: binary.BigEndian.Uint32(f.Payload[8:])}, nil
}

// Append appends the frame.
func (e *Event) Append(b []byte) []byte {
	b = appendHeader(b, TypeEvent, uint16(e.Kind), e.Epoch, 0, eventLen)
	b = binary.BigEndian.AppendUint64(b, e.Queue)
	b = binary.BigEndian.AppendUint32(b, e.QueueSize)
	return append(b, 0, 0, 0, 0)
}

// ParseCRQ reads the entry of a CRQ frame, or of a SEND.
func ParseCRQ(f Frame) (entry [EntryLen]byte, err error) {
	if f.Type != TypeCRQ && f.Type != TypeSend || len(f.Payload) != EntryLen {
		return entry, fmt.Errorf("%v of %d bytes instead of an entry of a CRQ", f.Type, len(f.Payload))
	}
	return [EntryLen]byte(f.Payload), nil
}

// AppendCRQ appends what the client has sent under epoch.
func AppendCRQ(b []byte, epoch uint32, entry *[EntryLen]byte) []byte {
	return append(appendHeader(b, TypeCRQ, 0, epoch, 0, EntryLen), entry[:]...)
}

// AppendReply appends the answer to a request of type t; data only of a READ that is OK.
func AppendReply(b []byte, t Type, s Status, epoch uint32, id uint64, data []byte) []byte {
	return append(appendHeader(b, t|Reply, uint16(s), epoch, id, len(data)), data...)
}
