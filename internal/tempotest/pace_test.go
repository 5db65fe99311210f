package tempotest

import (
	"testing"
	"time"
)

// mock records what Paces tells the test.
type mock struct {
	testing.TB
	failed bool
}

func (m *mock) Helper()             {}
func (m *mock) Log(...any)          {}
func (m *mock) Logf(string, ...any) {}
func (m *mock) Skipped() bool       { return false }
func (m *mock) FailNow()            { m.failed = true }

func TestPaces(t *testing.T) {
	for _, c := range []struct {
		name  string
		good  int // the first try that succeeds
		tries int
		fails bool
	}{{"at once", 0, 1, false}, {"later", 2, 3, false}, {"never", 99, 4, true}} {
		for _, fatal := range []bool{false, true} {
			m := &mock{TB: t}
			n, cleaned, want := 0, 0, time.Second
			Paces(m, time.Second, func(t testing.TB, pace time.Duration) {
				if pace != want || cleaned != n {
					m.TB.Errorf("%s: pace %v, want %v; %d cleaned up after %d tries", c.name, pace, want, cleaned, n)
				}
				n++
				want *= 5
				t.Cleanup(func() { cleaned++ })
				switch {
				case n > c.good:
				case fatal:
					t.Fatal("bad")
					m.TB.Error("Fatal returned")
				default:
					t.Errorf("bad")
				}
			})
			if n != c.tries || m.failed != c.fails || cleaned != n {
				t.Errorf("%s: %d tries, failed: %v, %d cleaned up", c.name, n, m.failed, cleaned)
			}
		}
	}
}

func TestWait(t *testing.T) {
	c := make(chan int, 1)
	n := 0
	Wait(t, "three", func() bool { n++; return n == 3 })
	c <- n
	if Recv(t, c, "three") != 3 {
		t.Error(n)
	}
	close(c)
	if Recv(t, c, "the end") != 0 {
		t.Error("not closed")
	}
}
