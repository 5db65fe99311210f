package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/xen/vscsiif"
)

func memory(t testing.TB) []byte {
	b, err := sys.MapAnonymous(Size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sys.Unmap(b) })
	return b
}

func testID() Identity {
	return Identity{Domain: 3, Device: 1, RingRef: 8, Port: 21, Boot: [16]byte{1, 15: 2}}
}

func request(id uint16) *vscsiif.Request {
	var q vscsiif.Request
	q.Set(id, vscsiif.ActCDB, vscsiif.Address{}, []byte{0x28, byte(id)}, vscsiif.FromDevice)
	return &q
}

// TestGolden holds the layout: another version of vtgt takes over from this one.
func TestGolden(t *testing.T) {
	b := memory(t)
	j, err := New(b, testID(), 0x10)
	if err != nil {
		t.Fatal(err)
	}
	j.Take(request(5))
	j.Take(request(6))
	j.Answer(1)
	want := make([]byte, Size)
	copy(want, "\x01VTGXJN1")
	want[8], want[12], want[16], want[20], want[24], want[39] = 3, 1, 8, 21, 1, 2
	want[40], want[44], want[48] = 0x12, 0x11, 0x10
	want[64], want[68] = 1, 0x10
	copy(want[80:], request(5)[:])
	want[336], want[340], want[344] = 2, 0x11, 0x10
	copy(want[352:], request(6)[:])
	if !bytes.Equal(b, want) {
		for i := range b {
			if b[i] != want[i] {
				t.Fatalf("byte %d is %#x, want %#x", i, b[i], want[i])
			}
		}
	}
}

func TestOthers(t *testing.T) {
	b := memory(t)
	if _, _, _, _, err := Open(b, testID(), 0); !errors.Is(err, ErrOther) {
		t.Error("zeros:", err)
	}
	j, err := New(b, testID(), 7)
	if err != nil {
		t.Fatal(err)
	}
	id := testID()
	id.RingRef++
	if _, _, _, _, err := Open(b, id, 7); !errors.Is(err, ErrOther) {
		t.Error("another ring:", err)
	}
	for _, rsp := range []uint32{6, 8, 1 << 31} {
		if _, _, _, _, err := Open(b, testID(), rsp); err == nil {
			t.Errorf("%d responses, of which none was given", rsp)
		}
	}
	if _, cons, prod, l, err := Open(b, testID(), 7); err != nil || cons != 7 || prod != 7 || len(l) != 0 {
		t.Error(cons, prod, l, err)
	}
	j.Forget()
	if _, _, _, _, err := Open(b, testID(), 7); !errors.Is(err, ErrOther) {
		t.Error("forgotten:", err)
	}
	if _, err := New(b[:100], testID(), 0); err == nil {
		t.Error("short")
	}
}

// TestDeath has the process die between any two steps: what was taken and not answered
// is found, in order, and nothing else.
func TestDeath(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b, snap := memory(t), memory(t)
	start := ^uint32(0) - 100 // wraps
	j, err := New(b, testID(), start)
	if err != nil {
		t.Fatal(err)
	}
	type req struct {
		id    uint16
		entry int
	}
	var open, answered []req // answered: not shown yet
	var id uint16
	rsp, next := start, start
	check := func(step string) {
		t.Helper()
		copy(snap, b)
		_, cons, prod, l, err := Open(snap, testID(), rsp)
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		want := slices.Concat(answered, open)
		slices.SortFunc(want, func(x, y req) int { return int(int16(x.id - y.id)) })
		if cons != start+uint32(id) || prod != rsp || len(l) != len(want) {
			t.Fatalf("%s: taken %d, answered %d, lost %d; want %d, %d, %d", step, cons, prod, len(l), start+uint32(id), rsp, len(want))
		}
		for i := range l {
			if l[i].Request != *request(want[i].id) {
				t.Fatalf("%s: request %d, want %d", step, l[i].Request.ID(), want[i].id)
			}
		}
		// Who takes over may die too.
		if _, _, _, m, err := Open(snap, testID(), rsp); err != nil || !slices.Equal(l, m) {
			t.Fatalf("%s: taken over twice: %d, then %d, %v", step, len(l), len(m), err)
		}
	}
	for range 3000 {
		switch k := r.IntN(4); {
		case k < 2 && len(open)+len(answered) < vscsiif.Entries:
			open = append(open, req{id, j.Take(request(id))})
			id++
			check("take")
		case k == 2 && len(open) > 0:
			i := r.IntN(len(open))
			q := open[i]
			open = slices.Delete(open, i, i+1)
			j.Answer(q.entry)
			answered = append(answered, q)
			next++
			check("answer")
		case k == 3:
			rsp, answered = next, nil // shown, not noted yet
			check("show")
			j.Shown()
			check("shown")
		}
	}
}

// TestDrop: a request that will never be answered is not found again.
func TestDrop(t *testing.T) {
	b := memory(t)
	j, _ := New(b, testID(), 0)
	j.Take(request(1))
	e := j.Take(request(2))
	j.Drop(e)
	if _, cons, _, l, err := Open(b, testID(), 0); err != nil || cons != 2 || len(l) != 1 || l[0].Request.ID() != 1 {
		t.Error(cons, l, err)
	}
}

func FuzzOpen(f *testing.F) {
	b := make([]byte, Size)
	j, _ := New(b, testID(), 3)
	j.Take(request(1))
	j.Answer(j.Take(request(2)))
	f.Add(b, uint32(3))
	f.Add(b[:100], uint32(0))
	f.Fuzz(func(t *testing.T, in []byte, rsp uint32) {
		b := memory(t)
		copy(b, in)
		j, cons, prod, l, err := Open(b, testID(), rsp)
		if err != nil {
			return
		}
		if prod != rsp || uint32(len(l)) > cons-prod || cons-prod > vscsiif.Entries {
			t.Fatal(cons, prod, len(l))
		}
		for len(l) < vscsiif.Entries { // there is room for what the ring may hold
			l = append(l, Lost{Entry: j.Take(request(9))})
		}
		for _, x := range l {
			j.Answer(x.Entry)
		}
		j.Shown()
		if _, _, _, l, err := Open(b, testID(), rsp+uint32(len(l))); err != nil || len(l) != 0 {
			t.Fatal(len(l), err)
		}
	})
}
