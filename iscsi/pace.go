package iscsi

// pace tells initiators that wait for each answer before they ask again from those that
// keep many commands going. Looking for the next command of the former saves a wake-up for
// each (loop.Loop.Expect). The latter's commands come in batches, and the more of them come
// while the loop sleeps the less each costs.
type pace struct {
	commands uint64 // that had begun at the last flush
	deep     int    // flushes to come in which the initiator counts as one of many commands
}

const (
	// shallow is how many commands between two flushes an initiator that waits for
	// its answers may send.
	shallow = 2
	// deepFor is for how many flushes more than that are remembered.
	deepFor = 64
)

// waits reports, at the end of a flush, that the initiator has nothing to do but ask again.
// commands is how many have begun so far, open how many requests await an answer.
func (p *pace) waits(commands uint64, open int) bool {
	n := commands - p.commands
	p.commands = commands
	switch {
	case n > shallow:
		p.deep = deepFor
	case n > 0 && p.deep > 0:
		p.deep--
	default:
		return n > 0 && open == 0
	}
	return false
}
