package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// work is a run of writers, see agent.Progress.
type work struct {
	f      *os.File
	size   int
	seed   uint64
	jobs   []*job
	stop   atomic.Bool
	ended  sync.WaitGroup
	writes atomic.Uint64
	reads  atomic.Uint64
	syncs  atomic.Uint64
}

// job is one writer.
type job struct {
	w       *work
	first   int64 // byte offset
	seq     []uint32
	rng     *rand.Rand
	buf     []byte // mapped: aligned for direct I/O
	want    []byte
	since   atomic.Int64 // ns since start, of the operation under way; 0: none
	longest atomic.Int64 // ns
	running atomic.Bool
	err     atomic.Pointer[error]
}

func startWork(q *agent.Request) (*work, error) {
	if q.Size < 512 || q.Jobs < 1 || q.Len/int64(q.Jobs) < int64(q.Size) {
		return nil, errors.New("work wants Size, Jobs and room for a slot each")
	}
	fd, err := unix.Open(q.Path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	w := &work{f: os.NewFile(uintptr(fd), q.Path), size: q.Size, seed: q.Seed}
	slots := q.Len / int64(q.Jobs) / int64(q.Size)
	for i := range q.Jobs {
		buf, err := unix.Mmap(-1, 0, q.Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil, err
		}
		j := &job{w: w, first: q.Off + int64(i)*slots*int64(q.Size), seq: make([]uint32, slots),
			rng: rand.New(rand.NewPCG(q.Seed, uint64(i))), buf: buf, want: make([]byte, q.Size)}
		j.running.Store(true)
		w.jobs = append(w.jobs, j)
	}
	w.ended.Add(len(w.jobs))
	for _, j := range w.jobs {
		go j.run()
	}
	return w, nil
}

func (j *job) run() {
	defer j.w.ended.Done()
	defer j.running.Store(false)
	for !j.w.stop.Load() {
		if err := j.step(); err != nil {
			j.err.Store(&err)
			return
		}
	}
}

// step is one operation.
func (j *job) step() error {
	w := j.w
	slot := j.rng.IntN(len(j.seq))
	off := j.first + int64(slot)*int64(w.size)
	begin := time.Now()
	j.since.Store(begin.UnixNano())
	defer func() {
		j.since.Store(0)
		j.longest.Store(max(j.longest.Load(), int64(time.Since(begin))))
	}()
	switch n := j.rng.IntN(100); {
	case n == 0:
		if err := w.f.Sync(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		w.syncs.Add(1)
	case n < 40 && j.seq[slot] != 0:
		return j.verify(slot)
	default:
		agent.Slot(j.buf, w.seed, off, j.seq[slot]+1)
		if _, err := w.f.WriteAt(j.buf, off); err != nil {
			return fmt.Errorf("write at byte %d: %w", off, err)
		}
		j.seq[slot]++
		w.writes.Add(1)
	}
	return nil
}

// verify wants the last acknowledged write in a slot.
func (j *job) verify(slot int) error {
	w := j.w
	off := j.first + int64(slot)*int64(w.size)
	if _, err := w.f.ReadAt(j.buf, off); err != nil {
		return fmt.Errorf("read at byte %d: %w", off, err)
	}
	agent.Slot(j.want, w.seed, off, j.seq[slot])
	if i := differ(j.buf, j.want); i >= 0 {
		return fmt.Errorf("byte %d is not what write %d of its slot left", off+int64(i), j.seq[slot])
	}
	w.reads.Add(1)
	return nil
}

// worked reports; with stop it ends the writers and checks every slot first.
func (w *work) worked(stop bool) ([]byte, error) {
	if w == nil {
		return nil, errors.New("no work was started")
	}
	p := agent.Progress{}
	if stop {
		w.stop.Store(true)
		w.ended.Wait()
		for _, j := range w.jobs {
			for slot, n := range j.seq {
				if n == 0 || j.err.Load() != nil {
					continue
				}
				if err := j.verify(slot); err != nil {
					j.err.Store(&err)
				}
			}
			p.Sequence = append(p.Sequence, j.seq...)
			_ = unix.Munmap(j.buf)
		}
		_ = w.f.Close()
	}
	p.Writes, p.Reads, p.Syncs = w.writes.Load(), w.reads.Load(), w.syncs.Load()
	for _, j := range w.jobs {
		long := j.longest.Load()
		if s := j.since.Load(); s != 0 {
			long = max(long, time.Now().UnixNano()-s)
		}
		p.Longest = max(p.Longest, long/int64(time.Millisecond))
		if j.running.Load() {
			p.Running++
		}
		if err := j.err.Load(); err != nil {
			p.Errors = append(p.Errors, (*err).Error())
		}
	}
	return json.Marshal(&p)
}
