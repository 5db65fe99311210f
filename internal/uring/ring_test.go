package uring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// newRing makes a ring for the test's thread.
func newRing(t testing.TB, o Options) *Ring {
	t.Helper()
	runtime.LockOSThread()
	r, err := New(o)
	if err != nil {
		runtime.UnlockOSThread()
		t.Skipf("no io_uring here: %v", err)
	}
	t.Cleanup(func() {
		if r.fd >= 0 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		runtime.UnlockOSThread()
	})
	return r
}

type owner struct {
	Req
	buf  *slab.Buf
	iov  [2]sys.Iovec
	done int
	then func(*owner)
}

func (o *owner) ReqDone(*Req) {
	o.done++
	if o.then != nil {
		o.then(o)
	}
}

// until waits for cond, bounded.
func until(t testing.TB, r *Ring, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(tempotest.Patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v; %d in flight", tempotest.Patience, r.InFlight())
		}
		r.Wait(50_000_000)
		r.Reap()
	}
}

// direct opens a new file O_DIRECT, in the test's folder or the working one:
// one of them may be a tmpfs.
func direct(t testing.TB) int {
	t.Helper()
	for _, dir := range []string{t.TempDir(), "."} {
		name := filepath.Join(dir, "direct.test")
		fd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC|syscall.O_DIRECT, 0o600)
		if err != nil {
			continue
		}
		os.Remove(name)
		t.Cleanup(func() { syscall.Close(fd) })
		return fd
	}
	t.Skip("no file system with O_DIRECT")
	return -1
}

func TestReadWrite(t *testing.T) {
	r := newRing(t, Options{})
	fd := direct(t)
	c := slab.New(0).NewCache()
	const n = 300 // more than the submission ring has entries
	ws := make([]*owner, n)
	for i := range ws {
		o := &owner{buf: c.Get(8192)}
		ws[i] = o
		for j := range o.buf.B {
			o.buf.B[j] = byte(i + j/4096)
		}
		o.Op, o.FD, o.Off, o.Owner = Writev, fd, int64(i)*8192, o
		o.Iov = sys.AppendIovecs(o.iov[:0], [][]byte{o.buf.B[:4096], nil, o.buf.B[4096:]})
		if len(o.Iov) != 2 {
			t.Fatal("an empty buffer has an iovec")
		}
		if !r.Submit(&o.Req) {
			t.Fatalf("Submit %d refused", i)
		}
		if !o.Pending() {
			t.Fatal("not pending after Submit")
		}
	}
	until(t, r, func() bool { return r.InFlight() == 0 })
	sync := &owner{}
	sync.Op, sync.FD, sync.Owner, sync.Flags = Fsync, fd, sync, FsyncDatasync
	r.Submit(&sync.Req)
	until(t, r, func() bool { return sync.done == 1 })
	if sync.Res != 0 {
		t.Errorf("fdatasync: %v", sync.Err())
	}
	for i, o := range ws {
		if o.done != 1 || o.Res != 8192 {
			t.Fatalf("write %d: done %d, %d, %v", i, o.done, o.Res, o.Err())
		}
		clear(o.buf.B)
		o.Op = Readv
		if !r.Submit(&o.Req) {
			t.Fatal("Submit refused")
		}
	}
	until(t, r, func() bool { return r.InFlight() == 0 })
	for i, o := range ws {
		if o.Res != 8192 || o.buf.B[0] != byte(i) || !bytes.Equal(o.buf.B[4096:], bytes.Repeat([]byte{byte(i + 1)}, 4096)) {
			t.Fatalf("read %d: %d, %v, % x", i, o.Res, o.Err(), o.buf.B[:4])
		}
		o.buf.Free()
	}
	// At the end of the file: short; beyond: 0. Punching works.
	o := &owner{buf: c.Get(8192)}
	o.Op, o.FD, o.Off, o.Owner = Readv, fd, n*8192-4096, o
	o.Iov = sys.AppendIovecs(o.iov[:0], [][]byte{o.buf.B})
	r.Submit(&o.Req)
	until(t, r, func() bool { return o.done == 1 })
	if o.Res != 4096 {
		t.Errorf("read over the end: %d, %v", o.Res, o.Err())
	}
	p := &owner{}
	p.Op, p.FD, p.Off, p.Len, p.Owner, p.Flags = Fallocate, fd, 0, 4096, p, 3 // PUNCH_HOLE|KEEP_SIZE
	r.Submit(&p.Req)
	until(t, r, func() bool { return p.done == 1 })
	if p.Res != 0 && !errors.Is(p.Err(), syscall.EOPNOTSUPP) {
		t.Errorf("punch: %v", p.Err())
	}
	o.buf.Free()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	r := newRing(t, Options{})
	o := &owner{}
	o.Op, o.FD, o.Owner = Fsync, 1<<20, o
	r.Submit(&o.Req)
	until(t, r, func() bool { return o.done == 1 })
	if !errors.Is(o.Err(), syscall.EBADF) {
		t.Errorf("fsync of a closed descriptor: %v", o.Err())
	}
	o.Op = 200
	r.Submit(&o.Req)
	until(t, r, func() bool { return o.done == 2 })
	if !errors.Is(o.Err(), syscall.EINVAL) {
		t.Errorf("unknown operation: %v", o.Err())
	}
}

