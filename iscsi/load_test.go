package iscsi

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// session logs in as initiator i.
func (r *rig) session(i int, keys ...pdu.KeyValue) (*iscsitest.Conn, error) {
	c, err := iscsitest.Dial(r.addr())
	if err != nil {
		return nil, err
	}
	l := r.login()
	l.ISID = [6]byte{0x80, 0, 0, 1, 0, byte(i)}
	l.Keys = keys
	if err := c.Login(l); err != nil {
		c.Close()
		return nil, fmt.Errorf("session %d: %w", i, err)
	}
	for range 4 {
		if _, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)}); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// churn writes and reads back blocks of its own range of the disk, depth at a time,
// lengths and the way the data go at random.
func churn(c *iscsitest.Conn, i int, rounds, depth, maxBlocks int) (full int, err error) {
	const span = 8192 // blocks of each session
	rnd := rand.New(rand.NewPCG(uint64(i), 7))
	slot := span / depth
	for range rounds {
		data := make([][]byte, depth)
		var ks []*iscsitest.Task
		for j := range data {
			n := 1 + rnd.IntN(min(maxBlocks, slot))
			data[j] = random(n * 512)
			w := write(uint32(i*span+j*slot), data[j])
			w.NoImmediateData, w.NoUnsolicited = rnd.IntN(2) == 0, rnd.IntN(2) == 0
			w.Attr = pdu.TaskAttr(1 + rnd.IntN(3))
			if w.NoUnsolicited && !w.NoImmediateData {
				w.NoUnsolicited = false
			}
			k, err := c.Start(w)
			if err != nil {
				return full, err
			}
			ks = append(ks, k)
		}
		retry := make([]bool, depth)
		for j, k := range ks {
			if err := c.Wait(k); err != nil {
				return full, err
			}
			switch k.Status {
			case 0:
			case 0x28:
				full++
				retry[j] = true
			default:
				return full, fmt.Errorf("WRITE: status %#02x sense % x", k.Status, k.Sense)
			}
		}
		ks = ks[:0]
		for j := range data {
			k, err := c.Start(read(uint32(i*span+j*slot), len(data[j])/512))
			if err != nil {
				return full, err
			}
			ks = append(ks, k)
		}
		for j, k := range ks {
			if err := c.Wait(k); err != nil {
				return full, err
			}
			if k.Status != 0 || !retry[j] && !bytes.Equal(k.In, data[j]) {
				return full, fmt.Errorf("READ %d: status %#02x, %d bytes of %d, equal %v", j, k.Status, len(k.In), len(data[j]), bytes.Equal(k.In, data[j]))
			}
		}
	}
	return full, nil
}

// Several sessions at a time, within memory enough for hardly any of them.
func TestBackPressure(t *testing.T) {
	for _, x := range []struct {
		name  string
		slab  int64
		sess  int64
		conns int
	}{
		{"plenty", 0, 0, 4}, {"little", 8 << 20, 0, 6}, {"quota", 64 << 20, 1 << 20, 4}, {"hardly any", 4 << 20, 0, 6},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, rigOptions{quiet: true, slab: x.slab, limits: Limits{SessionMemory: x.sess}})
			var wg sync.WaitGroup
			for i := range x.conns {
				wg.Add(1)
				go func() {
					defer wg.Done()
					c, err := r.session(i)
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					full, err := churn(c, i, 6, 16, 512)
					if err != nil {
						t.Errorf("session %d: %v; %+v", i, err, r.srv.Stats())
					}
					if full > 0 {
						t.Logf("session %d: %d times TASK SET FULL", i, full)
					}
					if x.name == "plenty" && full > 0 {
						t.Error("TASK SET FULL with memory left")
					}
				}()
			}
			wg.Wait()
		})
	}
}

// A peer that sends commands and reads no answers holds no more than its share, and
// nobody else up.
func TestSlowReader(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, loops: 1, limits: Limits{SessionMemory: 16 << 20}})
	c, err := r.session(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var ks []*iscsitest.Task
	for range 120 {
		ks = append(ks, start(t, c, read(0, 512)))
	}
	// NOPs without end, from another goroutine: they are not read.
	other, err := r.session(2)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 200 {
		wantGood(t, other, start(t, other, read(0, 8)))
	}
	if n := r.slabs.Used(); n > 17<<20 {
		t.Errorf("%d bytes held", n)
	}
	for _, k := range ks {
		wantGood(t, c, k)
	}
}

// A peer that floods with junk and never reads: what waits for it is bounded, and the
// others do not notice.
func TestFlood(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, loops: 1})
	c, err := r.session(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := new(iscsitest.PDU)
	p.Reset(pdu.OpNOPOut)
	p.SetImmediate(true)
	p.SetTTT(pdu.ReservedTag)
	p.Data = make([]byte, 8192)
	b := bytes.Repeat(iscsitest.Encode(p, false, false, 0), 16)
	nc := c.NetConn()
	nc.SetWriteDeadline(time.Now().Add(time.Second))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	sent := 0
	for {
		n, err := nc.Write(b)
		sent += n
		if err != nil {
			break
		}
		if sent > 256<<20 {
			t.Fatal("everything is taken from a peer that does not read")
		}
	}
	runtime.ReadMemStats(&after)
	if d := int64(after.HeapAlloc) - int64(before.HeapAlloc); d > 8<<20 {
		t.Errorf("%d bytes of heap", d)
	}
	other, err := r.session(2)
	if err != nil {
		t.Fatal(err)
	}
	wantGood(t, other, start(t, other, read(0, 8)))
	other.Close()
	t.Logf("%d bytes taken; %+v", sent, r.srv.Stats())
}

