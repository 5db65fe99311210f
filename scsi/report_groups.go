package scsi

import (
	"encoding/binary"
	"slices"
)

// REPORT TARGET PORT GROUPS (SPC-4 §6.37) and SET TARGET PORT GROUPS (§6.45).

// Bits of byte 1 of a target port group descriptor: which states there are.
const (
	supportsOffline      = 0x40
	supportsUnavailable  = 0x08
	supportsStandby      = 0x04
	supportsNonOptimized = 0x02
	supportsOptimized    = 0x01
)

// portGroup is a target port group as a unit shows it.
type portGroup struct {
	id     uint16
	access groupAccess
	tg     *Target
	ports  []uint16 // relative target port identifiers, ascending
}

// portGroups are the groups by which the unit can be reached, in ascending order.
// Without locks.
func (u *Unit) portGroups() []portGroup {
	var gs []portGroup
	for _, p := range u.paths() {
		id := p.target.Group()
		i := slices.IndexFunc(gs, func(g portGroup) bool { return g.id == id })
		if i < 0 {
			i = len(gs)
			gs = append(gs, portGroup{id: id, tg: p.target})
		}
		gs[i].ports = append(gs[i].ports, p.conf.RelID)
	}
	slices.SortFunc(gs, func(a, b portGroup) int { return int(a.id) - int(b.id) })
	u.mu.Lock()
	for i := range gs {
		gs[i].access = u.groups[gs[i].tg]
	}
	u.mu.Unlock()
	return gs
}

// maxGroupPorts is what TARGET PORT COUNT can say.
const maxGroupPorts = 255

// appendPortGroups appends the parameter data, with the extended header where ext is.
func appendPortGroups(b []byte, gs []portGroup, ext bool) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	if ext {
		b = append(b, 0x10, 0, 0, 0) // no time for implicit transitions is told
	}
	for _, g := range gs {
		ports := g.ports[:min(len(g.ports), maxGroupPorts)]
		b = append(b, byte(g.access.state),
			supportsOffline|supportsUnavailable|supportsStandby|supportsNonOptimized|supportsOptimized,
			byte(g.id>>8), byte(g.id), 0, g.access.status, 0, byte(len(ports)))
		for _, p := range ports {
			b = append(b, 0, 0, byte(p>>8), byte(p))
		}
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

func runReportPortGroups(t *Task) {
	format := t.CDB[1] >> 5
	if format > 1 {
		t.check(InvalidCDBField(1, 7))
		return
	}
	t.reply(appendPortGroups(t.scratch(maxVPD)[:0], t.unit.portGroups(), format == 1), lenBytes6x4(t))
}

// Parameter list of SET TARGET PORT GROUPS.
const (
	setGroupsHeader = 4
	setGroupsDesc   = 4
	maxSetGroups    = setGroupsHeader + 64*setGroupsDesc // 64 changes in one command
)

func runSetPortGroups(t *Task) {
	n := lenBytes6x4(t)
	if n == 0 {
		t.good()
		return
	}
	if n > maxSetGroups {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return
	}
	p, ok := t.param(int(n))
	if !ok {
		return
	}
	// The initiator may go on writing to the list: what is checked is a copy.
	var list [maxSetGroups]byte
	gs := t.unit.portGroups()
	var want [64]setGroup
	sets, s, ok := parseSetGroups(list[:copy(list[:], p)], gs, want[:0])
	if !ok {
		t.check(s)
		return
	}
	u := t.unit
	u.mu.Lock()
	for _, x := range sets {
		for tg := range u.groups {
			if tg.Group() == x.id {
				u.setAccess(tg, groupAccess{x.state, accessByCommand}, t.nu())
			}
		}
	}
	u.mu.Unlock()
	t.good()
}

// setGroup is one change that SET TARGET PORT GROUPS asks for.
type setGroup struct {
	id    uint16
	state AccessState
}

// parseSetGroups appends to out what parameter list b asks of the groups gs. ok is
// false, and s says why, when anything in it cannot be.
func parseSetGroups(b []byte, gs []portGroup, out []setGroup) (_ []setGroup, s Sense, ok bool) {
	if len(b) < setGroupsHeader || (len(b)-setGroupsHeader)%setGroupsDesc != 0 {
		return nil, Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}, false
	}
	for at := setGroupsHeader; at < len(b); at += setGroupsDesc {
		x := setGroup{binary.BigEndian.Uint16(b[at+2:]), AccessState(b[at] & 0x0f)}
		// Offline is a state of single ports: their operator's.
		if x.state > AccessUnavailable {
			return nil, InvalidParamField(at, 3), false
		}
		known := slices.ContainsFunc(gs, func(g portGroup) bool { return g.id == x.id })
		twice := slices.ContainsFunc(out, func(o setGroup) bool { return o.id == x.id })
		if !known || twice {
			return nil, InvalidParamField(at+2, 7), false
		}
		out = append(out, x)
	}
	return out, Sense{}, true
}
