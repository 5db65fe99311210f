package prefetch_test

import (
	"testing"

	"github.com/vtgt/vtgt/internal/prefetch"
	"github.com/vtgt/vtgt/internal/sys"
)

// TestNowhere: asking for memory that is not there, or no more, does nothing.
func TestNowhere(t *testing.T) {
	mem, err := sys.MapReserve(1 << 20) // without access
	if err != nil {
		t.Fatal(err)
	}
	none, whole := prefetch.Of(nil), prefetch.Of(mem)
	none.Next(4096)
	for part := whole; part.Len() > 0; {
		part.Next(100)
	}
	if err := sys.MapRelease(mem); err != nil {
		t.Fatal(err)
	}
	whole.Next(1 << 20)
	var zero prefetch.Span
	zero.Next(1)
}

// TestNext: parts are at most what is asked for, and in all the whole.
func TestNext(t *testing.T) {
	b := make([]byte, 4000)
	s := prefetch.Of(b)
	for _, x := range []struct{ ask, left int }{{0, 4000}, {-1, 4000}, {64, 3936}, {1, 3935}, {2048, 1887}, {1 << 40, 0}, {64, 0}} {
		if s.Next(x.ask); s.Len() != x.left {
			t.Fatalf("after Next(%d) %d bytes are left, not %d", x.ask, s.Len(), x.left)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	s := prefetch.Of(make([]byte, 4096))
	for b.Loop() {
		p := s
		p.Next(4096)
	}
}
