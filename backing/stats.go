package backing

// Stats are numbers of one store since it was opened.
type Stats struct {
	// Bounced is how many direct transfers were copied through a buffer of
	// their loop, because the owner's did not suit the device.
	Bounced uint64
	// Exclusive is how many operations of a direct store ran alone: those that
	// change a part of a block, and those that came meanwhile.
	Exclusive uint64
	// Latched: a sync failed, see ErrLatched.
	Latched bool
}

// StatsOf reads the numbers of st; zero for stores that keep none. Any
// goroutine.
func StatsOf(st Store) Stats {
	if s, ok := st.(interface{ Stats() Stats }); ok {
		return s.Stats()
	}
	return Stats{}
}

func (s *fileStore) Stats() Stats {
	return Stats{Bounced: s.bounced.Load(), Exclusive: s.excl.ops.Load(), Latched: s.latched.Load()}
}
