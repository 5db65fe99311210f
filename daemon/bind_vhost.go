package daemon

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost"
)

// vhostServer is a vhost-user export as a ringServer.
type vhostServer struct{ *vhost.Export }

func newVHostServer(t *targetUnit, s *ringSpec, ports map[uint8]*scsi.Port, tell func(bool, string), l *legacyRing) (ringServer, error) {
	c := t.c
	saved, set := l.frozen(c.legacy)
	conf := vhost.Config{
		Name: s.target, Group: c.group, Targets: inOrder(ports), Initiator: s.initiator,
		Log: c.log.With("target", s.target, "export", kindVHost), OnConnect: tell,
		Saved: saved, Set: set,
	}
	if s.migratable {
		conf.Migratable, conf.Hold, conf.LetGo = true, t.hold, t.letGo
	}
	undo := c.parking.use(&conf, s)
	e, err := vhost.NewExport(conf)
	if err != nil && undo != nil {
		undo(err)
		e, err = vhost.NewExport(conf)
	}
	if err != nil {
		return nil, err
	}
	return vhostServer{e}, nil
}

// inOrder lists ports in the order of their virtio targets.
func inOrder(ports map[uint8]*scsi.Port) (ts []vhost.TargetPort) {
	for vt, p := range ports {
		ts = append(ts, vhost.TargetPort{ID: vt, Port: p})
	}
	slices.SortFunc(ts, func(a, b vhost.TargetPort) int { return cmp.Compare(a.ID, b.ID) })
	return ts
}

func (v vhostServer) setPorts(ports map[uint8]*scsi.Port) error { return v.SetTargets(inOrder(ports)) }

func (v vhostServer) describe(s *ExportStatus) (since time.Time, pid int, failed error) {
	st := v.Status()
	if s.VHost != nil {
		s.VHost.fill(&st)
	}
	s.Stuck, s.Reason = int64(st.Stuck), st.Refused
	return st.Connected, st.PID, st.Failed
}

// newVHostStatus is what is known of an export that does not serve.
func newVHostStatus(s *ringSpec) *VHostStatus {
	v := &VHostStatus{Initiator: config.FormatUUID(s.initiator), Targets: []int{}, Features: []string{}, ProtocolFeatures: []string{}, Rings: []VHostRing{}}
	for _, vt := range slices.Sorted(maps.Keys(s.ports)) {
		v.Targets = append(v.Targets, int(vt))
	}
	return v
}

// fill takes over what the front end knows.
func (v *VHostStatus) fill(st *vhost.Status) {
	if !st.Connected.IsZero() {
		v.Since = &st.Connected
		v.PID, v.UID = st.PID, st.UID
		v.DeviceStatus = st.DeviceStatus
		v.Features = append(v.Features, st.Features...)
		v.ProtocolFeatures = append(v.ProtocolFeatures, st.ProtocolFeatures...)
	}
	v.Queues, v.Started, v.Enabled = st.Queues, st.Started, st.Enabled
	v.Regions, v.MemoryBytes = st.Regions, st.MemoryBytes
	v.InFlight, v.Stuck = st.InFlight, st.Stuck
	n := &st.Counters
	v.Counters = VHostCounters{
		Connections: n.Connections, Rejected: n.Rejected, Messages: n.Messages, UnknownMessages: n.UnknownMessages, Violations: n.Violations,
		Starts: n.Starts, Resets: n.Resets, MemoryChanges: n.MemoryChanges, Requests: n.Requests, Kicks: n.Kicks, Calls: n.Calls,
		Rounds: n.Rounds, BadTarget: n.BadTarget, Replayed: n.Replayed,
	}
	for _, r := range st.Rings {
		x := VHostRing{Index: r.Index, Started: r.Started, Enabled: r.Enabled, Size: r.Size, InFlight: r.InFlight, Stuck: r.Stuck, Requests: r.Requests, Kicks: r.Kicks, Calls: r.Calls}
		if r.Failed != nil {
			x.Failed = r.Failed.Error()
		}
		v.Rings = append(v.Rings, x)
	}
}
