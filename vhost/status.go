package vhost

import (
	"fmt"
	"sync/atomic"
	"time"
)

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
	UnknownMessages uint64 // declined: not offered, or memory that cannot be had
	Violations      uint64 // against the protocol or by a driver: a connection or ring ended
	Starts          uint64 // of rings
	Resets          uint64 // RESET_DEVICE
	MemoryChanges   uint64 // generations of guest memory
	Requests        uint64 // taken from rings
	Kicks, Calls    uint64 // notifications read and written
	Rounds          uint64 // batches of requests
	BadTarget       uint64 // requests for targets that are not there
	Replayed        uint64 // requests found in flight, of a run before
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

// counters are what Counters has of its own; the rest is summed from the rings.
type counters struct {
	Connections, Rejected, Messages, UnknownMessages, Violations atomic.Uint64
	Starts, Resets, MemoryChanges, Replayed                      atomic.Uint64
	Requests, Kicks, Calls, Rounds, BadTarget                    atomic.Uint64 // of runs that have ended
}

// total takes what a ring had counted when its stop began: it shows nothing any more.
func (e *Export) total(i *queueInfo) {
	c := &e.count
	c.Requests.Add(i.Requests)
	c.Kicks.Add(i.Kicks)
	c.Calls.Add(i.Calls)
	c.Rounds.Add(i.Rounds)
	c.BadTarget.Add(i.BadTarget)
	if i.Err != nil {
		c.Violations.Add(1)
	}
}

// Status reads the state.
func (e *Export) Status() Status {
	e.mu.Lock()
	st := Status{PID: e.pid, UID: e.uid, Refused: e.refused}
	if e.nc != nil {
		st.Connected = e.since
	} else {
		st.PID, st.UID = 0, 0
	}
	s, d := e.sess, e.dev
	e.mu.Unlock()

	c := &e.count
	st.Counters = Counters{
		Connections: c.Connections.Load(), Rejected: c.Rejected.Load(),
		Messages: c.Messages.Load(), UnknownMessages: c.UnknownMessages.Load(), Violations: c.Violations.Load(),
		Starts: c.Starts.Load(), Resets: c.Resets.Load(), MemoryChanges: c.MemoryChanges.Load(), Replayed: c.Replayed.Load(),
		Requests: c.Requests.Load(), Kicks: c.Kicks.Load(), Calls: c.Calls.Load(), Rounds: c.Rounds.Load(), BadTarget: c.BadTarget.Load(),
	}
	st.Stuck, st.Failed = int(d.stuck()), d.err()
	if s == nil {
		return st
	}
	v := s.view.Load()
	st.Regions, st.MemoryBytes = v.regions, v.bytes
	st.Queues = len(v.queues)
	if !st.Connected.IsZero() {
		st.Features, st.ProtocolFeatures, st.DeviceStatus = v.features.Names(), v.protocol.Names(), v.status.String()
	}
	for _, q := range v.queues {
		i := q.info()
		st.Rings = append(st.Rings, RingStatus{
			Index: i.Index, Started: i.Started, Enabled: i.Enabled, Size: i.Size,
			InFlight: i.InFlight, Stuck: i.Stuck, Requests: i.Requests, Kicks: i.Kicks, Calls: i.Calls, Failed: i.Err,
		})
		st.InFlight += i.InFlight
		if i.Started {
			st.Started++
			if i.Enabled {
				st.Enabled++
			}
		}
		if i.Err != nil {
			st.Counters.Violations++
			if st.Failed == nil {
				st.Failed = fmt.Errorf("virtqueue %d: %w", i.Index, i.Err)
			}
		}
		st.Counters.Requests += i.Requests
		st.Counters.Kicks += i.Kicks
		st.Counters.Calls += i.Calls
		st.Counters.Rounds += i.Rounds
		st.Counters.BadTarget += i.BadTarget
	}
	return st
}
