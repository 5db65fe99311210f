package virtioscsi

import (
	"encoding/binary"
	"fmt"

	"github.com/vtgt/vtgt/scsi"
)

// LUN is the LUN field: 1, the target, a single-level LUN in two bytes, four zeroes;
// or the REPORT LUNS well-known logical unit (VIRTIO 1.2 §5.6.6.1).
type LUN [8]byte

// MaxTarget is the highest target and MaxLUN the highest LUN that every driver finds:
// Windows' vioscsi passes over what lies at or above the limits of QEMU's configuration
// space (255 and 16383), and below the first one by one more.
const (
	MaxTarget = 253
	MaxLUN    = 16382
)

// MakeLUN addresses LUN lun (at most scsi.MaxLUN) of target.
func MakeLUN(target uint8, lun uint16) LUN {
	s := scsi.EncodeLUN(lun)
	return LUN{1, target, s[0], s[1]}
}

// ReportLUNs is the address of the REPORT LUNS well-known logical unit, which names no
// target.
func ReportLUNs() LUN { return LUN(scsi.LUNReportLUNs) }

// Address is what a LUN field says: a target, or (WellKnown) none, and the logical
// unit in it.
type Address struct {
	Target    uint8
	LUN       scsi.LUN
	WellKnown bool
}

// Address decodes the field. ok is false for a form that the standard does not have.
func (l LUN) Address() (a Address, ok bool) {
	if binary.BigEndian.Uint64(l[:])&^(0xff<<48|0xff<<32) == 1<<56 { // LUN 0 to 255, as nearly all
		return Address{Target: l[1], LUN: scsi.LUN{0, l[3]}}, true
	}
	if l == ReportLUNs() {
		return Address{LUN: scsi.LUNReportLUNs, WellKnown: true}, true
	}
	a = Address{Target: l[1], LUN: scsi.LUN{l[2], l[3]}}
	if l[0] != 1 || l[4]|l[5]|l[6]|l[7] != 0 {
		return a, false
	}
	_, ok = a.LUN.Number()
	return a, ok || a.LUN == scsi.LUNReportLUNs
}

func (l LUN) String() string {
	a, ok := l.Address()
	switch {
	case !ok:
		return fmt.Sprintf("%x", l[:])
	case a.WellKnown:
		return "REPORT LUNS"
	}
	return fmt.Sprintf("%d:%v", a.Target, a.LUN)
}
