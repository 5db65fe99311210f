package loop

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/uring"
)

// pipeReq is a read of an empty pipe: a request that stays in flight.
type pipeReq struct {
	uring.Req
	buf   []byte
	iov   [1]sys.Iovec
	ended chan int32
}

func (p *pipeReq) ReqDone(*uring.Req) { p.ended <- p.Res }

// holdRing keeps a request in flight on l's ring until the returned function is
// called. Skips the test where there is no io_uring.
func holdRing(t testing.TB, l *Loop) (release func()) {
	t.Helper()
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	q := &pipeReq{buf: make([]byte, 8), ended: make(chan int32, 1)}
	ok := false
	l.Do(func() {
		r := l.Ring()
		if r == nil {
			return
		}
		iov := sys.AppendIovecs(q.iov[:0], [][]byte{q.buf})
		q.Op, q.FD, q.Iov, q.Owner, q.Off = uring.Readv, p[0], iov, q, -1
		ok = r.Submit(&q.Req)
	})
	if !ok {
		syscall.Close(p[0])
		syscall.Close(p[1])
		t.Skip("no io_uring here")
	}
	return func() {
		syscall.Write(p[1], []byte("12345678"))
		if n := within(t, q.ended, "read of the pipe"); n != 8 {
			t.Errorf("read of the pipe: %d", n)
		}
		syscall.Close(p[0])
		syscall.Close(p[1])
	}
}

// While the loop waits in the ring, mail, sources and timers are served all the
// same.
func TestLoopServesAllInRingWait(t *testing.T) {
	procs(t, func(t *testing.T) {
		g := group(t, Config{Loops: 1})
		l := g.Loops()[0]
		release := holdRing(t, l)
		fd := eventfd(t)
		var s Source
		got := make(chan struct{}, 1)
		add(t, l, &s, fd, In, readyFunc(func(*Source, Events) {
			sys.EventfdDrain(fd)
			got <- struct{}{}
		}))
		for i := range 300 {
			if i%10 == 0 {
				time.Sleep(200 * time.Microsecond)
			}
			sys.EventfdSignal(fd)
			within(t, got, "source")
			if !l.Do(func() {}) {
				t.Fatal("Do")
			}
		}
		fired := make(chan struct{})
		var x Timer
		x.Init(timerFunc(func(*Timer) { close(fired) }))
		l.Do(func() { l.After(&x, 5*time.Millisecond) })
		within(t, fired, "timer")
		l.Do(func() { l.Remove(&s) })
		release()
		l.Do(func() {
			if n := l.Ring().InFlight(); n != 0 {
				t.Errorf("%d in flight", n)
			}
		})
	})
}

// Close ends what is in flight.
func TestCloseWithRequestInFlight(t *testing.T) {
	g := group(t, Config{Loops: 1})
	l := g.Loops()[0]
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(p[0])
	defer syscall.Close(p[1])
	q := &pipeReq{buf: make([]byte, 8), ended: make(chan int32, 1)}
	l.Do(func() {
		if r := l.Ring(); r != nil {
			q.Op, q.FD, q.Owner, q.Off = uring.Readv, p[0], q, -1
			q.Iov = sys.AppendIovecs(q.iov[:0], [][]byte{q.buf})
			r.Submit(&q.Req)
		} else {
			q.ended <- -int32(syscall.ECANCELED)
		}
	})
	g.Close()
	if l.gaveUp {
		t.Error("Close gave up waiting for the request")
	}
	if res := within(t, q.ended, "request"); res != -int32(syscall.ECANCELED) && res != -int32(syscall.EINTR) {
		t.Errorf("Res %d, want ECANCELED", res)
	}
}

func TestNoUring(t *testing.T) {
	g := group(t, Config{Loops: 1, NoUring: true})
	g.Loops()[0].Do(func() {
		if g.Loops()[0].Ring() != nil {
			t.Error("a ring in spite of NoUring")
		}
	})
}

// fileReq copies a file by reads that resubmit themselves.
type fileReq struct {
	uring.Req
	l    *Loop
	iov  [1]sys.Iovec
	left int
	bad  int
	done chan struct{}
}

func (f *fileReq) ReqDone(*uring.Req) {
	if f.Res != 4096 {
		f.bad++
	}
	if f.left--; f.left == 0 {
		close(f.done)
		return
	}
	f.Off = int64(f.left%256) * 4096
	f.l.Ring().Submit(&f.Req)
}

// benchFile is a 1 MiB file opened O_DIRECT where the file system can.
func benchFile(t testing.TB) int {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_DIRECT, 0)
	if err != nil {
		t.Skipf("O_DIRECT in %s: %v", dir, err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return fd
}

func BenchmarkUringRead4KDepth32(b *testing.B) {
	g := group(b, Config{Loops: 1})
	l := g.Loops()[0]
	fd := benchFile(b)
	const depth = 32
	fs := make([]fileReq, depth)
	ok := true
	b.ReportAllocs()
	b.ResetTimer()
	used := cpuTime(b)
	l.Do(func() {
		if l.Ring() == nil {
			ok = false
			return
		}
		for i := range fs {
			f := &fs[i]
			*f = fileReq{l: l, left: b.N/depth + 1, done: make(chan struct{})}
			buf := l.Slabs().Get(4096)
			defer buf.Free()
			f.Op, f.FD, f.Owner = uring.Readv, fd, f
			f.Iov = sys.AppendIovecs(f.iov[:0], [][]byte{buf.B})
			l.Ring().Submit(&f.Req)
		}
	})
	if !ok {
		b.Skip("no io_uring here")
	}
	for i := range fs {
		<-fs[i].done
		if fs[i].bad != 0 {
			b.Errorf("%d bad reads", fs[i].bad)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-used)/float64(b.N), "cpu-ns/op")
}
