package daemon

import (
	"maps"
	"slices"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/ibmvio"
	"github.com/vtgt/vtgt/scsi"
)

// vioServer is a vio export as a ringServer.
type vioServer struct{ *ibmvio.Export }

func newVIOServer(t *targetUnit, s *ringSpec, ports map[uint8]*scsi.Port, tell func(bool, string), _ *legacyRing) (ringServer, error) {
	e, err := ibmvio.NewExport(ibmvio.Config{
		Name: s.target, Group: t.c.group, Targets: vioPorts(ports), Initiator: s.initiator,
		Log: t.c.log.With("target", s.target, "export", kindVIO), OnConnect: tell,
	})
	if err != nil {
		return nil, err
	}
	return vioServer{e}, nil
}

// vioPorts lists ports in the order of their ids.
func vioPorts(ports map[uint8]*scsi.Port) (ts []ibmvio.TargetPort) {
	for _, id := range slices.Sorted(maps.Keys(ports)) {
		ts = append(ts, ibmvio.TargetPort{ID: id, Port: ports[id]})
	}
	return ts
}

func (v vioServer) setPorts(ports map[uint8]*scsi.Port) error { return v.SetTargets(vioPorts(ports)) }

func (v vioServer) describe(s *ExportStatus) (since time.Time, pid int, failed error) {
	st := v.Status()
	if s.VIO != nil {
		s.VIO.fill(&st)
	}
	s.Stuck, s.Reason = int64(st.Stuck), st.Refused
	return st.Connected, st.PID, nil
}

// newVIOStatus is what is known of an export that does not serve.
func newVIOStatus(s *ringSpec) *VIOStatus {
	v := &VIOStatus{Initiator: config.FormatUUID(s.initiator), IDs: []int{}}
	for _, id := range slices.Sorted(maps.Keys(s.ports)) {
		v.IDs = append(v.IDs, int(id))
	}
	return v
}

// fill takes over what the front end knows.
func (v *VIOStatus) fill(st *ibmvio.Status) {
	if !st.Connected.IsZero() {
		v.Since = &st.Connected
		v.PID, v.UID, v.Unit = st.PID, st.UID, st.Unit
		v.Name = st.Name
		if st.UUID != [16]byte{} {
			v.UUID = config.FormatUUID(st.UUID)
		}
	}
	c := &st.Client
	v.Client, v.Partition, v.PartitionNumber, v.OS, v.RequestLimit = c.State, c.Partition, c.Number, c.OS, c.Limit
	v.InFlight, v.Stuck = st.InFlight, st.Stuck
	n := &st.Counters
	v.Counters = VIOCounters{
		Connections: n.Connections, Rejected: n.Rejected, Entries: n.Entries, Ignored: n.Ignored, Commands: n.Commands, Functions: n.Functions,
		Responses: n.Responses, MADs: n.MADs, Inits: n.Inits, Logins: n.Logins, LoginRejects: n.Rejects, Resumes: n.Resumes, Busy: n.Busy,
		QueueFull: n.Full, Violations: n.Violations, MoveErrors: n.MoveErrors,
	}
}
