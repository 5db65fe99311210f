package vhost

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/vtgt/vtgt/internal/gmem"
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

// BenchmarkDevice is READ of 4 KiB as the device's thread sees it: chains that lie ready
// in the ring are taken, run and answered in batches, and the driver's part is one store
// of its index.
func BenchmarkDevice(b *testing.B) {
	for _, depth := range []int{1, 32, 128} {
		b.Run(fmt.Sprintf("null/depth=%d", depth), func(b *testing.B) { benchDevice(b, machineOptions{spec: "null:"}, depth) })
		b.Run(fmt.Sprintf("mem/depth=%d", depth), func(b *testing.B) { benchDevice(b, machineOptions{spec: "mem:"}, depth) })
		// More than the processor's caches hold, at random places.
		if !testing.Short() {
			b.Run(fmt.Sprintf("mem256M/depth=%d", depth), func(b *testing.B) { benchDevice(b, machineOptions{spec: "mem:", size: 256 << 20}, depth) })
		}
	}
}

func benchDevice(b *testing.B, o machineOptions, depth int) {
	const size = 256
	m := newMachine(b, o)
	q := m.newQueue(2, size, allOn).start().ready()
	blocks := uint32(8)
	if o.size > 0 {
		blocks = uint32(o.size / 4096)
		big := q.command(1<<20, 0)
		for at := int64(0); at < o.size; at += 1 << 20 {
			big.fill(lun0, 1, write10(uint32(at/512), 2048)).good()
		}
	}
	var heads []uint16
	var lbas [][]byte
	for k := range depth {
		c := q.command(0, 4096).fill(lun0, uint64(k), read10(uint32(8*k), 8))
		lbas = append(lbas, q.g.At(c.out+21, 4))
		out, in := c.bufs()
		h, ok := q.drv.Add(out, in, true)
		if !ok {
			b.Fatal("Add")
		}
		heads = append(heads, h)
	}
	avail, err := gmem.NewArea(q.g.At(q.drv.Avail, 6+2*size), 2)
	if err != nil {
		b.Fatal(err)
	}
	idx := avail.Load16(2)
	for k := range size {
		avail.Put16(4+2*((int(idx)+k)%size), heads[k%depth])
	}

	rng := uint32(2463534242)
	b.ReportAllocs()
	b.ResetTimer()
	// In pieces: a loop that never comes back cannot run what was deferred.
	for n := 0; n < b.N; {
		q.v.r.loop.Do(func() {
			r := q.v.r

			for i := 0; i < 4096/depth && n < b.N; i++ {
				for _, a := range lbas {
					rng ^= rng << 13
					rng ^= rng >> 17
					rng ^= rng << 5
					binary.BigEndian.PutUint32(a, rng%blocks*8)
				}
				idx += uint16(depth)
				avail.Store32(0, uint32(idx)<<16)
				for r.vr.More() {
					r.look()
				}
				r.flushNow()
				n += depth
			}

		})
	}
	b.StopTimer()

	// The driver's bookkeeping was passed by.
	q.drv.SetIndex(idx)
}
