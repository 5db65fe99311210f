package ibmvio

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/iu"
	"github.com/vtgt/vtgt/srp/srptest"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// unitBase is the lowest address of information units; the client's data are below.
const unitBase = 1 << 40

// ringLen is the length of the client's queue, entries: less than a limit's worth.
const ringLen = 64

// partition is a hypervisor in memory with the client on it: its memory, its queue, and
// its epoch.
type partition struct {
	testing.TB
	l    *loop.Loop
	a    *adapter
	data *srptest.Memory // nil: everything is in units

	mu      sync.Mutex
	epoch   uint32
	ring    [ringLen]crq.Entry
	at      int // where the hypervisor writes
	read    int // where the client reads
	gone    bool
	units   map[uint64][]byte
	next    uint64
	holding bool
	held    []*Op
	sent    []sent // to the server
	wake    chan struct{}
	node    loop.Node // todo
	mail    loop.Node // sent
	full    int       // entries for which there was no room
	dev     *device   // nil: the adapter is in this process

	todo opList // the loop's
	skip bool
}

// sent is an entry on its way to the server.
type sent struct {
	e     crq.Entry
	epoch uint32
}

func newPartition(tb testing.TB, a *adapter) *partition {
	p := &partition{TB: tb, l: a.loop, a: a, units: map[uint64][]byte{}, next: unitBase, wake: make(chan struct{}, 1)}
	p.node.Init(p)
	p.mail.Init((*partitionMail)(p))
	return p
}

// Do is the Hypervisor's.
func (p *partition) Do(op *Op) {
	p.todo.push(op)
	if !p.node.Queued() {
		p.l.Post(&p.node)
	}
}

// Kick is the Hypervisor's.
func (p *partition) Kick() {}

// Close is the Hypervisor's.
func (p *partition) Close(error) { p.mu.Lock(); p.gone = true; p.mu.Unlock(); p.a.lost(p) }

// Handle does what there is to do, on the loop.
func (p *partition) Handle(*loop.Node) {
	list := p.todo
	p.todo = opList{}
	for op := list.pop(); op != nil; op = list.pop() {
		p.mu.Lock()
		if p.holding && op.Kind != OpSend && op.Addr < unitBase {
			p.held = append(p.held, op)
			p.mu.Unlock()
			continue
		}
		p.mu.Unlock()
		op.Err = p.do(op)
		op.Owner.Ended(op)
	}
}

// do does op and tells how it ended.
func (p *partition) do(op *Op) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.skip = err != nil && op.Link }()
	switch {
	case p.gone:
		return ErrLost
	case p.skip:
		return ErrSkipped
	case op.Epoch != p.epoch:
		return ErrStale
	case op.Kind == OpSend:
		e := &p.ring[p.at%ringLen]
		if e.Header() != crq.Free {
			p.full++
			return ErrFull
		}
		*e = op.Entry
		p.at++
		select {
		case p.wake <- struct{}{}:
		default:
		}
		return nil
	}
	b := p.find(op)
	if b == nil {
		return ErrAddress
	}
	if op.Kind == OpRead {
		copy(op.Buf, b)
	} else {
		copy(b, op.Buf)
	}
	return nil
}

// find gives the memory that op is about, or nil. Lock held.
func (p *partition) find(op *Op) []byte {
	for a, b := range p.units {
		if op.Addr >= a && op.Addr-a <= uint64(len(b)) && uint64(len(op.Buf)) <= uint64(len(b))-(op.Addr-a) {
			return b[op.Addr-a:][:len(op.Buf)]
		}
	}
	if p.data == nil {
		return nil
	}
	b, err := p.data.At(iu.Segment{Addr: op.Addr, Key: 0x5a, Len: uint32(len(op.Buf))})
	if err != nil {
		return nil
	}
	return b
}

