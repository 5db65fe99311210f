package scsi

import "encoding/binary"

// REPORT LUNS: SPC-4 §6.33.

// Values of the SELECT REPORT field.
const (
	selectUnits     = 0x00 // logical units other than well-known ones
	selectWellKnown = 0x01
	selectAll       = 0x02
	selectAdmin     = 0x10 // administrative logical units: there are none
	selectNotSub    = 0x11 // all but subsidiary logical units
)

func runReportLUNs(t *Task) {
	var units, wellKnown bool
	switch t.CDB[2] {
	case selectUnits, selectNotSub:
		units = true
	case selectWellKnown:
		wellKnown = true
	case selectAll:
		units, wellKnown = true, true
	case selectAdmin:
	default:
		// 12h too: only an administrative logical unit knows subsidiaries.
		t.check(InvalidCDBField(2, 7))
		return
	}
	var list []Mapping
	if units {
		list = t.nexus().LUNs()
	}
	b := t.scratch(8 + 8*(len(list)+1))[:8]
	clear(b)
	for i := range list {
		l := EncodeLUN(list[i].LUN)
		b = append(b, l[:]...)
	}
	if wellKnown {
		b = append(b, LUNReportLUNs[:]...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	t.nexus().clearUA(ASCReportedLUNsDataHasChanged)
	t.reply(b, lenBytes6x4(t))
}
