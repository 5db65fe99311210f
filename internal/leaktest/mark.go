package leaktest

import (
	"os"
	"runtime"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
)

// fuzzing is how many goroutines and descriptors a fuzzer makes of its own.
const fuzzing = 16

// Mark is how many goroutines and descriptors there were at a moment.
type Mark struct{ goroutines, fds int }

// Now counts what there is.
func Now(t testing.TB) Mark {
	t.Helper()
	// The runtime opens its poller once, at first use.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	m := count(t)
	if _, ok := t.(*testing.F); ok {
		m.goroutines, m.fds = m.goroutines+fuzzing, m.fds+fuzzing
	}
	return m
}

// Check waits until there is no more than there was at m; if that never happens, the
// test fails, with what the goroutines do.
func (m Mark) Check(t testing.TB) {
	t.Helper()
	var n Mark
	if tempotest.Settles(func() bool { n = count(t); return n.goroutines <= m.goroutines && n.fds <= m.fds }) {
		return
	}
	buf := make([]byte, 1<<20)
	t.Errorf("leak: %d descriptors (were %d), %d goroutines (were %d)\n%s", n.fds, m.fds,
		n.goroutines, m.goroutines, buf[:runtime.Stack(buf, true)])
}

func count(t testing.TB) Mark {
	t.Helper()
	return Mark{goroutines: runtime.NumGoroutine(), fds: FDs(t)}
}

// FDs is how many descriptors this process has, with the one that counts them.
func FDs(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
