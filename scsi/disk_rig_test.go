package scsi

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// rigStore is a store in memory that the tests of the device server can look into:
// it checks what it is asked for, records it, fails on demand, and answers inline
// or later.
type rigStore struct {
	mu    sync.Mutex
	b     []byte
	info  backing.Info
	later bool
	// hold, where set, keeps an operation in the store until it is closed.
	hold  chan struct{}
	quiet bool // does not record
	// fail decides the outcome of an operation; nil: all succeed.
	fail func(op *backing.Op) error
	// refuse are kinds that the store does not have.
	refuse map[backing.Kind]bool
	ops    []rigOp
	bad    []string
}

type rigOp struct {
	kind     backing.Kind
	fl       backing.Flags
	off, len int64
}

func newRigStore(size int64) *rigStore {
	return &rigStore{
		b: make([]byte, size),
		info: backing.Info{
			Size: size, BlockAlign: 512, DiscardGranularity: 4096, DiscardZeroes: true,
			Volatile: true, Extents: true,
		},
	}
}

func (s *rigStore) Info() *backing.Info                     { return &s.info }
func (s *rigStore) Watch(func(*backing.Info)) (stop func()) { return func() {} }
func (s *rigStore) Resize(int64) error                      { return backing.ErrNotSupported }
func (s *rigStore) Reopen() error                           { return nil }
func (s *rigStore) Close() error                            { return nil }
func (s *rigStore) Queue(l *loop.Loop) (backing.Queue, error) {
	q := &rigQueue{s: s, l: l}
	q.n.Init(q)
	return q, nil
}

type rigQueue struct {
	s   *rigStore
	l   *loop.Loop
	n   loop.Node
	ops []heldOp
	// posted: by Submit, and not handled yet.
	posted  bool
	live    int // operations in the store
	closed  bool
	closing func() // what Close got, while live
}

// heldOp stays until hold, where there is one, is closed.
type heldOp struct {
	*backing.Op
	hold chan struct{}
}

func (q *rigQueue) Submit(op *backing.Op) bool {
	if q.closed {
		op.N, op.Err = 0, backing.ErrClosed
		return true
	}
	q.s.mu.Lock()
	later, hold, refused := q.s.later, q.s.hold, q.s.refuse[op.Kind]
	q.s.mu.Unlock()
	q.s.do(op)
	if !later && hold == nil || refused {
		return true
	}
	q.live++
	q.ops = append(q.ops, heldOp{op, hold})
	if hold != nil {
		go func() {
			<-hold
			q.l.Post(&q.n)
		}()
		return false
	}
	if !q.posted {
		q.posted = true
		q.l.Post(&q.n)
	}
	return false
}

func (q *rigQueue) Handle(*loop.Node) {
	ops := q.ops
	q.ops, q.posted = nil, false
	for _, op := range ops {
		if op.hold != nil {
			select {
			case <-op.hold:
			default:
				q.ops = append(q.ops, op)
				continue
			}
		}
		q.live--
		op.Owner.OpDone(op.Op)
	}
	q.close()
}

func (q *rigQueue) Kick()              {}
func (q *rigQueue) Cancel(*backing.Op) {}
func (q *rigQueue) Close(done func()) {
	q.closed, q.closing = true, done
	q.close()
}

// close ends what Close began, when nothing is in the store.
func (q *rigQueue) close() {
	if done := q.closing; done != nil && q.live == 0 {
		q.closing = nil
		done()
	}
}

