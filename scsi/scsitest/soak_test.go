package scsitest

import (
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

func openMem(g *loop.Group) (backing.Store, error) {
	return backing.Open("mem:", backing.Options{Size: SoakBytes, Group: g})
}

func openFile(t *testing.T) func(g *loop.Group) (backing.Store, error) {
	path := filepath.Join(t.TempDir(), "disk")
	return func(g *loop.Group) (backing.Store, error) {
		return backing.Open("file:"+path, backing.Options{Size: SoakBytes, Create: true, Group: g})
	}
}

// TestSoak runs each for VTGT_SCSITEST_SECONDS.
func TestSoak(t *testing.T) {
	t.Run("mem", func(t *testing.T) { Soak(t, openMem, SoakOptions{}) })
	t.Run("file", func(t *testing.T) { Soak(t, openFile(t), SoakOptions{Seed: 1}) })
	t.Run("mem faults", func(t *testing.T) { Soak(t, openMem, SoakOptions{Seed: 2, Faults: true}) })
	t.Run("file faults stop", func(t *testing.T) { Soak(t, openFile(t), SoakOptions{Seed: 3, Faults: true, Stop: true}) })
}
