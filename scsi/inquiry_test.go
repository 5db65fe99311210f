package scsi

import "testing"

// Written from SPC-4 §6.6.2.
func TestStandardInquiryGolden(t *testing.T) {
	const iscsi = `
		00 00 06 12 5b 18 00 02
		56544754 20202020
		56495254 55414c20 4449534b 20202020
		30303031
		0000000000000000000000000000000000000000 # vendor specific
		00 00
		00a0 0960 0460 04c0 0000 0000 0000 0000  # SAM-5, iSCSI, SPC-4, SBC-3
		00000000000000000000000000000000000000000000`
	b := make([]byte, inquiryLen)
	for i := range b {
		b[i] = 0xee // whatever the scratch memory held
	}
	standardInquiry(b, goldenUnit(), protocolISCSI, false)
	wantBytes(t, "iSCSI", b, unhex(t, iscsi))

	c := goldenUnit()
	c.Removable, c.SetAccess, c.Vendor, c.Revision = true, true, "eight-plus\x01", "é1"
	standardInquiry(b, c, 0, true)
	wantBytes(t, "removable, several ports", b, unhex(t, `
		00 80 06 12 5b 38 10 02
		65696768 742d706c
		56495254 55414c20 4449534b 20202020
		20203120
		0000000000000000000000000000000000000000
		00 00
		00a0 0460 04c0 0000 0000 0000 0000 0000
		00000000000000000000000000000000000000000000`))

	noUnitInquiry(b, pdtNoUnit)
	if b[0] != 0x7f || b[2] != 6 || b[4] != 91 {
		t.Errorf("no unit: % x", b[:8])
	}
}
