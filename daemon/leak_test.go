package daemon

import (
	"testing"

	"github.com/vtgt/vtgt/internal/leaktest"
)

// noLeaks checks at the test's end that it left no goroutine and no descriptor.
func noLeaks(t *testing.T) {
	t.Helper()
	m := leaktest.Now(t)
	t.Cleanup(func() { m.Check(t) })
}
