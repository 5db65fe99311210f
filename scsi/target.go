package scsi

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// TargetConfig describes a target.
type TargetConfig struct {
	Name string
	// Group is the target port group identifier of all the target's ports,
	// another one than that of other targets with the same units; 0: 1.
	Group uint16
	// Access is the group's access state to begin with.
	Access AccessState
	// Log gets what an operator should know; nil: silence.
	Log *slog.Logger
}

// Target is a SCSI target device (SAM-5 §4.6.5): a LUN map and the ports that
// lead to it.
type Target struct {
	conf   TargetConfig
	lunMap atomic.Pointer[lunMap] // written under mu
	// noUnit answers for LUNs that are not mapped.
	noUnit deviceServer

	mu       sync.Mutex // first of Target.mu, Nexus.mu, Unit.mu
	ports    []*Port
	removing map[*Unit]int // removals, of all or of some nexuses, under way
	access   AccessState
	closed   bool
}

// NewTarget makes a target without LUNs and ports.
func NewTarget(c TargetConfig) *Target {
	tg := &Target{conf: c, noUnit: newDisk(nil), removing: make(map[*Unit]int), access: c.Access}
	tg.lunMap.Store(&lunMap{})
	return tg
}

// Name is the target's name.
func (tg *Target) Name() string { return tg.conf.Name }

// NewPort adds a port.
func (tg *Target) NewPort(c PortConfig) *Port {
	p := &Port{conf: c, target: tg, nexuses: make(map[*Nexus]struct{})}
	tg.mu.Lock()
	tg.ports = append(tg.ports, p)
	tg.portChanged(p)
	tg.mu.Unlock()
	return p
}

// Close ends all nexuses and takes all LUNs away. done is as in Nexus.Close.
func (tg *Target) Close(deadline time.Duration, done func(stuck int)) {
	tg.mu.Lock()
	tg.closed = true
	ports := tg.ports
	tg.mu.Unlock()
	j := newJoint(done)
	for _, p := range ports {
		j.add(1)
		p.Close(deadline, j.release)
	}
	for _, e := range tg.LUNs() {
		tg.removeUnit(e.Unit, deadline, j)
	}
	j.release(0)
}
