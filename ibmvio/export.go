package ibmvio

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
)

// ErrExportClosed: the export was closed.
var ErrExportClosed = errors.New("vio export is closed")

// Config describes an Export. Name, Group, Targets and Initiator have no default.
type Config struct {
	Name      string // of the export, for people
	Group     *loop.Group
	Targets   []TargetPort
	Initiator [16]byte      // initiator port identifier, stored with the export
	Limit     int           // of requests (256)
	Deadline  time.Duration // of task management and of the end of commands (30 s)
	Log       *slog.Logger  // nil: silence
	// OnConnect, where set, hears of a virtual machine's coming and going, with what
	// can be said of it, one call at a time. It must not call the Export.
	OnConnect func(up bool, detail string)
}

// An Export is one virtual SCSI adapter's server. It outlives the connections to it:
// reservations, mode pages and unit attentions are its nexuses'. Methods may be called on
// any goroutine.
type Export struct {
	conf Config
	a    *adapter
	news chan news // what OnConnect is to hear

	connections, rejected atomic.Uint64
	lines                 journal

	mu        sync.Mutex
	listeners map[*net.UnixListener]struct{}
	conn      *conn // nil: no virtual machine is connected
	hello     wire.Hello
	since     time.Time
	pid, uid  int
	refused   string
	closing   bool
	greeting  sync.WaitGroup // connections that have not said HELLO
	fresh     map[net.Conn]struct{}
	closed    chan struct{}
	stuck     int // what Close returned
	teller    sync.WaitGroup
}

// news is a coming or going.
type news struct {
	up     bool
	detail string
}

// NewExport attaches the initiator to every id. The error is a *scsi.SharingError where
// it must not share a disk.
func NewExport(c Config) (*Export, error) {
	if c.Deadline <= 0 {
		c.Deadline = scsi.DefaultDeadline
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	e := &Export{conf: c, news: make(chan news, 64), listeners: make(map[*net.UnixListener]struct{}),
		fresh: make(map[net.Conn]struct{}), closed: make(chan struct{})}
	e.a = newAdapter(adapterConfig{Name: c.Name, Loop: c.Group.Pick(), Initiator: c.Initiator, Limit: c.Limit, Deadline: c.Deadline, Log: c.Log})
	if err := e.a.setTargets(c.Targets); err != nil {
		return nil, err
	}
	e.a.loop.AddLoad(1)
	e.teller.Add(1)
	go e.tell()
	return e, nil
}

// tell calls OnConnect.
func (e *Export) tell() {
	defer e.teller.Done()
	for n := range e.news {
		if f := e.conf.OnConnect; f != nil {
			f(n.up, n.detail)
		}
	}
}

// say has OnConnect called. News that nobody takes are dropped.
func (e *Export) say(up bool, detail string) {
	select {
	case e.news <- news{up, detail}:
	default:
	}
}

// SetTargets gives the client other ids, while it runs: what is there stays as it is. A
// client finds what has come when it scans its bus.
func (e *Export) SetTargets(ts []TargetPort) error {
	e.mu.Lock()
	closing := e.closing
	e.mu.Unlock()
	if closing {
		return ErrExportClosed
	}
	return e.a.setTargets(slices.Clone(ts))
}

// Close ends the connection, waits until commands have ended, and then the nexuses. It
// returns the number of requests that the deadline (0: Config.Deadline) has passed by:
// they end in the store. Close again returns the same.
func (e *Export) Close(deadline time.Duration) (stuck int) {
	if deadline <= 0 {
		deadline = e.conf.Deadline
	}
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		<-e.closed
		return e.stuck
	}
	e.closing = true
	for l := range e.listeners {
		_ = l.SetDeadline(time.Unix(1, 0)) // Serve returns
	}
	for nc := range e.fresh {
		_ = nc.Close()
	}
	e.mu.Unlock()
	e.greeting.Wait()
	e.mu.Lock()
	c := e.conn
	e.mu.Unlock()
	if c != nil {
		e.a.loop.Do(func() { c.Close(ErrExportClosed) })
	}
	e.stuck = e.a.close(deadline)
	e.a.loop.AddLoad(-1)
	close(e.news)
	e.teller.Wait()
	close(e.closed)
	return e.stuck
}
