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
	applied  time.Time
	disks    map[string]*disk
	targets  map[string]*target
	portals  map[string]portalObject // by the address as configured
}

type disk struct {
	cfg config.Disk // as it was opened
	id  state.Disk
	obj diskObject
}

type target struct {
	cfg   config.Target
	relID uint16
	obj   targetObject
}

func newGraph() *graph {
	return &graph{
		cfg:     &config.Config{},
		disks:   map[string]*disk{},
		targets: map[string]*target{},
		portals: map[string]portalObject{},
	}
}

// clone is a copy whose maps may be changed.
func (g *graph) clone() *graph {
	n := *g
	n.disks, n.targets, n.portals = maps.Clone(g.disks), maps.Clone(g.targets), maps.Clone(g.portals)
	return &n
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
