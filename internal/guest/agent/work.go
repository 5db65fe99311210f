package agent

// Progress is what the writers of Work have done, as JSON in the Response's Out.
//
// Each of the Jobs has its own part of Path, Len/Jobs bytes, in slots of Size bytes,
// and does one thing at a time past the page cache: it writes a slot with the
// pattern of the slot's next sequence number, or reads one and compares it with the
// last one that was acknowledged, or syncs. The first error ends a job.
type Progress struct {
	Writes, Reads, Syncs uint64
	// Longest is the longest that one operation took so far, those under way
	// included, in milliseconds.
	Longest int64
	Running int
	Errors  []string `json:",omitempty"`
	// Sequence has each slot's last acknowledged number, in the order of Path, 0
	// for one that was not written. Only after Stop.
	Sequence []uint32 `json:",omitempty"`
}

// Slot fills b with what a slot at byte offset off holds after write number seq of
// the run seed.
func Slot(b []byte, seed uint64, off int64, seq uint32) { Pattern(b, seed^uint64(seq)<<40, off) }
