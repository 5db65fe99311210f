package scsi

import "testing"

// Written from SBC-3 §5.16.2.
func TestCapacity16Golden(t *testing.T) {
	b := make([]byte, capacity16Len)
	for _, c := range []struct {
		last        uint64
		block, phys int
		thin        bool
		want        string
	}{
		{0x1fffff, 512, 4096, true, "00000000001fffff 00000200 00 03 c000 00000000000000000000000000000000"},
		{1<<40 - 1, 4096, 4096, false, "000000ffffffffff 00001000 00 00 0000 00000000000000000000000000000000"},
		{0, 512, 1 << 30, false, "0000000000000000 00000200 00 0f 0000 00000000000000000000000000000000"},
	} {
		capacity16(b, c.last, c.block, c.phys, c.thin)
		wantBytes(t, "READ CAPACITY(16)", b, unhex(t, c.want))
	}
}
