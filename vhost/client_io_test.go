package vhost_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	for i := n &^ 7; i < n; i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

var lun0 = vhosttest.LUN(0, 0)

func read10(lba uint32, blocks int) []byte  { return scsitest.CDB10(0x28, lba, uint16(blocks)) }
func write10(lba uint32, blocks int) []byte { return scsitest.CDB10(0x2a, lba, uint16(blocks)) }

// command runs a command and wants an answer of some kind.
func command(tb testing.TB, q *vhosttest.Queue, lun [8]byte, cdb, out, in []byte) *vhosttest.Request {
	tb.Helper()
	r, err := q.Exec(lun, cdb, out, in)
	if err != nil {
		tb.Fatal(err)
	}
	if r.SenseLen > 96 || r.Written < vhosttest.RespBytes || int(r.Written) > vhosttest.RespBytes+len(in) {
		tb.Fatalf("CDB % x: %d bytes written of %d, %d of sense", cdb, r.Written, vhosttest.RespBytes+len(in), r.SenseLen)
	}
	return r
}

// good runs a command to GOOD, past unit attentions.
func good(tb testing.TB, q *vhosttest.Queue, lun [8]byte, cdb, out, in []byte) *vhosttest.Request {
	tb.Helper()
	for range 8 {
		r := command(tb, q, lun, cdb, out, in)
		if r.Response == 0 && r.Status == 0 {
			return r
		}
		if key, _ := r.SenseCode(); r.Response != 0 || r.Status != 2 || key != 6 {
			tb.Fatalf("CDB % x: %s", cdb, outcome(r))
		}
	}
	tb.Fatalf("CDB % x: unit attentions without end", cdb)
	return nil
}

func outcome(r *vhosttest.Request) string {
	key, asc := r.SenseCode()
	return fmt.Sprintf("response %d, status %#02x, sense %x/%04x, residual %d", r.Response, r.Status, key, asc, r.Resid)
}

// check wants CHECK CONDITION with that sense.
func check(tb testing.TB, r *vhosttest.Request, key byte, asc uint16) {
	tb.Helper()
	if k, a := r.SenseCode(); r.Response != 0 || r.Status != 2 || k != key || a != asc {
		tb.Errorf("%s; want sense %x/%04x", outcome(r), key, asc)
	}
}

// TestClientCommands runs what every guest runs, over 1, 2 and 4 queues and in both
// styles of QEMU.
func TestClientCommands(t *testing.T) {
	for _, queues := range []int{1, 2, 4} {
		for _, style := range []vhosttest.Style{vhosttest.QEMU72, vhosttest.QEMU10} {
			t.Run(fmt.Sprintf("%d queues, style %d", queues, style), func(t *testing.T) {
				r := newRig(t, rigOptions{maps: []mapping{{0, 0, 0}, {0, 5, 1}, {253, 0, 2}, {253, 300, 3}, {253, 16383, 4}}})
				c := r.dial(vhosttest.Options{Queues: queues, Style: style})
				for i := range queues {
					commands(t, c.Request(i), uint64(i))
				}
			})
		}
	}
}

func commands(t *testing.T, q *vhosttest.Queue, seed uint64) {
	b := make([]byte, 96)
	res := good(t, q, lun0, []byte{0x12, 0, 0, 0, 96, 0}, nil, b)
	if b[0] != 0 || string(b[8:16]) != "vtgt    " || res.Written != vhosttest.RespBytes+uint32(b[4])+5 || res.Resid != 96-uint32(b[4])-5 {
		t.Errorf("INQUIRY: % x, %d bytes, residual %d", b[:36], res.Written, res.Resid)
	}
	// VPD 83: our NAA, and the LUNs of a target have different ones.
	seen := map[string]bool{}
	for _, l := range [][8]byte{lun0, vhosttest.LUN(0, 5), vhosttest.LUN(253, 0), vhosttest.LUN(253, 300), vhosttest.LUN(253, 16383)} {
		p := make([]byte, 255)
		good(t, q, l, []byte{0x12, 1, 0x83, 0, 255, 0}, nil, p)
		id := naa(t, p)
		if seen[id] {
			t.Errorf("LUN %x: NAA %x twice", l, id)
		}
		seen[id] = true
	}
	luns := func(target uint8) (got []uint16) {
		p := make([]byte, 256)
		good(t, q, vhosttest.LUN(target, 0), []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, nil, p)
		for i := 8; i < 8+int(binary.BigEndian.Uint32(p)); i += 8 {
			got = append(got, binary.BigEndian.Uint16(p[i:])&0x3fff)
		}
		return got
	}
	if got := luns(0); !slices.Equal(got, []uint16{0, 5}) {
		t.Error("REPORT LUNS of target 0:", got)
	}
	if got := luns(253); !slices.Equal(got, []uint16{0, 300, 16383}) {
		t.Error("REPORT LUNS of target 253:", got)
	}
	for _, l := range [][8]byte{lun0, vhosttest.LUN(253, 16383)} {
		want := pattern(64<<10, seed)
		lba := uint32(seed * 1000)
		good(t, q, l, write10(lba, 128), want, nil)
		got := make([]byte, len(want))
		good(t, q, l, read10(lba, 128), nil, got)
		if !bytes.Equal(got, want) {
			t.Errorf("LUN %x: what was read is not what was written", l)
		}
	}
	check(t, command(t, q, lun0, []byte{0xee}, nil, nil), 5, 0x2000)
	check(t, command(t, q, lun0, read10(diskBytes/512, 1), nil, make([]byte, 512)), 5, 0x2100)
	// LUNs and targets that are not there.
	check(t, command(t, q, vhosttest.LUN(0, 1), []byte{0, 0, 0, 0, 0, 0}, nil, nil), 5, 0x2500)
	for _, l := range [][8]byte{vhosttest.LUN(1, 0), vhosttest.LUN(254, 0), {2}, {1, 0, 0x80, 1}, {1, 0, 0xc0, 1}, {}} {
		if x := command(t, q, l, []byte{0, 0, 0, 0, 0, 0}, nil, nil); x.Response != vhosttest.RespBadTarget && x.Response != vhosttest.RespIncorrectLUN {
			if k, a := x.SenseCode(); x.Status != 2 || k != 5 || a != 0x2500 {
				t.Errorf("LUN % x: %s", l, outcome(x))
			}
		}
	}
	if x := command(t, q, vhosttest.LUN(7, 0), []byte{0x12, 0, 0, 0, 36, 0}, nil, b[:36]); x.Response != vhosttest.RespBadTarget {
		t.Errorf("INQUIRY of a target that is not there: %s", outcome(x))
	}
}

