package vhost

import (
	"log/slog"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/srptest"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring/vringtest"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// link is a driver as srptest has it: a control queue and a request queue.
type link struct {
	g        *guest
	ctl, req *queue
	limit    int
	stop     chan struct{}
	done     sync.WaitGroup

	mu   sync.Mutex
	out  [2]map[uint16]*sent // by head: control, request
	tags map[uint64]*sent
	free []uint64 // buffers of bufLen
}

const bufLen = 1<<20 + 64<<10

// sent is a command under way.
type sent struct {
	c    *srptest.Command
	ch   chan srptest.Result
	buf  uint64
	resp []byte
	data []byte // of In
}

// newLink is a srptest.Factory.
func newLink(features uint64) srptest.Factory {
	return func(tb testing.TB, p *srp.Port, l *loop.Loop) srptest.Link {
		d := testDevice(tb, l.Group(), l, p)
		g := newGuest(tb, d)
		k := &link{g: g, limit: p.Config().Requests, stop: make(chan struct{}), tags: map[uint64]*sent{}}
		k.ctl = g.newQueue(controlQueue, 64, features).start()
		k.req = g.newQueue(requestQueue, 256, features).start()
		for range 2*k.limit + 8 {
			k.free = append(k.free, g.alloc(bufLen))
		}
		for i, q := range []*queue{k.ctl, k.req} {
			k.out[i] = map[uint16]*sent{}
			k.done.Add(1)
			go k.reap(i, q)
		}
		return k
	}
}

// Limit is how many commands may be sent now.
func (k *link) Limit() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.limit - len(k.out[1])
}

// Close stops the device.
func (k *link) Close() {
	k.mu.Lock()
	select {
	case <-k.stop:
		k.mu.Unlock()
		return
	default:
	}
	close(k.stop)
	k.mu.Unlock()
	k.done.Wait()
	k.g.close()
}

// Hung takes back an aborted command.
func (k *link) Hung(tag uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.tags[tag]
	delete(k.tags, tag)
	return s != nil // it did not end otherwise
}

// split divides n bytes at a into parts.
func split(a uint64, n, parts int) (list []vringtest.Buf) {
	for i := range parts {
		lo, hi := n*i/parts, n*(i+1)/parts
		if hi > lo {
			list = append(list, vringtest.Buf{Addr: a + uint64(lo), Len: uint32(hi - lo)})
		}
	}
	return list
}

// Start sends c.
func (k *link) Start(c *srptest.Command) (<-chan srptest.Result, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &sent{c: c, ch: make(chan srptest.Result, 1), buf: k.free[len(k.free)-1]}
	k.free = k.free[:len(k.free)-1]
	g, i, q := k.g, 1, k.req
	n, _ := c.LUN.Number()
	lun := virtioscsi.MakeLUN(0, n)
	at := s.buf
	reserve := func(n int) ([]byte, uint64) {
		a := at
		at += uint64(n+7) &^ 7
		b := g.At(a, n)
		clear(b)
		return b, a
	}
	var out, in []vringtest.Buf
	indirect := c.Form == srptest.FormTable && k.req.l.TableLen > 0
	if c.Func != 0 {
		i, q = 0, k.ctl
		var h virtioscsi.TMF
		st, ok := virtioscsi.Subtype(c.Func)
		if !ok {
			st = 99
		}
		h.Set(st, lun, c.TaskTag)
		b, a := reserve(len(h))
		copy(b, h[:])
		out = split(a, len(h), 2)
		s.resp, a = reserve(virtioscsi.TMFRespLen)
		in = split(a, virtioscsi.TMFRespLen, 1)
	} else {
		var h virtioscsi.Req
		h.Set(lun, c.Tag, c.Attr, c.CDB)
		// Header and data in one piece, each in its own, or split anyhow.
		b, a := reserve(len(h) + len(c.Out))
		copy(b[copy(b, h[:]):], c.Out)
		r, ra := reserve(virtioscsi.RespLen + len(c.In))
		s.resp, s.data = r[:virtioscsi.RespLen], r[virtioscsi.RespLen:]
		switch c.Form {
		case srptest.FormDirect:
			out = append(split(a, len(h), 1), split(a+uint64(len(h)), len(c.Out), 1)...)
			in = append(split(ra, virtioscsi.RespLen, 1), split(ra+virtioscsi.RespLen, len(c.In), 1)...)
		case srptest.FormInline:
			out, in = split(a, len(b), 1), split(ra, len(r), 1)
		default:
			out, in = split(a, len(b), 5), split(ra, len(r), 11)
		}
	}
	head := q.add(out, in, indirect)
	k.out[i][head] = s
	if i == 1 {
		k.tags[c.Tag] = s
	}
	return s.ch, nil
}

// reap takes answers off queue i.
func (k *link) reap(i int, q *queue) {
	defer k.done.Done()
	for {
		k.mu.Lock()
		k.take(i, q)
		k.mu.Unlock()
		select {
		case <-k.stop:
			return
		default:
		}
		q.sleep()
	}
}

// take takes what is there.
func (k *link) take(i int, q *queue) {
	for {
		head, n, ok := q.used()
		if !ok {
			return
		}
		if i == 0 {
			// What a function has aborted came back before the function's answer.
			k.take(1, k.req)
		}
		k.ended(i, head, n)
	}
}

// ended takes the answer of the command that head began.
func (k *link) ended(i int, head uint16, n uint32) {
	s := k.out[i][head]
	delete(k.out[i], head)
	k.free = append(k.free, s.buf)
	if i == 0 {
		res := srptest.Result{Response: scsi.TMFailed}
		switch virtioscsi.Response(s.resp[0]) {
		case virtioscsi.OK, virtioscsi.FunctionSucceeded:
			res.Response = scsi.TMComplete
		case virtioscsi.FunctionRejected:
			res.Response = scsi.TMNotSupported
		case virtioscsi.IncorrectLUN, virtioscsi.BadTarget:
			res.Response = scsi.TMRejected
		}
		s.ch <- res
		return
	}
	r := (*virtioscsi.Resp)(s.resp)
	res := srptest.Result{Status: r.Status(), Sense: append([]byte(nil), r.Sense()...)}
	left := int64(r.Residual())
	switch r.Response() {
	case virtioscsi.OK:
	case virtioscsi.Overrun:
		left = srptest.Overflow
	case virtioscsi.Aborted, virtioscsi.Reset:
		return
	default:
		k.g.Errorf("response %v", r.Response())
	}
	if len(s.c.Out) > 0 {
		res.OutResidual = left
	} else {
		res.InResidual = left
	}
	if n < virtioscsi.RespLen || int(n) > virtioscsi.RespLen+len(s.c.In) {
		k.g.Errorf("used length %d", n)
	}
	copy(s.c.In, s.data)
	delete(k.tags, s.c.Tag)
	s.ch <- res
}

func TestCarrier(t *testing.T) {
	mem := func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
		return backing.Open("mem:", backing.Options{Size: size, Group: g})
	}
	file := func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
		return backing.Open("file:"+tb.TempDir()+"/disk", backing.Options{Size: size, Create: true, Group: g})
	}
	for _, c := range []struct {
		name     string
		features uint64
		open     func(testing.TB, *loop.Group, int64) (backing.Store, error)
	}{{"Mem", allOn, mem}, {"File", allOn, file}, {"Plain", 1 << virtioscsi.FeatureVersion1, mem}} {
		if testing.Short() && c.name != "Mem" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			srptest.Run(t, srptest.Config{Carrier: newLink(c.features), New: newSlot, Open: c.open})
		})
	}
}
