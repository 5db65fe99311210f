package backing

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

// intentStore gives a store Writes that are atomic over crashes (Atomic). Each goes
//
//  1. to a slot of the log, with a checksum, stable;
//  2. to its place, stable;
//  3. its slot is cleared, stable.
//
// A crash before 1 is done leaves the old data: a slot that is not whole is empty.
// After that, opening the store writes the slot's data to their place, however often.
// 3 must be stable before the Write ends: else a crash could bring the data back over
// what was written there later. Everything else passes as if the log was not there.
//
// The log is made when the first such Write comes.
type intentStore struct {
	infoBox
	data  Store
	group *loop.Group
	log   *slog.Logger
	o     intentOptions
	jobs  *loop.JobQueue
	stop  func() // watching data

	mu      sync.Mutex
	super   intentSuper
	store   Store // the log's; nil: not there yet
	free    []int // slots
	seq     uint64
	waiting []*intentJob // for a slot
	broken  error        // why no Atomic write is taken any more
	opening sync.Mutex
}

// intentOptions say where the log of a store is.
type intentOptions struct {
	id intentID
	// max is the longest Atomic write, size that of the log, bytes.
	max  int
	size int64
	// open opens the log: of size bytes where it has to be made, as it is (any) where
	// that is 0; then nil, nil means that there is none.
	open func(size int64) (Store, error)
	// drop removes it.
	drop func() error
	// off skips step 1 and 3, so that a test can see what they are for.
	off bool
}

// withIntentLog puts o's log before data and brings data to where the log says it is.
// inherited: the process before this one has served data until now, has nothing under
// way, and may still have the log. It sleeps.
func withIntentLog(data Store, g *loop.Group, log *slog.Logger, o intentOptions, inherited bool) (Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &intentStore{data: data, group: g, log: log, o: o, jobs: g.Workers().NewJobQueue(1)}
	s.super = intentSuper{slot: intentHead + int(roundUp(int64(o.max), 512)), id: o.id}
	s.super.slots = int(max((o.size-intentHead)/int64(s.super.slot), 1))
	if !inherited {
		if err := s.recover(); err != nil {
			return nil, err
		}
	}
	i := s.derive()
	s.p.Store(&i)
	s.stop = data.Watch(func(*Info) {
		s.change(func(i *Info) bool { *i = s.derive(); return true })
	})
	return s, nil
}

// derive is the data's Info with what the log adds.
func (s *intentStore) derive() Info {
	i := *s.data.Info()
	if !i.ReadOnly {
		i.AtomicMax = s.o.max
	}
	return i
}

// recover replays the log, where there is one.
func (s *intentStore) recover() error {
	st, err := s.o.open(0)
	if err != nil || st == nil {
		return err
	}
	pending, err := s.replay(st)
	readOnly := s.data.Info().ReadOnly
	switch {
	case err == nil && !readOnly && st.Info().Size == s.super.size():
		if err = s.install(st); err == nil {
			break
		}
		fallthrough
	default:
		err = errors.Join(err, st.Close())
		if err == nil && !readOnly {
			err = s.o.drop() // it has another form: made anew when it is needed
		}
	}
	if err != nil {
		return err
	}
	if pending > 0 {
		s.log.Info("the intent log was replayed: atomic writes that a crash had cut off are whole", "writes", pending)
	}
	return nil
}