// naa finds the NAA designator of a VPD page 83h and checks what Windows' vioscsi asks of
// all of them: that they are short.
func naa(t *testing.T, p []byte) (id string) {
	t.Helper()
	end := 4 + int(binary.BigEndian.Uint16(p[2:]))
	if p[1] != 0x83 || end > len(p) {
		t.Fatalf("VPD 83: % x", p)
	}
	for i := 4; i < end; {
		n := 4 + int(p[i+3])
		if n > 64 {
			t.Errorf("VPD 83: a designator of %d bytes", n)
		}
		if p[i+1]&0x3f == 3 {
			id = fmt.Sprintf("%x", p[i+4:i+n])
		}
		i += n
	}
	if id == "" {
		t.Errorf("VPD 83 has no NAA: % x", p[:end])
	}
	return id
}

// TestClientResiduals: what is left over, and what is missing.
func TestClientResiduals(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{})
	q := c.Request(0)
	want := pattern(4096, 3)
	good(t, q, lun0, write10(0, 8), want, nil)
	buf := make([]byte, 8192)
	x := good(t, q, lun0, read10(0, 8), nil, buf)
	if x.Response != 0 || x.Status != 0 || x.Resid != 4096 || x.Written != vhosttest.RespBytes+4096 || !bytes.Equal(buf[:4096], want) || !bytes.Equal(buf[4096:], make([]byte, 4096)) {
		t.Errorf("READ of 4096 bytes into 8192: %s, %d written", outcome(x), x.Written)
	}
	x = command(t, q, lun0, write10(0, 8), append(want, make([]byte, 1024)...), nil)
	if x.Response == 0 && x.Status == 0 && x.Resid != 1024 {
		t.Errorf("WRITE of 4096 bytes with 5120: %s", outcome(x))
	}
	// Too little room or data: OVERRUN, and no byte beyond what there is.
	small := make([]byte, 512)
	x = command(t, q, lun0, read10(0, 8), nil, small)
	if x.Response != vhosttest.RespOverrun || x.Written > vhosttest.RespBytes+512 {
		t.Errorf("READ of 4096 bytes into 512: %s, %d written", outcome(x), x.Written)
	}
	good(t, q, lun0, write10(0, 8), want, nil)
	x = command(t, q, lun0, write10(0, 8), pattern(512, 9), nil)
	if x.Response != vhosttest.RespOverrun {
		t.Errorf("WRITE of 4096 bytes with 512: %s", outcome(x))
	}
	good(t, q, lun0, read10(0, 8), nil, buf[:4096])
	if !bytes.Equal(buf[512:4096], want[512:]) {
		t.Error("a WRITE with too few data has written more")
	}
	// Data in both directions were not agreed upon (INOUT).
	if x = command(t, q, lun0, read10(0, 1), want[:512], small); x.Response != vhosttest.RespFailure {
		t.Errorf("data in both directions: %s", outcome(x))
	}
}

