package scsi

import "encoding/binary"

// LOG SENSE (SPC-4 §6.7) and LOG SELECT (§6.6).

func runLogSense(t *Task) {
	c := &t.CDB
	pc, code, sub := c[2]>>6, c[2]&0x3f, c[3]
	pointer := binary.BigEndian.Uint16(c[5:])
	t.lu.publish() // what this lane has done counts

	b := t.scratch(maxLog)[:4]
	clear(b)
	last := -1
	if code == logSupported && (sub == 0 || sub == logAllSubpages) {
		b = appendLogPages(b, t.unit, sub != 0)
		last = 0
	} else {
		p := t.unit.findLogPage(code)
		switch {
		case p == nil && code != logSupported:
			t.check(InvalidCDBField(2, 5))
			return
		case sub != 0:
			t.check(InvalidCDBField(3, 7))
			return
		}
		b = p.append(b, t.unit, pc)
		b, last = logFrom(b, pointer)
	}
	if int(pointer) > last {
		t.check(InvalidCDBField(5, 7))
		return
	}
	b[0], b[1] = 0x80|code, sub // DS
	if sub != 0 {
		b[0] |= 0x40 // SPF
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	t.reply(b, lenBytes7(t))
}

// findLogPage finds a page of the unit that is not a list of pages; nil: it has none
// of that code.
func (u *Unit) findLogPage(code byte) *logPage {
	for i := range logPages {
		if logPages[i].code == code && logPages[i].has(u) {
			return &logPages[i]
		}
	}
	return nil
}

// logFrom drops the parameters of page b, which has its header, of codes below
// pointer. last is the largest code that there is.
func logFrom(b []byte, pointer uint16) (out []byte, last int) {
	at, from := 4, len(b)
	for at < len(b) {
		code := binary.BigEndian.Uint16(b[at:])
		if code >= pointer && from == len(b) {
			from = at
		}
		last = int(code)
		at += 4 + int(b[at+3])
	}
	return append(b[:4], b[from:]...), last
}

// runLogSelect resets counters: with PCR, or with page control 11b, "default
// cumulative values" (SPC-4 §6.6.1). Nothing else of a log page can be changed, so
// there is no parameter list.
func runLogSelect(t *Task) {
	c := &t.CDB
	pc, code, sub := c[2]>>6, c[2]&0x3f, c[3]
	switch {
	case code != logSupported && t.unit.findLogPage(code) == nil:
		t.check(InvalidCDBField(2, 5))
		return
	case sub != 0 && (code != logSupported || sub != logAllSubpages):
		t.check(InvalidCDBField(3, 7))
		return
	}
	if c[1]&0x02 != 0 || pc == logDefaultCumulative {
		t.lu.publish()
		t.unit.logReset(code)
		t.unit.raiseUA(ASCLogParametersChanged, t.nu())
	}
	t.good()
}