// replay writes what st's slots hold to its place and empties them. It gives their
// number.
func (s *intentStore) replay(st Store) (pending int, err error) {
	l := s.group.Pick()
	in, err := newSyncQueue(st, l)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	size := st.Info().Size
	head := make([]byte, intentHead)
	if size < intentHead {
		return 0, nil
	}
	if err := in.move(Read, 0, 0, head); err != nil {
		return 0, err
	}
	super, blank, err := decodeIntentSuper(head)
	if blank {
		return 0, nil // it was about to be made
	}
	if err != nil {
		return 0, fmt.Errorf("the intent log is damaged: %w", err)
	}
	type found struct {
		intentEntry
		slot int
	}
	var all []found
	b := make([]byte, super.slot)
	for i := 0; i < super.slots && super.at(i)+int64(super.slot) <= size; i++ {
		if err := in.move(Read, 0, super.at(i), b); err != nil {
			return 0, err
		}
		if e, ok := decodeIntentEntry(b, super.old); ok {
			all = append(all, found{e, i})
		}
	}
	if len(all) == 0 {
		return 0, nil
	}
	if super.id != s.o.id {
		return 0, errForeignLog
	}
	if s.data.Info().ReadOnly {
		return 0, errPendingLog
	}
	slices.SortFunc(all, func(a, b found) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	out, err := newSyncQueue(s.data, l)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.close()) }()
	clear(head)
	for _, f := range all {
		if f.id != s.o.id {
			return 0, errForeignLog
		}
		if f.off+int64(f.n) <= s.data.Info().Size { // else it was cut off since
			if err := in.move(Read, 0, super.at(f.slot), b); err != nil {
				return 0, err
			}
			if err := out.move(Write, FUA, f.off, b[intentHead:intentHead+f.n]); err != nil {
				return 0, err
			}
		}
		if err := in.move(Write, FUA, super.at(f.slot), head[:512]); err != nil {
			return 0, err
		}
	}
	return len(all), nil
}

// What keeps a log from being replayed.
var (
	errForeignLog = errors.New("its intent log holds writes to another file: if this one is a copy, copy it again from a clean one, or remove the log to take it as it is")
	errPendingLog = errors.New("its intent log holds writes that a crash has cut off: serve it once for writing")
)

// install has st, which is empty, be the log. It sleeps.
func (s *intentStore) install(st Store) error {
	q, err := newSyncQueue(st, s.group.Pick())
	if err != nil {
		return err
	}
	head := make([]byte, intentHead)
	for i := range s.super.slots {
		if err = q.move(Write, 0, s.super.at(i), head[:512]); err != nil {
			break
		}
	}
	if err == nil {
		s.super.encode(head)
		if err = q.move(Write, 0, 0, head); err == nil {
			err = q.do(&Op{Kind: Sync})
		}
	}
	if err = errors.Join(err, q.close()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = st
	s.free = s.free[:0]
	for i := range s.super.slots {
		s.free = append(s.free, i)
	}
	return nil
}

// ensure has the log be there. It sleeps.
func (s *intentStore) ensure() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	have, broken := s.store, s.broken
	s.mu.Unlock()
	if have != nil || broken != nil {
		return broken
	}
	st, err := s.o.open(s.super.size())
	if err == nil {
		if err = s.install(st); err != nil {
			err = errors.Join(err, st.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("the intent log cannot be made: %w", err)
	}
	return nil
}

// breakLog refuses Atomic writes from now on.
func (s *intentStore) breakLog(err error) {
	s.mu.Lock()
	first := s.broken == nil
	if first {
		s.broken = fmt.Errorf("the intent log has failed: %w", err)
	}
	s.mu.Unlock()
	if first {
		s.log.Error("atomic writes are refused until the disk is opened anew: its intent log has failed", "error", err)
	}
}

// takeSlot gives j a slot, or has it wait for one and be posted.
func (s *intentStore) takeSlot(j *intentJob) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		j.slot, s.free = s.free[n-1], s.free[:n-1]
		s.seq++
		j.seq = s.seq
		return true
	}
	s.waiting = append(s.waiting, j)
	return false
}

// giveSlot passes a slot on. bad: it is not to be used any more.
func (s *intentStore) giveSlot(slot int, bad bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad && len(s.waiting) == 0 {
		return
	}
	if len(s.waiting) > 0 {
		j := s.waiting[0]
		s.waiting = slices.Delete(s.waiting, 0, 1)
		j.slot = slot
		s.seq++
		j.seq = s.seq
		j.q.l.Post(&j.node)
		return
	}
	s.free = append(s.free, slot)
}

// leaveWaiting takes j out of those that wait for a slot.
func (s *intentStore) leaveWaiting(j *intentJob) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting, j); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
		return true
	}
	return false
}

