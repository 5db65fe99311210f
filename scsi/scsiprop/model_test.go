package scsiprop

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// kind is what one command does to, or learns of, one block.
type kind uint8

const (
	equal    kind = iota // the block holds w
	notEqual             // it does not
	write                // now it holds w
	or                   // w was or'ed to it
	swap                 // it held old, now it holds w
	// The same for commands that did not end well: they were aborted, or the store
	// failed. They may have happened, all the same before their end.
	maybeWrite
	maybeOr
	maybeSwap
	// A copy of a block reads it at one moment and writes the other one at a later one.
	copyRead
	copyWrite
	maybeCopy // the second, or nothing
)

func (k kind) String() string {
	return [...]string{"is", "is not", "write", "or", "swap", "write?", "or?", "swap?", "copied from", "copied to", "copied to?"}[k]
}

// fact is one kind about one block.
type fact struct {
	lba    int // see all
	kind   kind
	w, old uint64
	client int    // whose copy
	what   string // the command, for people
}

func (f fact) String() string {
	if f.kind >= copyRead {
		return fmt.Sprintf("%s: block %d %v, by client %d", f.what, f.lba, f.kind, f.client)
	}
	return fmt.Sprintf("%s: block %d %v %x (%x)", f.what, f.lba, f.kind, f.w, f.old)
}

// state is that of a block, or of two between which there are copies.
type state struct {
	w    [2]uint64
	held uint32          // the clients whose copies have read, and not written yet
	read [clients]uint64 // what
}

// with is s with w in block i.
func (s state) with(i int, w uint64) state {
	s.w[i] = w
	return s
}

// model is the block a, or a and b. Reading is exact; what may have happened leads to two
// states.
func model(a, b int, first *[all]uint64) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{w: [2]uint64{first[a], first[b]}}} },
		Step: func(is, input, _ any) []any {
			s, f := is.(state), input.(fact)
			i := 0
			if f.lba != a {
				i = 1
			}
			now := s.w[i]
			switch f.kind {
			case equal:
				if now != f.w {
					return nil
				}
			case notEqual:
				if now == f.w {
					return nil
				}
			case write:
				return []any{s.with(i, f.w)}
			case or:
				return []any{s.with(i, now|f.w)}
			case swap:
				if now != f.old {
					return nil
				}
				return []any{s.with(i, f.w)}
			case maybeWrite:
				return []any{s, s.with(i, f.w)}
			case maybeOr:
				return []any{s, s.with(i, now|f.w)}
			case maybeSwap:
				if now == f.old {
					return []any{s, s.with(i, f.w)}
				}
			case copyRead:
				s.held |= 1 << f.client
				s.read[f.client] = now
			case copyWrite, maybeCopy:
				if s.held>>f.client&1 == 0 {
					return nil
				}
				w := s.read[f.client]
				s.held, s.read[f.client] = s.held&^(1<<f.client), 0
				if f.kind == copyWrite {
					return []any{s.with(i, w)}
				}
				return []any{s, s.with(i, w)}
			}
			return []any{s}
		},
		DescribeOperation: func(input, _ any) string { return input.(fact).String() },
		DescribeState:     func(is any) string { return fmt.Sprintf("%x", is.(state).w) },
	}
	return m.ToModel()
}

// history is what is known of all blocks.
type history struct {
	of [all][]porcupine.Operation
}

func (h *history) add(client int, call, ret int64, facts []fact) {
	for _, f := range facts {
		h.of[f.lba] = append(h.of[f.lba], porcupine.Operation{ClientId: client, Input: f, Call: call, Return: ret})
	}
}

// checkLimit bounds the search for an order; they take milliseconds.
const checkLimit = 60 * time.Second

// check reports the blocks whose history has no order that explains it. first are the
// words that the blocks held before.
func (h *history) check(tb testing.TB, first *[all]uint64) {
	tb.Helper()
	for lba := range h.of {
		other := partner(lba)
		if other < lba {
			continue // with that one
		}
		ops := h.of[lba]
		if other != lba {
			ops = slices.Concat(ops, h.of[other])
		}
		m := model(lba, other, first)
		switch porcupine.CheckOperationsTimeout(m, ops, checkLimit) {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			tb.Errorf("block %d: no answer about its %d operations within %v", lba, len(ops), checkLimit)
			continue
		}
		tb.Errorf("block %d: no order explains what was seen; it held %x before, and its partner %d %x", lba, first[lba], other, first[other])
		for _, o := range shortest(m, ops) {
			tb.Logf("  [%d, %d] nexus lane %d: %v", o.Call, o.Return, o.ClientId, o.Input)
		}
	}
}

