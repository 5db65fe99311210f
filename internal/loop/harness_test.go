package loop

import (
	"log/slog"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// group makes a strict group that is closed at the end of the test, with a check
// that neither goroutines nor descriptors are left.
func group(t testing.TB, c Config) *Group {
	t.Helper()
	time.AfterFunc(time.Hour, func() {}).Stop() // the first timer opens the runtime's own poller
	goroutines, fds := runtime.NumGoroutine(), openFDs(t)
	c.Strict = true
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	g, err := NewGroup(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		g.Close()
		checkLeft(t, "goroutines", goroutines, runtime.NumGoroutine)
		checkLeft(t, "descriptors", fds, func() int { return openFDs(t) })
	})
	return g
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// patience is how long tests wait for what must happen in the end: the machine
// may be as busy as it likes.
const patience = 2 * time.Minute

// checkLeft waits for count to fall to want: a goroutine that has said its last
// word needs a moment to end.
func checkLeft(t testing.TB, what string, want int, count func() int) {
	t.Helper()
	n := 0
	if !settles(func() bool { n = count(); return n <= want }) {
		buf := make([]byte, 1<<16)
		t.Errorf("%d %s left, had %d\n%s", n, what, want, buf[:runtime.Stack(buf, true)])
	}
}

// settles waits until ok says true; false: it never did.
func settles(ok func() bool) bool {
	for end := time.Now().Add(patience / 4); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func openFDs(t testing.TB) int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func cpuTime(t testing.TB) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// within fails the test when c is not closed or sent to in time.
func within[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		buf := make([]byte, 1<<16)
		t.Fatalf("%s: not within %v\n%s", what, patience, buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// nodeFunc, timerFunc, readyFunc and jobFunc let tests write handlers in place.
type nodeFunc func(*Node)

func (f nodeFunc) Handle(n *Node) { f(n) }

type timerFunc func(*Timer)

func (f timerFunc) Expired(t *Timer) { f(t) }

type readyFunc func(*Source, Events)

func (f readyFunc) Ready(s *Source, ev Events) { f(s, ev) }

type jobFunc func(*Job)

func (f jobFunc) RunJob(j *Job) { f(j) }
