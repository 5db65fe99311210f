package scsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

func TestWriteAtomic(t *testing.T) {
	st := newRigStore(1 << 20)
	st.info.AtomicMax = 1 << 20
	r := newRig(t, goldenConf(), st)
	n := r.nexus()
	const cdb = "9c 00 0000000000000003 0000 0002 00 00"
	n.expect("good", cdb, fill(1024, 7), 0)
	if want := append(fill(3*512, 0), fill(1024, 7)...); !bytes.Equal(st.b[:len(want)], want) {
		t.Error("not what was written")
	}
	last := st.ops[len(st.ops)-1]
	if last.fl&backing.Atomic == 0 || last.off != 3*512 || last.len != 1024 {
		t.Errorf("the store was asked for %+v", last)
	}
	n.expect("good", "9c 18 0000000000000003 0000 0002 00 00", fill(1024, 8), 0) // DPO, FUA
	n.expect("good", "9c 00 0000000000000000 0000 0100 00 00", fill(256*512, 9), 0)
	n.expect("good", "9c 00 0000000000000800 0000 0000 00 00", nil, 0)
	n.expect("05 24/00 cdb 12.7", "9c 00 0000000000000000 0000 0101 00 00", fill(257*512, 9), 0)
	n.expect("05 21/00", "9c 00 0000000000000801 0000 0000 00 00", nil, 0)
	n.expect("05 21/00", "9c 00 00000000000007ff 0000 0002 00 00", fill(1024, 1), 0)
	n.expect("05 24/00 cdb 1.5", "9c 20 0000000000000000 0000 0001 00 00", fill(512, 1), 0)
	n.expect("05 24/00 cdb 11.0", "9c 00 0000000000000000 0001 0001 00 00", fill(512, 1), 0) // ATOMIC BOUNDARY
	n.expect("05 0e/03", "9c 00 0000000000000000 0000 0002 00 00", fill(1023, 1), 0)
	n.expect("05 0e/03", "9c 00 0000000000000000 0000 0002 00 00", fill(1536, 1), 0)
	st.mu.Lock()
	st.fail = func(op *backing.Op) error { return errors.New("defect") }
	st.mu.Unlock()
	n.expect("03 0c/00 info 3", cdb, fill(1024, 1), 0)

	// A store that has no such writes has no such command.
	plain := newRig(t, goldenConf(), newRigStore(1<<20)).nexus()
	plain.expect("05 20/00", cdb, fill(1024, 7), 0)
}

// atomicLane is a lane of its own, used from one goroutine.
type atomicLane struct {
	ln   *Lane
	t    Task
	done chan struct{}
}

func (l *atomicLane) Event(Event)            {}
func (l *atomicLane) TransportID([]byte) int { return 0 }
func (l *atomicLane) Done(*Task)             { l.done <- struct{}{} }

func (l *atomicLane) do(t testing.TB, op byte, lba, blocks int, out, in []byte) Status {
	c := &l.t
	clear(c.CDB[:])
	c.CDB[0], c.CDBLen = op, 16
	binary.BigEndian.PutUint64(c.CDB[2:], uint64(lba))
	binary.BigEndian.PutUint32(c.CDB[10:], uint32(blocks))
	c.DataOut, c.DataIn = nil, nil
	if out != nil {
		c.DataOut = [][]byte{out}
	}
	if in != nil {
		c.DataIn = [][]byte{in}
	}
	l.ln.loop.Do(func() { l.ln.Submit(c); l.ln.Kick() })
	tempotest.Recv(t, l.done, "the end of a command")
	return c.Status
}

// TestAtomicBesideReads: while WRITE ATOMICs of 1 MiB run on one loop, every READ of their
// range on another gives all of one of them. (A mem: store copies in pieces of 256 KiB,
// one in each round.) Without cmdRange in WRITE ATOMIC's row it fails in the first rounds.
func TestAtomicBesideReads(t *testing.T) {
	g, err := loop.NewGroup(loop.Config{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	st, err := backing.Open("mem:", backing.Options{Size: 4 << 20, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUnit(UnitConfig{Name: "d0", Shared: true, BlockSize: 4096}, st)
	if err != nil {
		t.Fatal(err)
	}
	tg := NewTarget(TargetConfig{Name: "t0"})
	if err := tg.Map(0, u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	p := tg.NewPort(PortConfig{RelID: 1})
	var ls [2]*atomicLane
	for i := range ls {
		ls[i] = &atomicLane{done: make(chan struct{}, 1)}
		n, err := p.Attach(InitiatorID([]string{"w", "r"}[i]), ls[i])
		if err != nil {
			t.Fatal(err)
		}
		if ls[i].ln, err = n.Lane(g.Loops()[i]); err != nil {
			t.Fatal(err)
		}
		ls[i].do(t, 0x00, 0, 0, nil, nil) // takes the unit attention
	}
	const blocks = 256
	var stop atomic.Bool
	writes := make(chan int)
	go func() {
		n := 0
		b := make([]byte, blocks*4096)
		for ; !stop.Load(); n++ {
			for i := range b {
				b[i] = byte(n)
			}
			if s := ls[0].do(t, opWriteAtomic, 5, blocks, b, nil); s != StatusGood {
				t.Errorf("WRITE ATOMIC: %v", s)
				break
			}
		}
		writes <- n
	}()
	in := make([]byte, blocks*4096)
	for range 300 {
		if s := ls[1].do(t, 0x88, 5, blocks, nil, in); s != StatusGood {
			t.Errorf("READ: %v", s)
			break
		}
		if bytes.Count(in, in[:1]) != len(in) {
			t.Errorf("a READ found the beginning of one write and the end of another: %d … %d", in[0], in[len(in)-1])
			break
		}
	}
	stop.Store(true)
	t.Logf("%d writes beside the reads", <-writes)
	stuck := make(chan int, 1)
	tg.Close(0, func(n int) { stuck <- n })
	<-stuck
	u.Close(0, func(n int) { stuck <- n })
	<-stuck
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}
