package scsi

import "testing"

func TestInRange(t *testing.T) {
	const m = ^uint64(0)
	for _, c := range []struct {
		lba, n, end uint64
		ok          bool
	}{
		{0, 0, 0, true}, {0, 1, 0, false}, {10, 0, 10, true}, {11, 0, 10, false},
		{9, 1, 10, true}, {9, 2, 10, false}, {1 << 63, 1 << 63, 10, false},
		{m, 1, 10, false}, {m, 0, 10, false}, {m, m, m, false}, {0, m, m, true}, {1, m, m, false},
	} {
		if inRange(c.lba, c.n, c.end) != c.ok {
			t.Errorf("inRange(%d, %d, %d) is %v", c.lba, c.n, c.end, !c.ok)
		}
	}
}

func TestLBARange(t *testing.T) {
	for _, c := range []struct {
		cdb    string
		lba, n uint64
	}{
		{"08 1f ff fe 00 00", 0x1ffffe, 256},
		{"0a e1 02 03 04 00", 0x010203, 4},
		{"28 00 80 00 00 01 1f ff fe 00", 0x80000001, 0xfffe},
		{"28 18 00 00 00 00 00 00 00 00", 0, 0},
		{"a8 00 ff ff ff ff 80 00 00 00 00 00", 0xffffffff, 0x80000000},
		{"88 00 80 00 00 00 00 00 00 01 ff ff ff ff 00 00", 1<<63 + 1, 0xffffffff},
		{"89 00 00 00 00 00 00 00 00 07 00 00 00 03 00 00", 7, 3},
		{"42 00 00 00 00 00 00 00 18 00", 0, ^uint64(0)},
	} {
		var task Task
		copy(task.CDB[:], unhex(t, c.cdb))
		if lba, n := task.lbaRange(); lba != c.lba || n != c.n {
			t.Errorf("%s: LBA %#x, %#x blocks", c.cdb, lba, n)
		}
	}
}
