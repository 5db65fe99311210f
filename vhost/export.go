package vhost

import (
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
)

// MaxTarget is the largest TargetPort.ID: Windows' vioscsi ignores what lies above.
const MaxTarget = 253

// Config describes an Export. Name, Group and Initiator have no default.
type Config struct {
	Name      string // of the export, for people
	Group     *loop.Group
	Targets   []TargetPort
	Initiator [16]byte      // initiator port identifier, stored with the export
	Deadline  time.Duration // of stopping rings and of task management (30 s)
	Queues    int           // virtqueues offered, control and event queue among them (1024)
	Log       *slog.Logger  // nil: silence
	// OnConnect, where set, hears of a front end's coming and going, with what can
	// be said of it, one call at a time. It must not call the Export.
	OnConnect func(up bool, detail string)
}

// ErrClosed: the export was closed.
var ErrClosed = errors.New("vhost-user export is closed")

// An Export is one virtio-scsi device as a vhost-user back end offers it. It outlives
// the connections to it: reservations, mode pages and unit attentions are its nexuses'.
// Methods may be called on any goroutine.
type Export struct {
	conf Config
}

// NewExport attaches the initiator to every target. The error is a *scsi.SharingError
// where it must not share a disk.
func NewExport(c Config) (*Export, error) { return nil, errors.ErrUnsupported }

// SetTargets gives the guest other targets, while it runs: what is there stays as it
// is, and the guest hears of ports that come and go. The error is that of the first
// port that could not be attached; nothing has changed then.
func (e *Export) SetTargets(ts []TargetPort) error { return errors.ErrUnsupported }

// Serve takes front ends from l, one at a time, and returns ErrClosed after Close, nil
// after l was closed, else l's error. l stays the caller's.
func (e *Export) Serve(l *net.UnixListener) error { return errors.ErrUnsupported }

// Close ends the connection, waits until commands have ended, and then the nexuses. It
// returns the number of requests that the deadline (0: Config.Deadline) has passed by:
// they end in the store, and their memory is cut off. Close again returns the same.
func (e *Export) Close(deadline time.Duration) (stuck int) { return 0 }

// Status is an export's state for people.
type Status struct {
	Connected time.Time // zero: no front end is connected
	PID, UID  int       // the front end's, as the kernel says (SO_PEERCRED)

	Features         []string // negotiated, by name
	ProtocolFeatures []string
	DeviceStatus     string // SET_STATUS, by name

	Queues  int // virtqueues that a front end has set up
	Started int
	Enabled int

	Regions     int   // of guest memory
	MemoryBytes int64 // of these

	InFlight int    // requests with the core or the store
	Stuck    int    // that a deadline has passed by
	Failed   error  // why the export does not serve, nil: it does
	Refused  string // why the last connection was ended by us; "": it was not

	Counters Counters
	Rings    []RingStatus // those set up, in the order of their index
}

// Counters count since the export was made.
type Counters struct {
	Connections     uint64 // front ends served
	Rejected        uint64 // front ends turned away: there was one already
	Messages        uint64 // vhost-user messages taken
	UnknownMessages uint64 // that we have no answer for
	Violations      uint64 // against the protocol or by a driver: a connection or ring ended
	Starts          uint64 // of rings
	Resets          uint64 // RESET_DEVICE
	MemoryChanges   uint64 // generations of guest memory
	Requests        uint64 // taken from rings
	Kicks, Calls    uint64 // notifications read and written
	Rounds          uint64 // batches of requests
	BadTarget       uint64 // requests for targets that are not there
	Replayed        uint64 // requests found in flight after a restart
}

// RingStatus is one virtqueue's state.
type RingStatus struct {
	Index            int
	Started, Enabled bool
	Size             int // entries
	InFlight, Stuck  int
	Requests         uint64
	Kicks, Calls     uint64
	Failed           error
}

// Status reads the state.
func (e *Export) Status() Status { return Status{} }
