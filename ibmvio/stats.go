package ibmvio

import (
	"sync"
	"sync/atomic"

	"github.com/vtgt/vtgt/ibmvio/crq"
)

// counters count since the adapter was made. Its loop alone writes them.
type counters struct {
	Entries, Ignored, Commands, Functions, Responses atomic.Uint64
	MADs, Inits, Logins, Rejects, Resumes            atomic.Uint64
	Busy, Full, Violations, MoveErrors, Events       atomic.Uint64
}

// clientInfo is what is known of the client, for people.
type clientInfo struct {
	state   atomic.Uint32
	reserve atomic.Bool

	mu        sync.Mutex
	partition string
	number    uint32
	os        crq.OS
	version   string
}

// learn takes what the client says of itself.
func (c *clientInfo) learn(i *crq.Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partition, c.number, c.os, c.version = i.Partition(), i.Number(), i.OS(), i.Version()
}

func (c *clientInfo) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partition, c.number, c.os, c.version = "", 0, 0, ""
	c.reserve.Store(false)
}

// ClientStatus is what is known of the client.
type ClientStatus struct {
	State     string // State, by name
	Partition string // its name, as it says
	Number    uint32 // of the partition
	OS        string // "" where it has not said
	Version   string // of SRP
	Limit     int    // of requests
	Reserve   bool   // it has asked for SCSI-2 reservations
}

// status reads it. Any goroutine.
func (a *adapter) status() ClientStatus {
	c := &a.info
	st := ClientStatus{State: State(c.state.Load()).String(), Limit: a.conf.Limit, Reserve: c.reserve.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	st.Partition, st.Number, st.Version = c.partition, c.number, c.version
	if c.version != "" || c.os != 0 {
		st.OS = c.os.String()
	}
	return st
}

// Counters count since the export was made.
type Counters struct {
	Connections uint64 // virtual machines served
	Rejected    uint64 // turned away: there was one already, or of another version
	Entries     uint64 // taken from clients
	Ignored     uint64 // entries that meant nothing: before INIT, as a rule
	Commands    uint64
	Functions   uint64 // task management
	Responses   uint64 // units sent
	MADs        uint64
	Inits       uint64 // beginnings of clients
	Logins      uint64
	Rejects     uint64 // logins rejected
	Resumes     uint64 // transport events 6 sent
	Busy        uint64 // commands beyond the limit
	Full        uint64 // responses that had to wait for room in the client's queue
	Violations  uint64 // clients disconnected
	MoveErrors  uint64 // transfers that failed
}

func (c *counters) read() Counters {
	return Counters{
		Entries: c.Entries.Load(), Ignored: c.Ignored.Load(), Commands: c.Commands.Load(), Functions: c.Functions.Load(),
		Responses: c.Responses.Load(), MADs: c.MADs.Load(), Inits: c.Inits.Load(), Logins: c.Logins.Load(), Rejects: c.Rejects.Load(),
		Resumes: c.Resumes.Load(), Busy: c.Busy.Load(), Full: c.Full.Load(), Violations: c.Violations.Load(), MoveErrors: c.MoveErrors.Load(),
	}
}