// shortest cuts what nobody needs to see off the end of an illegal history.
func shortest(m porcupine.Model, ops []porcupine.Operation) []porcupine.Operation {
	for n := len(ops) - 1; n > 0; n-- {
		last := 0
		for i := range ops {
			if ops[i].Return > ops[last].Return {
				last = i
			}
		}
		// A prefix is all that ended before some moment; what was under way then may
		// or may not have happened: such operations must stay.
		o := ops[last]
		less := append(append([]porcupine.Operation(nil), ops[:last]...), ops[last+1:]...)
		if f := o.Input.(fact); f.kind != equal && f.kind != notEqual {
			break
		}
		if porcupine.CheckOperationsTimeout(m, less, checkLimit) != porcupine.Illegal {
			break
		}
		ops = less
	}
	if len(ops) > 60 {
		ops = ops[len(ops)-60:]
	}
	return ops
}

// TestModel: the model itself, on histories that are told by hand.
func TestModel(t *testing.T) {
	type op struct {
		call, ret int64
		f         fact
	}
	for _, c := range []struct {
		name string
		ops  []op
		ok   bool
	}{
		{"a write is seen", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: equal, w: 7}}}, true},
		{"and stays", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: equal, w: 7}}, {5, 6, fact{kind: equal}}}, false},
		{"a lost one", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: equal}}}, false},
		{"at once", []op{{1, 4, fact{kind: write, w: 7}}, {2, 3, fact{kind: equal}}}, true},
		{"an aborted one may be lost", []op{{1, 2, fact{kind: maybeWrite, w: 7}}, {3, 4, fact{kind: equal}}}, true},
		{"or not", []op{{1, 2, fact{kind: maybeWrite, w: 7}}, {3, 4, fact{kind: equal, w: 7}}}, true},
		{"but not come late", []op{{1, 2, fact{kind: maybeWrite, w: 7}}, {3, 4, fact{kind: equal}}, {5, 6, fact{kind: equal, w: 7}}}, false},
		{"two swaps of one value", []op{{1, 4, fact{kind: swap, w: 7}}, {2, 3, fact{kind: swap, w: 8}}}, false},
		{"one fails", []op{{1, 4, fact{kind: swap, w: 7}}, {2, 3, fact{kind: notEqual}}}, true},
		{"or", []op{{1, 2, fact{kind: or, w: 6}}, {3, 4, fact{kind: or, w: 1}}, {5, 6, fact{kind: equal, w: 7}}}, true},
		{"a copy", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: copyRead}}, {3, 4, fact{lba: 1, kind: copyWrite}}, {5, 6, fact{lba: 1, kind: equal, w: 7}}}, true},
		{"a lost one", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: copyRead}}, {3, 4, fact{lba: 1, kind: copyWrite}}, {5, 6, fact{lba: 1, kind: equal}}}, false},
		{"of what came later", []op{{1, 2, fact{kind: copyRead}}, {1, 2, fact{lba: 1, kind: copyWrite}}, {3, 4, fact{kind: write, w: 7}}, {5, 6, fact{lba: 1, kind: equal, w: 7}}}, false},
		{"over what came in between", []op{{1, 8, fact{kind: copyRead}}, {1, 8, fact{lba: 1, kind: copyWrite}}, {3, 4, fact{lba: 1, kind: write, w: 7}}, {9, 10, fact{lba: 1, kind: equal}}}, true},
		{"there and back at once", []op{{1, 2, fact{kind: write, w: 7}}, {3, 8, fact{kind: copyRead}}, {3, 8, fact{lba: 1, kind: copyWrite}},
			{3, 8, fact{lba: 1, kind: copyRead, client: 1}}, {3, 8, fact{kind: copyWrite, client: 1}}, {9, 10, fact{kind: equal}}, {11, 12, fact{lba: 1, kind: equal, w: 7}}}, true},
		{"of nothing", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: copyRead}}, {3, 4, fact{lba: 1, kind: copyWrite}}, {5, 6, fact{lba: 1, kind: equal, w: 8}}}, false},
		{"an aborted one may be lost", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: copyRead}}, {3, 4, fact{lba: 1, kind: maybeCopy}}, {5, 6, fact{lba: 1, kind: equal}}}, true},
		{"or not", []op{{1, 2, fact{kind: write, w: 7}}, {3, 4, fact{kind: copyRead}}, {3, 4, fact{lba: 1, kind: maybeCopy}}, {5, 6, fact{lba: 1, kind: equal, w: 7}}}, true},
		{"a lost or", []op{{1, 4, fact{kind: or, w: 6}}, {2, 3, fact{kind: or, w: 1}}, {5, 6, fact{kind: equal, w: 6}}}, false},
	} {
		var h history
		for _, o := range c.ops {
			h.add(0, o.call, o.ret, []fact{o.f})
		}
		if got := porcupine.CheckOperations(model(0, 1, new([all]uint64)), slices.Concat(h.of[0], h.of[1])); got != c.ok {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
