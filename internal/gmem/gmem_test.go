package gmem

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
)

const page = 4096

func memfd(t testing.TB, n int64) int {
	t.Helper()
	fd, err := sys.NewMemfd("gmem", n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return fd
}

// retire ends m and waits for it.
func retire(t testing.TB, m *Map) {
	t.Helper()
	done := make(chan struct{})
	m.Retire(func() { close(done) })
	wait(t, done)
}

func wait(t testing.TB, c chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(tempotest.Patience):
		t.Fatal("not retired")
	}
}

func mustMap(t testing.TB, s *Space, rs ...Region) *Map {
	t.Helper()
	m, err := s.Map(rs)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func touch(b []byte) { b[0]++ }

func TestMapRefuses(t *testing.T) {
	fd := memfd(t, 4*page)
	dir, err := sys.OpenFile(t.TempDir(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.CloseFile(dir)
	ok := Region{Guest: 0, Size: page, User: 1 << 40, FD: fd}
	for _, c := range []struct {
		name string
		rs   []Region
		want string
	}{
		{"empty", []Region{{FD: fd}}, "empty"},
		{"short", []Region{{Size: 5 * page, FD: fd}}, "16384 bytes only"},
		{"short by offset", []Region{{Size: page, Off: 4*page - 1, FD: fd}}, "16384 bytes only"},
		{"guest wraps", []Region{{Guest: math.MaxUint64 - 10, Size: page, FD: fd}}, "guest addresses wrap"},
		{"user wraps", []Region{{User: math.MaxUint64 - 10, Size: page, FD: fd}}, "user addresses wrap"},
		{"offset wraps", []Region{{Off: math.MaxUint64 - 10, Size: page, FD: fd}}, "offsets wrap"},
		{"offset beyond off_t", []Region{{Off: math.MaxInt64, Size: page, FD: fd}}, "offsets wrap"},
		{"size beyond all", []Region{{Size: math.MaxUint64, FD: fd}}, "wrap"},
		{"no file", []Region{{Size: page, FD: -1}}, "bad file descriptor"},
		{"directory", []Region{{Size: page, FD: dir}}, "directory"},
		{"second of two", []Region{ok, {Guest: 8 * page, User: 2 << 40, Size: 9 * page, FD: fd}}, "region 2 of 2"},
		{"guest overlap", []Region{ok, {Guest: page - 1, User: 2 << 40, Size: page, FD: fd}}, "overlap"},
		{"user overlap", []Region{ok, {Guest: 9 * page, User: 1<<40 + page - 1, Size: page, FD: fd}}, "overlap at the front end"},
		{"too many", make([]Region, MaxRegions+1), "512 are served"},
	} {
		s := NewSpace()
		_, err := s.Map(c.rs)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if all, mapped := s.Reserved(); mapped != 0 {
			t.Errorf("%s: %d of %d bytes still mapped", c.name, mapped, all)
		}
		if err := s.Close(); err != nil {
			t.Error(c.name, err)
		}
		if _, err := s.Map([]Region{ok}); !errors.Is(err, ErrClosed) {
			t.Error(c.name, err)
		}
	}
}

func TestTranslate(t *testing.T) {
	const G = 1 << 30
	fd := memfd(t, 8*page)
	s := NewSpace()
	// Two that touch, given out of order and from odd offsets, and one apart.
	m := mustMap(t, s,
		Region{Guest: G + 2*page, Size: 2 * page, User: 5 << 40, FD: fd, Off: 512},
		Region{Guest: G, Size: 2 * page, User: 7 << 40, FD: fd, Off: 4 * page},
		Region{Guest: math.MaxUint64 - 2*page, Size: page, User: 9 << 40, FD: fd})
	file := make([]byte, 8*page)
	for i := range file {
		file[i] = byte(i*7) ^ byte(i>>8)
	}
	if n, e := sys.Pwritev2(fd, sys.AppendIovecs(nil, [][]byte{file}), 0, 0); n != len(file) || e != 0 {
		t.Fatal(n, e)
	}
	whole := append(append([]byte(nil), file[4*page:6*page]...), file[512:512+2*page]...)
	at := func(a, n uint64) []byte { return whole[a-G : a-G+n] }

	for _, c := range []struct {
		a, n   uint64
		pieces int // -1: Why
		why    error
	}{
		{G, 1, 1, nil},
		{G, 2 * page, 1, nil},
		{G, 4 * page, 2, nil},
		{G + 2*page - 1, 2, 2, nil},
		{G + 4*page - 1, 1, 1, nil},
		{G + 4*page - 1, 2, -1, ErrOutside},
		{G - 1, 2, -1, ErrOutside},
		{0, 1, -1, ErrOutside},
		{G + 4*page, 1, -1, ErrOutside},
		{G, 1 << 40, -1, ErrOutside},
		{G, math.MaxUint64 - G, -1, ErrOutside},
		{G, math.MaxUint64 - G + 1, -1, ErrWrap},
		{math.MaxUint64, 1, -1, ErrWrap},
		{math.MaxUint64 - 2*page, page + 1, -1, ErrOutside},
		{math.MaxUint64, 0, 0, nil},
	} {
		first := [][]byte{{1}}
		got, err := m.Append(first, c.a, c.n, 3)
		if c.pieces < 0 {
			var ae *AddressError
			if !errors.Is(err, c.why) || !errors.As(err, &ae) || ae.Addr != c.a || len(got) != 1 {
				t.Errorf("%#x+%#x: %v %d", c.a, c.n, err, len(got))
			}
			continue
		}
		if err != nil || len(got) != 1+c.pieces {
			t.Errorf("%#x+%#x: %v, %d pieces", c.a, c.n, err, len(got)-1)
			continue
		}
		if c.n > 0 && !bytes.Equal(bytes.Join(got[1:], nil), at(c.a, c.n)) {
			t.Errorf("%#x+%#x: other bytes", c.a, c.n)
		}
		for _, p := range got[1:] {
			if cap(p) != len(p) {
				t.Errorf("%#x+%#x: a piece that can grow", c.a, c.n)
			}
		}
	}
	if _, err := m.Append(nil, G, 4*page, 1); !errors.Is(err, ErrPieces) {
		t.Error(err)
	}
	if b, err := m.Slice(G+page, page); err != nil || !bytes.Equal(b, at(G+page, page)) {
		t.Error(err)
	}
	for a, why := range map[uint64]error{G + page + 1: ErrSplit, G + 3*page + 1: ErrOutside, math.MaxUint64 - 3: ErrWrap} {
		if _, err := m.Slice(a, page); !errors.Is(err, why) {
			t.Errorf("%#x: %v, want %v", a, err, why)
		}
	}
	if b, err := m.User(5<<40+7, page); err != nil || !bytes.Equal(b, file[512+7:512+7+page]) {
		t.Error(err)
	}
	for u, why := range map[uint64]error{5<<40 + page + 1: ErrSplit, 5 << 41: ErrOutside, 0: ErrOutside, math.MaxUint64: ErrWrap} {
		if _, err := m.User(u, page); !errors.Is(err, why) {
			t.Errorf("user %#x: %v, want %v", u, err, why)
		}
	}
	retire(t, m)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPins(t *testing.T) {
	fd := memfd(t, 2*page)
	s := NewSpace()
	a := mustMap(t, s, Region{Size: page, FD: fd})
	b, err := s.Add(a, Region{Guest: page, User: page, Size: page, FD: fd, Off: page})
	if err != nil {
		t.Fatal(err)
	}
	q1, q2 := a.Pin(), a.Pin()
	q1.Take()
	q1.Take()
	done := make(chan struct{})
	a.Retire(func() { close(done) })
	a.Retire(func() { t.Error("retired twice") })
	if a.Pin() != nil {
		t.Error("pinned a retired generation")
	}
	q2.Leave()
	q2.Leave()
	q1.Leave()
	q1.Drop()
	select {
	case <-done:
		t.Fatal("retired with a request on it")
	case <-time.After(20 * time.Millisecond):
	}
	shared, _ := a.Slice(0, page)
	if err := Guard(s, touch, shared); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "2 generations") {
		t.Error(err)
	}
	q1.Drop()
	wait(t, done)
	// b holds the region still, at the same place.
	if err := Guard(s, touch, shared); err != nil {
		t.Fatal(err)
	}
	c, err := s.Remove(b, 0, 0, page)
	if err != nil || c.Len() != 1 || c.Region(0).Guest != page {
		t.Fatal(err)
	}
	if _, err := s.Remove(b, 0, 1, page); err == nil {
		t.Error("removed what is not there")
	}
	retire(t, b)
	var fe *FaultError
	if err := Guard(s, touch, shared); !errors.As(err, &fe) || fe.Region != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(b, Region{Guest: 9 * page, Size: page, FD: fd}); err == nil {
		t.Error("added to a generation that is over")
	}
	retire(t, c)
	if _, mapped := s.Reserved(); mapped != 0 {
		t.Error(mapped)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReuse: addresses come back, joined, and are lent again; a generation that is
// held keeps its own.
func TestReuse(t *testing.T) {
	fd := memfd(t, 64*page)
	s := NewSpace()
	keep := mustMap(t, s, Region{Size: page, FD: fd})
	p := keep.Pin()
	var all int64
	for i := range 50 {
		m := mustMap(t, s, Region{Size: 16 * page, FD: fd}, Region{Guest: 1 << 30, User: 1 << 30, Size: 48 * page, FD: fd, Off: uint64(i % 3)})
		m.Cut() // also in use
		m.Cut()
		retire(t, m)
		if n, _ := s.Reserved(); i == 0 {
			all = n
		} else if n != all {
			t.Fatalf("round %d: %d bytes reserved, %d before", i, n, all)
		}
	}
	if len(s.free) > 2 {
		t.Errorf("%d free pieces", len(s.free))
	}
	b, _ := keep.Slice(0, page)
	if err := Guard(s, touch, b); err != nil {
		t.Fatal(err)
	}
	p.Leave()
	retire(t, keep)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCut: a request that does not come back loses its memory, in Go code and in
// system calls; its addresses are not lent to anybody meanwhile.
func TestCut(t *testing.T) {
	fd := memfd(t, 4*page)
	s := NewSpace()
	a := mustMap(t, s, Region{Size: page, FD: fd}, Region{Guest: page, User: page, Size: page, FD: fd, Off: page})
	b, err := s.Remove(a, page, page, page)
	if err != nil {
		t.Fatal(err)
	}
	p := a.Pin()
	p.Take()
	p.Leave()
	both, _ := a.Append(nil, 0, 2*page, 2)
	done := make(chan struct{})
	a.Retire(func() { close(done) })
	a.Cut()
	if err := Guard(s, touch, both[0]); err != nil {
		t.Error("the region that stays was cut:", err)
	}
	var fe *FaultError
	if err := Guard(s, touch, both[1]); !errors.As(err, &fe) || !fe.Cut || fe.Region == nil || fe.Region.Guest != page || fe.Addr != page || fe.Generation != 1 {
		t.Fatal(err)
	}
	if !strings.Contains(fe.Error(), "cut off") {
		t.Error(fe)
	}
	if _, e := sys.Preadv2(fd, sys.AppendIovecs(nil, both[1:]), 0, 0); e != syscall.EFAULT {
		t.Errorf("a late read: %v", e)
	}
	c := mustMap(t, s, Region{Size: page, FD: fd, Off: 2 * page})
	x, _ := c.Slice(0, page)
	if addr(x) == addr(both[1]) {
		t.Error("lent addresses that a request holds")
	}
	p.Drop()
	wait(t, done)
	b.Cut()
	if err := Guard(s, touch, both[0]); err == nil {
		t.Error("not cut")
	}
	if _, err := s.Add(b, Region{Guest: 1 << 30, Size: page, FD: fd}); err == nil {
		t.Error("built on a region that was cut")
	}
	retire(t, b)
	retire(t, c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTruncate: a file made shorter fails who touches the lost part, by name, and
// nobody else: not the other generation, not the other space.
func TestTruncate(t *testing.T) {
	fd, fd2 := memfd(t, 4*page), memfd(t, 4*page)
	s, other := NewSpace(), NewSpace()
	m := mustMap(t, s, Region{Guest: 1 << 20, Size: 4 * page, User: 1 << 40, FD: fd})
	m2 := mustMap(t, s, Region{Guest: 1 << 20, Size: 4 * page, User: 1 << 40, FD: fd2})
	o := mustMap(t, other, Region{Size: 4 * page, FD: fd2})
	if err := sys.Ftruncate(fd, page); err != nil {
		t.Fatal(err)
	}
	get := func(m *Map, a uint64) []byte {
		b, err := m.Slice(a, 1)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, ok := range [][]byte{get(m, 1<<20), get(m2, 1<<20+2*page), get(o, 3*page)} {
		if err := Guard(s, touch, ok); err != nil {
			t.Error(err)
		}
	}
	var fe *FaultError
	lost, _ := m.Slice(1<<20+2*page+7, 16)
	if err := Guard(s, touch, lost); !errors.As(err, &fe) || fe.Addr != 1<<20+2*page+7 || fe.Generation != 1 || fe.Cut || !strings.Contains(err.Error(), "truncated") {
		t.Error(err)
	}
	for name, step := range map[string]func([]byte){
		"copy":   func(b []byte) { copy(make([]byte, 1), b) },
		"gather": func(b []byte) { Gather(make([]byte, 1), [][]byte{b}) },
		"load":   func(b []byte) { a, _ := NewArea(b, 1); a.Load128(0) },
	} {
		if err := Guard(s, step, lost); !errors.As(err, &fe) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, e := sys.Preadv2(fd2, sys.AppendIovecs(nil, [][]byte{lost}), 0, 0); e != syscall.EFAULT {
		t.Errorf("preadv: %v", e)
	}
	// A fault elsewhere, and a panic of another kind, are not ours to swallow.
	for _, step := range []func([]byte){
		func(b []byte) { panic("mine") },
		func(b []byte) { touch(get(o, 0)); b = nil; touch(b) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("swallowed")
				}
			}()
			t.Error("returned", Guard(s, step, lost))
		}()
	}
	if err := sys.Ftruncate(fd2, 0); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("another space's fault was swallowed")
			}
		}()
		Guard(s, touch, get(o, 0))
	}()
	if err := Guard(other, touch, get(o, 0)); !errors.As(err, &fe) {
		t.Error(err)
	}
	for _, m := range []*Map{m, m2, o} {
		retire(t, m)
	}
	if err := errors.Join(s.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestAdvice(t *testing.T) {
	fd := memfd(t, 4*page)
	s := NewSpace()
	m := mustMap(t, s, Region{Size: 4 * page, FD: fd})
	b, _ := m.Slice(0, page)
	check := func(what, perm string) {
		t.Helper()
		flags, got := vma(t, addr(b))
		if !strings.HasPrefix(got, perm) || !strings.Contains(flags, " dc") || !strings.Contains(flags, " dd") {
			t.Errorf("%s: permissions %s, flags%s: want %s with dc (not in children) and dd (not in dumps)", what, got, flags, perm)
		}
	}
	check("mapped", "rw-s")
	retire(t, m)
	check("retired", "---p")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// vma returns VmFlags and permissions of the mapping that holds p.
func vma(t *testing.T, p uintptr) (flags, perm string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	in := false
	for _, l := range strings.Split(string(text), "\n") {
		f := strings.Fields(l)
		if len(f) > 1 && strings.Contains(f[0], "-") {
			lo, hi, _ := strings.Cut(f[0], "-")
			in = hex(lo) <= p && p < hex(hi)
			if in {
				perm = f[1]
			}
		}
		if in && strings.HasPrefix(l, "VmFlags:") {
			return strings.TrimPrefix(l, "VmFlags:"), perm
		}
	}
	t.Fatal("no such mapping")
	return "", ""
}

func hex(s string) (v uintptr) {
	for _, c := range s {
		d := c - '0'
		if c >= 'a' {
			d = c - 'a' + 10
		}
		v = v<<4 | uintptr(d)
	}
	return v
}

// TestHuge maps a region of huge pages from an offset that is none of theirs, as
// QEMU gives it behind the VGA hole. Without huge pages the arithmetic is tested
// with what reserve returns.
func TestHuge(t *testing.T) {
	s := NewSpace()
	for _, align := range []int{page, 2 << 20, 1 << 30} {
		b, err := s.reserve(align, align)
		if err != nil {
			t.Fatal(err)
		}
		if addr(b)%uintptr(align) != 0 || len(b) != align {
			t.Errorf("%d bytes at %#x for pages of %d", len(b), addr(b), align)
		}
		defer s.release(b)
	}
	fd, err := sys.NewHugeMemfd("gmem", 4<<20)
	if err != nil {
		t.Skip("no huge pages here (vm.nr_hugepages):", err)
	}
	defer sys.Close(fd)
	m, err := s.Map([]Region{{Guest: 0xc0000, Size: 4<<20 - 0xc0000, FD: fd, Off: 0xc0000}})
	if err != nil {
		t.Skip("no huge pages here:", err)
	}
	b, _ := m.Slice(0xc0000, 1)
	if err := Guard(s, touch, b); err != nil {
		t.Log("huge pages ran out, which was an error and no crash:", err)
	}
	retire(t, m)
}

func TestCopies(t *testing.T) {
	src := [][]byte{[]byte("ab"), nil, []byte("c"), []byte("defg")}
	dst := make([]byte, 5)
	if n := Gather(dst, src); n != 5 || string(dst) != "abcde" {
		t.Error(n, string(dst))
	}
	if n := Gather(make([]byte, 99), src); n != 7 || Total(src) != 7 {
		t.Error(n)
	}
	out := [][]byte{make([]byte, 1), make([]byte, 0), make([]byte, 3)}
	if n := Scatter(out, []byte("xyz!?")); n != 4 || string(bytes.Join(out, nil)) != "xyz!" {
		t.Error(n)
	}
	for n := range 9 {
		s := [][]byte{[]byte("ab"), nil, []byte("c"), []byte("defg")}
		if got := string(bytes.Join(Skip(s, n), nil)); got != "abcdefg"[min(n, 7):] {
			t.Errorf("skip %d: %q", n, got)
		}
	}
}

// TestArea: golden bytes, at both halves of a word, and that a store touches
// nothing beside its field.
func TestArea(t *testing.T) {
	fd := memfd(t, page)
	s := NewSpace()
	m := mustMap(t, s, Region{Size: page, FD: fd})
	b, _ := m.Slice(0, page)
	fill := func() {
		for i := range b[:64] {
			b[i] = byte(0x10 + i)
		}
	}
	fill()
	for base := 0; base < 8; base += 2 {
		a, err := NewArea(b[base:base+32:base+32], 2)
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off <= 30; off += 2 {
			lo := uint16(0x10 + base + off)
			if got := a.Load16(off); got != lo|(lo+1)<<8 {
				t.Errorf("Load16 %d+%d: %#x", base, off, got)
			}
		}
	}
	a, _ := NewArea(b[:64:64], 16)
	if v := a.Load32(4); v != 0x17161514 {
		t.Errorf("%#x", v)
	}
	if v := a.Load64(8); v != 0x1f1e1d1c1b1a1918 {
		t.Errorf("%#x", v)
	}
	for off := range 9 {
		lo, hi := a.Load128(off)
		for i := range 16 {
			v := lo
			if i > 7 {
				v = hi
			}
			if got := byte(v >> (i % 8 * 8)); got != byte(0x10+off+i) {
				t.Errorf("Load128(%d) byte %d: %#x", off, i, got)
			}
		}
	}
	stores := []struct {
		n  int
		do func(off int)
	}{
		{2, func(o int) { a.Put16(o, 0xa1a0) }},
		{4, func(o int) { a.Put32(o, 0xa3a2a1a0) }},
		{4, func(o int) { a.Store32(o, 0xa3a2a1a0) }},
		{8, func(o int) { a.Put64(o, 0xa7a6a5a4a3a2a1a0) }},
	}
	for i, st := range stores {
		for off := 0; off < 24; off += st.n {
			fill()
			st.do(off)
			for j := range 32 {
				want := byte(0x10 + j)
				if j >= off && j < off+st.n {
					want = byte(0xa0 + j - off)
				}
				if b[j] != want {
					t.Errorf("store %d at %d: byte %d is %#x", i, off, j, b[j])
				}
			}
		}
	}
	for _, c := range []struct {
		off, align int
		ok         bool
	}{{1, 2, false}, {2, 2, true}, {2, 4, false}, {8, 16, false}, {32, 16, true}, {3, 1, true}} {
		if _, err := NewArea(b[c.off:], c.align); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	x, _ := NewArea(b[0:8], 1)
	y, _ := NewArea(b[8:16], 1)
	z, _ := NewArea(b[7:9], 1)
	if x.Overlaps(y) || !x.Overlaps(z) || !z.Overlaps(y) || !z.Overlaps(x) || x.Overlaps(Area{}) {
		t.Error("Overlaps")
	}
	retire(t, m)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkGuard(b *testing.B) {
	s := NewSpace()
	x := make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		if err := Guard(s, touch, x); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	fd := memfd(b, 8*page)
	s := NewSpace()
	m := mustMap(b, s, Region{Size: 4 * page, FD: fd}, Region{Guest: 1 << 32, User: 1 << 32, Size: 4 * page, FD: fd, Off: 4 * page})
	var dst [][]byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = m.Append(dst[:0], 1<<32+page, page, 8); err != nil {
			b.Fatal(err)
		}
	}
	retire(b, m)
}

func TestNoAllocs(t *testing.T) {
	fd := memfd(t, page)
	s := NewSpace()
	m := mustMap(t, s, Region{Size: page, FD: fd})
	p := m.Pin()
	dst := make([][]byte, 0, 4)
	b, _ := m.Slice(0, page)
	if n := testing.AllocsPerRun(1000, func() {
		p.Take()
		dst, _ = m.Append(dst[:0], 7, 100, 4)
		Guard(s, touch, b)
		p.Drop()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	p.Leave()
	retire(t, m)
}
