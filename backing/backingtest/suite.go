package backingtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

// Size is the smallest store that the suite can use, in bytes.
const Size = 4 << 20

// Config says what is tested.
type Config struct {
	// Open makes a fresh store of at least Size bytes that reads zero. The
	// suite closes it.
	Open func(t *testing.T, g *loop.Group) backing.Store
	// Group describes the loops; Loops 0 means 3.
	Group loop.Config
	// Forgets: written data are not kept (null:).
	Forgets bool
	// Allocates: reads and writes may allocate (stores that wrap others for
	// tests).
	Allocates bool
}

type suite struct {
	Config
	g    *loop.Group
	st   backing.Store
	size int64
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	if c.Group.Loops == 0 {
		c.Group.Loops = 3
	}
	c.Group.Strict = true
	for _, test := range []struct {
		name string
		f    func(*testing.T, *suite)
	}{
		{"Model", testModel},
		{"ManyIovecs", testManyIovecs},
		{"Large", testLarge},
		{"ZeroAndDiscard", testZeroDiscard},
		{"Extents", testExtents},
		{"Range", testRange},
		{"Sync", testSync},
		{"Concurrent", testConcurrent},
		{"Neighbours", testNeighbours},
		{"Cancel", testCancel},
		{"CloseInFlight", testCloseInFlight},
		{"Reopen", testReopen},
		{"Allocs", testAllocs},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, err := loop.NewGroup(c.Group)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Close)
			st := c.Open(t, g)
			t.Cleanup(func() { closeStore(t, st) })
			s := &suite{Config: c, g: g, st: st, size: st.Info().Size}
			if s.size < Size {
				t.Fatalf("store has %d bytes, the suite needs %d", s.size, Size)
			}
			test.f(t, s)
		})
	}
}

func closeStore(t *testing.T, st backing.Store) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- st.Close() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Store.Close: %v", err)
		}
	case <-time.After(Timeout):
		t.Error("Store.Close does not return")
	}
}

func (s *suite) driver(t *testing.T, i int) *Driver {
	t.Helper()
	d, err := NewDriver(s.st, s.g.Loops()[i%len(s.g.Loops())])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (s *suite) align() int64 { return int64(s.st.Info().BlockAlign) }

// ranged gives a random range of at most max bytes.
func (s *suite) ranged(r *rand.Rand, size, max int64) (off, n int64) {
	a := s.align()
	n = (1 + r.Int64N(max)) / a * a
	if r.IntN(2) == 0 { // mostly whole blocks, as initiators do
		n = (n + 511) &^ 511
	}
	n = min(n, size)
	off = r.Int64N(size-n+1) / a * a
	if n%512 == 0 {
		off &^= 511
	}
	return off, n
}

// split cuts p into pieces of odd lengths, some of them empty.
func split(r *rand.Rand, p []byte) [][]byte {
	var bufs [][]byte
	for len(p) > 0 {
		n := 1 + r.IntN(len(p))
		if r.IntN(3) == 0 {
			n = min(len(p), 1+r.IntN(700))
		}
		bufs = append(bufs, p[:n:n])
		p = p[n:]
		if r.IntN(8) == 0 {
			bufs = append(bufs, nil)
		}
	}
	return bufs
}

// Page gives n zero bytes at an address that is a multiple of 4096.
func Page(n int) []byte { return page(n, 0) }

// page gives n bytes at an address that is a multiple of 4096, plus skew.
func page(n, skew int) []byte {
	b := make([]byte, n+skew+4096)
	off := 0
	for !sys.Aligned(b[off:], 4096, 1) {
		off++
	}
	return b[off+skew : off+skew+n : off+skew+n]
}

func fillRandom(r *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

func testModel(t *testing.T, s *suite) {
	r := rand.New(rand.NewPCG(1, 2))
	d := s.driver(t, 0)
	const size = Size
	model := make([]byte, size)
	steps := 500
	if testing.Short() {
		steps = 200
	}
	buf := page(300<<10, 0)
	for i := range steps {
		off, n := s.ranged(r, size, []int64{600, 9000, 250 << 10}[r.IntN(3)])
		p := buf[:n]
		if r.IntN(4) == 0 {
			p = buf[1+r.IntN(600):][:n]
		}
		switch k := r.IntN(20); {
		case k < 8:
			fillRandom(r, p)
			op := &backing.Op{Kind: backing.Write, Off: off, Len: n, Bufs: [][]byte{p}}
			if r.IntN(2) == 0 {
				op.Bufs = split(r, p)
			}
			if r.IntN(16) == 0 {
				op.Flags = backing.FUA
			}
			if err := d.moved(op); err != nil {
				t.Fatalf("step %d: write %d+%d: %v", i, off, n, err)
			}
			copy(model[off:], p)
		case k < 16:
			fillRandom(r, p)
			op := &backing.Op{Kind: backing.Read, Off: off, Len: n, Bufs: split(r, p)}
			if err := d.moved(op); err != nil {
				t.Fatalf("step %d: read %d+%d: %v", i, off, n, err)
			}
			s.same(t, p, model[off:off+n], fmt.Sprintf("step %d: read %d+%d", i, off, n))
		case k < 18:
			if err := d.Zero(off, n, []backing.Flags{0, backing.NoUnmap, backing.FUA}[r.IntN(3)]); err != nil {
				t.Fatalf("step %d: zero %d+%d: %v", i, off, n, err)
			}
			clear(model[off : off+n])
		case k < 19:
			if !s.st.Info().DiscardZeroes {
				continue
			}
			if err := d.Discard(off, n); err != nil {
				t.Fatalf("step %d: discard %d+%d: %v", i, off, n, err)
			}
			clear(model[off : off+n])
		case r.IntN(10) == 0:
			if err := d.Sync(); err != nil {
				t.Fatalf("step %d: sync: %v", i, err)
			}
		}
	}
	got := make([]byte, size)
	if err := d.Read(0, got); err != nil {
		t.Fatal(err)
	}
	s.same(t, got, model, "at the end")
}

func (s *suite) same(t *testing.T, got, want []byte, what string) {
	t.Helper()
	if s.Forgets {
		if i := bytes.IndexFunc(got, func(r rune) bool { return r != 0 }); i >= 0 {
			t.Fatalf("%s: byte %d is not zero", what, i)
		}
		return
	}
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d of %d is %#x, want %#x", what, i, len(got), got[i], want[i])
		}
	}
}

