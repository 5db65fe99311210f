package scsi

// FrontEnd is what a front end gives for each nexus: where the core reports to.
type FrontEnd interface {
	// Done hands t back: exactly once for each Submit, always on the loop of
	// t's lane, maybe inside Submit. It must not call Submit.
	Done(t *Task)
	// Event tells of a change that the transport may pass on by means of its
	// own. Any goroutine; it must only enqueue.
	Event(e Event)
	// TransportID writes the initiator port's TransportID (SPC-4 §7.6.4) to
	// dst (at least 260 bytes) and returns its length, a multiple of 4.
	TransportID(dst []byte) int
}

// EventKind says what an Event tells.
type EventKind uint8

// The kinds of event.
const (
	LUNAdded EventKind = iota + 1
	LUNRemoved
	LUNResized
)

// Event is a change in a nexus's view of its target.
type Event struct {
	Kind EventKind
	LUN  uint16
}

// InitiatorID names the initiator port of a nexus, the same for as long as the
// standard calls it the same port ("iqn.…,i,0x400001370000" for iSCSI). It is
// what reservations and unit attentions are kept under.
type InitiatorID string
