package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// Mode says what makes a write stable.
type Mode uint8

const (
	// FUA: WRITE with FUA that ended with GOOD.
	FUA Mode = iota
	// Sync: WRITE that ended with GOOD before a SYNCHRONIZE CACHE was sent that
	// ended with GOOD.
	Sync
	// Through: any WRITE that ended with GOOD. It is a promise where the unit
	// has no volatile cache, and everywhere while only the target itself dies.
	Through
	// Atomic: WRITE ATOMIC that ended with GOOD; one that did not is there whole or
	// not at all.
	Atomic
)

// String names the mode.
func (m Mode) String() string {
	return [...]string{"FUA", "SYNCHRONIZE CACHE", "plain WRITE", "WRITE ATOMIC"}[m]
}

// Config describes a Ledger.
type Config struct {
	Name string
	LUN  uint16
	Mode Mode
	// First is the LBA of the first slot; slots are Stride blocks apart and
	// Count blocks long.
	First         uint64
	Slots         int
	Stride, Count int // blocks
	// Batch is how many writes are under way at a time.
	Batch int
	// Run tells this book's sectors from those of others.
	Run uint64
}

// Ledger is the book of one writer. Its counters may be read while it writes.
type Ledger struct {
	c   Config
	rng *rand.Rand

	mu     sync.Mutex
	seq    uint64
	sent   []uint64 // by slot: the last write that was sent
	stable []uint64 // by slot: the last that was acknowledged as stable
	acks   int
}

// New makes an empty book. seed decides on which slots are written.
func New(c Config, seed uint64) *Ledger {
	return &Ledger{c: c, rng: rand.New(rand.NewPCG(seed, c.Run)), sent: make([]uint64, c.Slots), stable: make([]uint64, c.Slots)}
}

// Name is the book's name.
func (l *Ledger) Name() string { return l.c.Name }

// Acks is how many writes have been acknowledged as stable.
func (l *Ledger) Acks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// StatusError is a command that did not end with GOOD.
type StatusError struct {
	What   string
	Status uint8
	Key    uint8
	ASC    uint16
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: status %#02x, sense %x/%04x", e.What, e.Status, e.Key, e.ASC)
}

func good(what string, t *iscsitest.Task) error {
	if t.Status == 0 && t.Response == 0 {
		return nil
	}
	k, a := iscsitest.Sense(t.Sense)
	return &StatusError{what, t.Status, k, a}
}

// Clear fetches the unit attentions that wait for the session's nexus.
func Clear(c *iscsitest.Conn, lun uint16) error {
	for range 8 {
		t, err := c.Run(&iscsitest.Command{LUN: lun, CDB: make([]byte, 6)})
		if err != nil {
			return err
		}
		if err = good("TEST UNIT READY", t); err == nil {
			return nil
		}
		var se *StatusError
		if errors.As(err, &se); se.Key != 6 {
			return err
		}
	}
	return errors.New("unit attentions without end")
}

// VolatileCache asks for the WCE bit of the caching mode page (SBC-3 §6.5.6).
func VolatileCache(c *iscsitest.Conn, lun uint16) (bool, error) {
	t, err := c.Run(&iscsitest.Command{LUN: lun, CDB: []byte{0x1a, 8, 8, 0, 64, 0}, In: 64})
	if err == nil {
		err = good("MODE SENSE", t)
	}
	if err != nil {
		return false, err
	}
	if len(t.In) < 4 || len(t.In) < 4+int(t.In[3])+3 || t.In[4+int(t.In[3])]&0x3f != 8 {
		return false, fmt.Errorf("MODE SENSE gave % x", t.In)
	}
	return t.In[4+int(t.In[3])+2]&4 != 0, nil
}

// Write writes batches until stop is closed (nil) or the connection or a command
// fails, which is an error.
func (l *Ledger) Write(c *iscsitest.Conn, stop <-chan struct{}) error {
	if err := Clear(c, l.c.LUN); err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := l.batch(c); err != nil {
			return err
		}
	}
}

// entry is one write of a batch.
type entry struct {
	slot int
	seq  uint64
	task *iscsitest.Task
}

func (l *Ledger) batch(c *iscsitest.Conn) error {
	var es []entry
	for _, slot := range l.pick() {
		l.mu.Lock()
		l.seq++
		e := entry{slot: slot, seq: l.seq}
		l.sent[slot] = e.seq
		l.mu.Unlock()
		lba := l.lba(slot)
		b := make([]byte, l.c.Count*SectorSize)
		for i := range l.c.Count {
			fill(b[i*SectorSize:(i+1)*SectorSize], l.c.Run, e.seq, lba+uint64(i))
		}
		cdb := []byte{0x2a, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(l.c.Count >> 8), byte(l.c.Count), 0}
		switch l.c.Mode {
		case FUA:
			cdb[1] = 1 << 3
		case Atomic: // (16), SBC-4 §5.44
			cdb = []byte{0x9c, 0, 0, 0, 0, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, 0, byte(l.c.Count >> 8), byte(l.c.Count), 0, 0}
		}
		t, err := c.Start(&iscsitest.Command{LUN: l.c.LUN, CDB: cdb, Out: b})
		if err != nil {
			return err
		}
		e.task = t
		es = append(es, e)
	}
	for _, e := range es {
		if err := c.Wait(e.task); err != nil {
			return err
		}
		if e.task.Rejected != nil {
			return fmt.Errorf("WRITE was rejected: %v", e.task.Rejected.RejectReason())
		}
		if err := good("WRITE", e.task); err != nil {
			return err
		}
		if l.c.Mode != Sync {
			l.acknowledge(e)
		}
	}
	if l.c.Mode != Sync {
		return nil
	}
	t, err := c.Run(&iscsitest.Command{LUN: l.c.LUN, CDB: []byte{0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0}})
	if err == nil {
		err = good("SYNCHRONIZE CACHE", t)
	}
	if err == nil {
		l.acknowledge(es...)
	}
	return err
}

// pick chooses different slots, so that no write of a batch races with another.
func (l *Ledger) pick() []int {
	seen := map[int]bool{}
	var out []int
	for len(out) < min(l.c.Batch, l.c.Slots) {
		if s := l.rng.IntN(l.c.Slots); !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func (l *Ledger) acknowledge(es ...entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range es {
		l.stable[e.slot] = e.seq
		l.acks++
	}
}

func (l *Ledger) lba(slot int) uint64 { return l.c.First + uint64(slot)*uint64(l.c.Stride) }

// LUN is where the book's slots are.
func (l *Ledger) LUN() uint16 { return l.c.LUN }
