package scsi

import (
	"math/bits"
	"sync"

	"github.com/vtgt/vtgt/internal/loop"
)

// LatencyBuckets is the size of Stats.Latency.
const LatencyBuckets = 36

// Stats are the counters of a unit or of a nexus, summed over lanes. Commands are
// counted when they end.
type Stats struct {
	Reads, Writes, Others uint64
	// ReadBytes and WriteBytes are payload of READ and WRITE commands.
	ReadBytes, WriteBytes uint64
	// MixedBytes is what other commands wrote (WRITE AND VERIFY, WRITE SAME,
	// COMPARE AND WRITE, ORWRITE), VerifyBytes what was verified.
	MixedBytes, VerifyBytes uint64
	// ReadErrors, WriteErrors and VerifyErrors count commands that ended with
	// MEDIUM ERROR or HARDWARE ERROR. A SYNCHRONIZE CACHE is one that writes.
	ReadErrors, WriteErrors, VerifyErrors uint64
	// ReadTime and WriteTime are READ's and WRITE's part of LatencySum.
	ReadTime, WriteTime uint64
	// Errors counts CHECK CONDITION by sense key.
	Errors [16]uint64
	// Aborted tasks, and commands that met a reservation of another nexus.
	Aborted, Conflicts uint64
	// Latency[i] counts commands that took [2^i, 2^(i+1)) ns from Submit to
	// Done by the clock of the loops' rounds; Latency[0] those that ended in
	// the round in which they came.
	Latency [LatencyBuckets]uint64
	// LatencySum is the sum of those times in ns.
	LatencySum uint64

	// InFlight tasks at the moment; Waiting are not enabled. Held wait for
	// Unit.Resume: those that failed, in InFlight too, and all that came later,
	// in Waiting too. Stuck were aborted but stay in the store beyond the
	// deadline (of units only).
	InFlight, Waiting, Held, Stuck int64
}

// counters is what one lane counts for one unit; only its loop touches it.
type counters struct {
	reads, writes, others uint64
	readBytes, writeBytes uint64
	aborted, conflicts    uint64
	// ns from Submit to Done
	readTime, writeTime, otherTime uint64

	mixedBytes, verifyBytes         uint64
	readErrs, writeErrs, verifyErrs uint64

	errs    [16]uint64
	latency [LatencyBuckets]uint64
}

// published is the copy of counters that others may read. It is brought up to
// date once a round: the fast path pays for no atomic operation.
type published struct {
	mu sync.Mutex
	c  counters
}

// account counts an ended task. On the loop.
func (lu *laneUnit) account(t *Task) {
	c := &lu.now
	d := uint64(max(lu.lane.loop.Now()-t.sched.start, 0))
	switch cmd := t.cmd; {
	case cmd == nil || cmd.flags&cmdFast == 0:
		c.others++
		c.otherTime += d
		if cmd != nil && cmd.flags&(cmdBlocks|cmdRange) != 0 && t.Status == StatusGood && t.sched.aborted == notAborted {
			c.accountBlocks(t)
		}
	case cmd.dir == dirIn:
		c.reads++
		c.readTime += d
		if t.sched.aborted == notAborted {
			c.readBytes += uint64(t.InLen)
		}
	default:
		c.writes++
		c.writeTime += d
		if t.Status == StatusGood && t.sched.aborted == notAborted {
			c.writeBytes += uint64(t.Want)
		}
	}
	c.latency[min(bits.Len64(d|1)-1, LatencyBuckets-1)]++
}

// accountBlocks counts what a command other than READ and WRITE did to its range.
func (c *counters) accountBlocks(t *Task) {
	n := uint64(lenBlocks(t))
	if t.cmd.flags&cmdWrite != 0 {
		c.mixedBytes += n
	}
	if verifies(t.CDB[0]) {
		c.verifyBytes += n
	}
}

// verifies reports whether op is VERIFY or WRITE AND VERIFY.
func verifies(op byte) bool {
	switch op {
	case 0x2e, 0x2f, 0x8e, 0x8f, 0xae, 0xaf:
		return true
	}
	return false
}

// accountSense counts sense key k of t.
func (c *counters) accountSense(t *Task, k SenseKey) {
	c.errs[k&15]++
	if k != MediumError && k != HardwareError || t.cmd == nil {
		return
	}
	switch {
	case verifies(t.CDB[0]):
		c.verifyErrs++
	case t.cmd.dir == dirIn:
		c.readErrs++
	default:
		c.writeErrs++
	}
}

// publish lets others read what the lane has counted.
func (lu *laneUnit) publish() {
	lu.published.mu.Lock()
	lu.published.c = lu.now
	lu.published.mu.Unlock()
}

// laneFlush is a laneUnit as the handler of its deferred node.
type laneFlush laneUnit

// Handle publishes the counters at the end of a round.
func (f *laneFlush) Handle(*loop.Node) {
	lu := (*laneUnit)(f)
	lu.dirty = false
	lu.publish()
}

// add adds what lu has published and, while the unit knows it, what it has in flight.
func (s *Stats) add(lu *laneUnit) {
	lu.published.mu.Lock()
	c := &lu.published.c
	s.Reads += c.reads
	s.Writes += c.writes
	s.Others += c.others
	s.ReadBytes += c.readBytes
	s.WriteBytes += c.writeBytes
	s.Aborted += c.aborted
	s.Conflicts += c.conflicts
	s.LatencySum += c.readTime + c.writeTime + c.otherTime
	s.ReadTime += c.readTime
	s.WriteTime += c.writeTime
	s.MixedBytes += c.mixedBytes
	s.VerifyBytes += c.verifyBytes
	s.ReadErrors += c.readErrs
	s.WriteErrors += c.writeErrs
	s.VerifyErrors += c.verifyErrs
	for i, n := range c.errs {
		s.Errors[i] += n
	}
	for i, n := range c.latency {
		s.Latency[i] += n
	}
	lu.published.mu.Unlock()
	s.InFlight += lu.inflight.Load()
}

// Stats are the unit's counters. Any goroutine.
func (u *Unit) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.past
	for _, lu := range u.lanes {
		s.add(lu)
	}
	s.Held = int64(u.heldLocked())
	for t := u.waiting.head; t != nil; t = t.sched.qnext {
		s.Waiting++
	}
	s.Stuck = int64(u.stuck)
	return s
}

// Stats are the counters of the nexus, over all units that it has used. Any
// goroutine.
func (n *Nexus) Stats() (s Stats) {
	// A share that goes from its unit to past meanwhile would be missed, and
	// the sum would be smaller than it was.
	for range 100 {
		var more uint64
		if s, more = n.stats(); more == n.gone.Load() {
			break
		}
	}
	return s
}

// stats is one attempt; gone is the number of shares that are in past.
func (n *Nexus) stats() (s Stats, gone uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pastMu.Lock()
	s, gone = n.past, n.gone.Load()
	n.pastMu.Unlock()
	for u := range n.units {
		u.mu.Lock()
		for _, lu := range u.lanes {
			if lu.lane.nexus == n {
				s.add(lu)
				s.Held += int64(lu.held)
			}
		}
		for t := u.waiting.head; t != nil; t = t.sched.qnext {
			if t.lane.nexus == n {
				s.Waiting++
				if u.stop.on {
					s.Held++
				}
			}
		}
		u.mu.Unlock()
	}
	return s, gone
}
