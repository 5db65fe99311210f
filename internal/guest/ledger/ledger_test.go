package ledger

import (
	"errors"
	"testing"
)

// disk is what a crash left.
type disk map[uint64][]byte

func (d disk) read(lba uint64, n int) ([]byte, error) {
	b := make([]byte, n*SectorSize)
	for i := range n {
		copy(b[i*SectorSize:], d[lba+uint64(i)])
	}
	return b, nil
}

func (d disk) write(l *Ledger, slot int, seq uint64) {
	for i := range l.c.Count {
		b := make([]byte, SectorSize)
		lba := l.lba(slot) + uint64(i)
		fill(b, l.c.Run, seq, lba)
		d[lba] = b
	}
}

// TestFindsTorn: of what is atomic, some of a write is as bad as none of one that was
// acknowledged.
func TestFindsTorn(t *testing.T) {
	l := New(Config{Name: "x", Mode: Atomic, First: 7, Slots: 8, Stride: 5, Count: 3, Run: 42}, 1)
	d := disk{}
	for slot := range 4 {
		l.sent[slot], l.stable[slot] = 4, 4
		d.write(l, slot, 4)
	}
	l.sent[1], l.sent[5] = 12, 13
	check := func(what string, torn int) {
		t.Helper()
		err := l.Check(d.read)
		var le *LostError
		if torn == 0 && err != nil || torn > 0 && (!errors.As(err, &le) || le.Lost != 0 || le.Torn != torn) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("the old ones", 0)
	last := l.lba(1) + 2
	fill(d[last], l.c.Run, 12, last)
	check("the last sector of the new one", 1)
	d.write(l, 1, 12)
	check("the new one", 0)
	d.write(l, 5, 13)
	check("two new ones", 0)
	delete(d, l.lba(5)+1)
	check("a new one with a hole", 1)
}

// TestFindsLoss breaks each promise once.
func TestFindsLoss(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(l *Ledger, d disk)
		lost  int
	}{
		"whole":             {func(*Ledger, disk) {}, 0},
		"a later one":       {func(l *Ledger, d disk) { l.sent[1] = 12; d.write(l, 1, 12) }, 0},
		"half a later one":  {func(l *Ledger, d disk) { l.sent[1] = 12; fill(d[l.lba(1)], l.c.Run, 12, l.lba(1)) }, 0},
		"never stable":      {func(l *Ledger, d disk) { l.sent[5] = 13 }, 0},
		"zero":              {func(l *Ledger, d disk) { delete(d, l.lba(1)) }, 1},
		"older":             {func(l *Ledger, d disk) { d.write(l, 1, 3) }, 2},
		"one sector older":  {func(l *Ledger, d disk) { fill(d[l.lba(1)], l.c.Run, 3, l.lba(1)) }, 1},
		"torn":              {func(l *Ledger, d disk) { d[l.lba(1)][100] ^= 1 }, 1},
		"elsewhere":         {func(l *Ledger, d disk) { d[l.lba(1)] = d[l.lba(2)] }, 1},
		"of another run":    {func(l *Ledger, d disk) { fill(d[l.lba(1)], 99, 4, l.lba(1)) }, 1},
		"from the future":   {func(l *Ledger, d disk) { d.write(l, 1, 100) }, 2},
		"all of the medium": {func(l *Ledger, d disk) { clear(d) }, 8},
	} {
		t.Run(name, func(t *testing.T) {
			l := New(Config{Name: "x", First: 7, Slots: 8, Stride: 5, Count: 2, Run: 42}, 1)
			d := disk{}
			for slot := range 4 {
				l.sent[slot], l.stable[slot] = uint64(4+slot), uint64(4+slot)
				d.write(l, slot, uint64(4+slot))
			}
			tc.spoil(l, d)
			err := l.Check(d.read)
			var le *LostError
			switch {
			case tc.lost == 0 && err != nil:
				t.Error(err)
			case tc.lost > 0 && (!errors.As(err, &le) || le.Lost != tc.lost || le.Acknowledged != 4):
				t.Errorf("%v, want %d lost", err, tc.lost)
			}
		})
	}
}
