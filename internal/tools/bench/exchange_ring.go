package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/vhosttest"
	"github.com/vtgt/vtgt/vhost/vring"
)

// bareRing is a virtqueue with a device that does nothing: it reads what a virtio-scsi
// device must read of each request, once, checks nothing, looks at no data, answers
// GOOD, and publishes once for all that it found. Both sides look for work without
// sleeping.
type bareRing struct {
	mem  []byte
	next int // of mem
	*ringDriver
	stop atomic.Bool
}

const bareSize = 256

// At and Alloc are memory's: guest addresses are offsets.
func (b *bareRing) At(a uint64, n int) []byte { return b.mem[a:][:n:n] }

func (b *bareRing) Alloc(n, align int) (uint64, error) {
	at := (b.next + align - 1) &^ (align - 1)
	b.next = at + n
	return uint64(at), nil
}

func newBareRing() (*bareRing, error) {
	mem, err := sys.MapAnonymous(4 << 20)
	if err != nil {
		return nil, err
	}
	b := &bareRing{mem: mem}
	var at [4]uint64
	for i, n := range []int{vring.DescSize(bareSize), vring.AvailSize(bareSize), vring.UsedSize(bareSize), 16 * tableSlots * bareSize} {
		at[i], _ = b.Alloc(n, 4096)
	}
	if b.ringDriver, err = newRingDriver(b, bareSize, at[0], at[1], at[2], at[3], 0); err != nil {
		sys.Unmap(mem)
		return nil, err
	}
	b.aim(0, 1024, false)
	return b, nil
}

func (b *bareRing) close() { sys.Unmap(b.mem) }

// device is the other side. It has a view of its own of the ring.
func (b *bareRing) device() (sum uint64) {
	var desc, avail, used gmem.Area
	desc, avail, used = b.desc, b.avail, b.used
	next := uint16(0)
	var req [vhosttest.ReqBytes]byte
	var resp [vhosttest.RespBytes]byte
	for !b.stop.Load() {
		idx := avail.Load16(2)
		if idx == next {
			continue
		}
		for ; next != idx; next++ {
			head := int(avail.Load16(4+2*(int(next)%bareSize))) % bareSize
			table, _ := desc.Load128(16 * head)
			t := int(table - b.tableAt)
			a0, n0 := b.table.Load128(t)
			a1, n1 := b.table.Load128(t + 16)
			a2, n2 := b.table.Load128(t + 32)
			sum += a2 + n0 + n1 + n2
			copy(req[:], b.mem[a0:])
			resp[0] = req[0] & 0x80
			copy(b.mem[a1:], resp[:])
			u := 4 + 8*(int(next)%bareSize)
			used.Put32(u, uint32(head))
			used.Put32(u+4, vhosttest.RespBytes+dataSlot)
		}
		used.Store32(0, uint32(next)<<16)
		sum += uint64(avail.Load16(4 + 2*bareSize))
	}
	return sum
}

// runBareRing measures the bare ring exchange: two threads of this process.
func runBareRing(depth int, d time.Duration) (sample, error) {
	b, err := newBareRing()
	if err != nil {
		return sample{}, err
	}
	defer b.close()
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
		defer b.stop.Store(true)
		c := threadCPU()
		n, took, err = b.drive(depth, d)
		here = threadCPU() - c
	})
	wg.Wait()
	if err != nil {
		return sample{}, err
	}
	return k.sample(n, took, here+there, 0)
}
