package scsi

// REQUEST SENSE: SPC-4 §6.39.

func runRequestSense(t *Task) {
	desc := t.CDB[1]&1 != 0
	var s Sense
	switch {
	case t.unit != nil:
		s = t.pendingSense()
	case t.LUN == LUNReportLUNs:
	default:
		// GOOD, with the reason in the data (SPC-4 §6.39).
		s = Sense{Key: IllegalRequest, ASC: ASCLUNNotSupported}
	}
	b := t.scratch(MaxSense)
	n := s.Encode(b, desc)
	t.reply(b[:n], lenByte4(t))
}

// pendingSense is what the unit has to tell the nexus: a unit attention, which is
// taken away by that, else why TEST UNIT READY would be refused: the access state of
// this path, an operation that has the medium, the medium itself.
func (t *Task) pendingSense() Sense {
	if a, ok := t.nu().takeUA(); ok {
		return uaSense(a)
	}
	if a := refuses(0, t.nu().verdict.Load()); a != 0 {
		return Sense{Key: NotReady, ASC: a}
	}
	if s, ok := t.unit.mediumSense(); ok {
		return s
	}
	if a := t.unit.notReady(); a != 0 {
		return Sense{Key: NotReady, ASC: a}
	}
	return Sense{}
}