// pipeReads puts n reads of an empty pipe in flight.
func pipeReads(t *testing.T, r *Ring, n int) (os []*owner, w int) {
	t.Helper()
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(p[0]); syscall.Close(p[1]) })
	bufs := make([]byte, 8*n)
	for i := range n {
		o := &owner{}
		o.Op, o.FD, o.Off, o.Owner = Readv, p[0], -1, o
		o.Iov = sys.AppendIovecs(o.iov[:0], [][]byte{bufs[8*i:][:8]})
		if !r.Submit(&o.Req) {
			t.Fatalf("Submit %d of %d refused", i, n)
		}
		os = append(os, o)
	}
	return os, p[1]
}

func TestFullRing(t *testing.T) {
	r := newRing(t, Options{Entries: 8, InFlight: 20})
	os, w := pipeReads(t, r, 20)
	if r.InFlight() != 20 || r.Cap() != 20 {
		t.Fatalf("InFlight %d, Cap %d", r.InFlight(), r.Cap())
	}
	x := &owner{}
	x.Op, x.Owner = Nop, x
	if r.Submit(&x.Req) || x.Pending() {
		t.Fatal("Submit to a full ring")
	}
	r.Kick()
	if _, err := syscall.Write(w, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	until(t, r, func() bool { return r.InFlight() == 19 })
	if !r.Submit(&x.Req) {
		t.Fatal("Submit after one has ended")
	}
	until(t, r, func() bool { return x.done == 1 })
	if _, err := syscall.Write(w, make([]byte, 19*8)); err != nil {
		t.Fatal(err)
	}
	until(t, r, func() bool { return r.InFlight() == 0 })
	for i, o := range os {
		if o.done != 1 || o.Res != 8 {
			t.Errorf("read %d: done %d, %d", i, o.done, o.Res)
		}
	}
}

func TestCancel(t *testing.T) {
	r := newRing(t, Options{Entries: 8, InFlight: 40})
	os, w := pipeReads(t, r, 40)
	r.Wait(0)
	r.Reap()
	r.Cancel(&os[7].Req)
	r.Cancel(&os[7].Req) // the second finds nothing, or the same again
	until(t, r, func() bool { return os[7].done == 1 })
	if err := os[7].Err(); !errors.Is(err, syscall.ECANCELED) && !errors.Is(err, syscall.EINTR) {
		t.Errorf("canceled read: %v", err)
	}
	r.Cancel(&os[7].Req) // not in flight
	for _, o := range os[20:] {
		r.Cancel(&o.Req)
	}
	until(t, r, func() bool { return r.InFlight() == 19 })
	// What was not canceled works.
	if _, err := syscall.Write(w, make([]byte, 19*8)); err != nil {
		t.Fatal(err)
	}
	until(t, r, func() bool { return r.InFlight() == 0 })
	for i, o := range os {
		if o.done != 1 {
			t.Errorf("request %d: done %d times", i, o.done)
		}
		if i < 20 && i != 7 && o.Res != 8 {
			t.Errorf("request %d: %v", i, o.Err())
		}
	}
	// A request canceled before the kernel saw it.
	x := &owner{}
	x.Op, x.Owner = Nop, x
	r.Submit(&x.Req)
	r.Cancel(&x.Req)
	until(t, r, func() bool { return x.done == 1 })
}

func TestCloseCancels(t *testing.T) {
	r := newRing(t, Options{})
	os, _ := pipeReads(t, r, 10)
	start := time.Now()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > tempotest.Patience {
		t.Errorf("Close took %v", d)
	}
	for i, o := range os {
		if o.done != 1 || o.Res >= 0 {
			t.Errorf("request %d: done %d, Res %d", i, o.done, o.Res)
		}
	}
}

// ReqDone may submit, itself or others, also when the ring is full.
func TestResubmit(t *testing.T) {
	r := newRing(t, Options{Entries: 4, InFlight: 16})
	left := 10000
	os := make([]owner, 16)
	for i := range os {
		o := &os[i]
		o.Op, o.Owner = Nop, o
		o.then = func(o *owner) {
			if left--; left > 0 && !r.Submit(&o.Req) {
				t.Error("Submit refused inside ReqDone")
			}
		}
		r.Submit(&o.Req)
	}
	until(t, r, func() bool { return r.InFlight() == 0 })
	if left > 0 {
		t.Errorf("%d left", left)
	}
}

func TestWatch(t *testing.T) {
	r := newRing(t, Options{})
	ep, err := sys.NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(ep)
	fd, err := sys.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	sys.EpollCtl(ep, sys.EpollAdd, fd, &sys.EpollEvent{Events: sys.EPOLLIN})
	r.Watch(ep)
	pipeReads(t, r, 1)
	wait := func(ns int64) bool {
		readable, waited := r.Wait(ns)
		if !waited {
			t.Fatal("did not wait")
		}
		r.Reap()
		return readable
	}
	// A signal of the runtime may cut one short, not many.
	waits := 0
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; waits++ {
		if wait(20_000_000) {
			t.Error("readable without cause")
		}
	}
	if waits > 20 {
		t.Errorf("%d waits of 20ms took 20ms", waits)
	}
	for range 100 {
		sys.EventfdSignal(fd)
		if !wait(10e9) {
			t.Fatal("not readable")
		}
		if !wait(10e9) {
			t.Fatal("readable only once though it was not drained")
		}
		sys.EventfdDrain(fd)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		sys.EventfdSignal(fd)
	}()
	for start := time.Now(); !wait(10e9); {
		if time.Since(start) > tempotest.Patience {
			t.Fatal("a signal from another thread was not seen")
		}
	}
}

func TestNoAllocations(t *testing.T) {
	r := newRing(t, Options{})
	os := make([]owner, 32)
	for i := range os {
		os[i].Op, os[i].Owner = Nop, &os[i]
	}
	if n := testing.AllocsPerRun(200, func() {
		for i := range os {
			r.Submit(&os[i].Req)
		}
		r.Wait(1e9)
		r.Reap()
		for r.InFlight() > 0 {
			r.Wait(1e9)
			r.Reap()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkNop32(b *testing.B) {
	r := newRing(b, Options{})
	os := make([]owner, 32)
	for i := range os {
		os[i].Op, os[i].Owner = Nop, &os[i]
	}
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(os) {
		for i := range os {
			r.Submit(&os[i].Req)
		}
		for r.InFlight() > 0 {
			r.Wait(1e9)
			r.Reap()
		}
	}
}
