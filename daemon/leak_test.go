package daemon

import (
	"os"
	"runtime"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
)

// noLeaks checks at the test's end that it left no goroutine and no descriptor.
func noLeaks(t *testing.T) {
	t.Helper()
	count := func() (g, fds int) {
		es, _ := os.ReadDir("/proc/self/fd")
		return runtime.NumGoroutine(), len(es)
	}
	// The runtime opens its poller once, at first use.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	g0, f0 := count()
	t.Cleanup(func() {
		var g, f int
		if tempotest.Settles(func() bool { g, f = count(); return g <= g0 && f <= f0 }) {
			return
		}
		buf := make([]byte, 1<<20)
		t.Errorf("left %d goroutines and %d descriptors\n%s", g-g0, f-f0, buf[:runtime.Stack(buf, true)])
	})
}
