package pdu

import "fmt"

// AsyncEvent is the AsyncEvent field of an Asynchronous Message (RFC 7143 §11.9.1).
type AsyncEvent uint8

// The events.
const (
	AsyncSCSI            AsyncEvent = 0 // sense data in the data segment
	AsyncLogoutRequest   AsyncEvent = 1 // Parameter3: seconds until the target drops the connection
	AsyncDropConnection  AsyncEvent = 2 // Parameter1: CID, 2: Time2Wait, 3: Time2Retain
	AsyncDropSession     AsyncEvent = 3 // Parameter2: Time2Wait, 3: Time2Retain
	AsyncNegotiate       AsyncEvent = 4 // Parameter3: seconds
	AsyncTasksTerminated AsyncEvent = 5 // all tasks of the LUN
	AsyncVendor          AsyncEvent = 255
)

func (e AsyncEvent) String() string {
	switch e {
	case AsyncSCSI:
		return "SCSI asynchronous event"
	case AsyncLogoutRequest:
		return "target requests logout"
	case AsyncDropConnection:
		return "target will drop the connection"
	case AsyncDropSession:
		return "target will drop all connections of the session"
	case AsyncNegotiate:
		return "target requests parameter negotiation"
	case AsyncTasksTerminated:
		return "all tasks of the logical unit are being terminated"
	case AsyncVendor:
		return "vendor-specific event"
	}
	return fmt.Sprintf("event %d", uint8(e))
}

// AsyncEvent is of an Asynchronous Message.
func (h *BHS) AsyncEvent() AsyncEvent { return AsyncEvent(h[36]) }

// SetAsyncEvent sets the event, its vendor code to 0 and the three parameters.
func (h *BHS) SetAsyncEvent(e AsyncEvent, parameter1, parameter2, parameter3 uint16) {
	h[36], h[37] = byte(e), 0
	h.put16(38, parameter1)
	h.put16(40, parameter2)
	h.put16(42, parameter3)
}

// AsyncVCode is the vendor-specific code of an Asynchronous Message.
func (h *BHS) AsyncVCode() uint8 { return h[37] }

// AsyncParameters are the three parameters of an Asynchronous Message.
func (h *BHS) AsyncParameters() (parameter1, parameter2, parameter3 uint16) {
	return h.u16(38), h.u16(40), h.u16(42)
}
