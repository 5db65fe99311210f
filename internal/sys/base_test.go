package sys

import (
	"encoding/binary"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
)

func TestEventfdAndEpoll(t *testing.T) {
	fd, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	ep, err := NewEpoll()
	if err != nil {
		t.Fatal(err)
	}
	defer Close(ep)
	if e := EpollCtl(ep, EpollAdd, fd, &EpollEvent{Events: EPOLLIN, Fd: 7, Pad: -8}); e != 0 {
		t.Fatal(e)
	}
	evs := make([]EpollEvent, 4)
	if n, e := EpollPoll(ep, evs); n != 0 || e != 0 {
		t.Errorf("poll of nothing: %d, %v", n, e)
	}
	ts := new(Timespec)
	whole(t, func() {
		if n, e := EpollWait(ep, evs, 5_000_000, ts); n != 0 || e != 0 && e != EINTR {
			t.Errorf("wait of 5ms: %d, %v", n, e)
		}
	})
	for range 3 {
		if e := EventfdSignal(fd); e != 0 {
			t.Fatal(e)
		}
	}
	if n, e := EpollWait(ep, evs, -1, ts); n != 1 || e != 0 || evs[0].Events != EPOLLIN || evs[0].Fd != 7 || evs[0].Pad != -8 {
		t.Errorf("wait: %d, %v, %+v", n, e, evs[0])
	}
	if n, e := EventfdDrain(fd); n != 3 || e != 0 {
		t.Errorf("drain: %d, %v; want 3", n, e)
	}
	if n, e := EventfdDrain(fd); n != 0 || e != 0 {
		t.Errorf("drain of nothing: %d, %v", n, e)
	}
	if e := EventfdSignal(1 << 20); e != syscall.EBADF {
		t.Errorf("signal of a closed descriptor: %v", e)
	}
}

// TestEventfdNotify signals eventfds whose owner has filled them, in either mode.
func TestEventfdNotify(t *testing.T) {
	for _, flags := range []int{0, syscall.O_NONBLOCK} {
		n, _, e := syscall.Syscall(syscall.SYS_EVENTFD2, 0, uintptr(flags), 0)
		if e != 0 {
			t.Fatal(e)
		}
		fd := int(n)
		defer Close(fd)
		if full, e := EventfdNotify(fd); full || e != 0 {
			t.Errorf("flags %#x: full %v, %v", flags, full, e)
		}
		most := []byte{0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
			slices.Reverse(most)
		}
		if _, err := syscall.Write(fd, most); err != nil { // with the 1 from above it is full
			t.Fatal(err)
		}
		for range 2 {
			if full, e := EventfdNotify(fd); !full || e != 0 {
				t.Errorf("flags %#x, filled: full %v, %v", flags, full, e)
			}
		}
		if n, e := EventfdTake(fd); e != syscall.EOPNOTSUPP && n != 1<<64-2 {
			t.Errorf("flags %#x: %#x in it, %v", flags, n, e)
		}
		if full, e := EventfdNotify(fd); full || e != 0 {
			t.Errorf("flags %#x, read: full %v, %v", flags, full, e)
		}
	}
	if _, e := EventfdNotify(1 << 20); e != syscall.EBADF {
		t.Errorf("a closed descriptor: %v", e)
	}
}

func BenchmarkEventfd(b *testing.B) {
	fd, err := NewEventfd()
	if err != nil {
		b.Fatal(err)
	}
	defer Close(fd)
	b.Run("signal", func(b *testing.B) {
		for b.Loop() {
			EventfdSignal(fd)
		}
	})
	b.Run("notify", func(b *testing.B) {
		for b.Loop() {
			EventfdNotify(fd)
		}
	})
}

// whole checks that a wait of 5 ms takes that long, now and then: the runtime's signals
// may cut some short.
func whole(t *testing.T, wait func()) {
	t.Helper()
	var d time.Duration
	for range 100 {
		start := time.Now()
		wait()
		if d = time.Since(start); d >= 5*time.Millisecond {
			return
		}
	}
	t.Errorf("waits of 5ms took %v and the like", d)
}

func TestFutex(t *testing.T) {
	f := new(Futex)
	whole(t, func() { f.Wait(0, 5_000_000) })
	f.Wait(1, -1) // the word is not 1: returns
	done := make(chan struct{})
	go func() {
		defer close(done)
		for f.Load() == 0 {
			f.Wait(0, 10e9)
		}
	}()
	time.Sleep(5 * time.Millisecond)
	f.Store(1)
	f.Wake()
	select {
	case <-done:
	case <-time.After(tempotest.Patience):
		t.Fatal("not woken")
	}
}

func TestAppendIovecs(t *testing.T) {
	a, b := make([]byte, 3), make([]byte, 5)
	v := AppendIovecs(nil, [][]byte{a, {}, nil, b})
	if len(v) != 2 || v[0].Base != &a[0] || v[0].Len != 3 || v[1].Base != &b[0] || v[1].Len != 5 {
		t.Errorf("%+v", v)
	}
}
