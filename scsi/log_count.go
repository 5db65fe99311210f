package scsi

import "time"

// logCounts is what log pages count, since the unit began or LOG SELECT reset it.
type logCounts struct {
	reads, writes                      uint64
	readBytes, writeBytes, verifyBytes uint64
	readErrs, writeErrs, verifyErrs    uint64
	readTime, writeTime                uint64 // ns
	idle                               uint64 // ns
}

func (c *logCounts) sub(o *logCounts) {
	c.reads -= o.reads
	c.writes -= o.writes
	c.readBytes -= o.readBytes
	c.writeBytes -= o.writeBytes
	c.verifyBytes -= o.verifyBytes
	c.readErrs -= o.readErrs
	c.writeErrs -= o.writeErrs
	c.verifyErrs -= o.verifyErrs
	c.readTime -= o.readTime
	c.writeTime -= o.writeTime
	c.idle -= o.idle
}

// logTotals sums what the lanes have published since the unit began. u.mu is held.
func (u *Unit) logTotals() logCounts {
	s := u.past
	for _, lu := range u.lanes {
		s.add(lu)
	}
	// What no command took. Time in which several ran is taken off several times,
	// so that it is the least that the unit can have been idle.
	since := uint64(time.Since(u.disk.born))
	u.disk.idle = max(u.disk.idle, since-min(since, s.LatencySum))
	return logCounts{
		idle:  u.disk.idle,
		reads: s.Reads, writes: s.Writes,
		readBytes: s.ReadBytes, writeBytes: s.WriteBytes + s.MixedBytes, verifyBytes: s.VerifyBytes,
		readErrs: s.ReadErrors, writeErrs: s.WriteErrors, verifyErrs: s.VerifyErrors,
		readTime: s.ReadTime, writeTime: s.WriteTime,
	}
}

// logCounts are the counters as page code shows them. Without u.mu.
func (u *Unit) logCounts(code byte) logCounts {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.logTotals()
	if base, ok := u.disk.logBase[code]; ok {
		c.sub(&base)
	}
	return c
}

// logReset sets the counters of page code to zero, those of all pages where code is
// logSupported. Without u.mu.
func (u *Unit) logReset(code byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.disk.logBase == nil {
		u.disk.logBase = make(map[byte]logCounts)
	}
	c := u.logTotals()
	for i := range logPages {
		if p := logPages[i].code; code == logSupported || code == p {
			u.disk.logBase[p] = c
		}
	}
}
