package scsi

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// countFE counts ended tasks. One loop.
type countFE struct {
	n    int
	bad  int
	last *Task
	wait chan struct{} // when not nil: one send for each Done
}

func (f *countFE) Done(t *Task) {
	f.n++
	f.last = t
	if t.Status != StatusGood || t.Aborted {
		f.bad++
	}
	if f.wait != nil {
		f.wait <- struct{}{}
	}
}
func (f *countFE) Event(Event)            {}
func (f *countFE) TransportID([]byte) int { return 0 }

func rw10(t *Task, op byte, lba uint32, blocks uint16) {
	t.CDB = [MaxCDB]byte{}
	t.CDBLen = 16
	t.CDB[0] = op
	binary.BigEndian.PutUint32(t.CDB[2:], lba)
	binary.BigEndian.PutUint16(t.CDB[7:], blocks)
}

// path is a store with a unit, a target, a nexus and a lane on one loop.
type path struct {
	g    *loop.Group
	st   backing.Store
	unit *Unit
	tg   *Target
	nx   *Nexus
	ln   *Lane
	fe   *countFE
}

func newPath(tb testing.TB, spec string, size int64) *path {
	tb.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 1, Strict: true})
	if err != nil {
		tb.Fatal(err)
	}
	p := &path{g: g, fe: &countFE{}}
	if p.st, err = backing.Open(spec, backing.Options{Size: size, Create: true, Group: g}); err != nil {
		tb.Fatal(err)
	}
	if p.unit, err = NewUnit(UnitConfig{Name: "d0", Shared: true}, p.st); err != nil {
		tb.Fatal(err)
	}
	p.tg = NewTarget(TargetConfig{Name: "t0"})
	if err = p.tg.Map(0, p.unit, MapOptions{}); err != nil {
		tb.Fatal(err)
	}
	if p.nx, err = p.tg.NewPort(PortConfig{RelID: 1}).Attach("i0", p.fe); err != nil {
		tb.Fatal(err)
	}
	if p.ln, err = p.nx.Lane(g.Loops()[0]); err != nil {
		tb.Fatal(err)
	}
	// The first contact's unit attention.
	p.do(tb, func(t *Task) { t.CDBLen = 6 })
	p.fe.n, p.fe.bad = 0, 0
	tb.Cleanup(func() {
		stuck := make(chan int, 1)
		p.tg.Close(tempotest.Patience/2, func(n int) { stuck <- n })
		if n := <-stuck; n != 0 {
			tb.Errorf("%d tasks stuck", n)
		}
		p.unit.Close(tempotest.Patience/2, func(n int) { stuck <- n })
		if n := <-stuck; n != 0 {
			tb.Errorf("%d tasks stuck", n)
		}
		if err := p.st.Close(); err != nil {
			tb.Error(err)
		}
		g.Close()
	})
	return p
}

// do runs one command and waits for its end.
func (p *path) do(tb testing.TB, set func(t *Task)) *Task {
	tb.Helper()
	t := new(Task)
	set(t)
	p.fe.wait = make(chan struct{}, 1)
	p.ln.Loop().Do(func() { p.ln.Submit(t); p.ln.Kick() })
	select {
	case <-p.fe.wait:
	case <-time.After(tempotest.Patience):
		tb.Fatal("no Done")
	}
	p.ln.Loop().Do(func() { p.fe.wait = nil })
	return t
}

func benchRW(b *testing.B, spec string, op byte) {
	p := newPath(b, spec, 64<<20)
	t := new(Task)
	buf := [][]byte{make([]byte, 4096)}
	if op == 0x28 {
		t.DataIn = buf
	} else {
		t.DataOut = buf
	}
	rw10(t, op, 0, 8)
	b.ReportAllocs()
	b.ResetTimer()
	p.ln.Loop().Do(func() {
		for i := range b.N {
			binary.BigEndian.PutUint32(t.CDB[2:], uint32(i&0x3fff)<<3)
			p.ln.Submit(t)
		}
		p.ln.Kick()
	})
	b.StopTimer()
	if p.fe.n != b.N || p.fe.bad != 0 {
		b.Fatalf("%d of %d done, %d bad: %v", p.fe.n, b.N, p.fe.bad, p.fe.last.Status)
	}
}

// BenchmarkRead4K is Submit to Done of a 4 KiB READ(10).
func BenchmarkRead4K(b *testing.B) {
	for _, s := range []string{"null:", "mem:"} {
		b.Run(s, func(b *testing.B) { benchRW(b, s, 0x28) })
	}
}

func BenchmarkWrite4K(b *testing.B) {
	for _, s := range []string{"null:", "mem:"} {
		b.Run(s, func(b *testing.B) { benchRW(b, s, 0x2a) })
	}
}

// pumpFE keeps one task going from the loop's mailbox: a store may answer later.
type pumpFE struct {
	countFE
	ln   *Lane
	t    *Task
	left int
	node loop.Node
	end  chan struct{}
}

func (f *pumpFE) Done(t *Task) {
	f.countFE.Done(t)
	f.left--
	if f.left == 0 {
		close(f.end)
		return
	}
	f.ln.loop.Post(&f.node)
}

func (f *pumpFE) Handle(*loop.Node) {
	binary.BigEndian.PutUint32(f.t.CDB[2:], uint32(f.left&0xfff)<<3)
	f.ln.Submit(f.t)
	f.ln.Kick()
}

// TestNoAllocations: READ and WRITE allocate nothing, neither over stores that
// answer inline nor over a file.
func TestNoAllocations(t *testing.T) {
	for _, spec := range []string{"null:", "mem:", "file:"} {
		for _, op := range []byte{0x28, 0x2a} {
			t.Run(fmt.Sprintf("%s%#x", spec, op), func(t *testing.T) {
				s, n := spec, 1_000_000
				if s == "file:" {
					s, n = "file:"+filepath.Join(t.TempDir(), "d"), 100_000
				}
				if testing.Short() {
					n /= 10
				}
				p := newPath(t, s, 16<<20)
				fe := &pumpFE{t: new(Task)}
				nx, err := p.nx.port.Attach("pump", fe)
				if err != nil {
					t.Fatal(err)
				}
				if fe.ln, err = nx.Lane(p.ln.loop); err != nil {
					t.Fatal(err)
				}
				fe.node.Init(fe)
				buf := [][]byte{make([]byte, 4096)}
				if op == 0x28 {
					fe.t.DataIn = buf
				} else {
					fe.t.DataOut = buf
				}
				rw10(fe.t, op, 0, 8)
				pump := func(n int) {
					fe.left, fe.end = n, make(chan struct{})
					fe.ln.loop.Post(&fe.node)
					select {
					case <-fe.end:
					case <-time.After(tempotest.Patience):
						t.Error("no end")
						runtime.Goexit()
					}
				}
				pump(1000)
				fe.bad = 0
				// What earlier tests allocated is in the figure only after a
				// collection.
				runtime.GC()
				sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
				metrics.Read(sample)
				was := sample[0].Value.Uint64()
				pump(n)
				metrics.Read(sample)
				// The harness, the runtime and workers that start allocate a
				// little (351 objects seen for 100,000 writes on a busy
				// machine); an allocation per command would be n.
				if d := sample[0].Value.Uint64() - was; d > uint64(n)/50+200 {
					t.Errorf("%d commands allocated %d objects", n, d)
				}
				if fe.bad != 0 {
					t.Errorf("%d commands failed, the last with %v", fe.bad, fe.last.Status)
				}
			})
		}
	}
}