func (s *intentStore) Resize(size int64) error { return s.data.Resize(size) }
func (s *intentStore) Reopen() error           { return s.data.Reopen() }
func (s *intentStore) Stats() Stats            { return StatsOf(s.data) }
func (s *intentStore) Space() (Space, error)   { return SpaceOf(s.data) }

// Close closes the log last: what is in it belongs to the data.
func (s *intentStore) Close() error {
	if err := s.data.Close(); err != nil {
		return err
	}
	s.stop()
	s.mu.Lock()
	st := s.store
	s.store = nil
	s.mu.Unlock()
	if st == nil {
		return nil
	}
	return st.Close()
}

// fileIntentLog gives st, the store of o, its log.
func fileIntentLog(spec string, st *fileStore, o Options) (Store, error) {
	path := o.AtomicLog
	problem := func(err error) error {
		hint := ""
		if errors.Is(err, ErrInUse) {
			hint = "stop it, or detach the disk there"
		}
		return &OpenError{Spec: spec, Problem: path + ": " + err.Error(), Hint: hint, Err: err}
	}
	longest := o.AtomicMax
	if longest <= 0 || longest > intentMax {
		longest = intentMax
	}
	io := intentOptions{
		max: longest, size: o.AtomicLogSize, id: st.intentID(),
		open: func(size int64) (Store, error) {
			lo := Options{Group: o.Group, Log: o.Log, LockWait: o.LockWait, Create: size > 0, Size: size, ReadOnly: o.ReadOnly}
			if size > 0 {
				// One of another form holds nothing that counts.
				var fi sys.FileStat
				if err := sys.Stat(path, &fi); err == nil && fi.Regular() && fi.Size != size {
					if err := os.Remove(path); err != nil {
						return nil, err
					}
				}
			}
			ls, err := openFile("file:"+path, path, false, lo)
			if size == 0 && errors.Is(err, syscall.ENOENT) {
				return nil, nil
			}
			return ls, err
		},
		drop: func() error {
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			d, err := os.Open(filepath.Dir(path))
			if err != nil {
				return err
			}
			defer d.Close()
			return d.Sync()
		},
	}
	s, err := withIntentLog(st, o.Group, o.Log, io, o.Given != nil)
	if err != nil {
		return nil, problem(err)
	}
	return s, nil
}

// intentID is the file's inode number, which a copy does not have, or a device's path.
func (s *fileStore) intentID() (id intentID) {
	if s.block {
		h := sha256.Sum256([]byte(s.spec))
		copy(id[:], h[:])
		return id
	}
	d := s.acquire()
	defer d.release(false)
	copy(id[:], "inode")
	binary.BigEndian.PutUint64(id[8:], d.st.Ino)
	return id
}

// syncQueue uses a queue from an ordinary goroutine, one operation at a time.
type syncQueue struct {
	l     *loop.Loop
	q     Queue
	ended chan struct{}
}

func newSyncQueue(st Store, l *loop.Loop) (*syncQueue, error) {
	q, err := st.Queue(l)
	if err != nil {
		return nil, err
	}
	return &syncQueue{l: l, q: q, ended: make(chan struct{}, 1)}, nil
}

func (s *syncQueue) OpDone(*Op) { s.ended <- struct{}{} }

func (s *syncQueue) do(op *Op) error {
	op.Owner = s
	if !s.l.Do(func() {
		if s.q.Submit(op) {
			s.ended <- struct{}{}
			return
		}
		s.q.Kick()
	}) {
		return ErrClosed
	}
	<-s.ended
	return op.Err
}

// move reads or writes b at off.
func (s *syncQueue) move(k Kind, fl Flags, off int64, b []byte) error {
	op := &Op{Kind: k, Flags: fl, Off: off, Len: int64(len(b)), Bufs: [][]byte{b}}
	if err := s.do(op); err != nil {
		return err
	}
	if op.N != op.Len {
		return errShort
	}
	return nil
}

func (s *syncQueue) close() error {
	if !s.l.Do(func() { s.q.Close(func() { s.ended <- struct{}{} }) }) {
		return ErrClosed
	}
	<-s.ended
	return nil
}
