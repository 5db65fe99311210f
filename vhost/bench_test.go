package vhost

import (
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

// BenchmarkRing is READ of 4 KiB through a ring, with a driver that polls: both sides'
// time, about 500 ns at depth 32 (310 ns of it the device, 85 ns of that the store, which
// clears the buffers; 4-core EPYC, Go 1.26, busy).
func BenchmarkRing(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run(map[int]string{1: "1", 32: "32"}[depth], func(b *testing.B) {
			m := newMachine(b, machineOptions{spec: "null:"})
			q := m.newQueue(2, 128, allOn).start().ready()
			var out, in [][]vringtest.Buf
			for k := range depth {
				o, i := q.command(0, 4096).fill(lun0, uint64(k), read10(uint32(8*k), 8)).bufs()
				out, in = append(out, o), append(in, i)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += depth {
				for k := range depth {
					q.drv.Add(out[k], in[k], false)
				}
				if q.drv.Kick() {
					sys.EventfdSignal(q.kick)
				}
				for left := depth; left > 0; {
					if _, _, ok, err := q.drv.Used(); ok {
						left--
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.StopTimer()
			i := q.v.info()
			b.ReportMetric(float64(i.Kicks)/float64(i.Requests), "kicks/op")
			b.ReportMetric(float64(i.Rounds)/float64(i.Requests), "rounds/op")
		})
	}
}
