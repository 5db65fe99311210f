package daemon

import (
	"maps"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
)

// graph is everything that runs, as of one revision. A published graph is never
// changed: Apply makes a new one that shares the objects that stay.
type graph struct {
	cfg      *config.Config
	file     string // where cfg came from
	text     []byte
	revision uint64
	running  bool // published by an Apply, not the nothing before the first one
	applied  time.Time
	// revs are the revisions at which objects ("disk root1", "lun vm1/0") came or
	// last changed.
	revs    map[string]uint64
	disks   map[string]*disk
	targets map[string]*target
	portals map[string]portalObject // by the address as configured
}

type disk struct {
	cfg config.Disk // as it was opened
	id  state.Disk
	obj diskObject
}

type target struct {
	cfg     config.Target
	group   uint16 // target port group identifier
	obj     targetObject
	exports map[string]*export // by kind; never changed
}

// export is one way to reach a target.
type export struct {
	relID uint16 // relative target port identifier, of vhost and vio that of number 0
	ring  *ringSpec
	obj   exportObject
}

// The kinds of export.
const (
	kindISCSI = "iscsi"
	kindVHost = "vhost"
	kindVIO   = "vio"
	kindXen   = "xen"
)

// kinds are the kinds of export, in the order in which they are shown.
func kinds() []string { return []string{kindISCSI, kindVHost, kindVIO, kindXen} }

// with is t with other exports; nil takes one away.
func (t *target) with(kind string, e *export) *target {
	n := *t
	n.exports = maps.Clone(t.exports)
	if n.exports == nil {
		n.exports = map[string]*export{}
	}
	if n.exports[kind] = e; e == nil {
		delete(n.exports, kind)
	}
	return &n
}

func newGraph() *graph {
	return &graph{
		cfg:     &config.Config{},
		revs:    map[string]uint64{},
		disks:   map[string]*disk{},
		targets: map[string]*target{},
		portals: map[string]portalObject{},
	}
}

// clone is a copy whose maps may be changed.
func (g *graph) clone() *graph {
	n := *g
	n.revs = maps.Clone(g.revs)
	n.disks, n.targets, n.portals = maps.Clone(g.disks), maps.Clone(g.targets), maps.Clone(g.portals)
	return &n
}

// readOnly tells whether the store of a disk was opened so.
func (g *graph) readOnly(disk string) bool {
	k := g.disks[disk]
	return k != nil && k.obj.status().readOnly
}

// placesOf lists the places "TARGET/NUMBER" of all disks.
func placesOf(c *config.Config) map[string][]string {
	m := make(map[string][]string, len(c.Disks))
	for i := range c.Targets {
		for _, l := range c.Targets[i].LUNs {
			m[l.Disk] = append(m[l.Disk], lunName(c.Targets[i].Name, l.LUN))
		}
	}
	return m
}

// lunsOf lists the places "TARGET/NUMBER" at which a disk is mapped.
func lunsOf(c *config.Config, name string) []string {
	out := []string{}
	for i := range c.Targets {
		for _, l := range c.Targets[i].LUNs {
			if l.Disk == name {
				out = append(out, lunName(c.Targets[i].Name, l.LUN))
			}
		}
	}
	return out
}