func testManyIovecs(t *testing.T, s *suite) {
	r := rand.New(rand.NewPCG(3, 4))
	d := s.driver(t, 0)
	for _, piece := range []int{1, 7, 512} {
		const count = 3000 // more than the kernel takes at once
		p := page(piece*count, 0)
		n := len(p) / 512 * 512
		p = p[:n]
		fillRandom(r, p)
		cut := func(p []byte) (bufs [][]byte) {
			for len(p) > 0 {
				c := min(piece, len(p))
				bufs = append(bufs, p[:c:c])
				p = p[c:]
			}
			return bufs
		}
		if err := d.moved(&backing.Op{Kind: backing.Write, Off: 512, Len: int64(n), Bufs: cut(p)}); err != nil {
			t.Fatal(err)
		}
		got := page(n, 0)
		if err := d.moved(&backing.Op{Kind: backing.Read, Off: 512, Len: int64(n), Bufs: cut(got)}); err != nil {
			t.Fatal(err)
		}
		s.same(t, got, p, fmt.Sprintf("%d buffers of %d bytes", len(cut(p)), piece))
	}
}

func testLarge(t *testing.T, s *suite) {
	r := rand.New(rand.NewPCG(5, 6))
	d := s.driver(t, 0)
	for _, skew := range []int{0, 3} {
		p := page(3<<20, skew)
		fillRandom(r, p)
		if err := d.Write(4096, p, 0); err != nil {
			t.Fatal(err)
		}
		got := page(3<<20, skew)
		if err := d.Read(4096, got); err != nil {
			t.Fatal(err)
		}
		s.same(t, got, p, "3 MiB")
	}
}

