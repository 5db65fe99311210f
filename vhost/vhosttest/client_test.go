package vhosttest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
)

func dial(t *testing.T, path string, o Options) *Client {
	t.Helper()
	c, err := Dial(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestExec(t *testing.T) {
	for _, style := range []Style{QEMU72, QEMU10} {
		_, path := newBackend(t)
		c := dial(t, path, Options{Style: style, Queues: 4, Used: 2, MemoryBytes: 8 << 20})
		ok(t, c.Start())
		for i := range c.Requests() {
			q := c.Request(i)
			want := pattern(8192, uint64(i))
			write := []byte{0x2a, 0, 0, 0, byte(i), 0, 0, 0, 16, 0}
			if r, err := q.Exec(LUN(1, 300), write, want, nil); err != nil || r.Status != 0 || r.Response != RespOK || r.Written != RespBytes {
				t.Fatal(r, err)
			}
			got := make([]byte, len(want))
			write[0] = 0x28
			if r, err := q.Exec(LUN(1, 300), write, nil, got); err != nil || r.Written != RespBytes+8192 || !bytes.Equal(got, want) {
				t.Fatal(r, err)
			}
			r, err := q.Exec(LUN(1, 300), []byte{0xff}, nil, nil)
			ok(t, err)
			if k, a := r.SenseCode(); r.Status != 2 || k != 5 || a != 0x2000 {
				t.Fatalf("%x %x %x", r.Status, k, a)
			}
		}
		ok(t, c.Stop())
		ok(t, c.Start())
		if r, err := c.Request(1).Exec(LUN(1, 0), make([]byte, 6), nil, nil); err != nil || r.Status != 0 {
			t.Fatal(r, err)
		}
		ok(t, c.Stop())
		ok(t, c.Reset())
		ok(t, c.Start())
		if r, err := c.Request(0).Exec(LUN(1, 0), make([]byte, 6), nil, nil); err != nil || r.Status != 0 {
			t.Fatal(r, err)
		}
	}
}

// TestLoad runs every way of waiting, with the index of the rings wrapping.
func TestLoad(t *testing.T) {
	for _, l := range []*Load{
		{Verify: true, Writes: 50},
		{Verify: true, Writes: 50, Spin: true, Indirect: true, Batch: 8},
		{Verify: true, Writes: 30, Depth: 1},
	} {
		_, path := newBackend(t)
		c := dial(t, path, Options{Queues: 2, StartIndex: 0xff00, MemoryBytes: 8 << 20})
		ok(t, c.Start())
		l.LUN, l.Blocks, l.Count, l.Seed = LUN(0, 0), 2048, 3000, 5
		r, err := l.Run(c)
		ok(t, err)
		if r.Requests != 6000 || r.Reads+r.Writes != 6000 || l.Done() != 6000 {
			t.Errorf("%+v", r)
		}
		t.Logf("%v each, %d kicks, %d calls", r.PerRequest(), r.Kicks, r.Calls)
	}
}

// TestLoadFinds: a block that is not what was written is noticed.
func TestLoadFinds(t *testing.T) {
	b, path := newBackend(t)
	c := dial(t, path, Options{MemoryBytes: 8 << 20})
	ok(t, c.Start())
	l := &Load{LUN: LUN(0, 0), Blocks: 128, Writes: 100, Verify: true, Count: 2000}
	_, err := l.Run(c)
	ok(t, err)
	ok(t, c.Stop())
	b.diskMu.Lock()
	b.disk[64<<12+77]++
	b.diskMu.Unlock()
	ok(t, c.Start())
	l.Writes, l.Count = 0, 2000
	p := l.parts[0]
	p.n.Store(0)
	if err := p.drive(); err == nil {
		t.Error("a changed byte was not found")
	} else {
		t.Log(err)
	}
}

// TestReconnect: memory, rings and inflight region stay, the base is the used index.
func TestReconnect(t *testing.T) {
	b, path := newBackend(t)
	c := dial(t, path, Options{Style: QEMU10, MemoryBytes: 8 << 20})
	ok(t, c.Start())
	q := c.Request(0)
	for range 3 {
		_, err := q.Exec(LUN(0, 0), make([]byte, 6), nil, nil)
		ok(t, err)
	}
	mem := c.InflightBytes()
	mem[100] = 9
	// What is submitted meanwhile is found without a kick.
	c.Disconnect()
	tempotest.Wait(t, "the back end sees the end of the connection", func() bool { return b.ended.Load() > 0 })
	r := &Request{LUN: LUN(0, 0), Tag: 77}
	ok(t, q.Submit(r))
	q.Kick()
	b.gotMu.Lock()
	b.got = nil
	b.gotMu.Unlock()
	ok(t, c.Reconnect())
	if q.base != 3 {
		t.Errorf("base %d", q.base)
	}
	ok(t, q.Await(r, 0))
	if r.Status != 0 || c.InflightBytes()[100] != 9 {
		t.Error(r.Status)
	}
	b.gotMu.Lock()
	defer b.gotMu.Unlock()
	if slices.Contains(b.got, GetInflightFD) || !slices.Contains(b.got, SetInflightFD) {
		t.Error("the inflight region was not kept:", b.got)
	}
}

// TestOrder holds the messages of a start against what was seen of QEMU.
func TestOrder(t *testing.T) {
	realize := []Message{GetFeatures, GetProtocolFeatures, SetProtocolFeatures, GetQueueNum, GetMaxMemSlots, SetOwner, GetFeatures,
		SetVringCall, SetVringErr, SetVringCall, SetVringErr, SetVringCall, SetVringErr, GetFeatures}
	ring := []Message{SetVringNum, SetVringBase, SetVringAddr, SetVringKick, SetVringCall}
	rings := slices.Concat(ring, ring, ring)
	enable := []Message{SetVringEnable, SetVringEnable, SetVringEnable}
	call := []Message{SetVringCall, SetVringCall, SetVringCall}
	last := []Message{GetStatus, SetStatus, GetFeatures}
	stop := slices.Concat(enable, []Message{GetVringBase, GetVringBase, GetVringBase, SetStatus})
	memory := []Message{AddMemReg, AddMemReg}
	for _, x := range []struct {
		style Style
		o     Options
		want  []Message
	}{
		{QEMU72, Options{}, slices.Concat(realize, []Message{GetInflightFD, SetInflightFD, SetFeatures}, memory, rings, enable, call, last, stop)},
		{QEMU10, Options{}, slices.Concat(realize, []Message{SetFeatures, GetInflightFD, SetInflightFD, SetFeatures}, memory, rings, enable, call, last, stop)},
	} {
		b, path := newBackend(t)
		x.o.Style, x.o.MemoryBytes = x.style, 8<<20
		c := dial(t, path, x.o)
		ok(t, c.Start())
		ok(t, c.Stop())
		ok(t, c.sync())
		b.gotMu.Lock()
		if got := b.got[:len(b.got)-1]; !slices.Equal(got, x.want) {
			t.Errorf("style %d:\n %v, want\n %v", x.style, got, x.want)
		}
		b.gotMu.Unlock()
	}
}

func TestCut(t *testing.T) {
	bufs := []Buf{{Addr: 100, Len: 10}, {Addr: 200, Len: 5}, {Addr: 205, Len: 5}}
	for at := range 21 {
		got := cut(nil, bufs, []int{at})
		n := 3
		if at != 0 && at != 10 && at != 15 && at != 20 {
			n = 4
		}
		if len(got) != n {
			t.Errorf("cut at %d: %v", at, got)
		}
		var all []uint64
		for _, b := range got {
			for i := range b.Len {
				all = append(all, b.Addr+uint64(i))
			}
		}
		for i, a := range all {
			want := uint64(100 + i)
			if i >= 10 {
				want = uint64(190 + i)
			}
			if a != want {
				t.Fatalf("cut at %d: byte %d at %d", at, i, a)
			}
		}
	}
	if got := merge(slices.Clone(bufs)); len(got) != 2 || got[1].Len != 10 {
		t.Error(got)
	}
	every := make([]int, 20)
	for i := range every {
		every[i] = i
	}
	if got := cut(nil, bufs, every); len(got) != 20 {
		t.Error(got)
	}
}

func TestHeaders(t *testing.T) {
	r := Request{LUN: LUN(3, 16383), Tag: 0x0102030405060708, Attr: 2, Prio: 5}
	r.SetCDB(0x28, 1, 2)
	b := make([]byte, ReqBytes)
	r.encode(b)
	want := append([]byte{1, 3, 0x7f, 0xff, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 2, 5, 0, 0x28, 1, 2}, make([]byte, 29)...)
	if !bytes.Equal(b, want) {
		t.Errorf("% x", b)
	}
	p := make([]byte, RespBytes)
	binary.LittleEndian.PutUint32(p, 8)
	p[4], p[8], p[10], p[11] = 7, 1, 2, 0
	copy(p[12:], []byte{0x72, 6, 0x29, 0})
	r.decode(p)
	if k, a := r.SenseCode(); k != 6 || a != 0x2900 || r.Resid != 7 || r.Qualifier != 1 || r.Status != 2 {
		t.Errorf("%+v", r)
	}
}

// TestRefused: an answer that says no is an error.
func TestRefused(t *testing.T) {
	if os.Getpagesize() != pageBytes {
		t.Skip("pages of another size")
	}
	if _, err := NewMemory(RegionSpec{Size: 100}); err == nil {
		t.Error("half a page")
	}
	m, err := NewMemory(RegionSpec{Size: 8192, Guest: 4096})
	ok(t, err)
	if m.Holds(0, 1) || !m.Holds(4096, 8192) || m.Holds(4096, 8193) || m.Holds(^uint64(0), 2) {
		t.Error("Holds")
	}
	a, err := m.Alloc(10, 64)
	b, err2 := m.Alloc(10, 64)
	if a != 4096 || b != 4160 || err != nil || err2 != nil {
		t.Error(a, b)
	}
	if _, err := m.Alloc(8192, 1); err == nil {
		t.Error("more than there is")
	}
	ok(t, m.Close())
}
