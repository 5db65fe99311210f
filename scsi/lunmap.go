package scsi

import (
	"cmp"
	"slices"
	"sort"
)

// Mapping is one entry of a target's LUN map, or of what a nexus sees of it.
type Mapping struct {
	// LUN is the target's number for the unit, or that of the port (PortConfig.View).
	LUN  uint16
	Unit *Unit
	MapOptions
}

// MapOptions modify a mapping.
type MapOptions struct {
	// ReadOnly: initiators of this target may not write.
	ReadOnly bool
	// Visible says which initiators see the LUN; nil: all. To the others there
	// is no unit. It is called now and then with locks held, so it must be
	// quick, must not call this package, and must give the same answer for the
	// same name; Target.Remap takes another one.
	Visible func(InitiatorID) bool
	// Address is for the views of ports (PortConfig.View), which alone know what
	// it means. Target.Remap does not change it.
	Address any
}

// seenBy is the number under which initiator id sees the mapping at port p; false:
// it does not.
func (e *Mapping) seenBy(p *Port, id InitiatorID) (as uint16, ok bool) {
	if e.Visible != nil && !e.Visible(id) {
		return 0, false
	}
	if p.conf.View == nil {
		return e.LUN, true
	}
	as, ok = p.conf.View(e)
	return as, ok && as <= MaxLUN
}

// writable reports whether whoever sees the mapping may write.
func (e *Mapping) writable() bool { return !e.ReadOnly && !e.Unit.conf.ReadOnly }

// lunMap is a target's LUN map, or a nexus's view of it, sorted by LUN. It never
// changes: a new one takes its place.
type lunMap struct{ list []Mapping }

// find is the index of lun, or -1.
func (m *lunMap) find(lun uint16) int {
	i := sort.Search(len(m.list), func(i int) bool { return m.list[i].LUN >= lun })
	if i < len(m.list) && m.list[i].LUN == lun {
		return i
	}
	return -1
}

func (m *lunMap) findUnit(u *Unit) int {
	for i := range m.list {
		if m.list[i].Unit == u {
			return i
		}
	}
	return -1
}

// with is a copy of m that has e too.
func (m *lunMap) with(e Mapping) *lunMap {
	n := &lunMap{list: make([]Mapping, 0, len(m.list)+1)}
	n.list = append(append(n.list, m.list...), e)
	sort.Slice(n.list, func(i, j int) bool { return n.list[i].LUN < n.list[j].LUN })
	return n
}

// without is a copy of m that lacks entry i.
func (m *lunMap) without(i int) *lunMap {
	n := &lunMap{list: make([]Mapping, 0, len(m.list))}
	n.list = append(append(n.list, m.list[:i]...), m.list[i+1:]...)
	return n
}

// changed is a copy of m with other options at entry i.
func (m *lunMap) changed(i int, o MapOptions) *lunMap {
	n := &lunMap{list: append([]Mapping(nil), m.list...)}
	n.list[i].MapOptions = o
	return n
}

// view is what initiator id sees of m at port p; m itself where that is all, under the
// same numbers.
func (m *lunMap) view(p *Port, id InitiatorID) *lunMap {
	for i := range m.list {
		if as, ok := m.list[i].seenBy(p, id); ok && as == m.list[i].LUN {
			continue
		}
		n := &lunMap{list: append([]Mapping(nil), m.list[:i]...)}
		for _, e := range m.list[i:] {
			if as, ok := e.seenBy(p, id); ok {
				e.LUN = as
				n.list = append(n.list, e)
			}
		}
		// Of several under one number the first in the target's order stays.
		slices.SortStableFunc(n.list, func(a, b Mapping) int { return cmp.Compare(a.LUN, b.LUN) })
		n.list = slices.CompactFunc(n.list, func(a, b Mapping) bool { return a.LUN == b.LUN })
		return n
	}
	return m
}

// sameUnits reports whether m and o have the same units under the same numbers.
func (m *lunMap) sameUnits(o *lunMap) bool {
	if len(m.list) != len(o.list) {
		return false
	}
	for i := range m.list {
		if m.list[i].LUN != o.list[i].LUN || m.list[i].Unit != o.list[i].Unit {
			return false
		}
	}
	return true
}
