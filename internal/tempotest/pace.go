package tempotest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// tries and slower are how often, and how much slower each time, Paces tries.
const (
	tries  = 4
	slower = 5
)

// Paces runs f, a test of limits in time that an honest peer keeps and another does
// not, with the limit pace; where it fails, again with longer ones, up to 125 times
// as long: a peer on a busy machine may be late for short ones. The test fails when
// f fails at every pace. What f registers with Cleanup is done after each try;
// subtests are not possible.
func Paces(t testing.TB, pace time.Duration, f func(t testing.TB, pace time.Duration)) {
	t.Helper()
	for n := range tries {
		x := &trial{TB: t}
		if x.run(func() { f(x, pace) }); !x.Failed() {
			return
		}
		if n == tries-1 || x.Skipped() {
			t.FailNow()
		}
		t.Logf("with a pace of %v this failed, perhaps because the machine is busy; trying %v", pace, slower*pace)
		pace *= slower
	}
}

// trial is a test whose failure is not yet the test's.
type trial struct {
	testing.TB
	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

// run runs f and its cleanups, each on a goroutine that Fatal may end.
func (x *trial) run(f func()) {
	x.apart(f)
	for {
		x.mu.Lock()
		n := len(x.cleanups)
		if n == 0 {
			x.mu.Unlock()
			return
		}
		f := x.cleanups[n-1]
		x.cleanups = x.cleanups[:n-1]
		x.mu.Unlock()
		x.apart(f)
	}
}

func (x *trial) apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// What follows is testing.TB's, for the trial alone.

func (x *trial) Cleanup(f func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cleanups = append(x.cleanups, f)
}

func (x *trial) Fail() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = true
}

func (x *trial) Failed() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.failed
}

func (x *trial) FailNow() {
	x.Fail()
	runtime.Goexit()
}

func (x *trial) Error(a ...any) {
	x.TB.Helper()
	x.TB.Log(fmt.Sprint(a...))
	x.Fail()
}

func (x *trial) Errorf(format string, a ...any) {
	x.TB.Helper()
	x.TB.Logf(format, a...)
	x.Fail()
}

func (x *trial) Fatal(a ...any) {
	x.TB.Helper()
	x.Error(a...)
	runtime.Goexit()
}

func (x *trial) Fatalf(format string, a ...any) {
	x.TB.Helper()
	x.Errorf(format, a...)
	runtime.Goexit()
}
