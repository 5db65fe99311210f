//go:build race

package gmem

// Under the race detector an atomic access is made by its own code on the stack of the
// scheduler, after a first look that is to find faults early. Memory that goes between
// the two ends the process: Guard cannot help there. A loop that polls a ring met that in
// one of some 100 truncations. So these are plain accesses of a word, which no compiler
// divides, between barriers.

//go:norace
func load32(p *uint32) uint32 {
	v := *p
	fence()
	return v
}

//go:norace
func load64(p *uint64) uint64 {
	v := *p
	fence()
	return v
}

//go:norace
func store32(p *uint32, v uint32) {
	fence()
	*p = v
	fence()
}

func fence() {
	var b Barrier
	b.Full()
}