// Sessions come and go under load, in every way; nothing is left behind (the rig
// looks).
func TestChurnSessions(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, loops: 3})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for n := range 15 {
				c, err := r.session(i % 4) // some share an ISID: they throw each other out
				if err != nil {
					continue
				}
				for range rnd.IntN(20) {
					w := write(uint32(i*8192), make([]byte, 512*(1+rnd.IntN(300))))
					w.HoldR2T = rnd.IntN(4) == 0
					if _, err := c.Start(w); err != nil {
						break
					}
					if _, err := c.Start(read(uint32(rnd.IntN(1000)), 1+rnd.IntN(300))); err != nil {
						break
					}
				}
				switch rnd.IntN(3) {
				case 0:
					c.SendRaw(random(100))
				case 1:
					c.NetConn().SetDeadline(time.Now().Add(2 * time.Second))
					c.Timeout = 2 * time.Second
					c.TMF(pdu.TargetWarmReset, 0, nil, n%2 == 0)
				}
				c.Close()
			}
		}()
	}
	wg.Wait()
	tempotest.Wait(t, "all sessions end", func() bool { return r.srv.Stats().Sessions == 0 })
	c, err := r.session(1)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// ORDERED commands do not pass writes that wait for their data, and are not passed.
func TestOrderedWaitsForData(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	c, err := r.session(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	one, two := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	hold := func(data []byte, a pdu.TaskAttr) *iscsitest.Task {
		w := write(0, data)
		w.NoImmediateData, w.NoUnsolicited, w.HoldR2T, w.Attr = true, true, true, a
		return start(t, c, w)
	}
	w1 := hold(one, pdu.AttrSimple)
	rd := read(0, 8)
	rd.Attr = pdu.AttrOrdered
	r1 := start(t, c, rd)
	w2 := hold(two, pdu.AttrOrdered)
	r2 := start(t, c, read(0, 8))
	answer := func(w *iscsitest.Task) {
		for len(w.R2Ts) == 0 {
			if err := c.Pump(); err != nil {
				t.Fatal(err)
			}
		}
		if r2.Done || w == w1 && r1.Done {
			t.Fatal("passed")
		}
		if err := c.AnswerR2T(w, w.R2Ts[0]); err != nil {
			t.Fatal(err)
		}
	}
	answer(w1)
	wantGood(t, c, r1)
	answer(w2)
	wantGood(t, c, r2)
	if !bytes.Equal(r1.In, one) || !bytes.Equal(r2.In, two) {
		t.Error("wrong order")
	}
}

// The same as by hand, but with header segments that few initiators send.
func TestAHS(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	c, err := r.session(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A bidirectional command that nobody knows: both residuals.
	k, err := c.Run(&iscsitest.Command{CDB: []byte{0x53, 0, 0, 0, 0, 0, 0, 0, 1, 0}, Out: make([]byte, 512), Edit: func(p *iscsitest.PDU) {
		p.SetRead(true)
		p.AHS = pdu.AppendBidiReadLength(nil, 512)
	}})
	if err != nil || k.Status != 2 || k.Residual != pdu.Underflow|pdu.BidiUnderflow || k.Count != 512 {
		t.Errorf("bidirectional: %v %+v", err, k)
	}
	for _, n := range []int{20, 32, 33, 200} {
		cdb := make([]byte, n)
		cdb[0], cdb[7] = 0x7f, byte(n-8)
		k, err = c.Run(&iscsitest.Command{CDB: cdb})
		if key, asc := iscsitest.Sense(k.Sense); err != nil || k.Status != 2 || key != 5 || asc != 0x2000 && asc != 0x2400 {
			t.Errorf("CDB of %d bytes: %v, %x/%04x", n, err, key, asc)
		}
	}
}

// A write whose store hangs keeps its session's nexus, not the connection's buffers'
// neighbours; Close says so and comes back.
func TestStuck(t *testing.T) {
	f := faulty(t)
	r := newRig(t, rigOptions{quiet: true, store: f, limits: Limits{TaskTimeout: 300 * time.Millisecond}})
	c, err := r.session(1)
	if err != nil {
		t.Fatal(err)
	}
	f.Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Delay: 1500 * time.Millisecond})
	k := start(t, c, write(0, make([]byte, 4096)))
	time.Sleep(50 * time.Millisecond)
	if got, err := c.TMF(pdu.AbortTask, 0, k, true); err != nil {
		t.Error(got, err)
	}
	c.Close()
	tempotest.Wait(t, "the task comes back", func() bool { return r.slabs.Used() == 0 })
}

// Negotiated limits other than the defaults.
func TestLoginPolicy(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, config: func(c *Config) {
		c.Login = login.Config{MaxRecvDataSegmentLength: 4096, MaxBurstLength: 8192, FirstBurstLength: 4096, RequireInitialR2T: true, NoImmediateData: true}
		c.Limits.Window = 3
	}})
	c, err := r.session(1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if full, err := churn(c, 1, 4, 8, 300); err != nil || full > 0 {
		t.Error(full, err)
	}
}
