package ibmvio

import "time"

// Status is an export's state for people.
type Status struct {
	Connected time.Time // zero: no virtual machine is connected
	PID, UID  int       // QEMU's, as the kernel says (SO_PEERCRED)
	Name      string    // of the virtual machine
	UUID      [16]byte  // of it
	Unit      uint32    // the adapter's unit address

	Client   ClientStatus
	InFlight int    // requests with the core or the store
	Stuck    int    // that a deadline has passed by
	Refused  string // why the last connection was ended or turned away; "": it was not

	Counters Counters
}

// Status reads the state.
func (e *Export) Status() Status {
	e.mu.Lock()
	st := Status{Refused: e.refused}
	if e.conn != nil {
		st.Connected, st.PID, st.UID = e.since, e.pid, e.uid
		st.Name, st.UUID, st.Unit = e.hello.Name, e.hello.UUID, e.hello.Unit
	}
	e.mu.Unlock()
	st.Client = e.a.status()
	st.Counters = e.a.count.read()
	st.Counters.Connections, st.Counters.Rejected = e.connections.Load(), e.rejected.Load()
	for _, t := range e.a.table.Load().list {
		s := t.port.Stats()
		st.InFlight += int(s.InFlight)
		st.Stuck += int(s.Stuck)
	}
	return st
}
