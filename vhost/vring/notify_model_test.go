package vring

import (
	"fmt"
	"testing"
)

// A model of the notification protocol (notify.go and the driver's counterpart),
// small enough to try every interleaving. One producer shows entries by storing
// its index and asks whether to notify; one consumer takes them, and before it
// sleeps says at which index it wants to be woken. It stands for both directions:
// avail.idx with avail_event, and used.idx with used_event.
//
// Memory is that of a processor with store buffers (x86): each side's stores reach
// the other late and in order, its own loads see them at once. An atomic store or a
// barrier waits until they have.
//
// Checked in every state without a successor: everything was produced and taken,
// so no wake-up was lost.

const (
	modelItems = 4
	modelStart = 0xfffe // the indices wrap
)

type notifyVariant struct {
	name       string
	flags      bool // suppression by flags instead of event idx
	noBarrier  bool // the consumer looks again without a barrier
	lookFirst  bool // the consumer looks again before it says where to wake it
	noLook     bool // the consumer does not look again
	plainIndex bool // the producer's index is a plain store
	askFirst   bool // the producer asks before it stores its index
	late       bool // the comparison is off by one
	ok         bool
}

// buffer is a store buffer of at most two entries, oldest first.
type buffer struct {
	n int8
	v [2]uint16
}

func (b *buffer) put(v uint16) bool {
	if int(b.n) == len(b.v) {
		return false
	}
	b.v[b.n] = v
	b.n++
	return true
}

// see is what the buffer's owner loads of a word that is mem to others.
func (b *buffer) see(mem uint16) uint16 {
	if b.n == 0 {
		return mem
	}
	return b.v[b.n-1]
}

// notifyState is everything; comparable. Each side stores to one word only.
type notifyState struct {
	idx, event uint16 // as the other side sees them
	pb, cb     buffer // not yet seen: producer's idx, consumer's event
	kick       bool   // the eventfd
	p, c       uint8  // where each side is
	asked      uint16 // the event index that the producer has read
	old, new   uint16 // the producer's last two indices
	next       uint16 // the consumer's
}

// The producer.
const (
	pStart  = iota
	pFence  // wait for the store
	pAsk    // read the event index
	pDecide // notify or not
	pStoreL // askFirst: the store comes after the question
	pDone
)

// The consumer.
const (
	cTake  = iota
	cWant  // say where to be woken
	cFence // barrier
	cLook  // look again
	cSleep
	cSuppress // flags: no notification while awake
)

