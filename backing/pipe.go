package backing

import (
	"runtime"
	"sync/atomic"

	"github.com/vtgt/vtgt/internal/loop"
)

const (
	// pipeMin is the shortest write that is worth a hand-over to the pipe.
	pipeMin = 32 << 10
	// pipeBatch is how many writes the pipe ends at most before it tells their loops:
	// a message to a loop that sleeps costs as much as copying 20 KiB, and the
	// answers of one round leave by one call.
	pipeBatch = 8
	// pipeHold is for how long (ns) it keeps the end of a write to itself, and the
	// write after it.
	pipeHold = 200_000
)

// pipe makes a file's long buffered writes one after the other, on one worker, while the
// loops that have them receive the next ones. More than one at a time would gain nothing:
// the kernel holds the inode during a write, and who waits for it burns processor time (64
// KiB at depth 32, written by 8 workers: 62 us each, by one: 38; 1 MiB: 780 and 490).
type pipe struct {
	s     *fileStore
	job   loop.Job
	jobs  *loop.JobQueue
	in    atomic.Pointer[fileJob] // last come first
	count atomic.Int32            // of jobs that are not done; who makes it 1 calls the worker, which leaves at 0
}

func (p *pipe) init(s *fileStore) {
	p.s = s
	p.jobs = s.group.Workers().NewJobQueue(1)
	p.job.Init(p)
}

// takes reports whether op, a write that need not be stable, is one for the pipe: too long
// for a loop, or long and the loop has others to receive. While a write is in the pipe the
// loop's own would wait for it.
func (p *pipe) takes(op *Op, l *loop.Loop) bool {
	switch {
	case op.Len < pipeMin || p.s.block:
		return false
	case op.Len > inlineMax:
		return true
	}
	// Not where the worker would take the loop's processor, or the initiator's.
	return (l.Behind() || p.count.Load() > 0) && len(l.Group().Loops()) > 2
}

// add has j's Op written. Any loop.
func (p *pipe) add(j *fileJob) {
	// Counted first: what the worker finds in the list is in count.
	first := p.count.Add(1) == 1
	for {
		h := p.in.Load()
		j.next = h
		if p.in.CompareAndSwap(h, j) {
			break
		}
	}
	if first {
		p.jobs.Submit(&p.job)
	}
}

// RunJob is the worker's.
func (p *pipe) RunJob(*loop.Job) {
	var ended [pipeBatch]*Op
	n, since := 0, int64(0)
	for {
		var todo *fileJob
		for j := p.in.Swap(nil); j != nil; {
			next := j.next
			j.next, todo = todo, j
			j = next
		}
		done := int32(0)
		for j := todo; j != nil; done++ {
			next := j.next // j goes home with its Op
			j.next = nil
			if j.claim.CompareAndSwap(claimFree, claimTaken) {
				op := j.op
				op.st.eng.(*fileQueue).run(op)
				now := p.s.now()
				if n == 0 {
					since = now
				}
				ended[n] = op
				// Half as many as are still to be made: initiators must not
				// run dry.
				left := p.count.Load() - done - 1
				if n++; n == pipeBatch || int32(2*n) > left || now-since > pipeHold {
					tell(ended[:n])
					n = 0
				}
			}
			j = next
		}
		if n > 0 && p.in.Load() == nil {
			tell(ended[:n])
			n = 0
		}
		if p.count.Add(-done) == 0 {
			return
		}
		if done == 0 {
			runtime.Gosched() // who has counted a job is about to add it
		}
	}
}

// tell sends ops home.
func tell(ops []*Op) {
	for i, op := range ops {
		ops[i] = nil
		op.st.post()
	}
}
