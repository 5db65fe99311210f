package srp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
)

// Carrier is a ring transport.
type Carrier interface {
	// Respond gives r back with its outcome: once for each Submit and Manage, on
	// the queue's loop, maybe inside Submit. It must not call Submit or Manage.
	// r is the carrier's until it calls Put. Where r.Aborted the command ended
	// without a response: the carrier may say so if its ring wants every entry
	// back, but sends no status.
	Respond(r *Request)
	// Event tells of a change of the target's LUNs, on the loop of the queue
	// that it was given to. Events can be lost when a queue is flooded with
	// them: then one of kind EventsMissed comes.
	Event(e scsi.Event)
}

// EventsMissed is the kind of an event that stands for some that were lost.
const EventsMissed scsi.EventKind = 0

// Mover copies data between the initiator and buffers of the target, for carriers
// whose initiator's memory is not mapped: remote DMA, grant copy. Both calls come on
// the queue's loop, maybe inside Submit; each ends by Queue.Moved, once, on that loop,
// also inside the call. It must not call Moved there for another request, and not change the slices of
// r.DataOut and r.DataIn themselves.
type Mover interface {
	// Fetch fills r.DataOut from the initiator's memory.
	Fetch(r *Request)
	// Store brings the first r.InLen bytes of r.DataIn to the initiator's.
	Store(r *Request)
}

// Generation is the initiator's memory at a point in time, for carriers that map it. A
// queue holds one: the requests that it hands out may use that memory until Put.
type Generation interface {
	// Release is called once for each Queue.Hold, on the queue's loop: the queue
	// has another one now, and no request of the old one is left.
	Release()
}

// Config describes a Port. Port and Initiator have no default.
type Config struct {
	// Port is the target port; its protocol is SRP (4).
	Port *scsi.Port
	// Initiator is the initiator port identifier: a UUID that is stored with
	// the export, so that reservations outlive a restart.
	Initiator [16]byte
	// Requests is the limit of requests that a queue takes (128); Slack how many
	// it takes beyond that, to answer them with BUSY.
	Requests, Slack int
	// Deadline is how long task management, draining and closing wait for
	// requests to end (scsi.DefaultDeadline).
	Deadline time.Duration
	// MaxTransfer is the most that a mover's command may move, bytes (32 MiB).
	MaxTransfer int64
	// Memory bounds the buffers for movers on each loop, bytes (64 MiB); one
	// request alone always gets what it needs.
	Memory int64
	// New, when set, makes the carrier's part of a pooled request.
	New func(*Request) any
}

// pieceLen is the length of the buffers that a mover's data are spread over.
const pieceLen = 256 << 10

// ErrClosed: the port was closed.
var ErrClosed = errors.New("SRP port is closed")

// Port is a target port as ring transports see it: one initiator's nexus. Methods may
// be called on any goroutine.
type Port struct {
	conf  Config
	nexus *scsi.Nexus

	mu     sync.Mutex // above the locks of scsi
	shards []*shard
	closed bool

	// evMu is below the locks of scsi, which calls Event under some of them:
	// nothing of it is called under this one.
	evMu   sync.Mutex
	queues []*Queue // written under mu too
}

// NewPort attaches the initiator. The error is a *scsi.SharingError where it must not
// share a disk.
func NewPort(c Config) (*Port, error) {
	if c.Requests <= 0 {
		c.Requests = 128
	}
	if c.Slack < 0 {
		c.Slack = 0
	}
	if c.Deadline <= 0 {
		c.Deadline = scsi.DefaultDeadline
	}
	if c.MaxTransfer <= 0 {
		c.MaxTransfer = 32 << 20
	}
	if c.Memory <= 0 {
		c.Memory = 64 << 20
	}
	p := &Port{conf: c}
	n, err := c.Port.Attach(InitiatorID(c.Initiator), (*frontEnd)(p))
	if err != nil {
		return nil, err
	}
	p.nexus = n
	return p, nil
}

// InitiatorID is the name under which the core knows the initiator port id: all of it
// is the initiator's name (scsi.InitiatorID.Name), because two identifiers are two
// initiators, which must not write a disk that is not shared.
func InitiatorID(id [16]byte) scsi.InitiatorID {
	return scsi.InitiatorID("srp." + hex.EncodeToString(id[:]))
}

// Nexus is the port's nexus.
func (p *Port) Nexus() *scsi.Nexus { return p.nexus }

// Config is what the port was made of, defaults filled in.
func (p *Port) Config() Config { return p.conf }

// Queue makes a queue on loop l whose requests go back to c. m is nil where the
// carrier maps the initiator's memory. A carrier that has several queues and wants
// each event once ignores them on all but one.
func (p *Port) Queue(l *loop.Loop, c Carrier, m Mover) (*Queue, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	var sh *shard
	for _, s := range p.shards {
		if s.loop == l {
			sh = s
		}
	}
	if sh == nil {
		ln, err := p.nexus.Lane(l)
		if err != nil {
			return nil, fmt.Errorf("SRP port: %w", err)
		}
		sh = &shard{port: p, loop: l, lane: ln}
		sh.flush.Init((*shardFlush)(sh))
		p.shards = append(p.shards, sh)
	}
	q := &Queue{port: p, sh: sh, carrier: c, mover: m, limit: p.conf.Requests + p.conf.Slack}
	q.events.Init((*queueEvents)(q))
	p.evMu.Lock()
	p.queues = append(p.queues, q)
	p.evMu.Unlock()
	return q, nil
}

// frontEnd is a Port in its role as the nexus's front end.
type frontEnd Port

// Done takes a command back from the core.
func (f *frontEnd) Done(t *scsi.Task) { t.Ref.(*Request).done() }

// Event fans e out to the queues.
func (f *frontEnd) Event(e scsi.Event) {
	p := (*Port)(f)
	p.evMu.Lock()
	defer p.evMu.Unlock()
	for _, q := range p.queues {
		q.enqueue(e)
	}
}

// TransportID is that of an SRP initiator port.
func (f *frontEnd) TransportID(dst []byte) int { return TransportID(dst, f.conf.Initiator) }

// TransportIDLen is the length of an SRP initiator port's TransportID, bytes.
const TransportIDLen = 24

// TransportID writes the TransportID of the initiator port id to dst and returns its
// length: protocol identifier 4h, the port identifier in bytes 8 to 23 (SPC-4 §7.6.4.5).
func TransportID(dst []byte, id [16]byte) int {
	clear(dst[:TransportIDLen])
	dst[0] = 0x04
	copy(dst[8:], id[:])
	return TransportIDLen
}
