package tempotest

import (
	"runtime"
	"testing"
	"time"
)

// Patience is how long a test waits for what must happen in the end. It says
// nothing of how long that may take: two slow processors that a dozen test programs
// share have been seen to hold a thread back for seconds.
const Patience = 2 * time.Minute

// Settles waits until ok returns true; false: it did not for [Patience].
func Settles(ok func() bool) bool {
	for end, pause := time.Now().Add(Patience), 100*time.Microsecond; !ok(); pause = min(2*pause, 10*time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}

// Wait waits until ok returns true, and ends the test when it never does.
func Wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !Settles(ok) {
		t.Fatalf("never: %s (waited %v)\n%s", what, Patience, stacks())
	}
}

// Recv takes a value from c, or the news that it is closed, and ends the test when
// none comes.
func Recv[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	select {
	case v := <-c:
		return v
	case <-late.C:
		t.Fatalf("never: %s (waited %v)\n%s", what, Patience, stacks())
		panic("unreachable")
	}
}

func stacks() []byte {
	b := make([]byte, 1<<20)
	return b[:runtime.Stack(b, true)]
}
