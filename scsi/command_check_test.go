package scsi

import "testing"

func TestFits(t *testing.T) {
	plain := command{op: 0x28, sa: noSA, usage: []byte{0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0}}
	plain.prepare()
	action := command{op: 0x9e, sa: 0x10, usage: []byte{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}}
	action.prepare()
	inquiry := command{op: 0x12, sa: noSA, usage: []byte{0x12, 0x01, 0xff, 0xff, 0xff, 0}}
	inquiry.prepare()
	long := command{op: 0x7f, sa: 0x0009, usage: append([]byte{0x7f, 0, 0, 0, 0, 0, 0, 0x18, 0, 0x09}, make([]byte, 22)...)}
	long.prepare()
	for _, c := range []struct {
		name string
		cmd  *command
		len  uint8
		at   int // byte set to v, 0: none
		v    byte
		sks  [3]byte // zero: it fits
	}{
		{"nothing set", &plain, 10, 0, 0, [3]byte{}},
		{"a known bit", &plain, 10, 1, 0x10, [3]byte{}},
		{"an unknown bit", &plain, 10, 1, 0xf8, [3]byte{0xcf, 0, 1}},
		{"the lowest unknown bit", &plain, 16, 1, 0x01, [3]byte{0xc8, 0, 1}},
		{"NACA", &plain, 10, 9, 0x04, [3]byte{0xca, 0, 9}},
		{"behind the command", &plain, 16, 12, 0xff, [3]byte{}},
		{"too short", &plain, 6, 0, 0, [3]byte{0xc0, 0, 6}},
		{"the service action is no mask", &action, 16, 1, 0x10, [3]byte{}},
		{"beside the service action", &action, 16, 1, 0x30, [3]byte{0xcd, 0, 1}},
		{"the LUN of SCSI-2 in INQUIRY", &inquiry, 6, 1, 0xe0, [3]byte{}},
		{"CMDDT of INQUIRY", &inquiry, 6, 1, 0x42, [3]byte{0xc9, 0, 1}},
		{"the second word", &action, 16, 14, 0x80, [3]byte{0xcf, 0, 14}},
		{"long, the third word", &long, 32, 20, 0x02, [3]byte{0xc9, 0, 20}},
		{"long, the last byte", &long, 32, 31, 0x01, [3]byte{0xc8, 0, 31}},
		{"long, the service action", &long, 32, 9, 0x09, [3]byte{}},
	} {
		task := new(Task)
		task.CDBLen = c.len
		task.CDB[0] = c.cmd.op
		if c.at != 0 {
			task.CDB[c.at] = c.v
		}
		fits := c.cmd.fits(task)
		if fits != (c.sks == [3]byte{}) {
			t.Errorf("%s: fits %v", c.name, fits)
			continue
		}
		if !fits {
			if s := c.cmd.misfit(task); s.SKS != c.sks || s.ASC != ASCInvalidFieldInCDB {
				t.Errorf("%s: field pointer % x, want % x", c.name, s.SKS, c.sks)
			}
		}
	}
}
