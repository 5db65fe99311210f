package handover_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/handover/handovertest"
	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// TestPark: what is parked is found, as often as one looks; the newer of two states; and
// nothing of what is not whole.
func TestPark(t *testing.T) {
	hosttest.Descriptors(t, 4096)
	addr := filepath.Join(t.TempDir(), "notify")
	p := handovertest.New(t, addr)
	s, err := handover.OpenStore(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	place := s.Place("k", -1)
	for _, n := range []int{3, 700} {
		var set handover.Set
		defer set.Close()
		for range n {
			if _, err := set.Add(0); err != nil {
				t.Fatal(err)
			}
		}
		block := bytes.Repeat([]byte{byte(n)}, 300_000)
		if err := place.Park(block, &set); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			fs := p.Copies()
			found, rest := handover.Parked(fs)
			if len(found) != 1 || len(rest) != 0 || !bytes.Equal(found[0].Block, block) || found[0].Set.Len() != n || found[0].Key != "k" {
				t.Fatalf("%+v, %q", found, rest)
			}
			found[0].Set.Close()
		}
	}
	fs := p.Copies()
	fs[len(fs)-1].Close()
	if found, rest := handover.Parked(fs[:len(fs)-1]); len(found) != 0 || len(rest) != 1 {
		t.Fatalf("%+v, %q of a state with a hole", found, rest)
	}
	odd, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if found, rest := handover.Parked([]*os.File{odd}); len(found) != 0 || len(rest) != 1 {
		t.Fatalf("%+v, %q of a file", found, rest)
	}
	if err := place.Clear(); err != nil {
		t.Fatal(err)
	}
	if !tempotest.Settles(func() bool { n, _ := p.Names(); return len(n) == 0 }) {
		t.Error("something stays")
	}
}
