package ledger

import (
	"fmt"
	"strings"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// LostError tells what was acknowledged and is not there.
type LostError struct {
	Name string
	Mode Mode
	// Lost is how many sectors, of Acknowledged slots.
	Lost, Acknowledged int
	// Torn is how many slots have some of a write that is Atomic, and not all.
	Torn int
	// First describes some of them.
	First []string
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%s (%v): %d sectors lost in %d slots that were acknowledged as stable, %d slots torn: %s",
		e.Name, e.Mode, e.Lost, e.Acknowledged, e.Torn, strings.Join(e.First, "; "))
}

// Reader reads n blocks from lba on.
type Reader func(lba uint64, n int) ([]byte, error)

// FromLUN reads over a session.
func FromLUN(c *iscsitest.Conn, lun uint16) Reader {
	return func(lba uint64, n int) ([]byte, error) {
		t, err := c.Run(&iscsitest.Command{LUN: lun, In: n * SectorSize,
			CDB: []byte{0x28, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(n >> 8), byte(n), 0}})
		if err == nil {
			err = good("READ", t)
		}
		if err != nil {
			return nil, err
		}
		if len(t.In) != n*SectorSize {
			return nil, fmt.Errorf("READ gave %d bytes instead of %d", len(t.In), n*SectorSize)
		}
		return t.In, nil
	}
}

// Check reads every slot that was ever sent and compares it with the book. What is
// missing is a *LostError.
func (l *Ledger) Check(read Reader) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := LostError{Name: l.c.Name, Mode: l.c.Mode}
	for slot := range l.c.Slots {
		if l.sent[slot] == 0 {
			continue
		}
		if l.stable[slot] > 0 {
			lost.Acknowledged++
		}
		lba := l.lba(slot)
		b, err := read(lba, l.c.Count)
		if err != nil {
			return fmt.Errorf("%s: LBA %d: %w", l.c.Name, lba, err)
		}
		for i := range l.c.Count {
			if what := l.judge(slot, lba+uint64(i), b[i*SectorSize:(i+1)*SectorSize]); what != "" {
				lost.Lost++
				lost.note(what)
			}
		}
		if l.c.Mode == Atomic && torn(b) {
			lost.Torn++
			lost.note(fmt.Sprintf("LBA %d to %d are not of one write", lba, lba+uint64(l.c.Count)-1))
		}
	}
	if lost.Lost > 0 || lost.Torn > 0 {
		return &lost
	}
	return nil
}

func (e *LostError) note(what string) {
	if len(e.First) < 4 {
		e.First = append(e.First, what)
	}
}

// torn tells whether the sectors of b are of different writes, or some of one.
func torn(b []byte) bool {
	first := parse(b[:SectorSize])
	for ; len(b) > 0; b = b[SectorSize:] {
		if s := parse(b[:SectorSize]); s.zero != first.zero || s.seq != first.seq {
			return true
		}
	}
	return false
}

// judge returns what is wrong with a sector, "" if nothing is.
func (l *Ledger) judge(slot int, lba uint64, b []byte) string {
	s, want := parse(b), l.stable[slot]
	switch {
	case want == 0 && s.zero:
		return "" // never stable, never there
	case s.zero:
		return fmt.Sprintf("LBA %d is zero, write %d was stable", lba, want)
	case !s.valid:
		return fmt.Sprintf("LBA %d is torn or foreign, write %d was stable", lba, want)
	case s.run != l.c.Run || s.lba != lba:
		return fmt.Sprintf("LBA %d has what belongs to LBA %d of run %d", lba, s.lba, s.run)
	case s.seq < want:
		return fmt.Sprintf("LBA %d has write %d, write %d was stable", lba, s.seq, want)
	case s.seq > l.sent[slot]:
		return fmt.Sprintf("LBA %d has write %d, the last sent was %d", lba, s.seq, l.sent[slot])
	}
	return ""
}