func testZeroDiscard(t *testing.T, s *suite) {
	d := s.driver(t, 0)
	a := s.align()
	ones := bytes.Repeat([]byte{0xff}, 1<<20)
	for _, c := range []struct{ off, n int64 }{
		{0, 1 << 20}, {0, 4096}, {4096, 8192}, {512, 512}, {1024, 9 * 512}, {4096 - 512, 1024}, {3 * 512, 512 * 1000}, {1, 1}, {4095, 2}, {511, 70000},
	} {
		if c.off%a != 0 || c.n%a != 0 {
			continue
		}
		for _, how := range []string{"zero", "zero keeping", "zero fua", "discard"} {
			if how == "discard" && !s.st.Info().DiscardZeroes {
				continue
			}
			if err := d.Write(0, ones, 0); err != nil {
				t.Fatal(err)
			}
			var err error
			switch how {
			case "zero":
				err = d.Zero(c.off, c.n, 0)
			case "zero keeping":
				err = d.Zero(c.off, c.n, backing.NoUnmap)
			case "zero fua":
				err = d.Zero(c.off, c.n, backing.FUA)
			case "discard":
				err = d.Discard(c.off, c.n)
			}
			if err != nil {
				t.Fatalf("%s %d+%d: %v", how, c.off, c.n, err)
			}
			got := make([]byte, 1<<20)
			if err := d.Read(0, got); err != nil {
				t.Fatal(err)
			}
			want := bytes.Clone(ones)
			clear(want[c.off : c.off+c.n])
			s.same(t, got, want, fmt.Sprintf("%s %d+%d", how, c.off, c.n))
		}
	}
	if s.st.Info().DiscardGranularity == 0 {
		if err := d.Discard(0, 4096); !errors.Is(err, backing.ErrNotSupported) {
			t.Errorf("Discard without a granularity: %v, want ErrNotSupported", err)
		}
	}
}

