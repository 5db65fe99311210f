package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// bareRing is a split virtqueue with nothing around it: descriptors of 16 bytes, an
// available and a used ring with their index and event words, each on lines of its own.
// Both sides look for work without sleeping.
type bareRing struct {
	desc [bareSize][2]uint64
	_    [64]byte

	avail     [bareSize]uint16
	availIdx  atomic.Uint32
	usedEvent atomic.Uint32
	_         [64]byte

	used       [bareSize][2]uint32
	usedIdx    atomic.Uint32
	availEvent atomic.Uint32
	_          [64]byte

	stop atomic.Bool
}

const bareSize = 256

// device answers whatever comes, and publishes once for all that it found.
func (b *bareRing) device() (sum uint64) {
	next := uint32(0)
	for !b.stop.Load() {
		idx := b.availIdx.Load()
		if idx == next {
			continue
		}
		for ; next != idx; next++ {
			head := b.avail[next%bareSize]
			d := &b.desc[head%bareSize]
			sum += d[0]
			u := &b.used[next%bareSize]
			u[0], u[1] = uint32(head), uint32(d[1])
		}
		b.usedIdx.Store(next)
		sum += uint64(b.usedEvent.Load())
	}
	return sum
}

// drive keeps depth requests going for d.
func (b *bareRing) drive(depth int, d time.Duration) (n int, took time.Duration) {
	idx, last := uint32(0), uint32(0)
	add := func(head uint32) {
		b.desc[head] = [2]uint64{uint64(head) << 12, 4096}
		b.avail[idx%bareSize] = uint16(head)
		idx++
	}
	for k := range depth {
		add(uint32(k))
	}
	begin := time.Now()
	b.availIdx.Store(idx)
	for looks := 0; ; looks++ {
		done := b.usedIdx.Load()
		if done == last {
			// Where both threads share a processor they meet seldom.
			if looks&0xffff == 0 && n > 0 && time.Since(begin) >= d {
				return n, time.Since(begin)
			}
			continue
		}
		for ; last != done; last++ {
			n++
			add(b.used[last%bareSize][0])
		}
		b.availIdx.Store(idx)
		_ = b.availEvent.Load()
		if looks&63 == 0 && time.Since(begin) >= d {
			return n, time.Since(begin)
		}
	}
}

// runBareRing measures the bare ring exchange: two threads of this process.
func runBareRing(depth int, d time.Duration) (sample, error) {
	b := new(bareRing)
	k, err := startClocks(nil)
	if err != nil {
		return sample{}, err
	}
	var wg sync.WaitGroup
	var there time.Duration
	wg.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c := threadCPU()
		b.device()
		there = threadCPU() - c
	})
	var n int
	var took, here time.Duration
	wg.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c := threadCPU()
		n, took = b.drive(depth, d)
		b.stop.Store(true)
		here = threadCPU() - c
	})
	wg.Wait()
	return k.sample(n, took, here+there, here)
}
