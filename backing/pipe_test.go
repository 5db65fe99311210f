package backing

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vtgt/vtgt/internal/leaktest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// piped is a store on three loops with a queue on each.
func piped(t *testing.T, size int64) (*fileStore, []*fileQueue) {
	t.Helper()
	before := leaktest.Now(t)
	g, err := loop.NewGroup(loop.Config{Loops: 3, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	st, err := Open("file:"+filepath.Join(t.TempDir(), "disk"), Options{Size: size, Create: true, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	var qs []*fileQueue
	for _, l := range g.Loops() {
		q, err := st.Queue(l)
		if err != nil {
			t.Fatal(err)
		}
		qs = append(qs, q.(*fileQueue))
	}
	t.Cleanup(func() {
		for _, q := range qs {
			ended := make(chan struct{})
			q.l.Do(func() {
				if n := q.l.Relieved(); n != 0 {
					t.Errorf("relieved of %d operations at the end", n)
				}
				q.Close(func() { close(ended) })
			})
			tempotest.Recv(t, ended, "the end of a queue")
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		g.Close()
		before.Check(t)
	})
	return st.(*fileStore), qs
}

// submit has ops begin, as a source does that has more.
func submit(q *fileQueue, ops []*Op) {
	q.l.Do(func() {
		q.l.SetBehind(true)
		for _, op := range ops {
			if q.Submit(op) {
				op.Owner.OpDone(op)
			}
		}
		q.l.SetBehind(false)
		q.Kick()
	})
}

// TestPipe: long writes from several loops all end, and once; short ones and reads beside
// them do, too, and each byte is where it belongs.
func TestPipe(t *testing.T) {
	for _, procs := range []int{1, 4} {
		t.Run(fmt.Sprint("procs=", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			const slots, slot = 8, 160 << 10
			rounds := 150
			if testing.Short() {
				rounds = 60
			}
			s, qs := piped(t, 3*slots*slot)
			errs := make(chan error, len(qs))
			for k, q := range qs {
				go func() { errs <- writeSlots(q, int64(k)*slots*slot, slots, slot, rounds) }()
			}
			for range qs {
				if err := tempotest.Recv(t, errs, "the end of all writes"); err != nil {
					t.Error(err)
				}
			}
			if n := s.pipe.count.Load(); n != 0 {
				t.Errorf("%d jobs in the pipe at the end", n)
			}
		})
	}
}

// writeSlots writes slots in batches of all sizes, each time something else, and reads
// them back.
func writeSlots(q *fileQueue, base int64, slots, slot, rounds int) error {
	lens := []int{64 << 10, 4 << 10, 128 << 10, 160 << 10, 32 << 10}
	ended := make(endChan, 2*slots)
	var ops []*Op
	for i := range slots {
		ops = append(ops, &Op{Owner: ended, Off: base + int64(i*slot), Bufs: [][]byte{nil}})
	}
	was := make([]byte, slots)
	for round := range rounds {
		n := 1 + round%slots
		for i, op := range ops[:n] {
			was[i] = byte(round + i + 1)
			op.Kind, op.Len = Write, int64(lens[(round+i)%len(lens)])
			op.Bufs[0] = bytes.Repeat(was[i:i+1], int(op.Len))
		}
		submit(q, ops[:n])
		for range n {
			<-ended
		}
		if len(ended) > 0 {
			return errors.New("an operation ended twice")
		}
		for i, op := range ops[:n] {
			if op.Err != nil || op.N != op.Len {
				return fmt.Errorf("write %d of round %d: %d of %d, %v", i, round, op.N, op.Len, op.Err)
			}
			op.Kind = Read
			clear(op.Bufs[0])
		}
		submit(q, ops[:n])
		for range n {
			<-ended
		}
		for i, op := range ops[:n] {
			if op.Err != nil || bytes.Count(op.Bufs[0], was[i:i+1]) != int(op.Len) {
				return fmt.Errorf("read %d of round %d: %v, or other data", i, round, op.Err)
			}
		}
	}
	return nil
}

// again writes an Op again as soon as it has ended.
type again struct {
	q    *fileQueue
	left int
	over chan error
}

func (a *again) OpDone(op *Op) {
	for ; op.Err == nil; a.left-- {
		if a.left == 0 {
			a.over <- nil
			return
		}
		a.q.l.SetBehind(a.left%3 != 0)
		if !a.q.Submit(op) {
			a.left--
			return
		}
	}
	a.over <- op.Err
}

// TestPipeRunsDry: one or two writes at a time from each loop, so that the worker ends and
// begins all the time while they come.
func TestPipeRunsDry(t *testing.T) {
	_, qs := piped(t, 1<<20)
	over := make(chan error, 6)
	n := 3000
	if testing.Short() {
		n = 1000
	}
	for i := range 6 {
		q := qs[i%3]
		op := &Op{Kind: Write, Off: int64(i) << 16, Len: pipeMin, Bufs: [][]byte{make([]byte, pipeMin)}}
		op.Owner = &again{q: q, left: n, over: over}
		q.l.Do(func() { op.Owner.OpDone(op) })
	}
	for range 6 {
		if err := tempotest.Recv(t, over, "the last write"); err != nil {
			t.Error(err)
		}
	}
}

// blocker holds the pipe's worker.
type blocker struct{ began, over chan struct{} }

func (b *blocker) RunJob(*loop.Job) {
	close(b.began)
	<-b.over
}

// TestPipeCancel: what waits in the pipe behind a call that hangs ends at once when it is
// canceled, and is not written later; what follows is.
func TestPipeCancel(t *testing.T) {
	s, qs := piped(t, 1<<20)
	q := qs[0]
	b := &blocker{make(chan struct{}), make(chan struct{})}
	var j loop.Job
	j.Init(b)
	s.pipe.jobs.Submit(&j)
	tempotest.Recv(t, b.began, "the blocker")
	const n = 6
	ended := make(endChan, n+2)
	var ops []*Op
	for i := range n {
		ops = append(ops, &Op{Kind: Write, Owner: ended, Off: int64(i) << 16, Len: 1 << 16, Bufs: [][]byte{bytes.Repeat([]byte{7}, 1<<16)}})
	}
	submit(q, ops)
	if len(ended) > 0 {
		t.Fatal("not in the pipe")
	}
	q.l.Do(func() {
		for _, op := range ops[:n-1] {
			q.Cancel(op)
		}
	})
	for range n - 1 {
		tempotest.Recv(t, ended, "the end of a canceled write")
	}
	close(b.over)
	tempotest.Recv(t, ended, "the end of the write that was left")
	for i, op := range ops {
		if want := i < n-1; errors.Is(op.Err, ErrCanceled) != want || !want && op.Err != nil {
			t.Errorf("write %d: %v", i, op.Err)
		}
	}
	got := make([]byte, n<<16)
	if err := do(t, q, &Op{Kind: Read, Len: n << 16, Bufs: [][]byte{got}}); err != nil {
		t.Fatal(err)
	}
	if at := bytes.IndexByte(got, 7); at != (n-1)<<16 {
		t.Errorf("data of a canceled write at %d", at)
	}
}

// TestPipeLatch: a store that a failed sync has latched takes no write from the pipe.
func TestPipeLatch(t *testing.T) {
	s, qs := piped(t, 1<<20)
	b := &blocker{make(chan struct{}), make(chan struct{})}
	var j loop.Job
	j.Init(b)
	s.pipe.jobs.Submit(&j)
	tempotest.Recv(t, b.began, "the blocker")
	ended := make(endChan, 2)
	op := &Op{Kind: Write, Owner: ended, Len: 1 << 16, Bufs: [][]byte{make([]byte, 1<<16)}}
	submit(qs[0], []*Op{op})
	s.latched.Store(true)
	close(b.over)
	tempotest.Recv(t, ended, "the end of the write")
	if !errors.Is(op.Err, ErrLatched) {
		t.Error(op.Err)
	}
	s.latched.Store(false)
}
