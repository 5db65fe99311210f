package backing

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

const (
	// inlineMax is the longest transfer that is copied on a loop: 128 KiB out of
	// the page cache take about 20 us. Above it the hand-over to a worker
	// (3 us) is small change, and workers copy what is read side by side.
	inlineMax = 128 << 10
	// storeJobs bounds the blocking calls of one store.
	storeJobs = 8
)

// inlineMode says how a loop may call into a file itself.
type inlineMode uint8

const (
	inlineNever  inlineMode = iota
	inlineNowait            // by RWF_NOWAIT, which fails instead of sleeping
	inlinePlain             // by a plain call that is not known to sleep, watched
)

// fileStore serves a regular file or a block device.
type fileStore struct {
	infoBox
	spec, path string
	block      bool
	readOnly   bool
	cache      Cache
	direct     bool
	migratable bool // see Holder
	log        *slog.Logger
	group      *loop.Group
	jobs       *loop.JobQueue
	pipe       pipe
	t0         time.Time

	// What the open found out.
	readInline, writeInline inlineMode
	local                   bool // fstat does not sleep
	memAlign, offAlign      int  // direct I/O
	lbs                     int  // a block device's logical block

	// What the first refusal teaches.
	noPunch, noZeroRange, noDsync, noDiscard, noClone atomic.Bool

	// fdatasync is the system call; tests put a failing one in its place.
	fdatasync func(fd int) error

	latched atomic.Bool
	syncs   atomic.Int32 // syncs and stable writes that are running
	watch   callWatch
	sync    syncer
	excl    exclusive
	bounced atomic.Uint64

	mu     sync.Mutex
	d      *desc
	queues []*fileQueue
	closed bool
	wg     sync.WaitGroup // queues and the store's own jobs
	reopen sync.Mutex
	away   bool // under reopen: migratable, and not held

	poll poller
}

func (s *fileStore) now() int64 { return int64(time.Since(s.t0)) }

// acquire takes a reference to the present description.
func (s *fileStore) acquire() *desc {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.d.refs.Add(1)
	return s.d
}

// writing reports whether a queue has a changing operation in flight.
func (s *fileStore) writing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		if q.writes.Load() != 0 {
			return true
		}
	}
	return false
}

// stable reports whether a write must reach stable storage before it ends.
func (s *fileStore) stable(op *Op) bool { return op.Flags&FUA != 0 || s.cache == Writethrough }

func (s *fileStore) Queue(l *loop.Loop) (Queue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.d.refs.Add(1)
	q := &fileQueue{s: s, l: l, cur: &descRef{d: s.d}}
	q.kickNode.Init(q)
	s.queues = append(s.queues, q)
	s.wg.Add(1)
	return q, nil
}

// forget is called by a queue that has ended.
func (s *fileStore) forget(q *fileQueue) {
	s.mu.Lock()
	for i, v := range s.queues {
		if v == q {
			s.queues = append(s.queues[:i:i], s.queues[i+1:]...)
			break
		}
	}
	s.mu.Unlock()
	q.cur.d.release(true)
	s.wg.Done()
}

// Resize truncates or extends the file, sparse. It sleeps.
func (s *fileStore) Resize(size int64) error {
	switch {
	case s.readOnly:
		return ErrReadOnly
	case s.block:
		return fmt.Errorf("%w: the size of %s is its device's; the change is seen when the device has changed", ErrNotSupported, s.spec)
	case size <= 0 || size%s.sizeUnit() != 0:
		return fmt.Errorf("%w: %s: size %d is not a positive multiple of %d", ErrRange, s.spec, size, s.sizeUnit())
	case s.latched.Load():
		return ErrLatched
	}
	d := s.acquire()
	defer d.release(false)
	if size < s.Info().Size {
		// Refuse the tail first, so that no new operation meets it half cut.
		s.change(func(i *Info) bool { i.Size = size; return true })
	}
	if err := sys.Ftruncate(d.fd, size); err != nil {
		s.look()
		return fmt.Errorf("resize of %s to %d: %w", s.spec, size, err)
	}
	s.change(func(i *Info) bool {
		changed := i.Size != size
		i.Size = size
		return changed
	})
	return nil
}

// sizeUnit is what the size must be a multiple of.
func (s *fileStore) sizeUnit() int64 {
	if s.direct {
		return int64(max(512, s.offAlign))
	}
	return 512
}

// Reopen opens the path anew and clears the latch. Locks are on the new
// description before the old one goes, so nobody slips in between. Not on a
// loop.
func (s *fileStore) Reopen() error {
	s.reopen.Lock()
	defer s.reopen.Unlock()
	s.mu.Lock()
	closed, old := s.closed, s.d
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	d, err := s.openAgain(old)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.d = d
	queues := append([]*fileQueue(nil), s.queues...)
	s.mu.Unlock()
	for _, q := range queues {
		q.l.Do(q.switchDesc)
	}
	old.release(false)
	s.latched.Store(false)
	s.tellLatch()
	s.look()
	s.log.Info("store re-opened", "store", s.spec)
	return nil
}

// Close waits for the last operation, then closes the file, which drops the
// locks. Not on a loop.
func (s *fileStore) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	open := 0
	for _, q := range s.queues {
		if !q.closing.Load() {
			open++
		}
	}
	if open > 0 {
		s.mu.Unlock()
		return fmt.Errorf("close of %s: %d queues are still open", s.spec, open)
	}
	s.closed = true
	s.mu.Unlock()
	s.poll.stop()
	s.wg.Wait()
	s.reopen.Lock() // a Reopen that is under way
	defer s.reopen.Unlock()
	s.excl.close()
	s.mu.Lock()
	d := s.d
	s.mu.Unlock()
	d.release(false)
	return nil
}

// errShort is what a read beyond the end of the file or device gives.
var errShort = fmt.Errorf("%w: the file ended before the store did", syscall.EIO)
