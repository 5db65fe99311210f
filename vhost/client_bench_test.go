package vhost_test

import (
	"fmt"
	"testing"

	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// BenchmarkClient is random 4 KiB reads and writes of a disk in memory through the whole
// back end: the client's threads share the machine with the loops.
func BenchmarkClient(b *testing.B) {
	for _, x := range []struct {
		queues, depth, writes int
		spin                  bool
	}{
		{1, 1, 0, false}, {1, 1, 0, true}, {1, 32, 0, false}, {1, 32, 0, true}, {1, 32, 100, true}, {2, 32, 0, true}, {4, 32, 0, false},
	} {
		b.Run(fmt.Sprintf("queues=%d/depth=%d/writes=%d/spin=%v", x.queues, x.depth, x.writes, x.spin), func(b *testing.B) {
			r := newRig(b, rigOptions{plain: true})
			c := r.dial(vhosttest.Options{Queues: x.queues, Style: vhosttest.QEMU10})
			for i := range x.queues {
				good(b, c.Request(i), lun0, make([]byte, 6), nil, nil)
			}
			l := &vhosttest.Load{LUN: lun0, Blocks: diskBytes / 4096, Depth: x.depth, Writes: x.writes, Spin: x.spin, Indirect: true, Seed: 9,
				Count: uint64(max(b.N/x.queues, 1))}
			b.ReportAllocs()
			b.ResetTimer()
			res, err := l.Run(c)
			b.StopTimer()
			r.ok(err)
			b.ReportMetric(float64(res.Kicks)/float64(res.Requests), "kicks/op")
			b.ReportMetric(float64(res.Calls)/float64(res.Requests), "calls/op")
		})
	}
}
