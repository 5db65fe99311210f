package scsi

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/backing"
)

// SEND DIAGNOSTIC (SPC-4 §6.42) and RECEIVE DIAGNOSTIC RESULTS (§6.27): the default
// self-test, and the one diagnostic page that is mandatory.

const (
	diagSupported = 0x00 // page code of the list of pages
	diagHeader    = 4
)

const ascFailedSelfTest ASC = 0x3e03

func runSendDiagnostic(t *Task) {
	n := int(binary.BigEndian.Uint16(t.CDB[3:]))
	pf, selfTest := t.CDB[1]&0x10 != 0, t.CDB[1]&0x04 != 0
	switch {
	case selfTest && n != 0:
		t.check(InvalidCDBField(3, 7))
	case selfTest && backing.StatsOf(t.unit.backing).Latched:
		// The disk takes no more writes: that is what a self-test is to find.
		t.check(Sense{Key: HardwareError, ASC: ascFailedSelfTest})
	case n == 0:
		t.good()
	case !pf:
		t.check(InvalidCDBField(1, 4))
	default:
		p, ok := t.param(min(n, diagHeader))
		if !ok {
			return
		}
		if s, ok := checkDiagnostic(p, n); !ok {
			t.check(s)
			return
		}
		t.good()
	}
}

// checkDiagnostic looks at the parameter list of n bytes that begins with b: the page
// of the list of pages, which has no parameters.
func checkDiagnostic(b []byte, n int) (s Sense, ok bool) {
	if len(b) < diagHeader {
		return Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}, false
	}
	page, length := b[0], binary.BigEndian.Uint16(b[2:])
	switch {
	case page != diagSupported:
		return InvalidParamField(0, 7), false
	case length != 0:
		return InvalidParamField(2, 7), false
	case n != diagHeader:
		return Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}, false
	}
	return Sense{}, true
}

// runReceiveDiagnostic gives that page whether PCV asks for it or it is what the last
// SEND DIAGNOSTIC can have asked for.
func runReceiveDiagnostic(t *Task) {
	if t.CDB[2] != diagSupported {
		t.check(InvalidCDBField(2, 7))
		return
	}
	t.reply(append(t.scratch(diagHeader + 1)[:0], diagSupported, 0, 0, 1, diagSupported), lenBytes3(t))
}