func (v *notifyVariant) next(s notifyState) (out []notifyState) {
	add := func(f func(n *notifyState)) {
		n := s
		f(&n)
		out = append(out, n)
	}
	// The store buffers drain whenever they like.
	if s.pb.n > 0 {
		add(func(n *notifyState) { n.idx = s.pb.v[0]; n.pb.v[0], n.pb.v[1] = s.pb.v[1], 0; n.pb.n-- })
	}
	if s.cb.n > 0 {
		add(func(n *notifyState) { n.event = s.cb.v[0]; n.cb.v[0], n.cb.v[1] = s.cb.v[1], 0; n.cb.n-- })
	}
	end := uint16(modelStart)
	end += modelItems
	switch s.p {
	case pStart:
		if s.new == end {
			add(func(n *notifyState) { n.p = pDone })
			break
		}
		// Batches of every length.
		for k := uint16(1); k <= end-s.new; k++ {
			n := s
			n.old, n.new = s.new, s.new+k
			if v.askFirst {
				n.asked, n.p = s.event, pStoreL
				out = append(out, n)
			} else if n.pb.put(n.new) {
				n.p = pFence
				if v.plainIndex {
					n.p = pAsk
				}
				out = append(out, n)
			}
		}
	case pFence:
		if s.pb.n == 0 {
			add(func(n *notifyState) { n.p = pAsk })
		}
	case pAsk:
		add(func(n *notifyState) { n.asked, n.p = s.event, pDecide })
	case pStoreL:
		n := s
		if n.pb.put(n.new) {
			n.p = pDecide
			out = append(out, n)
		}
	case pDecide:
		add(func(n *notifyState) {
			need := needEvent(s.asked, s.new, s.old)
			if v.flags {
				need = s.asked == 0
			}
			if v.late {
				need = needEvent(s.asked+1, s.new, s.old)
			}
			n.kick = n.kick || need
			n.p = pStart
		})
	}
	want := s.next
	if v.flags {
		want = 0 // notify me
	}
	switch s.c {
	case cTake:
		add(func(n *notifyState) {
			if s.idx != s.next {
				n.next++
			} else if n.c = cWant; v.lookFirst {
				n.c = cLook
			}
		})
	case cWant:
		n := s
		if !n.cb.put(want) {
			break
		}
		n.c = cFence
		switch {
		case v.lookFirst || v.noLook:
			n.c = cSleep
		case v.noBarrier:
			n.c = cLook
		}
		out = append(out, n)
	case cFence:
		if s.cb.n == 0 {
			add(func(n *notifyState) { n.c = cLook })
		}
	case cLook:
		add(func(n *notifyState) {
			switch {
			case s.idx != s.next:
				n.c = cTake
				if v.flags {
					n.c = cSuppress
				}
			case v.lookFirst:
				n.c = cWant
			default:
				n.c = cSleep
			}
		})
	case cSleep:
		if s.kick {
			add(func(n *notifyState) {
				n.kick, n.c = false, cTake
				if v.flags {
					n.c = cSuppress
				}
			})
		}
	case cSuppress:
		n := s
		if n.cb.put(1) {
			n.c = cTake
			out = append(out, n)
		}
	}
	return out
}

// lost looks for a state in which nothing goes on and something was not taken.
func (v *notifyVariant) lost() (bad string, states int) {
	start := notifyState{idx: modelStart, event: modelStart, old: modelStart, new: modelStart, next: modelStart}
	if v.flags {
		start.event = 1 // awake, no notification wanted
	}
	seen := map[notifyState]bool{start: true}
	todo := []notifyState{start}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		succ := v.next(s)
		if len(succ) == 0 {
			if s.p != pDone || s.next != s.new || s.c != cSleep {
				return fmt.Sprintf("%+v", s), len(seen)
			}
			continue
		}
		for _, n := range succ {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return "", len(seen)
}

func TestNotifyModel(t *testing.T) {
	for _, v := range []notifyVariant{
		{name: "event idx", ok: true},
		{name: "flags", flags: true, ok: true},
		{name: "no barrier", noBarrier: true},
		{name: "looks again first", lookFirst: true},
		{name: "does not look again", noLook: true},
		{name: "index by a plain store", plainIndex: true},
		{name: "asks first", askFirst: true},
		{name: "off by one", late: true},
		{name: "flags, no barrier", flags: true, noBarrier: true},
		{name: "flags, looks again first", flags: true, lookFirst: true},
		{name: "flags, asks first", flags: true, askFirst: true},
	} {
		bad, n := v.lost()
		t.Logf("%s: %d states: %s", v.name, n, bad)
		if v.ok && bad != "" {
			t.Errorf("%s: a wake-up is lost: %s", v.name, bad)
		}
		if !v.ok && bad == "" {
			t.Errorf("%s: the defect was not found", v.name)
		}
	}
}

func TestNeedEvent(t *testing.T) {
	// By counting, over every distance that a ring can have and the wrap.
	for _, old := range []uint16{0, 1, 0x7fff, 0x8000, 0xfffc, 0xffff} {
		for n := uint16(1); n < 9; n++ {
			for d := -12; d <= 12; d++ {
				event := old + uint16(d)
				want := false
				for i := uint16(0); i < n; i++ {
					want = want || old+i == event
				}
				if got := needEvent(event, old+n, old); got != want {
					t.Errorf("event %d, %d to %d: %v", event, old, old+n, got)
				}
			}
		}
	}
}
