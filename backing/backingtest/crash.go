package backingtest

import (
	"fmt"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

// sector is the unit in which a crash keeps or loses data: disks write one whole
// or not at all.
const sector = 512

// shadow is what a Fault in volatile mode knows of the store: what acknowledged
// writes left in it, and what of that is stable.
type shadow struct {
	cur, stable []byte
	dirty       []uint64 // sectors acknowledged and not yet stable
	touched     []uint64 // sectors that anything was ever sent to
}

func bits(set []uint64, off, n int64, f func(w *uint64, bit uint64)) {
	for s := off / sector; s*sector < off+n; s++ {
		f(&set[s/64], 1<<(s%64))
	}
}

func setBit(w *uint64, bit uint64) { *w |= bit }

// Volatile switches the write cache on. The store's present contents count as
// stable. No operation may be in flight; the store must fit into memory.
func (f *Fault) Volatile(l *loop.Loop) error {
	size := f.Info().Size
	s := &shadow{cur: make([]byte, size), stable: make([]byte, size)}
	n := (size/sector + 64) / 64
	s.dirty, s.touched = make([]uint64, n), make([]uint64, n)
	d, err := NewDriver(f.Store, l)
	if err != nil {
		return err
	}
	if err := d.Read(0, s.cur); err != nil {
		return err
	}
	copy(s.stable, s.cur)
	if err := d.Close(); err != nil {
		return err
	}
	f.mu.Lock()
	f.shadow = s
	f.mu.Unlock()
	return nil
}

// Dirty is the number of bytes, in sectors, that a crash would lose.
func (f *Fault) Dirty() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int64
	for _, w := range f.shadow.dirty {
		for ; w != 0; w &= w - 1 {
			n += sector
		}
	}
	return n
}

func (f *Fault) shadowBegin(o *faultOp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.shadow
	if s == nil {
		return
	}
	switch o.op.Kind {
	case backing.Write, backing.Zero, backing.Discard:
		if o.op.Off >= 0 && o.op.Len > 0 && o.op.Off+o.op.Len <= int64(len(s.cur)) {
			bits(s.touched, o.op.Off, o.op.Len, setBit)
		}
	case backing.Sync:
		// What is acknowledged by now is what it must make stable; the data of
		// later writes to the same sectors may become stable along with it.
		o.snap = append([]uint64(nil), s.dirty...)
	}
}

func (f *Fault) shadowEnd(o *faultOp) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.shadow
	if s == nil || o.op.Err != nil || f.crashed.Load() {
		return
	}
	op := &o.op
	switch op.Kind {
	case backing.Write:
		off := op.Off
		for _, b := range op.Bufs {
			off += int64(copy(s.cur[off:], b))
		}
		s.wrote(op, f.Info())
	case backing.Zero, backing.Discard:
		if op.Kind == backing.Zero || f.Info().DiscardZeroes {
			clear(s.cur[op.Off : op.Off+op.Len])
		}
		s.wrote(op, f.Info())
	case backing.Sync:
		for i, w := range o.snap {
			for b := 0; w != 0; b, w = b+1, w>>1 {
				if w&1 == 0 {
					continue
				}
				off := (int64(i)*64 + int64(b)) * sector
				copy(s.stable[off:off+sector], s.cur[off:off+sector])
			}
			s.dirty[i] &^= o.snap[i]
		}
	}
}

func (s *shadow) wrote(op *backing.Op, i *backing.Info) {
	if op.Len == 0 {
		return
	}
	if op.Flags&backing.FUA == 0 && i.Volatile {
		bits(s.dirty, op.Off, op.Len, setBit)
		return
	}
	copy(s.stable[op.Off:op.Off+op.Len], s.cur[op.Off:op.Off+op.Len])
}

// Crash is the loss of power: every operation, those in flight too, ends with
// ErrCrashed from now on. Close the queues, then call Restart.
func (f *Fault) Crash() { f.crashed.Store(true) }

// Restart puts the store back to what was stable and serves again. keep, when
// not nil, is asked for each sector that had unsynced data whether the new data
// survived, by chance: disks write back in any order. No operation may be in
// flight.
func (f *Fault) Restart(l *loop.Loop, keep func(off int64) bool) error {
	f.mu.Lock()
	s := f.shadow
	f.mu.Unlock()
	if s == nil {
		return fmt.Errorf("restart: Fault.Volatile was not called")
	}
	d, err := NewDriver(f.Store, l)
	if err != nil {
		return err
	}
	now := make([]byte, len(s.cur))
	if err := d.Read(0, now); err != nil {
		return err
	}
	for i, w := range s.touched {
		for b := 0; w != 0; b, w = b+1, w>>1 {
			off := (int64(i)*64 + int64(b)) * sector
			if w&1 == 0 || string(now[off:off+sector]) == string(s.stable[off:off+sector]) {
				continue
			}
			if keep != nil && keep(off) {
				continue
			}
			if err := d.Write(off, s.stable[off:off+sector], 0); err != nil {
				return err
			}
		}
	}
	if err := d.Close(); err != nil {
		return err
	}
	f.crashed.Store(false)
	return f.Volatile(l)
}