// unit maps n bytes with b at their front, and gives the address.
func (p *partition) unit(b []byte, n int) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := make([]byte, n)
	copy(u, b)
	at := p.next
	p.units[at] = u
	p.next += uint64(n+0xfff) &^ 0xfff
	return at
}

// at gives a copy of n bytes at an address of a unit.
func (p *partition) look(at uint64, n int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]byte(nil), p.units[at][:n]...)
}

func (p *partition) unmap(at uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.units, at)
}

// call is the client's H_SEND_CRQ.
func (p *partition) call(e crq.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Header() == crq.InitMsg && e.Format() == crq.Init {
		p.epoch++
	}
	if p.dev != nil {
		p.dev.write(wire.AppendCRQ(nil, p.epoch, (*[16]byte)(&e)))
		return
	}
	p.sent = append(p.sent, sent{e, p.epoch})
	p.l.PostOnce(&p.mail)
}

// partitionMail is a partition that brings entries to the server.
type partitionMail partition

func (h *partitionMail) Handle(*loop.Node) {
	h.mu.Lock()
	list, gone := h.sent, h.gone
	h.sent = nil
	h.mu.Unlock()
	if gone {
		return
	}
	for i := range list {
		h.a.entry(&list[i].e, list[i].epoch)
	}
}

// take gives the next entry of the client's queue; ok is false when there is none.
func (p *partition) take() (e crq.Entry, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.ring[p.read%ringLen]
	if s.Header() == crq.Free {
		return e, false
	}
	e = *s
	*s = crq.Entry{}
	p.read++
	return e, true
}

// await waits for an entry.
func (p *partition) await() crq.Entry {
	p.Helper()
	var e crq.Entry
	if !tempotest.Settles(func() (ok bool) { e, ok = p.take(); return ok }) {
		p.Fatal("no entry comes")
	}
	return e
}

// Hold, Held and Release are srptest's.
func (p *partition) Hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holding = on
}

func (p *partition) Held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

func (p *partition) Release(err error) {
	p.mu.Lock()
	list := p.held
	p.held = nil
	p.mu.Unlock()
	p.l.Do(func() {
		for _, op := range list {
			if op.Err = err; err == nil {
				op.Err = p.do(op)
			}
			op.Owner.Ended(op)
		}
	})
}

// init begins anew and waits for the server.
func (p *partition) init() {
	p.Helper()
	p.call(crq.Message(crq.InitMsg, crq.Init))
	for {
		switch e := p.await(); {
		case e.Header() == crq.InitMsg && e.Format() == crq.InitComplete:
			return
		case e.Header() == crq.InitMsg && e.Format() == crq.Init:
			// The server's greeting: the other INIT is under way.
		default:
			p.Fatalf("%x instead of INIT COMPLETE", e)
		}
	}
}

// testAdapter makes an adapter of a port, id 0.
func testAdapter(tb testing.TB, l *loop.Loop, ports ...*srp.Port) *adapter {
	tb.Helper()
	c := ports[0].Config()
	a := newAdapter(adapterConfig{Name: "t1", Loop: l, Initiator: c.Initiator, Limit: c.Requests, Deadline: c.Deadline, Log: discard()})
	ts := &targets{}
	for i, p := range ports {
		t, err := a.adopt(TargetPort{ID: uint8(i)}, p)
		if err != nil {
			tb.Fatal(err)
		}
		ts.list = append(ts.list, t)
		ts.by[i] = t
	}
	a.table.Store(ts)
	return a
}

// link is a client as srptest has it.
type link struct {
	*srptest.Initiator
	*partition
	limit int

	lmu  sync.Mutex
	iu   map[uint64][]uint64 // addresses of units by tag
	stop chan struct{}
	done sync.WaitGroup
	once sync.Once
}

// factory makes srptest's links. They share a port, of which an adapter lets go when what
// its client has left behind is reset.
func factory() srptest.Factory {
	var last *adapter
	return func(tb testing.TB, p *srp.Port, l *loop.Loop) srptest.Link {
		if last != nil && last.table.Load().list[0].port == p {
			tempotest.Settles(func() (ok bool) { last.loop.Do(func() { ok = last.resets == 0 }); return ok })
		}
		k := newLink(tb, p, l)
		last = k.a
		return k
	}
}

