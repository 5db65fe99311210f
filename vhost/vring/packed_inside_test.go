package vring

import "testing"

// TestPackedPassed holds the arithmetic of places and laps against plain counters: with
// it the notification of a packed ring is that of notify_model_test.go, in which every
// interleaving is tried.
func TestPackedPassed(t *testing.T) {
	for size := 1; size <= 9; size++ {
		at := func(count int) place { return place(placeWrap).add(0, size).from(count, size) }
		for old := 2 * size; old < 4*size; old++ {
			for n := 1; n <= size; n++ {
				for event := old + n - size; event <= old+n; event++ {
					want := event >= old && event < old+n
					if got := at(old+n).passed(at(event), n, size); got != want {
						t.Fatalf("size %d, from %d to %d, event %d: %v", size, old, old+n, event, got)
					}
				}
			}
		}
	}
}

// from is the place count elements further, any number.
func (p place) from(count, size int) place {
	for range count {
		p = p.add(1, size)
	}
	return p
}

// TestPackedPlaces: adding steps at once is adding them one by one, and elements are
// available and used as the lap says.
func TestPackedPlaces(t *testing.T) {
	const size = 5
	p := place(placeWrap)
	for range 4 * size {
		for n := range size + 1 {
			if p.add(n, size) != p.from(n, size) {
				t.Fatalf("%#x and %d", p, n)
			}
		}
		avail := uint16(packedUsed)
		if p.wrap() {
			avail = packedAvail
		}
		if !p.available(avail) || p.available(p.used()) || p.available(avail^packedAvail^packedUsed) {
			t.Fatalf("%#x", p)
		}
		p = p.add(1, size)
	}
}
