package vring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/vtgt/vtgt/internal/gmem"
)

// The record of one split queue, vhost-user protocol, "Inflight I/O tracking",
// QueueRegionSplit: features 8, version 2, desc_num 2, last_batch_head 2,
// used_idx 2, then per descriptor inflight 1, padding 5, next 2, counter 8.
const (
	infHeader   = 8 // the 64-bit word of version, desc_num, last_batch_head, used_idx
	infDesc     = 16
	infDescSize = 16
	infVersion  = 1
	infAlign    = 64 // between queues, so that no two share a cache line
)

// InflightSize is the size in bytes of the region for queues of size entries each
// (GET_INFLIGHT_FD).
func InflightSize(queues, size int) int { return queues * inflightStride(size) }

// InflightEntries is the largest size for which InflightSize of queues is at most n
// bytes: the other way round, with which a region that comes back tells what it was
// made for. 0: none.
func InflightEntries(n uint64, queues int) int {
	if queues < 1 {
		return 0
	}
	stride := n / uint64(queues) &^ (infAlign - 1)
	if stride < infDesc+infDescSize {
		return 0
	}
	return int(min((stride-infDesc)/infDescSize, MaxSize))
}

func inflightStride(size int) int {
	return (infDesc + infDescSize*size + infAlign - 1) &^ (infAlign - 1)
}

// An Inflight is one queue's part of the shared region in which requests are
// marked while they are in flight, so that the process that comes after a crash
// knows them. The region is the front end's as much as ours: what stands in it is
// checked when it is read, which is at the start only.
//
// Stores to it are plain and in the order in which the protocol has them: a
// process that is killed leaves a prefix of them, and nobody reads them before.
type Inflight struct {
	a       gmem.Area
	size    int
	counter uint64
	batch   uint16 // last_batch_head
	used    uint16 // used_idx
	heads   []uint16
	links   []uint16 // next of each entry as we wrote it
	found   bool
	points  func(Point)
	pk      *packedInflight // of a packed queue
}

// OpenInflight takes part q of a region for queues of size entries: the b of a
// mapping that has InflightSize bytes. Memory of zeroes is a new record.
func OpenInflight(b []byte, q, size int) (*Inflight, error) {
	if size < 1 || size > MaxSize {
		return nil, fmt.Errorf("inflight region: queues of %d entries", size)
	}
	n := inflightStride(size)
	if q < 0 || q >= len(b)/n {
		return nil, fmt.Errorf("inflight region of %d bytes: it has no queue %d of %d entries", len(b), q, size)
	}
	a, err := gmem.NewArea(b[q*n:(q+1)*n:(q+1)*n], 8)
	if err != nil {
		return nil, fmt.Errorf("inflight region: its address %w", err)
	}
	return &Inflight{a: a, size: size, links: make([]uint16, size)}, nil
}

func (f *Inflight) entry(i uint16) int { return infDesc + infDescSize*int(i) }

func (f *Inflight) head() {
	f.a.Put64(infHeader, infVersion|uint64(f.size)<<16|uint64(f.batch)<<32|uint64(f.used)<<48)
}

// attach brings the record in line with the ring's used index and marks what is
// in flight as busy. It returns their number.
func (f *Inflight) attach(r *Ring) (int, error) {
	if r.pk != nil {
		return f.attachPacked(r)
	}
	if r.size > f.size {
		return 0, fmt.Errorf("inflight region: made for queues of %d entries, the ring has %d", f.size, r.size)
	}
	w := f.a.Load64(infHeader)
	version, num := uint16(w), uint16(w>>16)
	f.batch, f.used = uint16(w>>32), uint16(w>>48)
	f.heads = nil
	if version == 0 {
		// A new record: nothing is in flight, and the used index is the
		// ring's, which need not be 0 (a guest that came by migration).
		f.batch, f.used, f.counter = 0, r.shown, 0
		for i := range f.size {
			f.a.Put64(f.entry(uint16(i)), 0)
			f.a.Put64(f.entry(uint16(i))+8, 0)
		}
		f.head()
		return 0, nil
	}
	f.found = true
	if version != infVersion || int(num) != f.size {
		return 0, fmt.Errorf("inflight region: version %d for queues of %d entries; this is version %d for %d", version, num, infVersion, f.size)
	}
	if err := f.settle(r); err != nil {
		return 0, err
	}
	type mark struct {
		head    uint16
		counter uint64
	}
	var marks []mark
	for i := range f.size {
		e := f.a.Load64(f.entry(uint16(i)))
		if uint8(e) == 0 {
			continue
		}
		if i >= r.size {
			return 0, &Violation{Kind: InflightRecord, Head: -1, Index: i, Value: e}
		}
		c := f.a.Load64(f.entry(uint16(i)) + 8)
		marks = append(marks, mark{uint16(i), c})
		f.counter = max(f.counter, c+1)
		r.setBusy(uint16(i))
	}
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.counter, b.counter) })
	for _, m := range marks {
		f.heads = append(f.heads, m.head)
	}
	return len(marks), nil
}

// settle takes the marks off a batch that was published in full by a process that
// ended before it took them off itself.
func (f *Inflight) settle(r *Ring) error {
	n := int(r.shown - f.used)
	if n == 0 {
		return nil
	}
	if n > r.size {
		return &Violation{Kind: InflightRecord, Head: -1, Index: int(f.used), Value: uint64(r.shown)}
	}
	for i := f.batch; n > 0; n-- {
		if int(i) >= f.size {
			return &Violation{Kind: InflightRecord, Head: -1, Index: int(i), Value: uint64(f.batch), Err: errBatch}
		}
		next := uint16(f.a.Load64(f.entry(i)) >> 48)
		f.a.Put64(f.entry(i), uint64(next)<<48)
		i = next
	}
	f.used = r.shown
	f.head()
	return nil
}

var errBatch = errors.New("its last batch leaves the table")

// Found tells whether the record was there before the ring started with it: the driver
// has been served before, by this process or another one.
func (f *Inflight) Found() bool { return f.found }

// Heads are the requests that the ring found in flight when it started, in the
// order in which they were submitted. Each is reloaded, answered and pushed, as if
// it had been popped.
func (f *Inflight) Heads() []uint16 { return f.heads }

// submit marks a request that was taken from the available ring.
func (f *Inflight) submit(head uint16) {
	e := f.entry(head)
	f.a.Put64(e+8, f.counter)
	f.counter++
	f.a.Put64(e, 1)
}

// complete chains a request into the batch that is about to be published. It stays
// marked.
func (f *Inflight) complete(head uint16) {
	f.links[head] = f.batch
	f.a.Put64(f.entry(head), 1|uint64(f.batch)<<48)
	if f.points != nil {
		f.points(PointLinked)
	}
	f.batch = head
	f.head()
}

// published takes the marks off the n requests that used.idx, now used, has shown
// to the driver.
func (f *Inflight) published(n int, used uint16) {
	for i := f.batch; n > 0; n-- {
		f.a.Put64(f.entry(i), uint64(f.links[i])<<48)
		i = f.links[i]
		if f.points != nil {
			f.points(PointCleared)
		}
	}
	f.used = used
	f.head()
}
