package backing_test

import (
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/loop"
)

func TestMem(t *testing.T) {
	backingtest.Run(t, backingtest.Config{Open: func(t *testing.T, g *loop.Group) backing.Store {
		return open(t, "mem:", backing.Options{Size: 8 << 20, Group: g})
	}})
}

func TestNull(t *testing.T) {
	backingtest.Run(t, backingtest.Config{Forgets: true, Open: func(t *testing.T, g *loop.Group) backing.Store {
		return open(t, "null:", backing.Options{Size: 8 << 20, Group: g})
	}})
}

func open(t testing.TB, spec string, o backing.Options) backing.Store {
	t.Helper()
	st, err := backing.Open(spec, o)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// tmpfs gives a folder on tmpfs.
func tmpfs(t testing.TB) string {
	d, remove, err := hosttest.Memory(32 << 20)
	if err != nil {
		t.Skip("no tmpfs:", err)
	}
	t.Cleanup(remove)
	return d
}

func TestFile(t *testing.T) {
	for _, c := range []struct {
		name    string
		cache   backing.Cache
		tmpfs   bool
		noUring bool
	}{
		{"writeback", backing.Writeback, false, false},
		{"writethrough", backing.Writethrough, false, false},
		{"direct", backing.Direct, false, false},
		{"direct without io_uring", backing.Direct, false, true},
		{"tmpfs", backing.Writeback, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			backingtest.Run(t, backingtest.Config{
				Group: loop.Config{NoUring: c.noUring},
				Open: func(t *testing.T, g *loop.Group) backing.Store {
					dir := t.TempDir()
					if c.tmpfs {
						dir = tmpfs(t)
					}
					return open(t, "file:"+filepath.Join(dir, "disk.img"), backing.Options{Size: 8 << 20, Create: true, Cache: c.cache, Group: g})
				},
			})
		})
	}
}
