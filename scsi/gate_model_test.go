package scsi

import (
	"fmt"
	"testing"
)

// A model of the gate's protocol (gate.go), small enough to try every
// interleaving: submitters with a counter each, and one exclusive task that sets
// the gate and waits for all counters. A step is one atomic operation, or one under
// the mutex; the counters are read one by one.
//
// Checked in every state: the exclusive task runs alone. Checked in every state
// without a successor: everybody has ended, so no wake-up was lost.

const modelSubmitters = 2

type gateVariant struct {
	name string
	// loadFirst: submit reads the gate before it bumps its counter.
	loadFirst bool
	// lateEnd: an end reads the gate before it lowers its counter.
	lateEnd bool
	// silentUndo: a bump that is taken back is not followed by schedule.
	silentUndo bool
	// lateGate: the exclusive task reads the counters before it sets the gate.
	lateGate bool
}

// Where a submitter is.
const (
	mStart = iota
	mSecond
	mDecide
	mLock // wants the mutex, to queue up
	mWait
	mRun
	mEnd1
	mEnd2
	mPoke // wants the mutex, to schedule
	mDone
)

// Where the exclusive task is.
const (
	xStart = iota
	xWait
	xRun
	xDone
)

// gateState is everything; comparable.
type gateState struct {
	pc   [modelSubmitters]uint8
	saw  [modelSubmitters]bool // the gate as it was read
	cnt  [modelSubmitters]int8
	x    uint8
	gate bool
	// holder of the mutex is in schedule: 0 free, i+1 submitter i, n+1 the
	// exclusive task.
	holder uint8
	read   uint8 // counters that schedule has read, all zero
	queued [modelSubmitters]bool
}

func (s *gateState) next(v *gateVariant) (out []gateState) {
	const ex = modelSubmitters + 1
	if s.holder != 0 {
		// Only the holder's steps are listed here; the others' atomic steps
		// go on below.
		n := *s
		switch {
		case s.x == xWait && int(s.read) < modelSubmitters:
			if s.cnt[s.read] != 0 {
				n.holder, n.read = 0, 0
			} else {
				n.read++
			}
		case s.x == xWait:
			n.x, n.gate = xRun, true
			n.holder, n.read = 0, 0
		case s.x == xRun || s.x == xStart:
			// Before xStart nobody waits: those that queued may go.
			if s.x == xStart {
				for i := range n.queued {
					if n.queued[i] {
						n.queued[i] = false
						n.cnt[i]++
						n.pc[i] = mRun
					}
				}
			}
			n.holder, n.read = 0, 0
		default: // ended: everybody goes, the gate opens
			for i := range n.queued {
				if n.queued[i] {
					n.queued[i] = false
					n.cnt[i]++
					n.pc[i] = mRun
				}
			}
			n.gate = false
			n.holder, n.read = 0, 0
		}
		out = append(out, n)
	}
	free := s.holder == 0
	switch s.x {
	case xStart:
		if free {
			n := *s
			n.x = xWait
			n.gate = !v.lateGate
			n.holder, n.read = ex, 0
			out = append(out, n)
		}
	case xWait:
		if v.lateGate && free && !s.gate {
			n := *s
			n.gate = true
			out = append(out, n)
		}
	case xRun:
		if free {
			n := *s
			n.x = xDone
			n.holder = ex
			out = append(out, n)
		}
	}
	for i := range s.pc {
		n := *s
		bump := func() { n.cnt[i]++ }
		load := func() { n.saw[i] = s.gate }
		switch s.pc[i] {
		case mStart:
			if v.loadFirst {
				load()
			} else {
				bump()
			}
			n.pc[i] = mSecond
		case mSecond:
			if v.loadFirst {
				bump()
			} else {
				load()
			}
			n.pc[i] = mDecide
		case mDecide:
			if s.saw[i] {
				n.cnt[i]--
				n.pc[i] = mLock
			} else {
				n.pc[i] = mRun
			}
		case mLock:
			if !free {
				continue
			}
			if s.x == xStart || s.x == xDone {
				n.cnt[i]++
				n.pc[i] = mRun
			} else {
				n.queued[i] = true
				n.pc[i] = mWait
			}
			if !v.silentUndo {
				n.holder, n.read = uint8(i+1), 0
			}
		case mRun:
			n.pc[i] = mEnd1
		case mEnd1:
			if v.lateEnd {
				load()
			} else {
				n.cnt[i]--
			}
			n.pc[i] = mEnd2
		case mEnd2:
			if v.lateEnd {
				n.cnt[i]--
			} else {
				load()
			}
			n.pc[i] = mDone
			if n.saw[i] {
				n.pc[i] = mPoke
			}
		case mPoke:
			if !free {
				continue
			}
			n.pc[i] = mDone
			n.holder, n.read = uint8(i+1), 0
		default:
			continue
		}
		out = append(out, n)
	}
	return out
}

func (s *gateState) check() error {
	if s.x == xRun {
		for i, pc := range s.pc {
			if pc == mRun {
				return fmt.Errorf("submitter %d runs beside the exclusive task", i)
			}
		}
	}
	return nil
}

func (s *gateState) ended() bool {
	if s.x != xDone || s.gate {
		return false
	}
	for i := range s.pc {
		if s.pc[i] != mDone || s.cnt[i] != 0 {
			return false
		}
	}
	return true
}

// explore tries every interleaving; states is how many there are.
func (v *gateVariant) explore() (states int, err error) {
	seen := map[gateState]bool{}
	todo := []gateState{{}}
	seen[todo[0]] = true
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := s.check(); err != nil {
			return len(seen), fmt.Errorf("%w: %+v", err, s)
		}
		next := s.next(v)
		if len(next) == 0 && !s.ended() {
			return len(seen), fmt.Errorf("nothing goes on: %+v", s)
		}
		for _, n := range next {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return len(seen), nil
}

// TestGateModel: the protocol holds, and each of its orders is needed.
func TestGateModel(t *testing.T) {
	n, err := (&gateVariant{}).explore()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states", n)
	if n < 500 {
		t.Errorf("only %d states: the model does not interleave", n)
	}
	for _, v := range []gateVariant{
		{name: "the gate is read before the bump", loadFirst: true},
		{name: "the gate is read before the counter is lowered", lateEnd: true},
		{name: "an undone bump is not followed by schedule", silentUndo: true},
		{name: "the counters are read before the gate is set", lateGate: true},
	} {
		if _, err := v.explore(); err == nil {
			t.Errorf("%s: no fault was found", v.name)
		} else {
			t.Logf("%s: %v", v.name, err)
		}
	}
}
