package scsi

import (
	"github.com/vtgt/vtgt/internal/loop"
)

// Memory keeps what one unit has to know after a restart: saved mode pages, identifying
// information and whatever else the standards call nonvolatile. Records are small and
// replaced whole.
type Memory interface {
	// Load gives the record called name, which is the caller's then; nil where
	// there is none. It may sleep.
	Load(name string) ([]byte, error)
	// Save replaces the record called name by b, for good (power loss too) when
	// it returns nil, and leaves it as it was when it fails; a nil b removes it.
	// It keeps no part of b. It may sleep; one call at a time for each unit.
	Save(name string, b []byte) error
}

// saveJob is one Save on its way. What saves is rare and syncs a file: an allocation
// is nothing to it.
type saveJob struct {
	t    *Task
	name string
	b    []byte
	err  error
	next step
	job  loop.Job
	node loop.Node
}

// save gives record name to the unit's Memory, on a worker; then next runs on the
// lane's loop with t.op.Err set. b must not be changed any more. The unit has to have
// a Memory.
//
// next runs although the task was aborted meanwhile, so that what is in force and
// what is kept are the same; it ends the task, as always, and the core sees to what
// the initiator is told.
func (t *Task) save(name string, b []byte, next step) {
	u := t.unit
	j := &saveJob{t: t, name: name, b: b, next: next}
	j.job.Init(j)
	j.node.Init(j)
	u.mu.Lock()
	if u.saves == nil {
		// One at a time: the order of the records is that of the commands.
		u.saves = t.lane.loop.Group().Workers().NewJobQueue(1)
	}
	q := u.saves
	u.mu.Unlock()
	q.Submit(&j.job)
}

// RunJob saves. On a worker.
func (j *saveJob) RunJob(*loop.Job) {
	u := j.t.unit
	u.saving.Lock() // an operator may save too
	j.err = u.conf.Memory.Save(j.name, j.b)
	u.saving.Unlock()
	j.t.lane.loop.Post(&j.node)
}

// Handle goes on with the task. On its lane's loop.
func (j *saveJob) Handle(*loop.Node) {
	t := j.t
	ln := t.lane
	t.touch()
	t.op.Err = j.err
	ln.run(t, j.next)
	ln.Kick()
}
