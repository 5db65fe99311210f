package scsi

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// cdbLen is the CDB length of an operation code's group (SPC-4 §4.2.1).
func cdbLen(op uint8) int { return [8]int{6, 10, 10, 0, 16, 12, 0, 0}[op>>5] }

func TestTable(t *testing.T) {
	last, need := -1, feature(0)
	for i := range diskTable {
		r := &diskTable[i]
		key := int(r.op)<<8 | int(r.sa)&0xff
		if r.sa == noSA {
			key = int(r.op) << 8
		}
		if key < last || key == last && (r.need == 0 || need == 0 || r.need&need != 0) {
			t.Errorf("%s is out of order or there twice", r.name)
		}
		last, need = key, r.need
		if len(r.usage) != cdbLen(r.op) {
			t.Errorf("%s: usage mask of %d bytes", r.name, len(r.usage))
		}
		if r.usage[0] != r.op {
			t.Errorf("%s: usage mask begins with %02x", r.name, r.usage[0])
		}
		if r.sa != noSA && int16(r.usage[1]&0x1f) != r.sa {
			t.Errorf("%s: usage mask has service action %02x", r.name, r.usage[1])
		}
		if (r.dir == dirNone) != (r.length == nil) {
			t.Errorf("%s: direction and length do not agree", r.name)
		}
		if r.run == nil || r.name == "" {
			t.Errorf("row %02x lacks something", r.op)
		}
		if r.flags&cmdWrite != 0 && (r.conflict != conflictWrite || r.flags&cmdMedium == 0) {
			t.Errorf("%s writes: it needs the medium and conflicts as a write", r.name)
		}
		if r.usage[len(r.usage)-1] != 0 && cdbLen(r.op) != 0 {
			t.Errorf("%s: CONTROL byte in the usage mask", r.name)
		}
	}
}

// Length functions and lbaRange cope with any CDB and no unit.
func TestTableLengths(t *testing.T) {
	for i := range diskTable {
		r := &diskTable[i]
		if r.length == nil {
			continue
		}
		for _, x := range []byte{0, 0x55, 0xff} {
			var task Task
			for j := range task.CDB {
				task.CDB[j] = x
			}
			task.CDB[0] = r.op
			if n := r.length(&task); n < 0 {
				t.Errorf("%s: length %d", r.name, n)
			}
		}
	}
}

// Each reserved bit of each row is refused with a pointer to it.
func TestReservedBits(t *testing.T) {
	for _, thin := range []bool{true, false} {
		c := goldenConf()
		c.Thin = thin
		r := newRig(t, c, newRigStore(1<<20))
		n := r.nexus()
		d := r.u.server.(*disk)
		for _, row := range d.rows {
			for i := 1; i < len(row.usage); i++ {
				for bit := range 8 {
					if row.usage[i]>>bit&1 != 0 || row.sa != noSA && i == 1 && bit < 5 {
						continue
					}
					if row.op == 0x12 && i == 1 && bit >= 5 {
						continue // the LUN of SCSI-2, see command.prepare
					}
					cdb := make([]byte, len(row.usage))
					cdb[0] = row.op
					if row.sa != noSA {
						cdb[1] = byte(row.sa)
					}
					cdb[i] |= 1 << bit
					n.want(n.run(LUN{}, cdb, nil, nil), fmt.Sprintf("05 24/00 cdb %d.%d", i, bit))
				}
			}
		}
	}
}

// Every operation code and service action without a row.
func TestUnknownCommands(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	d := r.u.server.(*disk)
	for op := range 256 {
		cdb := make([]byte, 16)
		cdb[0] = byte(op)
		switch {
		case !d.hasOp(byte(op)):
			n.want(n.run(LUN{}, cdb, nil, nil), "05 20/00")
		case d.hasSA(byte(op)):
			cdb[1] = 0x1e
			n.want(n.run(LUN{}, cdb, nil, nil), "05 24/00 cdb 1.4")
		}
	}
}

// REPORT SUPPORTED OPERATION CODES says of every row what the row says.
func TestReportOpcodes(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	d := r.u.server.(*disk)
	for _, rctd := range []int{0, 0x80} {
		c := n.expect("good", fmt.Sprintf("a3 0c %02x 00 0000 0000ffff 00 00", rctd), nil, 8192)
		b := c.in()
		if int(binary.BigEndian.Uint32(b)) != len(b)-4 {
			t.Fatalf("length %d of %d bytes", binary.BigEndian.Uint32(b), len(b))
		}
		b = b[4:]
		for _, row := range d.rows {
			want := []byte{row.op, 0, 0, 0, 0, 0, 0, byte(len(row.usage))}
			if row.sa != noSA {
				want[3], want[5] = byte(row.sa), 1
			}
			if rctd != 0 {
				want[5] |= 2
				want = append(want, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
			}
			if len(b) < len(want) {
				t.Fatalf("ends before %s", row.name)
			}
			wantBytes(t, row.name, b[:len(want)], want)
			b = b[len(want):]

			sa := max(int(row.sa), 0)
			one := append([]byte{0, 3, 0, byte(len(row.usage))}, row.usage...)
			if rctd != 0 {
				one[1] |= 0x80
				one = append(one, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
			}
			with, without := "good", "05 24/00 cdb 2.2"
			if row.sa == noSA {
				with, without = without, with
			}
			for opt, outcome := range map[int]string{1: without, 2: with, 3: "good"} {
				c := n.expect(outcome, fmt.Sprintf("a3 0c %02x %02x %04x 00000100 00 00", rctd|opt, row.op, sa), nil, 256)
				if outcome == "good" {
					wantBytes(t, row.name, c.in(), one)
				}
			}
			if row.sa == noSA {
				c := n.expect("good", fmt.Sprintf("a3 0c 03 %02x 0007 00000100 00 00", row.op), nil, 256)
				wantBytes(t, row.name+" with a service action", c.in(), []byte{0, 1, 0, 0})
			}
		}
		if len(b) != 0 {
			t.Errorf("%d bytes too many", len(b))
		}
	}
	none := []byte{0, 1, 0, 0}
	for _, cdb := range []string{"a3 0c 01 c7 0000", "a3 0c 02 c7 0001", "a3 0c 03 c7 0000", "a3 0c 02 9e 0011", "a3 0c 02 9e ff10", "a3 0c 03 ff 0000"} {
		wantBytes(t, cdb, n.expect("good", cdb+"00000100 00 00", nil, 256).in(), none)
	}
	for opt := 4; opt < 8; opt++ {
		n.expect("05 24/00 cdb 2.2", fmt.Sprintf("a3 0c %02x 28 0000 00000100 00 00", opt), nil, 256)
	}
	// Task management functions.
	wantBytes(t, "functions", n.expect("good", "a3 0d 00 00 0000 00000004 00 00", nil, 64).in(), []byte{0xde, 7, 0, 0})
	wantBytes(t, "functions with timeouts", n.expect("good", "a3 0d 80 00 0000 00000040 00 00", nil, 64).in(),
		[]byte{0xde, 7, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
}

func goldenConf() UnitConfig { return *goldenUnit() }
