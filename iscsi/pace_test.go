package iscsi

import "testing"

func TestPace(t *testing.T) {
	var p pace
	total := uint64(0)
	step := func(n, open int) bool {
		total += uint64(n)
		return p.waits(total, open)
	}
	for range 3 {
		if !step(1, 0) || !step(2, 0) {
			t.Error("one command at a time, and no wait")
		}
		if step(0, 0) {
			t.Error("a flush of nothing: a wait")
		}
		if step(1, 1) {
			t.Error("a wait with a command under way")
		}
	}
	step(32, 0)
	for i := range deepFor {
		step(0, 0) // does not count
		if step(1, 0) {
			t.Fatalf("a wait %d flushes after 32 commands at once", i)
		}
	}
	if !step(1, 0) {
		t.Error("deep for ever")
	}
}
