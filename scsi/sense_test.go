package scsi

import (
	"syscall"
	"testing"

	"github.com/vtgt/vtgt/backing"
)

// Written from SPC-4 §4.5.2 (descriptor format) and §4.5.3 (fixed format).
func TestSenseGolden(t *testing.T) {
	info := func(v uint64) Sense {
		return Sense{Key: MediumError, ASC: ASCUnrecoveredReadError, Info: v, HasInfo: true}
	}
	for _, c := range []struct {
		name       string
		s          Sense
		fixed, des string
	}{
		{"none", Sense{}, "70 00 00 00000000 0a 00000000 0000 00 000000", "72 00 0000 000000 00"},
		{"key and code", Sense{Key: NotReady, ASC: ASCMediumNotPresent},
			"70 00 02 00000000 0a 00000000 3a00 00 000000", "72 02 3a00 000000 00"},
		{"INFORMATION zero is valid, too", info(0),
			"f0 00 03 00000000 0a 00000000 1100 00 000000", "72 03 1100 000000 0c  00 0a 80 00 0000000000000000"},
		{"the largest of four bytes", info(0xffffffff),
			"f0 00 03 ffffffff 0a 00000000 1100 00 000000", "72 03 1100 000000 0c  00 0a 80 00 00000000ffffffff"},
		{"more than four bytes: VALID is zero", storeSense(backing.Read, syscall.EIO, 0x100000000),
			"70 00 03 00000000 0a 00000000 1100 00 000000", "72 03 1100 000000 0c  00 0a 80 00 0000000100000000"},
		{"field in the CDB", InvalidCDBField(2, 7),
			"70 00 05 00000000 0a 00000000 2400 00 cf0002", "72 05 2400 000000 08  02 06 0000 cf0002 00"},
		{"field in the list, no bit", InvalidParamField(0x1234, -1),
			"70 00 05 00000000 0a 00000000 2600 00 801234", "72 05 2600 000000 08  02 06 0000 801234 00"},
		{"progress", Sense{Key: NotReady, ASC: ASCBecomingReady}.Progress(0x8000),
			"70 00 02 00000000 0a 00000000 0401 00 808000", "72 02 0401 000000 08  02 06 0000 808000 00"},
		{"both descriptors", Sense{Key: IllegalRequest, ASC: ASCInvalidFieldInCDB, Info: 1 << 63, HasInfo: true, SKS: [3]byte{0xc0, 0, 1}},
			"70 00 05 00000000 0a 00000000 2400 00 c00001",
			"72 05 2400 000000 14  00 0a 80 00 8000000000000000  02 06 0000 c00001 00"},
	} {
		var b [MaxSense]byte
		for i := range b {
			b[i] = 0xee // of the task before
		}
		n := c.s.Encode(b[:], false)
		wantBytes(t, c.name+", fixed", b[:n], unhex(t, c.fixed))
		n = c.s.Encode(b[:], true)
		wantBytes(t, c.name+", descriptor", b[:n], unhex(t, c.des))
	}
}