func testExtents(t *testing.T, s *suite) {
	d := s.driver(t, 0)
	if !s.st.Info().Extents {
		if _, err := d.Extents(0, s.size, 4); !errors.Is(err, backing.ErrNotSupported) {
			t.Fatalf("Extents of a store without: %v, want ErrNotSupported", err)
		}
		return
	}
	const unit = 64 << 10
	data := bytes.Repeat([]byte{7}, unit)
	for i := int64(1); i < 16; i += 2 {
		if err := d.Write(i*unit, data, 0); err != nil {
			t.Fatal(err)
		}
	}
	exts, err := d.Extents(0, s.size, 1000)
	if err != nil {
		t.Fatal(err)
	}
	s.checkExtents(t, exts, 0, s.size, func(off int64) bool { return !s.Forgets && off < 16*unit && off/unit%2 == 1 })
	// A window, and fewer entries than there are.
	exts, err = d.Extents(3*unit/2, 8*unit, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := []backing.Extent{{Off: 3 * unit / 2, Len: unit / 2, Allocated: true}, {Off: 2 * unit, Len: unit}, {Off: 3 * unit, Len: unit, Allocated: true}}
	if s.Forgets {
		want = []backing.Extent{{Off: 3 * unit / 2, Len: 8 * unit}}
	}
	if fmt.Sprint(exts) != fmt.Sprint(want) {
		t.Errorf("extents of the window: %v, want %v", exts, want)
	}
	if s.Forgets || s.st.Info().DiscardGranularity == 0 {
		return
	}
	if err := d.Discard(0, 8*unit); err != nil {
		t.Fatal(err)
	}
	exts, err = d.Extents(0, 16*unit, 1000)
	if err != nil {
		t.Fatal(err)
	}
	s.checkExtents(t, exts, 0, 16*unit, func(off int64) bool { return off >= 8*unit && off/unit%2 == 1 })
	// Zero that keeps the blocks is a promise about space, which only Extents
	// shows; it must at least not report less than there is.
	if err := d.Zero(9*unit, unit, backing.NoUnmap); err != nil {
		t.Fatal(err)
	}
}

// checkExtents wants a gapless cover of [off, off+n) in which data is allocated;
// holes need not be reported.
func (s *suite) checkExtents(t *testing.T, exts []backing.Extent, off, n int64, data func(int64) bool) {
	t.Helper()
	pos, holes := off, int64(0)
	for i, e := range exts {
		if e.Off != pos || e.Len <= 0 {
			t.Fatalf("extent %d is %v, want it to begin at %d", i, e, pos)
		}
		pos += e.Len
		for o := e.Off; o < e.Off+e.Len; o += 4096 {
			if data(o) && !e.Allocated {
				t.Fatalf("extent %d %v is a hole, but there are data at %d", i, e, o)
			}
		}
		if !e.Allocated {
			holes += e.Len
		}
	}
	if pos != off+n {
		t.Fatalf("extents end at %d, want %d", pos, off+n)
	}
	if holes == 0 {
		t.Errorf("no hole in a sparse store: %v", exts)
	}
}

func testRange(t *testing.T, s *suite) {
	d := s.driver(t, 0)
	b := make([]byte, 4096)
	for _, c := range []struct{ off, n int64 }{
		{s.size, 4096}, {s.size - 512, 1024}, {-512, 512}, {1 << 62, 512}, {512, -512}, {s.size + 512, 0}, {1<<63 - 512, 512},
	} {
		for k := backing.Read; k <= backing.Extents; k++ {
			if k == backing.Sync {
				continue
			}
			op := &backing.Op{Kind: k, Off: c.off, Len: c.n, Ext: make([]backing.Extent, 1)}
			if (k == backing.Read || k == backing.Write) && c.n > 0 {
				op.Bufs = [][]byte{b[:c.n]}
			}
			if err := d.Do(op); !errors.Is(err, backing.ErrRange) {
				t.Errorf("kind %d at %d+%d: %v, want ErrRange", k, c.off, c.n, err)
			}
		}
	}
	if err := d.Do(&backing.Op{Kind: backing.Read, Off: 0, Len: 8192, Bufs: [][]byte{b}}); !errors.Is(err, backing.ErrRange) {
		t.Errorf("buffers shorter than Len: %v, want ErrRange", err)
	}
	if err := d.Do(&backing.Op{Kind: 200, Off: 0, Len: 512}); !errors.Is(err, backing.ErrNotSupported) {
		t.Errorf("unknown kind: %v, want ErrNotSupported", err)
	}
	for k := backing.Read; k <= backing.Zero; k++ {
		if err := d.Do(&backing.Op{Kind: k, Off: s.size}); err != nil {
			t.Errorf("kind %d of no bytes at the end: %v", k, err)
		}
	}
	if err := d.Read(s.size-512, b[:512]); err != nil {
		t.Errorf("the last block: %v", err)
	}
}

func testSync(t *testing.T, s *suite) {
	d := []*Driver{s.driver(t, 0), s.driver(t, 1), s.driver(t, 2)}
	var waits []<-chan struct{}
	var ops []*backing.Op
	for i := range 60 {
		if i%7 == 0 {
			if err := d[i%3].Write(int64(i)*4096, page(4096, 0), 0); err != nil {
				t.Fatal(err)
			}
		}
		op := &backing.Op{Kind: backing.Sync}
		ops = append(ops, op)
		waits = append(waits, d[i%3].Start(op))
	}
	for i, w := range waits {
		select {
		case <-w:
			if ops[i].Err != nil {
				t.Errorf("sync %d: %v", i, ops[i].Err)
			}
		case <-time.After(Timeout):
			t.Fatalf("sync %d does not end", i)
		}
	}
	for i, w := range waits {
		select {
		case <-w:
			t.Fatalf("sync %d ended twice", i)
		default:
		}
	}
}

// stream is one loop's stream of operations over its own part of the store.
type stream struct {
	d     *Driver
	s     *suite
	r     *rand.Rand
	base  int64
	model []byte
	slots []*slot
	left  int
	live  int
	fail  error
	ended chan struct{}
}

type slot struct {
	st   *stream
	op   backing.Op
	buf  []byte
	part []byte // of the model
	busy bool
}

func (sl *slot) OpDone(*backing.Op) {
	if !sl.busy {
		sl.st.fail = errors.New("an operation ended twice")
		return
	}
	sl.end()
	sl.st.fill()
}

func (sl *slot) end() {
	sl.busy = false
	st := sl.st
	st.live--
	switch {
	case sl.op.Err != nil:
		st.fail = sl.op.Err
	case sl.op.Kind == backing.Write:
		copy(sl.part, sl.buf[:sl.op.Len])
	case sl.op.Kind == backing.Read && !st.s.Forgets && !bytes.Equal(sl.part, sl.buf[:sl.op.Len]):
		st.fail = fmt.Errorf("read of %d+%d differs", sl.op.Off, sl.op.Len)
	}
}

// fill keeps every slot busy. On the loop.
func (st *stream) fill() {
	for i, sl := range st.slots {
		for !sl.busy && st.left > 0 && st.fail == nil {
			st.left--
			st.live++
			// Each slot has a part of its own: what is outstanding never
			// overlaps, so the model is exact.
			part := int64(len(st.model)/len(st.slots)) / 4096 * 4096
			off, n := st.s.ranged(st.r, part, []int64{512, 4096, 64 << 10}[st.r.IntN(3)])
			n = min(n, int64(len(sl.buf)))
			sl.part = st.model[int64(i)*part+off:][:n]
			sl.op.Off, sl.op.Len = st.base+int64(i)*part+off, n
			sl.op.Flags = 0
			sl.op.Kind = backing.Read
			if st.r.IntN(2) == 0 {
				sl.op.Kind = backing.Write
				sl.buf[st.r.IntN(len(sl.buf))]++
				sl.buf[0]++
				if st.r.IntN(50) == 0 {
					sl.op.Flags = backing.FUA
				}
			}
			sl.op.Bufs = append(sl.op.Bufs[:0], sl.buf[:n])
			sl.op.Owner = sl
			sl.busy = true
			if st.d.Q.Submit(&sl.op) {
				sl.end()
			}
		}
	}
	st.d.Q.Kick()
	if st.live == 0 && st.ended != nil {
		close(st.ended)
		st.ended = nil
	}
}

func testConcurrent(t *testing.T, s *suite) {
	loops := len(s.g.Loops())
	n := 800
	if testing.Short() {
		n = 300
	}
	part := int64(Size / loops / 4096 * 4096)
	var streams []*stream
	for i := range loops {
		st := &stream{d: s.driver(t, i), s: s, r: rand.New(rand.NewPCG(7, uint64(i))), base: int64(i) * part,
			model: make([]byte, part), left: n, ended: make(chan struct{})}
		for k := range 16 {
			st.slots = append(st.slots, &slot{st: st, buf: page(64<<10, k%3*512)})
		}
		streams = append(streams, st)
	}
	var ends []chan struct{}
	for _, st := range streams {
		ends = append(ends, st.ended)
		st.d.L.Do(st.fill)
	}
	for i, st := range streams {
		select {
		case <-ends[i]:
		case <-time.After(Timeout):
			t.Fatalf("stream %d does not end", i)
		}
		if st.fail != nil {
			t.Fatalf("stream %d: %v", i, st.fail)
		}
	}
	for _, st := range streams {
		got := make([]byte, part)
		if err := st.d.Read(st.base, got); err != nil {
			t.Fatal(err)
		}
		s.same(t, got, st.model, "after the streams")
	}
}

// testNeighbours writes adjacent sectors from several loops at once: a store
// that must read a larger block to write a part of it may lose none of them.
func testNeighbours(t *testing.T, s *suite) {
	if s.align() > 512 {
		t.Skip("the store takes no single sectors")
	}
	loops := len(s.g.Loops())
	drivers := make([]*Driver, loops)
	for i := range drivers {
		drivers[i] = s.driver(t, i)
	}
	rounds := 60
	if testing.Short() {
		rounds = 30
	}
	var bad atomic.Pointer[string]
	done := make(chan struct{}, loops)
	for i, d := range drivers {
		go func() {
			defer func() { done <- struct{}{} }()
			b := page(4096, 0)
			for n := range rounds {
				// Sector i of block 0, alone; every now and then a whole block
				// and a zero beside it, which belong to this loop too.
				for k := range b {
					b[k] = byte(n + 1)
				}
				err := d.Write(int64(i)*512, b[:512], 0)
				if err == nil && n%3 == 0 {
					err = d.Write(int64(i+1)*4096, b, 0)
				}
				if err == nil && n%5 == 0 {
					err = d.Zero(int64(8+loops)*4096+int64(i)*512, 512, 0)
				}
				got := page(512, 0)
				if err == nil {
					err = d.Read(int64(i)*512, got)
				}
				if err == nil && !s.Forgets && !bytes.Equal(got, b[:512]) {
					err = fmt.Errorf("round %d: sector %d lost its data: %#x, want %#x", n, i, got[0], b[0])
				}
				// One writes a whole block, the others its first sector: what
				// only the one writes must be what it wrote.
				const both = 32 * 4096
				if err == nil && i > 0 {
					err = d.Write(both, b[:512], 0)
				} else if err == nil {
					err = d.Write(both, b, 0)
					whole := page(4096, 0)
					if err == nil {
						err = d.Read(both, whole)
					}
					if err == nil && !s.Forgets && !bytes.Equal(whole[512:], b[512:]) {
						err = fmt.Errorf("round %d: a block's end went back to %#x, want %#x", n, whole[512], b[0])
					}
				}
				if err != nil {
					m := err.Error()
					bad.Store(&m)
					return
				}
			}
		}()
	}
	for range drivers {
		select {
		case <-done:
		case <-time.After(Timeout):
			t.Fatal("writers do not end")
		}
	}
	if m := bad.Load(); m != nil {
		t.Fatal(*m)
	}
}

func testCancel(t *testing.T, s *suite) {
	d := s.driver(t, 0)
	r := rand.New(rand.NewPCG(8, 9))
	for round := range 6 {
		var ops []*backing.Op
		var waits []<-chan struct{}
		for i := range 40 {
			op := &backing.Op{Off: int64(i) * 64 << 10 % (Size - 1<<20)}
			switch r.IntN(4) {
			case 0:
				op.Kind, op.Flags, op.Len = backing.Write, backing.FUA, 4096
				op.Bufs = [][]byte{page(4096, 0)}
			case 1:
				op.Kind, op.Len = backing.Write, 1<<20
				op.Bufs = [][]byte{page(1<<20, 0)}
			case 2:
				op.Kind, op.Off = backing.Sync, 0
			case 3:
				op.Kind, op.Len, op.Flags = backing.Zero, 64<<10, backing.NoUnmap
			}
			ops = append(ops, op)
			waits = append(waits, d.Start(op))
		}
		d.L.Do(func() {
			for _, i := range r.Perm(len(ops)) {
				if round%2 == 0 || i%2 == 0 {
					d.Q.Cancel(ops[i])
					d.Q.Cancel(ops[i]) // twice is once
				}
			}
		})
		for i, w := range waits {
			select {
			case <-w:
			case <-time.After(Timeout):
				t.Fatalf("operation %d does not end after Cancel", i)
			}
			if err := ops[i].Err; err != nil && !errors.Is(err, backing.ErrCanceled) {
				t.Fatalf("operation %d: %v", i, err)
			}
			if len(w) != 0 {
				t.Fatalf("operation %d ended twice", i)
			}
		}
	}
}

func testCloseInFlight(t *testing.T, s *suite) {
	d, err := NewDriver(s.st, s.g.Loops()[0])
	if err != nil {
		t.Fatal(err)
	}
	var ops []*backing.Op
	var waits []<-chan struct{}
	closed := make(chan struct{}, 2)
	d.L.Do(func() {
		for i := range 50 {
			op := &backing.Op{Kind: backing.Write, Flags: backing.FUA, Off: int64(i) * 4096, Len: 4096, Bufs: [][]byte{page(4096, 0)}}
			if i%3 == 0 {
				*op = backing.Op{Kind: backing.Sync}
			}
			if i%3 == 1 {
				*op = backing.Op{Kind: backing.Read, Len: 1 << 20, Bufs: [][]byte{page(1<<20, 0)}}
			}
			ops = append(ops, op)
			waits = append(waits, d.Start(op)) // on the loop: Do calls directly
		}
		d.Q.Close(func() { closed <- struct{}{} })
		late := &backing.Op{Kind: backing.Read, Len: 512, Bufs: [][]byte{make([]byte, 512)}}
		if !d.Q.Submit(late) || !errors.Is(late.Err, backing.ErrClosed) {
			t.Errorf("Submit after Close: %v, want ErrClosed", late.Err)
		}
	})
	select {
	case <-closed:
	case <-time.After(Timeout):
		t.Fatal("the queue does not end")
	}
	for i, w := range waits {
		if len(w) != 1 {
			t.Errorf("operation %d ended %d times before done", i, len(w))
		}
		if ops[i].Err != nil {
			t.Errorf("operation %d: %v", i, ops[i].Err)
		}
	}
	if len(closed) != 0 {
		t.Error("done was called twice")
	}
	closeStore(t, s.st)
	if _, err := s.st.Queue(d.L); !errors.Is(err, backing.ErrClosed) {
		t.Errorf("Queue of a closed store: %v, want ErrClosed", err)
	}
}

func testReopen(t *testing.T, s *suite) {
	d := s.driver(t, 0)
	p := bytes.Repeat([]byte{42}, 8192)
	if err := d.Write(0, p, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.st.Reopen(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if err := d.Read(0, got); err != nil {
		t.Fatal(err)
	}
	s.same(t, got, p, "after Reopen")
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

func testAllocs(t *testing.T, s *suite) {
	if s.Allocates {
		t.Skip("wraps another store")
	}
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	d := s.driver(t, 0)
	for _, c := range []struct {
		name string
		kind backing.Kind
		fl   backing.Flags
		n    int
	}{{"read", backing.Read, 0, 10000}, {"write", backing.Write, 0, 10000}, {"write FUA", backing.Write, backing.FUA, 100}} {
		run := func(n int) {
			m := &mover{d: d, left: n, depth: 8, ended: make(chan struct{}, 1)}
			m.start(c.kind, c.fl)
			select {
			case <-m.ended:
			case <-time.After(Timeout):
				t.Fatal("does not end")
			}
			if m.fail != nil {
				t.Fatal(m.fail)
			}
		}
		begin := time.Now()
		run(c.n / 10) // pools fill
		// The start-up of a run counts: the fewer operations, the more. Fewer
		// there are where each waits for a slow device.
		n, limit := c.n, 0.02
		if time.Since(begin) > 100*time.Millisecond {
			n = max(n/10, 100)
		}
		if n <= 1000 {
			limit = 0.12
		}
		if n <= 100 {
			limit = 0.9
		}
		per := 1.0
		// Others allocate now and then (timers, the runtime's own threads): the
		// best of three counts.
		for try := 0; try < 3 && (try == 0 || per > limit); try++ {
			runtime.GC()
			before := heapAllocs()
			run(n)
			per = min(per, float64(heapAllocs()-before)/float64(n))
		}
		t.Logf("%s: %.4f allocations per operation of %d", c.name, per, n)
		if per > limit {
			t.Errorf("%s: %.3f allocations per operation", c.name, per)
		}
	}
}

func heapAllocs() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// mover keeps depth random 4 KiB transfers of one kind in flight.
type mover struct {
	d     *Driver
	ops   []moverOp
	left  int
	live  int
	depth int
	x     uint64
	fail  error
	ended chan struct{}
}

type moverOp struct {
	m  *mover
	op backing.Op
	b  [1][]byte
}

func (o *moverOp) OpDone(*backing.Op) {
	o.m.end(o)
	if o.m.submit(o) {
		o.m.d.Q.Kick()
	}
}

func (m *mover) end(o *moverOp) {
	m.live--
	if o.op.Err != nil {
		m.fail = o.op.Err
	}
}

// submit goes on with o until it does not end inside Submit. false: all done.
func (m *mover) submit(o *moverOp) bool {
	for m.left > 0 && m.fail == nil {
		m.left--
		m.live++
		m.x = m.x*6364136223846793005 + 1442695040888963407
		o.op.Off = int64(m.x>>33) % (Size / 4096) * 4096
		if !m.d.Q.Submit(&o.op) {
			return true
		}
		m.end(o)
	}
	if m.live == 0 {
		select {
		case m.ended <- struct{}{}:
		default:
		}
	}
	return false
}

func (m *mover) start(k backing.Kind, fl backing.Flags) {
	m.ops = make([]moverOp, m.depth)
	m.d.L.Do(func() {
		for i := range m.ops {
			o := &m.ops[i]
			o.m = m
			o.b[0] = page(4096, 0)
			o.op.Kind, o.op.Flags, o.op.Len, o.op.Bufs, o.op.Owner = k, fl, 4096, o.b[:], o
			m.submit(o)
		}
		m.d.Q.Kick()
	})
}

// Transfers runs n random 4 KiB transfers of kind k over the first Size bytes,
// depth at a time, on d's loop. For benchmarks: it allocates only at its start.
func Transfers(d *Driver, k backing.Kind, fl backing.Flags, depth, n int) error {
	m := &mover{d: d, left: n, depth: depth, ended: make(chan struct{}, 1)}
	m.start(k, fl)
	<-m.ended
	return m.fail
}
