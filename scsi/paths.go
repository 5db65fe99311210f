package scsi

import (
	"cmp"
	"slices"
)

// paths are the target ports by which the unit can be reached, of all its targets, by
// relative target port identifier. To initiators all of them belong to one SCSI
// device (SPC-4 §7.8.13): the identifiers are unique among them. Any goroutine,
// without locks.
func (u *Unit) paths() []*Port {
	var ports []*Port
	for _, tg := range u.mappedBy() {
		tg.mu.Lock()
		m := tg.lunMap.Load()
		if i := m.findUnit(u); i >= 0 {
			for _, p := range tg.ports {
				if p.shows(&m.list[i]) {
					ports = append(ports, p)
				}
			}
		}
		tg.mu.Unlock()
	}
	slices.SortFunc(ports, func(a, b *Port) int { return cmp.Compare(a.conf.RelID, b.conf.RelID) })
	return ports
}

// shows reports whether any initiator can meet e at the port.
func (p *Port) shows(e *Mapping) bool {
	if p.conf.View == nil {
		return true
	}
	_, ok := p.conf.View(e)
	return ok
}

// pathsChanged tells the nexuses of e's unit that MULTIP and VPD page 88h are not what
// they were (SPC-4 §6.6.1), if ports of the target show it. tg.mu is held.
func (tg *Target) pathsChanged(e *Mapping) {
	if slices.ContainsFunc(tg.ports, func(p *Port) bool { return p.shows(e) }) {
		e.Unit.raiseUA(ASCInquiryDataHasChanged, nil)
	}
}

// portChanged is pathsChanged for the units that p shows, a port that has come or gone.
// tg.mu is held.
func (tg *Target) portChanged(p *Port) {
	m := tg.lunMap.Load()
	for i := range m.list {
		if p.shows(&m.list[i]) {
			m.list[i].Unit.raiseUA(ASCInquiryDataHasChanged, nil)
		}
	}
}
