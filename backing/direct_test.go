package backing_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
)

func directStore(t *testing.T, g *loop.Group, align int) backing.Store {
	st := open(t, "file:"+filepath.Join(t.TempDir(), "disk"), backing.Options{Size: 8 << 20, Create: true, Cache: backing.Direct, Group: g})
	if align > 0 {
		backing.CoarseDirect(st, align)
	}
	return st
}

// TestDirectCoarse is the suite over blocks of 4096 bytes: single sectors are
// read, changed and written back beside their neighbours' writes.
func TestDirectCoarse(t *testing.T) {
	for _, c := range []struct {
		name    string
		noUring bool
	}{{"ring", false}, {"workers", true}} {
		t.Run(c.name, func(t *testing.T) {
			backingtest.Run(t, backingtest.Config{
				Group: loop.Config{NoUring: c.noUring},
				Open:  func(t *testing.T, g *loop.Group) backing.Store { return directStore(t, g, 4096) },
			})
		})
	}
}

// TestDirectWithoutSlabs: with no memory for bounce buffers transfers are slow
// and right.
func TestDirectWithoutSlabs(t *testing.T) {
	backingtest.Run(t, backingtest.Config{
		Group:     loop.Config{Slabs: slab.New(1)},
		Allocates: true, // it measures the usual way
		Open:      func(t *testing.T, g *loop.Group) backing.Store { return directStore(t, g, 4096) },
	})
}

func TestDirectCounts(t *testing.T) {
	g := group(t)
	st := directStore(t, g, 4096)
	d := driver(t, st, g)
	aligned := backingtest.Page(2 * 4096)
	for _, c := range []struct {
		off          int64
		p            []byte
		write        bool
		bounce, excl uint64
	}{
		{0, aligned, true, 0, 0},
		{0, aligned, false, 0, 0},
		{0, aligned[1:4097], true, 1, 0},
		{0, aligned[1:4097], false, 1, 0},
		{512, aligned[:512], false, 1, 0},
		{512, aligned[:512], true, 0, 1},
	} {
		before := backing.StatsOf(st)
		var err error
		if c.write {
			err = d.Write(c.off, c.p, 0)
		} else {
			err = d.Read(c.off, c.p)
		}
		after := backing.StatsOf(st)
		if b, e := after.Bounced-before.Bounced, after.Exclusive-before.Exclusive; err != nil || b != c.bounce || e != c.excl {
			t.Errorf("%+d %d bytes write %v: %v, %d bounced, %d exclusive, want %d and %d", c.off, len(c.p), c.write, err, b, e, c.bounce, c.excl)
		}
	}
	closeAll(t, st, d)
}

func TestDirectRefusals(t *testing.T) {
	g := group(t)
	odd := sparse(t, filepath.Join(t.TempDir(), "odd"), 1000)
	_, err := backing.Open("file:"+odd, backing.Options{Cache: backing.Direct, Group: g})
	if err == nil || !strings.Contains(err.Error(), "truncate") {
		t.Errorf("odd size: %v", err)
	}
	_, err = backing.Open("file:/proc/self/status", backing.Options{Cache: backing.Direct, ReadOnly: true, Group: g})
	if err == nil || !strings.Contains(err.Error(), "use cache: writeback") {
		t.Errorf("a file system without direct I/O: %v", err)
	}
	var oe *backing.OpenError
	if !errors.As(err, &oe) {
		t.Errorf("%T, want *OpenError", err)
	}
}
