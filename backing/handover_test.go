package backing

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
)

// TestHandOver: the locks stay with what is handed over, whoever closes what in which
// order, and a store that has latched stays so.
func TestHandOver(t *testing.T) {
	dir := t.TempDir()
	g, s, _ := testStore(t, dir, Writeback)
	spec := "file:" + filepath.Join(dir, "disk")
	_ = s.latch("test", errors.New("broken"))
	given, err := HandOver(s, func(fd int) (int, error) {
		if fd < 0 {
			return -1, nil
		}
		return sys.Dup(fd)
	})
	if err != nil || !given.Latched {
		t.Fatal(given, err)
	}
	if _, err := Open(spec, Options{Group: g}); !errors.Is(err, ErrInUse) {
		t.Fatal("beside it:", err)
	}
	n, err := Open(spec, Options{Group: g, Given: &given})
	if err != nil {
		t.Fatal(err)
	}
	if !n.Info().Latched || !StatsOf(n).Latched || n.Info().Size != 1<<20 {
		t.Errorf("%+v", n.Info())
	}
	if err := s.Reopen(); err != nil { // lets go of its old description
		t.Error(err)
	}
	if _, err := Open(spec, Options{Group: g}); !errors.Is(err, ErrInUse) {
		t.Error("locks are gone:", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(spec, Options{Group: g}); !errors.Is(err, ErrInUse) {
		t.Error("the first one's locks are gone:", err)
	}
}

// TestHandOverMemory: what is in this process's memory cannot be handed over.
func TestHandOverMemory(t *testing.T) {
	st, err := Open("mem:", Options{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := HandOver(st, nil); !errors.Is(err, ErrNotSupported) {
		t.Error(err)
	}
}