func (s *rigStore) do(op *backing.Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.quiet {
		s.ops = append(s.ops, rigOp{op.Kind, op.Flags, op.Off, op.Len})
	}
	op.N, op.Err = 0, nil
	if op.Off < 0 || op.Len < 0 || op.Off > int64(len(s.b)) || op.Len > int64(len(s.b))-op.Off {
		s.bad = append(s.bad, fmt.Sprintf("kind %d at %d+%d leaves the store", op.Kind, op.Off, op.Len))
		op.Err = backing.ErrRange
		return
	}
	if (op.Off|op.Len)&int64(s.info.BlockAlign-1) != 0 {
		s.bad = append(s.bad, fmt.Sprintf("kind %d at %d+%d is not aligned", op.Kind, op.Off, op.Len))
	}
	if s.refuse[op.Kind] {
		op.Err = backing.ErrNotSupported
		return
	}
	if s.fail != nil {
		if op.Err = s.fail(op); op.Err != nil {
			return
		}
	}
	d := s.b[op.Off : op.Off+op.Len]
	switch op.Kind {
	case backing.Read, backing.Write:
		if bufsLen(op.Bufs) != op.Len {
			s.bad = append(s.bad, fmt.Sprintf("kind %d of %d bytes with %d", op.Kind, op.Len, bufsLen(op.Bufs)))
			op.Err = backing.ErrRange
			return
		}
		for _, b := range op.Bufs {
			if op.Kind == backing.Read {
				copy(b, d)
			} else {
				copy(d, b)
			}
			d = d[len(b):]
		}
		op.N = op.Len
	case backing.Copy:
		o, ok := op.Src.(*rigStore)
		if !ok {
			op.Err = backing.ErrNotSupported
			return
		}
		if o != s {
			o.mu.Lock()
			defer o.mu.Unlock()
		}
		copy(d, o.b[op.SrcOff:])
	case backing.Discard, backing.Zero:
		clear(d)
	case backing.Extents:
		// Pages of 4 KiB that hold only zeros are holes.
		for off := op.Off; off < op.Off+op.Len && int(op.N) < len(op.Ext); {
			end := min(off/4096*4096+4096, op.Off+op.Len)
			full := !allZero(s.b[off/4096*4096 : min(off/4096*4096+4096, int64(len(s.b)))])
			op.Ext[op.N] = backing.Extent{Off: off, Len: end - off, Allocated: full}
			op.N++
			off = end
		}
	}
}

// rig is a unit behind a target, and lanes to it.
type rig struct {
	tb testing.TB
	g  *loop.Group
	st *rigStore
	u  *Unit
	tg *Target
	p  *Port
	n  int
}

// rigNexus is one initiator.
type rigNexus struct {
	r  *rig
	nx *Nexus
	ln *Lane
	l  *loop.Loop
	// lun is where do sends commands.
	lun LUN
}

type rigFE struct {
	tb testing.TB
	id string // TransportID
}

// rigCall is a task under way.
type rigCall struct {
	t    Task
	n    int // calls of Done
	done chan struct{}
}

func (rigFE) Done(t *Task) {
	c := t.Ref.(*rigCall)
	c.n++
	if c.n == 1 {
		close(c.done)
	}
}
func (rigFE) Event(Event)                  {}
func (f rigFE) TransportID(dst []byte) int { return copy(dst, f.id) }

func newRig(tb testing.TB, c UnitConfig, st *rigStore) *rig {
	tb.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 1, NoUring: true})
	if err != nil {
		tb.Fatal(err)
	}
	u, err := NewUnit(c, st)
	if err != nil {
		tb.Fatal(err)
	}
	r := &rig{tb: tb, g: g, st: st, u: u, tg: NewTarget(TargetConfig{Name: "t"})}
	if err := r.tg.Map(0, u, MapOptions{}); err != nil {
		tb.Fatal(err)
	}
	r.p = r.tg.NewPort(goldenPort)
	tb.Cleanup(func() {
		done := make(chan int, 1)
		r.tg.Close(tempotest.Patience/2, func(stuck int) { done <- stuck })
		select {
		case n := <-done:
			if n != 0 {
				tb.Errorf("%d tasks stuck", n)
			}
		case <-time.After(tempotest.Patience):
			tb.Error("the target does not close")
		}
		g.Close()
		for _, b := range st.bad {
			tb.Errorf("store: %s", b)
		}
	})
	return r
}

// nexus attaches another initiator and takes its first unit attention away.
func (r *rig) nexus() *rigNexus {
	r.tb.Helper()
	n := r.fresh()
	c := n.do("00 00 00 00 00 00", nil, 0)
	n.want(c, "06 29/00")
	return n
}

func (r *rig) fresh() *rigNexus {
	r.tb.Helper()
	r.n++
	return r.attach(r.p, fmt.Sprintf("iqn.i,i,0x%012x", r.n))
}

