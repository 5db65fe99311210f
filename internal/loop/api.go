package loop

import (
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// Handler receives a posted or deferred node on the loop's thread.
type Handler interface {
	// Handle is called once for each Post or Defer of n. n is free for re-use
	// (it may be posted again) from the moment Handle is entered.
	Handle(n *Node)
}

// ReadyHandler receives readiness of a Source on the loop's thread.
type ReadyHandler interface {
	// Ready reports the epoll events (In, Out, Hup, Err bits) of s.
	Ready(s *Source, ev Events)
}

// TimerHandler receives the end of a Timer on the loop's thread.
type TimerHandler interface {
	Expired(t *Timer)
}

// JobRunner runs a blocking job on a worker's goroutine, off every loop.
type JobRunner interface {
	// RunJob may sleep in system calls. It reports its end itself, by posting
	// a Node to the loop that owns the work.
	RunJob(j *Job)
}

// Events is a set of epoll event bits.
type Events uint32

// The event bits. In and Out can be asked for, and RdHup and Edge (report
// changes only, not states) along with them; Err and Hup are always reported.
const (
	In    Events = sys.EPOLLIN
	Out   Events = sys.EPOLLOUT
	Err   Events = sys.EPOLLERR
	Hup   Events = sys.EPOLLHUP
	RdHup Events = sys.EPOLLRDHUP
	Edge  Events = sys.EPOLLET
)

// String names the bits, for instance "In|Hup".
func (e Events) String() string {
	var b []byte
	for _, n := range [...]struct {
		bit  Events
		name string
	}{{In, "In"}, {Out, "Out"}, {Err, "Err"}, {Hup, "Hup"}, {RdHup, "RdHup"}, {Edge, "Edge"}} {
		if e&n.bit != 0 {
			b = append(append(b, '|'), n.name...)
			e &^= n.bit
		}
	}
	if e != 0 || b == nil {
		b = fmt.Appendf(b, "|%#x", uint32(e))
	}
	return string(b[1:])
}
