package scsi

import (
	"fmt"
	"time"
)

// PortConfig describes a target port.
type PortConfig struct {
	// RelID is the relative target port identifier (SPC-4 §7.8.6.9), stored
	// with the export.
	RelID uint16
	// Protocol is the protocol identifier (SPC-4 §7.6.1); 5: iSCSI.
	Protocol uint8
	// Name is the target port's SCSI name string ("iqn.…,t,0x0001").
	Name string
	// DeviceName is the target device's SCSI name string ("iqn.…").
	DeviceName string
	// View says whether the port shows an entry of the target's LUN map, and under
	// which number (0 to MaxLUN, for each entry another); nil: all, under the
	// target's numbers. It is called as MapOptions.Visible is, and must always give
	// the same answer for the same LUN and address. Initiators at this port meet no
	// other number than these.
	View func(*Mapping) (as uint16, ok bool)
	// Vendor (8) and Product (16 bytes), ASCII, where set, are what standard INQUIRY
	// data say of every unit at this port, for initiators that know devices by
	// them; VPD pages stay as they are.
	Vendor, Product string
}

// Port is a SCSI target port: one export of a target.
type Port struct {
	conf   PortConfig
	target *Target

	// Guarded by Target.mu.

	nexuses map[*Nexus]struct{}
	closed  bool
}

// Config is what the port was made of.
func (p *Port) Config() PortConfig { return p.conf }

// Target is the port's target.
func (p *Port) Target() *Target { return p.target }

// Nexuses are the nexuses at the port.
func (p *Port) Nexuses() (ns []*Nexus) {
	p.target.mu.Lock()
	defer p.target.mu.Unlock()
	for n := range p.nexuses {
		ns = append(ns, n)
	}
	return ns
}

// Admits tells whether Attach would make a nexus for id now: nil, or why not. For
// front ends that have to say so before they attach.
func (p *Port) Admits(id InitiatorID) error {
	tg := p.target
	tg.mu.Lock()
	defer tg.mu.Unlock()
	if p.closed || tg.closed {
		return fmt.Errorf("target %s: %w", tg.conf.Name, ErrClosed)
	}
	for _, e := range tg.lunMap.Load().view(p, id).list {
		if e.writable() {
			if err := e.Unit.admits(id); err != nil {
				return fmt.Errorf("target %s: %w", tg.conf.Name, err)
			}
		}
	}
	return nil
}

// Attach makes the nexus of initiator port id. Another one under the same name
// must have been closed (its Close begun): what the standard calls one I_T nexus
// is one here. The error is a *SharingError if the initiator could write a unit
// that is not shared and that one of another name can write.
func (p *Port) Attach(id InitiatorID, fe FrontEnd) (*Nexus, error) {
	tg := p.target
	tg.mu.Lock()
	defer tg.mu.Unlock()
	if p.closed || tg.closed {
		return nil, fmt.Errorf("target %s: %w", tg.conf.Name, ErrClosed)
	}
	for n := range p.nexuses {
		if n.id == id {
			return nil, fmt.Errorf("target %s: initiator %s is there already; close its nexus first", tg.conf.Name, id)
		}
	}
	n := &Nexus{port: p, id: id, fe: fe, units: make(map[*Unit]*nexusUnit)}
	view := tg.lunMap.Load().view(p, id)
	for i := range view.list {
		e := &view.list[i]
		if !e.writable() {
			continue
		}
		if err := e.Unit.claim([]*Nexus{n}); err != nil {
			for _, o := range view.list[:i] {
				o.Unit.disclaim(n)
			}
			return nil, fmt.Errorf("target %s: %w", tg.conf.Name, err)
		}
	}
	n.view.Store(view)
	p.nexuses[n] = struct{}{}
	n.resume(view)
	return n, nil
}

// Close ends the port: its nexuses are closed. done is as in Nexus.Close.
func (p *Port) Close(deadline time.Duration, done func(stuck int)) {
	tg := p.target
	tg.mu.Lock()
	p.closed = true
	var ns []*Nexus
	for n := range p.nexuses {
		ns = append(ns, n)
	}
	for i, o := range tg.ports {
		if o == p {
			tg.ports = append(tg.ports[:i:i], tg.ports[i+1:]...)
			tg.portChanged(p)
			break
		}
	}
	tg.mu.Unlock()
	j := newJoint(done)
	for _, n := range ns {
		j.add(1)
		n.Close(deadline, j.release)
	}
	j.release(0)
}