// attach attaches an iSCSI initiator to any port.
func (r *rig) attach(p *Port, name string) *rigNexus {
	r.tb.Helper()
	nx, err := p.Attach(InitiatorID(name), rigFE{r.tb, iscsiTransportID(name)})
	if err != nil {
		r.tb.Fatal(err)
	}
	l := r.g.Loops()[0]
	ln, err := nx.Lane(l)
	if err != nil {
		r.tb.Fatal(err)
	}
	return &rigNexus{r: r, nx: nx, ln: ln, l: l}
}

// do runs the CDB given in hex.
func (n *rigNexus) do(cdb string, out []byte, room int) *rigCall {
	n.r.tb.Helper()
	var b []byte
	for _, f := range bytes.Fields([]byte(cdb)) {
		for len(f) >= 2 {
			var x byte
			fmt.Sscanf(string(f[:2]), "%02x", &x)
			b = append(b, x)
			f = f[2:]
		}
	}
	var v [][]byte
	if out != nil {
		v = [][]byte{out}
	}
	return n.run(n.lun, b, v, [][]byte{make([]byte, room)})
}

func (n *rigNexus) run(lun LUN, cdb []byte, out, in [][]byte) *rigCall {
	n.r.tb.Helper()
	c := &rigCall{done: make(chan struct{})}
	c.t.Ref = c
	c.t.LUN = lun
	c.t.CDBLen = uint8(copy(c.t.CDB[:], cdb))
	c.t.DataOut, c.t.DataIn = out, in
	n.l.Do(func() {
		n.ln.Submit(&c.t)
		n.ln.Kick()
	})
	select {
	case <-c.done:
	case <-time.After(tempotest.Patience):
		n.r.tb.Fatalf("CDB % x does not end", cdb)
	}
	n.l.Do(func() {}) // what would call Done a second time has had its chance
	if c.n != 1 {
		n.r.tb.Fatalf("CDB % x: Done %d times", cdb, c.n)
	}
	if c.t.InLen > bufsLen(in) {
		n.r.tb.Fatalf("CDB % x: InLen %d, room %d", cdb, c.t.InLen, bufsLen(in))
	}
	return c
}

// outcome is "good", a status, or key and additional sense code with what else the
// fixed-format sense data have: "05 24/00 cdb 2.7", "0e 1d/00 info 5".
func (c *rigCall) outcome() string {
	t := &c.t
	if t.Aborted {
		return "aborted"
	}
	if t.Status != StatusCheckCondition {
		if t.Status == StatusGood {
			return "good"
		}
		return t.Status.String()
	}
	s := t.Sense[:t.SenseLen]
	if s[0]&0x7f == 0x72 {
		return fmt.Sprintf("descriptor %02x %02x/%02x", s[1]&15, s[2], s[3])
	}
	o := fmt.Sprintf("%02x %02x/%02x", s[2]&15, s[12], s[13])
	if s[0]&0x80 != 0 {
		o += fmt.Sprintf(" info %d", uint32(s[3])<<24|uint32(s[4])<<16|uint32(s[5])<<8|uint32(s[6]))
	}
	if s[15]&0x80 != 0 {
		where := "param"
		if s[15]&0x40 != 0 {
			where = "cdb"
		}
		o += fmt.Sprintf(" %s %d", where, int(s[16])<<8|int(s[17]))
		if s[15]&0x08 != 0 {
			o += fmt.Sprintf(".%d", s[15]&7)
		}
	}
	return o
}

func (n *rigNexus) want(c *rigCall, outcome string) *rigCall {
	n.r.tb.Helper()
	if o := c.outcome(); o != outcome {
		n.r.tb.Errorf("CDB % x: %s, want %s", c.t.CDB[:16], o, outcome)
	}
	return c
}

// expect runs a CDB and wants an outcome.
func (n *rigNexus) expect(outcome, cdb string, out []byte, room int) *rigCall {
	n.r.tb.Helper()
	return n.want(n.do(cdb, out, room), outcome)
}

// in is what the task answered.
func (c *rigCall) in() []byte {
	return bytes.Join(c.t.DataIn, nil)[:c.t.InLen]
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
