package scsi

import "sort"

// Mapping is one entry of a target's LUN map.
type Mapping struct {
	LUN      uint16
	Unit     *Unit
	ReadOnly bool // for this target, by MapOptions
}

// MapOptions modify a mapping.
type MapOptions struct {
	// ReadOnly: initiators of this target may not write.
	ReadOnly bool
}

// lunMap is a target's LUN map, sorted by LUN. It never changes: a new one takes
// its place.
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
