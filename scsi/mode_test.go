package scsi

import (
	"testing"

	"github.com/vtgt/vtgt/backing"
)

// Written from SPC-4 §7.5.8, §7.5.11 and SBC-3 §6.5.6, §6.5.8.
func TestModePagesGolden(t *testing.T) {
	on := modeState{wce: true, dSense: true, swp: true, tas: true}
	volatile, safe := &backing.Info{Volatile: true}, &backing.Info{}
	for _, c := range []struct {
		page int
		pc   byte
		s    modeState
		i    *backing.Info
		want string
	}{
		{0, pcCurrent, modeState{}, safe, "010a 80 00 00000000 00 00 0000"},
		{0, pcChangeable, on, volatile, "010a 00 00 00000000 00 00 0000"},
		{1, pcCurrent, modeState{}, safe, "0812 00 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{1, pcCurrent, on, volatile, "0812 04 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{1, pcChangeable, on, safe, "0812 00 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{1, pcChangeable, on, volatile, "0812 04 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{2, pcCurrent, modeState{}, safe, "0a0a 02 10 00 00 0000 ffff 0000"},
		{2, pcCurrent, on, safe, "0a0a 06 10 08 40 0000 ffff 0000"},
		{2, pcChangeable, on, safe, "0a0a 04 00 08 40 0000 0000 0000"},
		{3, pcDefault, modeState{}, safe, "1c0a 08 00 00000000 00000000"},
		{3, pcChangeable, on, safe, "1c0a 00 00 00000000 00000000"},
	} {
		p := &modePages[c.page]
		wantBytes(t, "mode page", p.append(nil, c.pc, &c.s, c.i), unhex(t, c.want))
	}
	for i := 1; i < len(modePages); i++ {
		if modePages[i].code <= modePages[i-1].code {
			t.Error("mode pages out of order")
		}
	}
}
