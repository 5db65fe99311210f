package backing

import (
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/sys"
)

// desc is the open file description that does a store's I/O and carries its
// locks. Reopen replaces it; the old one is closed when the last queue with an
// operation on it has let go.
type desc struct {
	fd int
	// witness is a second description of the same file that never syncs. The
	// kernel reports a lost write once to each description, so a sync here
	// tells whether the description next door has just used one up. -1: none.
	witness int
	st      sys.FileStat
	refs    atomic.Int32
}

// release gives one reference back. The last closes the file, which can sleep:
// on a loop it is done elsewhere.
func (d *desc) release(onLoop bool) {
	if d.refs.Add(-1) > 0 {
		return
	}
	if onLoop {
		go d.close()
		return
	}
	d.close()
}

func (d *desc) close() {
	// What close(2) could report was reported by the sync before it.
	_ = sys.CloseFile(d.fd)
	if d.witness >= 0 {
		_ = sys.CloseFile(d.witness)
	}
}

// descRef is one queue's hold on a desc: it counts the operations in flight
// without atomics.
type descRef struct {
	d *desc
	n int
}
