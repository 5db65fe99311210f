package vring

import (
	"cmp"
	"fmt"
	"slices"
)

// The record of one packed queue. Used elements are written over descriptors of chains
// that are in flight, so the record has copies of these. The front end does not look into
// the region; this layout is vtgt's own, and its version is none of the protocol's:
//
//	features 8
//	version 2, entries 2, batch 2 (the newest entry of the batch under way), used 2 (a place)
//	then each entry:
//	mark 1, pad 1, link 2 (the chain's next entry), batch 2 (the next older one), num 2
//	counter 8
//	the descriptor: addr 8, len 4, flags 2, id 2
//
// The first entry of a chain has mark, batch, num and counter. Which entries are free
// follows from the marks.
//
// A batch is published by one store into the ring, of the element at used. Until then
// that element is one that the driver has made available in this lap, with its USED bit
// unlike the lap's; from then on, whatever the driver makes of it, the bit is the lap's.
// That tells the process that comes after a crash whether the batch was published.
const (
	packedEntry   = 32
	packedVersion = 0x4001
	noEntry       = 0xffff
)

type packedInflight struct {
	f     *Inflight
	n     int // entries
	size  int // of the ring
	used  place
	batch uint16
	free  []uint16
	head  []uint16 // by buffer id: the first entry
	links []uint16 // by entry: next of its chain
	older []uint16 // by entry: of the batch
	num   []uint16 // by entry: of the chain that it begins
}

func (k *packedInflight) entry(i uint16) int { return infDesc + packedEntry*int(i) }

func (k *packedInflight) header() {
	k.f.a.Put64(infHeader, packedVersion|uint64(k.n)<<16|uint64(k.batch)<<32|uint64(k.used)<<48)
}

func (k *packedInflight) word(e uint16, mark uint64) {
	k.f.a.Put64(k.entry(e), mark|uint64(k.links[e])<<16|uint64(k.older[e])<<32|uint64(k.num[e])<<48)
}

// attachPacked brings the record in line with the ring, whose places it sets where it is
// not new.
func (f *Inflight) attachPacked(r *Ring) (int, error) {
	n := min((f.a.Len()-infDesc)/packedEntry, MaxSize)
	if r.size > n {
		return 0, fmt.Errorf("inflight region: it has room for packed queues of %d entries, the ring has %d", n, r.size)
	}
	k := &packedInflight{f: f, n: n, size: r.size, batch: noEntry,
		head: make([]uint16, r.size), links: make([]uint16, n), older: make([]uint16, n), num: make([]uint16, n), free: make([]uint16, 0, n)}
	f.pk, f.heads = k, nil
	w := f.a.Load64(infHeader)
	version := uint16(w)
	if version == 0 {
		for i := range n {
			f.a.Put64(k.entry(uint16(i)), 0)
		}
		k.used = r.pk.shown
		k.header()
		k.refill(nil)
		return 0, nil
	}
	f.found = true
	if version != packedVersion || int(uint16(w>>16)) != n {
		return 0, fmt.Errorf("inflight region: version %d for queues of %d entries; this is version %d for %d", version, uint16(w>>16), packedVersion, n)
	}
	if k.used = place(w >> 48); k.used.at() >= r.size {
		return 0, &Violation{Kind: InflightRecord, Head: -1, Index: k.used.at(), Value: w}
	}
	if err := k.settle(r, uint16(w>>32)); err != nil {
		return 0, err
	}
	return k.collect(r)
}

// settle takes the marks off a batch that was published by a process that ended before it
// took them off itself.
func (k *packedInflight) settle(r *Ring, batch uint16) error {
	a := k.f.a
	flags := r.desc.Load16(16*k.used.at() + 14)
	if batch != noEntry && flags&packedUsed != 0 == k.used.wrap() {
		sum := 0
		for e, n := batch, 0; e != noEntry; n++ {
			if int(e) >= k.n || n >= k.n {
				return &Violation{Kind: InflightRecord, Head: -1, Index: int(e), Value: uint64(batch), Err: errBatch}
			}
			w := a.Load64(k.entry(e))
			if sum += int(w >> 48); sum > r.size {
				return &Violation{Kind: InflightRecord, Head: -1, Index: int(e), Value: w, Err: errBatch}
			}
			a.Put64(k.entry(e), w&^0xff)
			e = uint16(w >> 32)
		}
		k.used = k.used.add(sum, r.size)
	}
	k.batch = noEntry
	k.header()
	return nil
}

