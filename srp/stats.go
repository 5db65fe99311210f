package srp

import "github.com/vtgt/vtgt/internal/loop"

// Stats are the counters of a port, summed over its queues.
type Stats struct {
	Commands   uint64 // submitted
	Functions  uint64 // task management functions
	Refused    uint64 // Get said nil
	Busy       uint64 // commands beyond the limit
	NoMemory   uint64 // commands that got TASK SET FULL for lack of buffers
	Aborted    uint64 // commands that ended without a response
	MoveErrors uint64
	Failed     uint64 // functions that failed at their deadline
	Events     uint64
	Missed     uint64 // floods of events of which some were lost
	Misuse     uint64 // calls that the carrier should not have made
	// InFlight is the number of requests between Get and Put, Stuck how many of
	// them a deadline has passed by.
	InFlight, Stuck int64
}

func (s *Stats) add(o *Stats) {
	s.Commands += o.Commands
	s.Functions += o.Functions
	s.Refused += o.Refused
	s.Busy += o.Busy
	s.NoMemory += o.NoMemory
	s.Aborted += o.Aborted
	s.MoveErrors += o.MoveErrors
	s.Failed += o.Failed
	s.Events += o.Events
	s.Missed += o.Missed
	s.Misuse += o.Misuse
	s.InFlight += o.InFlight
	s.Stuck += o.Stuck
}

// Stats reads the counters as they were at the end of the loops' last rounds.
func (p *Port) Stats() (s Stats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sh := range p.shards {
		sh.statsMu.Lock()
		s.add(&sh.stats)
		sh.statsMu.Unlock()
	}
	return s
}

// count gives the loop's counters to be changed; they are published when the round
// ends.
func (sh *shard) count() *Stats {
	if !sh.dirty {
		sh.dirty = true
		sh.loop.Defer(&sh.flush)
	}
	return &sh.now
}

// shardFlush is a shard as the handler of its deferred node.
type shardFlush shard

func (h *shardFlush) Handle(*loop.Node) {
	sh := (*shard)(h)
	if sh.kick {
		sh.kick = false
		sh.lane.Kick()
	}
	sh.dirty = false
	sh.statsMu.Lock()
	sh.stats = sh.now
	sh.statsMu.Unlock()
}
