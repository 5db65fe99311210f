package backing_test

import (
	"path/filepath"
	"runtime/metrics"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
)

func heapObjects() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// TestNoAllocations: a transfer costs no allocation in steady state, whichever way it
// takes: on the loop, by a worker (a write through to the medium), by io_uring.
func TestNoAllocations(t *testing.T) {
	const n = 3000
	for _, s := range []struct {
		name, spec string
		cache      backing.Cache
		noUring    bool
	}{
		{"null", "null:", 0, false}, {"mem", "mem:", 0, false}, {"file", "file:", backing.Writeback, false},
		{"direct", "file:", backing.Direct, false}, {"direct by workers", "file:", backing.Direct, true},
	} {
		t.Run(s.name, func(t *testing.T) {
			g, err := loop.NewGroup(loop.Config{Loops: 1, NoUring: s.noUring})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Close)
			spec := s.spec
			if spec == "file:" {
				spec += fill4K(t, filepath.Join(t.TempDir(), "disk"))
			}
			st := open(t, spec, backing.Options{Size: backingtest.Size, Cache: s.cache, Group: g})
			d := driver(t, st, g)
			t.Cleanup(func() { closeAll(t, st, d) })
			for _, kind := range []backing.Kind{backing.Read, backing.Write} {
				// The runtime makes some objects when the machine is busy: what
				// allocates does so in every run.
				got, most := uint64(0), uint64(n/10+100)
				for try := range 5 {
					before := heapObjects()
					if err := backingtest.Transfers(d, kind, 0, 8, n); err != nil {
						t.Fatal(err)
					}
					// The first run fills the pools.
					if got = heapObjects() - before; try > 0 && got <= most {
						break
					}
				}
				if got > most {
					t.Errorf("%v: %d objects allocated in %d transfers", kind, got, n)
				}
			}
		})
	}
}