// collect finds what is in flight, and where the ring goes on.
func (k *packedInflight) collect(r *Ring) (int, error) {
	a, p := k.f.a, r.pk
	type mark struct {
		id      uint16
		counter uint64
	}
	var marks []mark
	taken := make([]bool, k.n)
	for i := range k.n {
		w := a.Load64(k.entry(uint16(i)))
		if uint8(w) == 0 {
			continue
		}
		bad := &Violation{Kind: InflightRecord, Head: -1, Index: i, Value: w}
		num := int(w >> 48)
		if num == 0 || p.slots+num > r.size {
			return 0, bad
		}
		k.num[i], k.older[i] = uint16(num), noEntry
		e := uint16(i)
		for left := num; ; left-- {
			if int(e) >= k.n || taken[e] {
				return 0, bad
			}
			taken[e] = true
			if left == 1 {
				break
			}
			k.links[e] = uint16(a.Load64(k.entry(e)) >> 16)
			e = k.links[e]
		}
		id := uint16(a.Load64(k.entry(e)+24) >> 48)
		if int(id) >= r.size || p.num[id] != 0 {
			return 0, bad
		}
		p.num[id], k.head[id] = uint16(num), uint16(i)
		p.slots += num
		c := a.Load64(k.entry(uint16(i)) + 8)
		k.f.counter = max(k.f.counter, c+1)
		marks = append(marks, mark{id, c})
	}
	k.refill(taken)
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.counter, b.counter) })
	for _, m := range marks {
		k.f.heads = append(k.f.heads, m.id)
	}
	p.shown, p.fill = k.used, k.used
	p.next = k.used.add(p.slots, r.size)
	// Used elements of a batch that was not published stand there, all but its first:
	// the driver would take them for answers as soon as it comes by. What was in
	// their places is in the record.
	for i := range p.slots {
		at := k.used.add(i, r.size)
		r.desc.Put16(16*at.at()+14, at.waiting())
	}
	return len(marks), nil
}

// refill makes the entries that are not taken free.
func (k *packedInflight) refill(taken []bool) {
	for i := k.n - 1; i >= 0; i-- {
		if taken == nil || !taken[i] {
			k.free = append(k.free, uint16(i))
		}
	}
}

// submit marks a chain. There are entries for all elements of the ring.
func (k *packedInflight) submit(id uint16, ds []desc) {
	a := k.f.a
	first := len(k.free) - len(ds)
	es := k.free[first:]
	for i, d := range ds {
		e := es[i]
		a.Put64(k.entry(e)+16, d.lo)
		a.Put64(k.entry(e)+24, d.hi)
		if k.links[e], k.older[e], k.num[e] = noEntry, noEntry, 0; i+1 < len(es) {
			k.links[e] = es[i+1]
		}
		if i > 0 {
			k.word(e, 0)
		}
	}
	e := es[0]
	k.head[id], k.num[e] = e, uint16(len(ds))
	a.Put64(k.entry(e)+8, k.f.counter)
	k.f.counter++
	k.word(e, 1)
	k.free = k.free[:first]
}

// complete puts a chain into the batch that is about to be published. It stays marked.
func (k *packedInflight) complete(id uint16) {
	e := k.head[id]
	k.older[e] = k.batch
	k.word(e, 1)
	if k.f.points != nil {
		k.f.points(PointLinked)
	}
	k.batch = e
	k.header()
}

// published takes the marks off the n chains of the batch.
func (k *packedInflight) published(n int, used place) {
	e := k.batch
	for range n {
		k.word(e, 0)
		e = k.older[e]
		if k.f.points != nil {
			k.f.points(PointCleared)
		}
	}
	e = k.batch
	k.batch, k.used = noEntry, used
	k.header()
	// Only now may entries be used for something else.
	for range n {
		older := k.older[e]
		for left := k.num[e]; left > 0; left-- {
			k.free = append(k.free, e)
			e = k.links[e]
		}
		e = older
	}
}

// chain appends the descriptors of a chain in flight to ds, as they were when it was
// taken.
func (k *packedInflight) chain(id uint16, ds []desc) []desc {
	e := k.head[id]
	for left := k.num[e]; left > 0; left-- {
		ds = append(ds, desc{k.f.a.Load64(k.entry(e) + 16), k.f.a.Load64(k.entry(e) + 24)})
		e = k.links[e]
	}
	return ds
}
