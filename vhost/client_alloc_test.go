package vhost_test

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// allocated is how many objects the process has allocated so far.
func allocated() uint64 {
	s := [1]metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s[:])
	return s[0].Value.Uint64()
}

// TestClientAllocs: neither the export nor the client allocates per request, whatever
// way requests come: direct and indirect, with a record of what is in flight, blocking
// and spinning.
func TestClientAllocs(t *testing.T) {
	requests := uint64(times(120_000))
	for _, l := range []*vhosttest.Load{
		{Indirect: true, Depth: 32},
		{Depth: 16, Writes: 50, Batch: 8},
		{Indirect: true, Depth: 1, Writes: 20, Spin: runtime.GOMAXPROCS(0) > 2},
	} {
		t.Run(fmt.Sprintf("depth %d, indirect %v", l.Depth, l.Indirect), func(t *testing.T) {
			r := newRig(t, rigOptions{plain: true})
			c := r.dial(vhosttest.Options{Queues: 2, Style: vhosttest.QEMU10})
			for i := range c.Requests() {
				good(t, c.Request(i), lun0, make([]byte, 6), nil, nil)
			}
			l.LUN, l.Blocks, l.Seed = lun0, diskBytes/4096, 4
			r.ok(l.Start(c))
			r.loads = append(r.loads, l)
			// Pools, chains and pieces grow until they have met the deepest moment.
			r.eventually("the beginning", func() bool { return l.Done() > 20_000 })
			runtime.GC()
			was, from := allocated(), l.Done()
			r.eventually("the end", func() bool { return l.Done() > from+requests })
			n, done := allocated()-was, l.Done()-from
			l.Stop()
			_, err := l.Wait()
			r.ok(err)
			// Of the runtime and of the waiting test some are allowed.
			if n > done/50+200 {
				t.Errorf("%d objects allocated in %d requests", n, done)
			}
			t.Logf("%d objects allocated in %d requests", n, done)
		})
	}
}
