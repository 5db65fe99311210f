package loop

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