// TestClientLayouts splits a WRITE and a READ at every byte, in chains and in tables, and
// lays header and data into one descriptor.
func TestClientLayouts(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{Size: 256})
	q := c.Request(0)
	good(t, q, lun0, make([]byte, 6), nil, nil)
	at, err := c.Mem.Alloc(16384, 4096)
	r.ok(err)
	const n = 1024
	// Header directly before the data.
	out := at + 4096
	req := out - vhosttest.ReqBytes
	in := at + 8192
	resp := in - vhosttest.RespBytes
	x := &vhosttest.Request{LUN: lun0, ReqAt: req, RespAt: resp, Merge: true}
	run := func(what string, write bool, k uint64) {
		t.Helper()
		want := pattern(n, k)
		x.Tag++
		if write {
			copy(c.Mem.At(out, n), want)
			x.SetCDB(write10(uint32(k%8), 2)...)
			x.Out, x.In = []vhosttest.Buf{{Addr: out, Len: n}}, nil
		} else {
			clear(c.Mem.At(in, n))
			x.SetCDB(read10(uint32(k%8), 2)...)
			x.Out, x.In = nil, []vhosttest.Buf{{Addr: in, Len: n}}
		}
		if err := q.Do(x); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if x.Response != 0 || x.Status != 0 || x.Resid != 0 {
			t.Fatalf("%s: %s", what, outcome(x))
		}
		if !write && !bytes.Equal(c.Mem.At(in, n), want) {
			t.Fatalf("%s: not what was written", what)
		}
	}
	for _, indirect := range []bool{false, true} {
		x.Indirect = indirect
		for i := range vhosttest.RespBytes + n {
			what := fmt.Sprintf("cut at %d, indirect %v", i, indirect)
			x.Split, x.SplitIn = nil, nil
			if i < vhosttest.ReqBytes+n {
				x.Split = []int{i}
			}
			run(what, true, uint64(i))
			x.Split, x.SplitIn = nil, []int{i}
			if i < vhosttest.ReqBytes {
				x.Split = []int{i}
			}
			run(what, false, uint64(i))
		}
	}
	// Every byte of both headers in a descriptor of its own.
	var req1, resp1 []int
	for i := range vhosttest.ReqBytes {
		req1 = append(req1, i)
	}
	for i := range vhosttest.RespBytes {
		resp1 = append(resp1, i)
	}
	x.Indirect, x.Split, x.SplitIn = false, req1, resp1
	run("header bytes one by one", true, 1)
	run("header bytes one by one", false, 1)
}

// TestClientIndirect: long tables, longer than the ring.
func TestClientIndirect(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{Size: 32, Table: 300})
	q := c.Request(0)
	good(t, q, lun0, make([]byte, 6), nil, nil)
	const pieces = 256
	at, err := c.Mem.Alloc(pieces*1024, 4096)
	r.ok(err)
	x := &vhosttest.Request{LUN: lun0, Indirect: true}
	x.SetCDB(write10(0, pieces)...)
	want := pattern(pieces*512, 4)
	for i := range pieces {
		// Pieces in descending order, with gaps.
		a := at + uint64(1024*(pieces-1-i))
		copy(c.Mem.At(a, 512), want[512*i:])
		x.Out = append(x.Out, vhosttest.Buf{Addr: a, Len: 512})
	}
	r.ok(q.Do(x))
	if x.Response != 0 || x.Status != 0 {
		t.Fatal(outcome(x))
	}
	got := make([]byte, len(want))
	good(t, q, lun0, read10(0, pieces), nil, got)
	if !bytes.Equal(got, want) {
		t.Error("not what was written")
	}
	x.In, x.Out = x.Out, nil
	x.SetCDB(read10(0, pieces)...)
	for _, b := range x.In {
		clear(c.Mem.At(b.Addr, int(b.Len)))
	}
	r.ok(q.Do(x))
	if x.Response != 0 || x.Status != 0 {
		t.Fatal(outcome(x))
	}
	for i, b := range x.In {
		if !bytes.Equal(c.Mem.At(b.Addr, 512), want[512*i:][:512]) {
			t.Fatalf("piece %d is not what was written", i)
		}
	}
}

// TestClientManyQueues: a device of many queues, of which few are used, and the other
// way round; event idx and not; indices that wrap.
func TestClientManyQueues(t *testing.T) {
	hosttest.Descriptors(t, 1024)
	for _, o := range []vhosttest.Options{
		{Queues: 200, Used: 16, Style: vhosttest.QEMU10, Size: 64},
		{Queues: 64, Size: 16, Scratch: 4096, StartIndex: 0xfff0, Features: vhosttest.FeatureVersion1 | vhosttest.FeatureIndirect},
		{Queues: 2, Size: 2, Table: 4, Features: vhosttest.FeatureVersion1 | vhosttest.FeatureIndirect | vhosttest.FeatureEventIdx},
	} {
		t.Run(fmt.Sprintf("%d of %d", o.Used, o.Queues), func(t *testing.T) {
			r := newRig(t, rigOptions{})
			c := r.dial(o)
			if c.QueueNum < 1024 {
				t.Errorf("%d queues are announced", c.QueueNum)
			}
			for i := range c.Requests() {
				good(t, c.Request(i), lun0, make([]byte, 6), nil, nil)
			}
			l := &vhosttest.Load{LUN: lun0, Blocks: diskBytes / 4096, Depth: min(8, c.Options().Size), Writes: 50, Verify: true, Indirect: true, Count: 200, Seed: 3}
			if c.Options().Size < 16 {
				l.Depth = 1
			}
			res, err := l.Run(c)
			r.ok(err)
			t.Logf("%d requests, %v each, %d kicks, %d calls", res.Requests, res.PerRequest(), res.Kicks, res.Calls)
		})
	}
}
