package daemon

import (
	"github.com/vtgt/vtgt/config"
)

// atomicLogName is the record folder's file for the intent log of a device.
const atomicLogName = "atomic.log"

// atomicBlocks is the longest WRITE ATOMIC.
const atomicBlocks = 256

// atomicLog is where the intent log of d is, "" where it has none. That of a file lies
// beside it: whoever serves the file next, from another state folder or on another
// host, has to find what a crash has cut off. A device has no folder; its log is with
// the state.
func (c *core) atomicLog(d *config.Disk) (string, error) {
	if d.AtomicLog == 0 || d.ReadOnly || d.Migratable {
		// One that is there is looked at all the same: nobody may read half a write.
		if d.ReadOnly && d.Path() != "" && !d.IsBlock() {
			return d.Path() + config.AtomicLogSuffix, nil
		}
		return "", nil
	}
	path := d.Path()
	switch {
	case path == "":
		return "", nil
	case !d.IsBlock():
		return path + config.AtomicLogSuffix, nil
	}
	if m, ok := c.memory(d.Name).(interface {
		Place(file string) (string, error)
	}); ok {
		return m.Place(atomicLogName)
	}
	return "", nil
}