// newLink makes a link that is logged in.
func newLink(tb testing.TB, p *srp.Port, l *loop.Loop) *link {
	a := testAdapter(tb, l, p)
	k := unlinked(tb, a)
	l.Do(func() { a.attach(k.partition, Greeting{Registered: true, Served: true}) })
	k.login(p)
	return k
}

// unlinked is a link without a server.
func unlinked(tb testing.TB, a *adapter) *link {
	k := &link{partition: newPartition(tb, a), iu: map[uint64][]uint64{}, stop: make(chan struct{})}
	k.Initiator = srptest.NewInitiator(k.transmit)
	k.data = k.Initiator.Memory()
	return k
}

// login waits for event 6, begins and logs in.
func (k *link) login(p *srp.Port) {
	if e := k.await(); e != crq.Message(crq.Transport, crq.Migrated) {
		k.Fatalf("%x instead of transport event 6", e)
	}
	k.init()
	k.done.Add(1)
	go k.reap()
	if err := k.Login(iu.PortID(p.Config().Initiator)); err != nil {
		k.Fatal(err)
	}
}

// transmit sends a unit.
func (k *link) transmit(b []byte) error {
	n := max(len(b), 256)
	at := k.unit(b, n)
	if len(b) >= 16 {
		k.lmu.Lock()
		k.iu[iu.Tag(b)] = append(k.iu[iu.Tag(b)], at)
		k.lmu.Unlock()
	}
	k.call(crq.Command(crq.SRP, len(b), at))
	return nil
}

// reap takes responses.
func (k *link) reap() {
	defer k.done.Done()
	for {
		select {
		case <-k.stop:
			return
		case <-k.wake:
		}
		for {
			e, ok := k.take()
			if !ok {
				break
			}
			if e.Header() == crq.Transport {
				k.over()
				return
			}
			k.response(e)
		}
	}
}

// over ends the link: the server has.
func (k *link) over() {
	k.vanish()
	k.Lost()
}

// vanish ends the virtual machine.
func (k *link) vanish() {
	if k.dev != nil {
		k.dev.close()
		return
	}
	k.l.Do(func() { k.partition.Close(nil) })
}

// response takes one.
func (k *link) response(e crq.Entry) {
	if e.Header() != crq.Payload {
		k.Errorf("entry %x", e)
		return
	}
	k.lmu.Lock()
	list := k.iu[e.Pointer()]
	at := uint64(0)
	for i, u := range list {
		if b := k.look(u, 1); b[0] >= 0xc0 {
			at = u
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(k.iu, e.Pointer())
	} else {
		k.iu[e.Pointer()] = list
	}
	k.lmu.Unlock()
	if at == 0 || e.Length() > 256 || e.Format() != crq.SRP {
		k.Errorf("entry %x: no unit of that tag was answered", e)
		return
	}
	k.Receive(k.look(at, e.Length()))
	k.unmap(at)
}

// Close has the virtual machine vanish.
func (k *link) Close() {
	k.once.Do(func() {
		k.vanish()
		close(k.stop)
		k.done.Wait()
		k.Lost()
	})
}

func TestCarrier(t *testing.T) {
	for _, scheme := range []string{"mem", "file"} {
		if testing.Short() && scheme != "mem" {
			continue
		}
		t.Run(scheme, func(t *testing.T) {
			srptest.Run(t, srptest.Config{Carrier: factory(), New: newPart, Keyless: true, Open: func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
				if scheme == "mem" {
					return backing.Open("mem:", backing.Options{Size: size, Group: g})
				}
				return backing.Open(fmt.Sprint("file:", tb.TempDir(), "/disk"), backing.Options{Size: size, Create: true, Group: g})
			}})
		})
	}
}
