package backing

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// testStore opens a file store whose insides a test may change.
func testStore(t testing.TB, dir string, c Cache) (*loop.Group, *fileStore, *fileQueue) {
	t.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	st, err := Open("file:"+filepath.Join(dir, "disk"), Options{Size: 1 << 20, Create: true, Cache: c, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	s := st.(*fileStore)
	q, err := s.Queue(g.Loops()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended := make(chan struct{})
		g.Loops()[0].Do(func() { q.Close(func() { close(ended) }) })
		select {
		case <-ended:
		case <-time.After(tempotest.Patience):
			t.Fatal("the queue does not end")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, s, q.(*fileQueue)
}

type endChan chan struct{}

func (c endChan) OpDone(*Op) { c <- struct{}{} }

func start(q *fileQueue, op *Op) endChan {
	c := make(endChan, 2)
	op.Owner = c
	q.l.Do(func() {
		if q.Submit(op) {
			c <- struct{}{}
		} else {
			q.Kick()
		}
	})
	return c
}

func do(t testing.TB, q *fileQueue, op *Op) error {
	t.Helper()
	select {
	case <-start(q, op):
		return op.Err
	case <-time.After(tempotest.Patience):
		t.Fatal("no end")
		return nil
	}
}

func write(t testing.TB, q *fileQueue, off int64, n int, fl Flags) error {
	t.Helper()
	return do(t, q, &Op{Kind: Write, Flags: fl, Off: off, Len: int64(n), Bufs: [][]byte{make([]byte, n)}})
}

// latched checks that the store refuses everything that changes it, and nothing
// else.
func wantLatched(t *testing.T, q *fileQueue) {
	t.Helper()
	for range 2 { // never GOOD to a later one
		for _, err := range []error{
			do(t, q, &Op{Kind: Sync}), write(t, q, 0, 512, 0), write(t, q, 0, 512, FUA),
			do(t, q, &Op{Kind: Zero, Len: 4096}), do(t, q, &Op{Kind: Discard, Len: 4096}),
		} {
			if !errors.Is(err, ErrLatched) {
				t.Errorf("after a failed sync: %v, want ErrLatched", err)
			}
		}
	}
	if err := do(t, q, &Op{Kind: Read, Len: 512, Bufs: [][]byte{make([]byte, 512)}}); err != nil {
		t.Errorf("a read after a failed sync: %v", err)
	}
}

func TestLatchAfterFailedSync(t *testing.T) {
	_, s, q := testStore(t, t.TempDir(), Writeback)
	fail := true
	s.fdatasync = func(fd int) error {
		if fail {
			fail = false // as the kernel does: told once, then all is well
			return syscall.EIO
		}
		return sys.Fdatasync(fd)
	}
	if err := write(t, q, 0, 4096, 0); err != nil {
		t.Fatal(err)
	}
	if err := do(t, q, &Op{Kind: Sync}); !errors.Is(err, syscall.EIO) || errors.Is(err, ErrLatched) {
		t.Fatalf("the failing sync: %v, want EIO", err)
	}
	wantLatched(t, q)
	if err := s.Resize(2 << 20); !errors.Is(err, ErrLatched) {
		t.Errorf("Resize: %v, want ErrLatched", err)
	}
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{write(t, q, 0, 4096, 0), do(t, q, &Op{Kind: Sync}), write(t, q, 0, 4096, FUA)} {
		if err != nil {
			t.Errorf("after Reopen: %v", err)
		}
	}
}

// TestLatchDefect shows that the test above would notice: with the latch taken
// out, the second sync reports success for data that are lost.
func TestLatchDefect(t *testing.T) {
	_, s, q := testStore(t, t.TempDir(), Writeback)
	n := 0
	s.fdatasync = func(int) error {
		if n++; n == 1 {
			return syscall.EIO
		}
		return nil
	}
	if do(t, q, &Op{Kind: Sync}) == nil {
		t.Fatal("the first sync did not fail")
	}
	s.latched.Store(false) // the defect
	if err := do(t, q, &Op{Kind: Sync}); err != nil {
		t.Fatalf("without the latch: %v; the kernel's silence would go unnoticed by this test", err)
	}
}

// TestFailedStableWrite: a write that was to be stable latches, unless the
// witness says that nothing was lost.
func TestFailedStableWrite(t *testing.T) {
	_, s, q := testStore(t, t.TempDir(), Writeback)
	d := s.acquire()
	defer d.release(false)
	witness := error(nil)
	s.fdatasync = func(fd int) error {
		if fd == d.witness {
			return witness
		}
		return sys.Fdatasync(fd)
	}
	if err := s.stableFailed(d, syscall.ENOSPC); !errors.Is(err, syscall.ENOSPC) || s.latched.Load() {
		t.Errorf("no space, nothing lost: %v, latched %v", err, s.latched.Load())
	}
	witness = syscall.ENOSPC
	if err := s.stableFailed(d, syscall.ENOSPC); !errors.Is(err, syscall.ENOSPC) || !s.latched.Load() {
		t.Errorf("no space in write-back: %v, latched %v", err, s.latched.Load())
	}
	s.latched.Store(false)
	if err := s.stableFailed(d, syscall.EIO); !errors.Is(err, syscall.EIO) || !s.latched.Load() {
		t.Errorf("EIO: %v, latched %v", err, s.latched.Load())
	}
	wantLatched(t, q)
	s.latched.Store(false)
}

// TestFullFileSystem: a real file system without space answers ENOSPC to plain
// and stable writes and latches neither.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	_, s, q := testStore(t, dir, Writeback)
	for _, fl := range []Flags{0, FUA} {
		var err error
		for off := int64(0); off < 1<<20 && err == nil; off += 64 << 10 {
			err = write(t, q, off, 64<<10, fl)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("flags %d: %v, want ENOSPC", fl, err)
		}
	}
	if s.latched.Load() {
		t.Error("a full file system latched the store")
	}
	if err := do(t, q, &Op{Kind: Discard, Len: 1 << 20}); err != nil {
		t.Error(err)
	}
	if err := write(t, q, 0, 64<<10, FUA); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// TestSyncsJoin: while one sync runs, all that come wait together for one more.
func TestSyncsJoin(t *testing.T) {
	_, s, q := testStore(t, t.TempDir(), Writeback)
	var calls atomic.Int32
	gate := make(chan struct{})
	s.fdatasync = func(fd int) error {
		calls.Add(1)
		<-gate
		return nil
	}
	ops := make([]Op, 20)
	var ends []endChan
	for i := range ops {
		ops[i].Kind = Sync
		ends = append(ends, start(q, &ops[i]))
	}
	// No inline write beside a sync: it would wait for it on the loop.
	w := &Op{Kind: Write, Len: 512, Bufs: [][]byte{make([]byte, 512)}}
	done := true
	wend := make(endChan, 1)
	w.Owner = wend
	q.l.Do(func() { done = q.Submit(w) })
	if done {
		t.Error("a write ended inline while a sync was running")
	}
	<-wend
	// A waiting one can be canceled, the running one not.
	q.l.Do(func() { q.Cancel(&ops[0]); q.Cancel(&ops[5]) })
	<-ends[5]
	if !errors.Is(ops[5].Err, ErrCanceled) {
		t.Errorf("a waiting sync, canceled: %v", ops[5].Err)
	}
	if len(ends[0]) != 0 {
		t.Error("a running sync ended by Cancel")
	}
	close(gate)
	for i, e := range ends {
		if i == 5 {
			continue
		}
		<-e
		if ops[i].Err != nil {
			t.Errorf("sync %d: %v", i, ops[i].Err)
		}
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("%d calls of fdatasync for 20 syncs, want 2", n)
	}
}

// TestSyncFailsThoseThatWait: a failed sync fails what joined it with its error
// and what waited with ErrLatched.
func TestSyncFailsThoseThatWait(t *testing.T) {
	_, s, q := testStore(t, t.TempDir(), Writeback)
	gate := make(chan struct{})
	s.fdatasync = func(fd int) error { <-gate; return syscall.EIO }
	var ops [3]Op
	var ends []endChan
	for i := range ops {
		ops[i].Kind = Sync
		ends = append(ends, start(q, &ops[i]))
	}
	close(gate)
	for i, want := range []error{syscall.EIO, ErrLatched, ErrLatched} {
		<-ends[i]
		if !errors.Is(ops[i].Err, want) {
			t.Errorf("sync %d: %v, want %v", i, ops[i].Err, want)
		}
	}
	wantLatched(t, q)
	s.latched.Store(false)
	s.fdatasync = sys.Fdatasync
}

// TestCancelBehindHungCalls: what still waits for a worker ends at once, though
// all the store's workers hang; another store's work goes on.
func TestCancelBehindHungCalls(t *testing.T) {
	g, s, q := testStore(t, t.TempDir(), Writeback)
	hang := make(chan struct{})
	s.fdatasync = func(fd int) error { <-hang; return nil }
	s.noDsync.Store(true) // FUA by write and fdatasync
	ops := make([]Op, storeJobs+20)
	var ends []endChan
	for i := range ops {
		ops[i] = Op{Kind: Write, Flags: FUA, Len: 512, Bufs: [][]byte{make([]byte, 512)}}
		ends = append(ends, start(q, &ops[i]))
	}
	tempotest.Wait(t, "the workers hang", func() bool { running, _ := s.jobs.Stats(); return running == storeJobs })
	q.l.Do(func() {
		for i := range ops {
			q.Cancel(&ops[i])
		}
	})
	early := func() (n int) {
		for _, e := range ends {
			n += len(e)
		}
		return n
	}
	tempotest.Settles(func() bool { return early() >= len(ops)-storeJobs })
	time.Sleep(20 * time.Millisecond) // for those that must not end
	if n := early(); n != len(ops)-storeJobs {
		t.Errorf("%d operations ended while %d hang, want %d", n, storeJobs, len(ops)-storeJobs)
	}
	hung := ends[:0:0]
	for i, e := range ends {
		if len(e) == 0 {
			hung = append(hung, e)
		} else if <-e; !errors.Is(ops[i].Err, ErrCanceled) {
			t.Errorf("operation %d: %v", i, ops[i].Err)
		}
	}
	other, err := Open("file:"+filepath.Join(t.TempDir(), "other"), Options{Size: 4096, Create: true, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	oq, err := other.Queue(q.l)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(t, oq.(*fileQueue), &Op{Kind: Sync}); err != nil {
		t.Error(err)
	}
	q.l.Do(func() { oq.Close(func() {}) })
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	close(hang)
	for _, e := range hung {
		<-e
	}
}

// TestCloseHoldsTheLock: the lock is free only when the last operation has left
// the kernel.
func TestCloseHoldsTheLock(t *testing.T) {
	dir := t.TempDir()
	g, err := loop.NewGroup(loop.Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	o := Options{Size: 1 << 20, Create: true, Group: g}
	st, err := Open("file:"+filepath.Join(dir, "disk"), o)
	if err != nil {
		t.Fatal(err)
	}
	s := st.(*fileStore)
	hang := make(chan struct{})
	s.fdatasync = func(fd int) error { <-hang; return nil }
	bq, _ := st.Queue(g.Loops()[0])
	q := bq.(*fileQueue)
	op := &Op{Kind: Sync}
	end := start(q, op)
	q.l.Do(func() { q.Close(func() {}) })
	closed := make(chan error, 1)
	go func() { closed <- st.Close() }()
	time.Sleep(20 * time.Millisecond)
	if len(closed) != 0 {
		t.Fatal("Close returned with a sync in the kernel")
	}
	if _, err := Open("file:"+filepath.Join(dir, "disk"), o); !errors.Is(err, ErrInUse) {
		t.Fatalf("opened while a sync was in the kernel: %v", err)
	}
	close(hang)
	<-end
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	st, err = Open("file:"+filepath.Join(dir, "disk"), o)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	st.Close()
}

// TestReopenFollowsThePath: Reopen serves what the path names now.
func TestReopenFollowsThePath(t *testing.T) {
	dir := t.TempDir()
	_, s, q := testStore(t, dir, Writeback)
	if err := do(t, q, &Op{Kind: Write, Len: 4, Bufs: [][]byte{[]byte("old!")}}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path+".new", append([]byte("new!"), make([]byte, 2<<20-4)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if err := do(t, q, &Op{Kind: Read, Len: 4, Bufs: [][]byte{got}}); err != nil || string(got) != "new!" {
		t.Errorf("after Reopen: %q, %v", got, err)
	}
	if s.Info().Size != 2<<20 {
		t.Errorf("size %d", s.Info().Size)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.latched.Store(true)
	if err := s.Reopen(); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Reopen of a file that is gone: %v", err)
	}
	if err := do(t, q, &Op{Kind: Sync}); !errors.Is(err, ErrLatched) {
		t.Errorf("after a Reopen that failed: %v, want ErrLatched", err)
	}
}

// TestReopenUnderLoad: operations go on over the change of descriptions.
func TestReopenUnderLoad(t *testing.T) {
	_, s, q := testStore(t, t.TempDir(), Direct)
	stop := make(chan struct{})
	errs := make(chan error, 1)
	go func() {
		b := make([]byte, 4096)
		for {
			select {
			case <-stop:
				errs <- nil
				return
			default:
			}
			op := &Op{Kind: Write, Off: 512, Len: 4096, Bufs: [][]byte{b}}
			<-start(q, op)
			if op.Err != nil {
				errs <- op.Err
				return
			}
		}
	}()
	for range 50 {
		if err := s.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-errs; err != nil {
		t.Error(err)
	}
}
