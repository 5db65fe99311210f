package scsi

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/vtgt/vtgt/backing"
)

// both runs f over a store that answers inline and over one that answers later.
func both(t *testing.T, c UnitConfig, size int64, f func(t *testing.T, r *rig, n *rigNexus)) {
	for _, later := range []bool{false, true} {
		t.Run(fmt.Sprintf("later=%v", later), func(t *testing.T) {
			st := newRigStore(size)
			st.later = later
			r := newRig(t, c, st)
			f(t, r, r.nexus())
		})
	}
}

func pattern(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestReadWrite(t *testing.T) {
	both(t, goldenConf(), 1<<20, func(t *testing.T, r *rig, n *rigNexus) {
		for i, c := range []struct{ write, read string }{
			{"0a 00 00 04 02 00", "08 00 00 04 02 00"},
			{"2a 00 00000008 00 0002 00", "28 18 00000008 00 0002 00"},
			{"aa 10 00000010 00000002 00 00", "a8 00 00000010 00000002 00 00"},
			{"8a 08 00000000000007fe 00000002 00 00", "88 00 00000000000007fe 00000002 00 00"},
		} {
			b := pattern(1024, uint64(i))
			w := n.expect("good", c.write, b, 0)
			g := n.expect("good", c.read, nil, 1024)
			if !bytes.Equal(g.in(), b) {
				t.Errorf("%s: other data", c.read)
			}
			if w.t.Want != 1024 || g.t.Want != 1024 {
				t.Errorf("%s: Want %d, %d", c.read, w.t.Want, g.t.Want)
			}
		}
		// READ(6) and WRITE(6) of 0 are 256 blocks.
		b := pattern(256*512, 9)
		n.expect("good", "0a 00 00 00 00 00", b, 0)
		if g := n.expect("good", "08 00 00 00 00 00", nil, 256*512); !bytes.Equal(g.in(), b) {
			t.Error("256 blocks: other data")
		}
	})
}

func TestRange(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20)) // 2048 blocks
	n := r.nexus()
	const oob = "05 21/00"
	for _, c := range []struct{ cdb, want string }{
		{"08 00 07 ff 01 00", "good"}, {"08 00 07 ff 02 00", oob}, {"08 1f ff ff 01 00", oob},
		{"28 00 00000800 00 0000 00", "good"}, {"28 00 00000801 00 0000 00", oob},
		{"28 00 00000800 00 0001 00", oob}, {"28 00 ffffffff 00 ffff 00", oob}, {"28 00 80000000 00 0000 00", oob},
		{"a8 00 00000000 ffffffff 00 00", oob}, {"a8 00 ffffffff 00000001 00 00", oob},
		{"88 00 8000000000000000 00000001 00 00", oob}, {"88 00 ffffffffffffffff 00000001 00 00", oob},
		{"88 00 ffffffffffffffff 00000000 00 00", oob}, {"88 00 ffffffffffffffff ffffffff 00 00", oob},
		{"8a 00 7fffffffffffffff 00000001 00 00", oob}, {"2a 00 00000801 00 0000 00", oob},
		{"2f 00 00000801 00 0000 00", oob}, {"8f 00 8000000000000000 00000000 00 00", oob}, {"8f 02 00000000000007ff 00000002 00 00", oob},
		{"2e 00 00000800 00 0001 00", oob}, {"8e 02 ffffffffffffffff 00000000 00 00", oob},
		{"34 00 00000801 00 0000 00", oob}, {"34 02 00000000 03 0000 00", "good"}, {"90 00 ffffffffffffffff 00000000 00 00", oob},
		{"35 00 00000801 00 0000 00", oob}, {"35 00 00000000 00 0000 00", "good"}, {"91 00 0000000000000001 000007ff 00 00", "good"},
		{"91 00 0000000000000001 00000800 00 00", oob}, {"93 01 8000000000000000 00000001 00 00", oob},
		{"93 01 ffffffffffffffff 00000000 00 00", oob}, {"41 00 80000000 00 0000 00", oob},
		{"89 00 ffffffffffffffff 00000001 00 00", oob}, {"8b 00 8000000000000000 00000001 00 00", oob},
		{"9e 12 0000000000000800 00000020 00 00", oob}, {"9e 12 8000000000000000 00000020 00 00", oob},
	} {
		n.expect(c.want, c.cdb, nil, 1024)
	}
	if bytes.ContainsFunc(r.st.b, func(x rune) bool { return x != 0 }) {
		t.Error("something was written")
	}
}

// RDPROTECT, WRPROTECT and VRPROTECT: there is no protection information.
func TestProtect(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	for _, op := range []byte{0x28, 0x2a, 0x2e, 0x2f, 0xa8, 0xaa, 0xae, 0xaf, 0x88, 0x8a, 0x8e, 0x8f, 0x41, 0x93, 0x89, 0x8b} {
		for p := byte(1); p < 8; p++ {
			cdb := make([]byte, cdbLen(op))
			cdb[0], cdb[1] = op, p<<5
			bit := 7
			for p>>(bit-5)&1 == 0 {
				bit--
			}
			n.want(n.run(LUN{}, cdb, nil, nil), fmt.Sprintf("05 24/00 cdb 1.%d", bit))
		}
	}
}

// Less or more room and data than the CDB asks for.
func TestResiduals(t *testing.T) {
	both(t, goldenConf(), 1<<20, func(t *testing.T, r *rig, n *rigNexus) {
		for i := range r.st.b {
			r.st.b[i] = byte(i * 7 / 3)
		}
		// Room of 0, of a part of a block, of one and a part, of more; in one
		// buffer and in many.
		for _, room := range []int{0, 1, 200, 511, 512, 700, 1024, 1025, 10000} {
			for _, piece := range []int{10000, 512, 512 + 4, 512 * 3 / 2, 64} {
				var in [][]byte
				for left := room; left > 0; left -= min(left, piece) {
					in = append(in, make([]byte, min(left, piece)))
				}
				if piece%512 != 0 && room > 512 {
					r.st.info.BlockAlign = 1
				}
				c := n.run(LUN{}, []byte{0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0}, nil, in)
				n.want(c, "good")
				if want := min(room, 1024); c.t.InLen != int64(want) || c.t.Want != 1024 || !bytes.Equal(c.in(), r.st.b[3*512:3*512+want]) {
					t.Errorf("room %d in pieces of %d: InLen %d, Want %d", room, piece, c.t.InLen, c.t.Want)
				}
				for _, b := range bytes.Join(in, nil)[c.t.InLen:] {
					if b != 0 {
						t.Fatal("wrote behind InLen")
					}
				}
			}
		}
		for _, op := range []byte{0x2a, 0x2e} {
			for _, have := range []int{0, 200, 512, 700, 1024, 1025, 10000} {
				before := bytes.Clone(r.st.b)
				out := fill(have, 0xbb)
				c := n.run(LUN{}, []byte{op, 0, 0, 0, 0, 3, 0, 0, 2, 0}, split2(out, 300), nil)
				n.want(c, "good")
				if c.t.Want != 1024 {
					t.Errorf("%d bytes: Want %d", have, c.t.Want)
				}
				whole := min(have, 1024) / 512 * 512
				copy(before[3*512:], out[:whole])
				if !bytes.Equal(before, r.st.b) {
					t.Errorf("%02x with %d bytes: other medium", op, have)
				}
				clear(r.st.b)
			}
		}
	})
}

func split2(b []byte, n int) (v [][]byte) {
	for len(b) > n {
		v = append(v, b[:n:n])
		b = b[n:]
	}
	return append(v, b)
}

func TestFUA(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	last := func(k int) []rigOp { return r.st.ops[len(r.st.ops)-k:] }
	n.expect("good", "2a 18 00000000 00 0001 00", fill(512, 1), 0)
	if o := last(1)[0]; o != (rigOp{backing.Write, backing.FUA | backing.NoCache, 0, 512}) {
		t.Errorf("FUA and DPO: %+v", o)
	}
	n.expect("good", "28 08 00000000 00 0001 00", nil, 512)
	if o := last(2); o[0].kind != backing.Sync || o[1] != (rigOp{backing.Read, 0, 0, 512}) {
		t.Errorf("READ with FUA: %+v", o)
	}
	// LBA bits of WRITE(6) are no flags.
	n.expect("05 21/00", "0a 1f ff 00 01 00", fill(512, 1), 0)
	// WCE off.
	n.expect("good", "15 10 00 00 18 00", unhex(t, "00000000 0812 00 00 0000 0000 0000 0000 00 00 0000 00000000"), 0)
	n.expect("good", "0a 00 00 00 01 00", fill(512, 1), 0)
	if o := last(1)[0]; o.fl != backing.FUA {
		t.Errorf("write with the cache off: %+v", o)
	}
	n.expect("good", "93 01 0000000000000000 00000008 00 00", nil, 0)
	if o := last(2); o[0].kind != backing.Zero || o[0].fl != backing.NoUnmap || o[1].kind != backing.Sync {
		t.Errorf("WRITE SAME with the cache off: %+v", o)
	}
	c := n.expect("good", "1a 08 08 00 ff 00", nil, 255)
	if c.in()[4+2] != 0 {
		t.Error("WCE is still on")
	}
	if c := n.expect("good", "1a 08 88 00 ff 00", nil, 255); c.in()[4+2] != 4 {
		t.Error("WCE is off by default")
	}
}

func TestVerify(t *testing.T) {
	both(t, goldenConf(), 4<<20, func(t *testing.T, r *rig, n *rigNexus) {
		data := pattern(2<<20, 5)
		copy(r.st.b, data)
		n.expect("good", "2f 00 00000000 00 1000 00", nil, 0)
		n.expect("05 24/00 cdb 1.2", "2f 04 00000000 00 0001 00", nil, 0)
		n.expect("good", "8f 12 0000000000000000 00001000 00 00", data, 0)
		for _, at := range []int{0, 511, 512, 262143, 262144, 262145, len(data) - 1} {
			bad := bytes.Clone(data)
			bad[at] ^= 4
			n.expect(fmt.Sprintf("0e 1d/00 info %d", at/512), "af 02 00000000 00001000 00 00", bad, 0)
			n.want(n.run(LUN{}, unhex(t, "af 02 00000000 00001000 00 00"), split2(bad, 777), nil), fmt.Sprintf("0e 1d/00 info %d", at/512))
		}
		n.want(n.run(LUN{}, unhex(t, "af 02 00000000 00001000 00 00"), split2(data, 777), nil), "good")
		// One block against each.
		copy(r.st.b[2<<20:], bytes.Repeat(data[:512], 1024))
		n.expect("good", "8f 06 0000000000001000 00000400 00 00", data[:512], 0)
		r.st.b[2<<20+700*512+3] ^= 1
		n.expect(fmt.Sprintf("0e 1d/00 info %d", 0x1000+700), "8f 06 0000000000001000 00000400 00 00", data[:512], 0)
		// Less data than blocks.
		c := n.expect("good", "2f 02 00000000 00 0002 00", data[:512], 0)
		if c.t.Want != 1024 {
			t.Errorf("Want %d", c.t.Want)
		}
		n.expect("good", "2f 02 00000000 00 0000 00", nil, 0)
	})
}

func TestWriteAndVerify(t *testing.T) {
	both(t, goldenConf(), 4<<20, func(t *testing.T, r *rig, n *rigNexus) {
		data := pattern(1<<20, 6)
		for _, cdb := range []string{"2e 02 00000000 00 0800 00", "ae 00 00000000 00000800 00 00", "8e 12 0000000000000000 00000800 00 00"} {
			clear(r.st.b)
			n.want(n.run(LUN{}, unhex(t, cdb), split2(data, 999), nil), "good")
			if !bytes.Equal(r.st.b[:len(data)], data) {
				t.Error("other data")
			}
		}
		n.expect("05 24/00 cdb 1.2", "2e 04 00000000 00 0001 00", data[:512], 0)
		n.expect("05 24/00 cdb 1.2", "2e 06 00000000 00 0001 00", data[:512], 0)
		r.st.fail = func(op *backing.Op) error {
			if op.Kind == backing.Write {
				op.Bufs[0][0] ^= 1 // the medium takes something else
			}
			return nil
		}
		d := bytes.Clone(data[:512])
		c := n.run(LUN{}, unhex(t, "2e 02 00000009 00 0001 00"), [][]byte{d}, nil)
		n.want(c, "good") // the very buffer was changed: the same data
		r.st.fail = func(op *backing.Op) error {
			if op.Kind == backing.Sync {
				r.st.b[9*512+5] ^= 1
			}
			return nil
		}
		n.expect("0e 1d/00 info 9", "2e 02 00000009 00 0001 00", data[:512], 0)
	})
}

func TestWriteSame(t *testing.T) {
	c := goldenConf()
	both(t, c, 4<<20, func(t *testing.T, r *rig, n *rigNexus) {
		p := pattern(512, 7)
		last := func() rigOp { return r.st.ops[len(r.st.ops)-1] }
		n.expect("good", "93 00 0000000000000003 00000a03 00 00", p, 0)
		want := make([]byte, len(r.st.b))
		copy(want[3*512:], bytes.Repeat(p, 0xa03))
		if !bytes.Equal(r.st.b, want) {
			t.Fatal("other medium")
		}
		for _, o := range r.st.ops {
			if o.len > stepBytes {
				t.Errorf("a step of %d bytes", o.len)
			}
		}
		// To the end.
		n.expect("good", "41 00 00001ff0 00 0000 00", p, 0)
		copy(want[0x1ff0*512:], bytes.Repeat(p, 16))
		if !bytes.Equal(r.st.b, want) {
			t.Fatal("to the end: other medium")
		}
		n.expect("good", "41 00 00002000 00 0000 00", p, 0) // none
		n.expect("05 21/00", "41 00 00002001 00 0000 00", p, 0)
		// Zeros stay mapped without UNMAP.
		n.expect("good", "93 00 0000000000000003 00000005 00 00", fill(512, 0), 0)
		if o := last(); o != (rigOp{backing.Zero, backing.NoUnmap, 3 * 512, 5 * 512}) {
			t.Errorf("zeros: %+v", o)
		}
		n.expect("good", "93 09 0000000000000001 00000009 00 00", nil, 0)
		if o := last(); o != (rigOp{backing.Discard, 0, 512, 9 * 512}) {
			t.Errorf("UNMAP with NDOB: %+v", o)
		}
		// UNMAP deallocates whatever the block holds.
		n.expect("good", "41 08 00000001 00 0009 00", p, 0)
		if o := last(); o != (rigOp{backing.Discard, 0, 512, 9 * 512}) {
			t.Errorf("UNMAP of a pattern: %+v", o)
		}
		n.expect("05 24/00 cdb 1.4", "41 18 00000001 00 0009 00", p, 0) // ANCHOR
		for _, k := range []int{0, 256, 1024} {
			n.expect("05 0e/03", "41 08 00000001 00 0001 00", fill(k, 0), 0)
		}
		// A store without better ways is written to.
		r.st.refuse = map[backing.Kind]bool{backing.Zero: true, backing.Discard: true}
		copy(r.st.b, fill(512*64, 0xaa))
		n.expect("good", "93 01 0000000000000001 00000020 00 00", nil, 0)
		if !allZero(r.st.b[512:33*512]) || r.st.b[511] != 0xaa || r.st.b[33*512] != 0xaa {
			t.Error("zeros by writing: other medium")
		}
		copy(r.st.b, fill(512*64, 0xaa))
		n.expect("good", "41 08 00000001 00 0020 00", fill(512, 0), 0)
		if !allZero(r.st.b[512:33*512]) || r.st.b[511] != 0xaa || r.st.b[33*512] != 0xaa {
			t.Error("deallocation by writing: other medium")
		}
	})
	c.Thin = false
	st := newRigStore(1 << 20)
	r := newRig(t, c, st)
	n := r.nexus()
	n.expect("05 24/00 cdb 1.3", "41 08 00000001 00 0009 00", fill(512, 0), 0)
	n.expect("05 24/00 cdb 1.3", "93 09 0000000000000001 00000009 00 00", nil, 0)
	n.expect("good", "93 01 0000000000000001 00000009 00 00", nil, 0)
	n.expect("05 20/00", "42 00 00000000 00 0000 00", nil, 0)
}

// More blocks than VPD page B0h allows.
func TestWriteSameLimit(t *testing.T) {
	st := newRigStore(0)
	st.info.Size = 2 << 30
	r := newRig(t, goldenConf(), st)
	st.fail = func(*backing.Op) error { return syscall.EIO }
	n := r.nexus()
	n.expect("05 24/00 cdb 10.7", "93 01 0000000000000000 00200001 00 00", nil, 0)
	n.expect("05 24/00 cdb 10.7", "93 01 0000000000000000 00000000 00 00", nil, 0)
	n.expect("05 24/00 cdb 7.7", "41 00 00000000 00 0000 00", fill(512, 0), 0)
	st.bad = nil
}

func TestUnmap(t *testing.T) {
	both(t, goldenConf(), 1<<20, func(t *testing.T, r *rig, n *rigNexus) {
		list := func(descs ...uint64) []byte {
			b := make([]byte, 8+8*len(descs))
			b[1], b[0] = byte(len(b)-2), byte((len(b)-2)>>8)
			b[3], b[2] = byte(len(b)-8), byte((len(b)-8)>>8)
			for i := 0; i < len(descs); i += 2 {
				for j := range 8 {
					b[8+8*i+j] = byte(descs[i] >> (56 - 8*j))
				}
				for j := range 4 {
					b[16+8*i+j] = byte(descs[i+1] >> (24 - 8*j))
				}
			}
			return b
		}
		unmap := func(want string, b []byte) {
			t.Helper()
			n.expect(want, fmt.Sprintf("42 00 00000000 00 %04x 00", len(b)), b, 0)
		}
		copy(r.st.b, fill(len(r.st.b), 0xaa))
		ref := bytes.Clone(r.st.b)
		unmap("good", nil)
		unmap("good", list())
		unmap("good", list(5, 0))
		unmap("good", list(2048, 0))
		unmap("05 21/00", list(2049, 0))
		unmap("05 21/00", list(1, 1, 2047, 2))
		unmap("05 21/00", list(1<<63, 1))
		unmap("05 21/00", list(^uint64(0), 0xffffffff))
		for k := 1; k < 8; k++ {
			unmap("05 1a/00", list()[:k])
		}
		n.expect("05 1a/00", "42 00 00000000 00 0018 00", list(1, 1)[:20], 0) // fewer sent than told
		b := list(1, 1)
		b[1]++
		unmap("05 1a/00", b)
		b = list(1, 1)
		b[3]++
		unmap("05 1a/00", b)
		if !bytes.Equal(r.st.b, ref) {
			t.Fatal("a refused list changed the medium")
		}
		b = list(0, 1, 1, 1)
		b[3] -= 8 // the second in part: ignored
		unmap("good", b)
		clear(ref[:512])
		unmap("good", list(7, 1, 9, 0, 2040, 8, 100, 50))
		clear(ref[7*512 : 8*512])
		clear(ref[2040*512:])
		clear(ref[100*512 : 150*512])
		if !bytes.Equal(r.st.b, ref) {
			t.Fatal("other medium")
		}
		many := make([]uint64, 2*257)
		unmap("05 26/00 param 2.7", list(many...))
		unmap("good", list(many[:2*256]...))
		r.st.refuse = map[backing.Kind]bool{backing.Discard: true}
		unmap("good", list(700, 1))
		if !bytes.Equal(r.st.b, ref) {
			t.Fatal("other medium")
		}
		r.st.refuse = nil
		r.st.fail = func(*backing.Op) error { return syscall.ENOSPC }
		unmap("07 27/07", list(700, 1))
	})
	st := newRigStore(0)
	st.info.Size = 1 << 40
	st.fail = func(*backing.Op) error { return syscall.EIO }
	r := newRig(t, goldenConf(), st)
	n := r.nexus()
	b := unhex(t, "0016 0010 00000000 0000000000000000 00100001 00000000")
	n.expect("05 26/00 param 16.7", "42 00 00000000 00 0018 00", b, 0)
}

func TestCompareAndWrite(t *testing.T) {
	both(t, goldenConf(), 1<<20, func(t *testing.T, r *rig, n *rigNexus) {
		old, now := pattern(255*512, 1), pattern(255*512, 2)
		copy(r.st.b[512:], old)
		n.expect("good", "89 00 0000000000000001 000000ff 00 00", append(bytes.Clone(old), now...), 0)
		if !bytes.Equal(r.st.b[512:256*512], now) {
			t.Fatal("not written")
		}
		bad := bytes.Clone(now)
		bad[1000] ^= 1
		c := n.run(LUN{}, unhex(t, "89 00 0000000000000001 000000ff 00 00"), split2(append(bad, old...), 601), nil)
		n.want(c, "0e 1d/00 info 1000")
		if !bytes.Equal(r.st.b[512:256*512], now) {
			t.Fatal("written in spite of it")
		}
		n.want(n.run(LUN{}, unhex(t, "89 18 0000000000000001 000000ff 00 00"), split2(append(bytes.Clone(now), old...), 601), nil), "good")
		if !bytes.Equal(r.st.b[512:256*512], old) {
			t.Fatal("not written back")
		}
		n.expect("good", "89 00 0000000000000001 00000000 00 00", nil, 0)
		n.expect("05 24/00 cdb 13.7", "89 00 0000000000000001 00000001 00 00", fill(2048, 0), 0)
		n.expect("05 24/00 cdb 13.7", "89 00 0000000000000001 00000003 00 00", fill(2048, 0), 0)
		n.expect("05 24/00 cdb 13.7", "89 00 0000000000000001 00000000 00 00", fill(2048, 0), 0)
	})
	c := goldenConf()
	c.BlockSize = 4096
	r := newRig(t, c, newRigStore(2<<20))
	n := r.nexus()
	n.expect("05 24/00 cdb 13.7", "89 00 0000000000000001 00000041 00 00", fill(2*65*4096, 0), 0)
	n.expect("good", "89 00 0000000000000001 00000040 00 00", fill(2*64*4096, 0), 0)
}

func TestORWrite(t *testing.T) {
	both(t, goldenConf(), 2<<20, func(t *testing.T, r *rig, n *rigNexus) {
		a, b := pattern(1<<20, 1), pattern(1<<20, 2)
		copy(r.st.b, a)
		n.want(n.run(LUN{}, unhex(t, "8b 08 0000000000000000 00000800 00 00"), split2(b, 1001), nil), "good")
		for i := range a {
			a[i] |= b[i]
		}
		if !bytes.Equal(r.st.b[:1<<20], a) {
			t.Error("other medium")
		}
		n.expect("good", "8b 08 0000000000000000 00000000 00 00", nil, 0)
	})
}

func TestWriteProtect(t *testing.T) {
	writes := []string{
		"0a 00 00 00 01 00", "2a 00 00000000 00 0001 00", "aa 00 00000000 00000001 00 00",
		"8a 00 0000000000000000 00000001 00 00", "2e 00 00000000 00 0001 00", "ae 00 00000000 00000001 00 00",
		"8e 00 0000000000000000 00000001 00 00", "41 00 00000000 00 0001 00", "93 01 0000000000000000 00000001 00 00",
		"42 00 00000000 00 0000 00", "89 00 0000000000000000 00000001 00 00", "8b 00 0000000000000000 00000001 00 00",
	}
	check := func(t *testing.T, n *rigNexus, outcome string) {
		for _, w := range writes {
			n.expect(outcome, w, fill(1024, 1), 0)
		}
		n.expect("good", "28 00 00000000 00 0001 00", nil, 512)
		if c := n.expect("good", "1a 00 3f 00 ff 00", nil, 255); c.in()[2] != 0x90 {
			t.Errorf("device-specific parameter %02x", c.in()[2])
		}
	}
	t.Run("unit", func(t *testing.T) {
		c := goldenConf()
		c.ReadOnly = true
		check(t, newRig(t, c, newRigStore(1<<20)).nexus(), "07 27/00")
	})
	t.Run("SWP", func(t *testing.T) {
		n := newRig(t, goldenConf(), newRigStore(1<<20)).nexus()
		page := unhex(t, "00000000 0a0a 02 10 08 00 0000 ffff 0000")
		n.expect("good", "15 10 00 00 10 00", page, 0)
		check(t, n, "07 27/02")
		page[4+4] = 0
		n.expect("good", "15 10 00 00 10 00", page, 0)
		n.expect("good", writes[0], fill(512, 1), 0)
	})
	t.Run("mapping", func(t *testing.T) {
		r := newRig(t, goldenConf(), newRigStore(1<<20))
		tg := NewTarget(TargetConfig{Name: "ro"})
		if err := tg.Map(0, r.u, MapOptions{ReadOnly: true}); err != nil {
			t.Fatal(err)
		}
		r.p = tg.NewPort(goldenPort)
		check(t, r.nexus(), "07 27/00")
	})
}

func TestStoreErrors(t *testing.T) {
	for _, c := range []struct {
		err         error
		read, write string
	}{
		{syscall.EIO, "03 11/00 info 2", "03 0c/00 info 2"},
		{syscall.ENOSPC, "07 27/07", "07 27/07"},
		{fmt.Errorf("pwrite: %w", syscall.ENOSPC), "07 27/07", "07 27/07"},
		{backing.ErrLatched, "03 11/00 info 2", "03 0c/00 info 2"},
		{backing.ErrReadOnly, "07 27/00", "07 27/00"},
		{backing.ErrRange, "05 21/00", "05 21/00"},
		{backing.ErrCanceled, "0b 00/00", "0b 00/00"},
		{backing.ErrClosed, "02 04/03", "02 04/03"},
		{syscall.ENOMEM, "0b 55/03", "0b 55/03"},
		{backing.ErrNotSupported, "04 44/00", "04 44/00"},
	} {
		both(t, goldenConf(), 1<<20, func(t *testing.T, r *rig, n *rigNexus) {
			r.st.fail = func(*backing.Op) error { return c.err }
			g := n.expect(c.read, "28 00 00000002 00 0001 00", nil, 512)
			if g.t.InLen != 0 || g.t.Want != 0 {
				t.Errorf("InLen %d, Want %d", g.t.InLen, g.t.Want)
			}
			n.expect(c.write, "2a 00 00000002 00 0001 00", fill(512, 1), 0)
			n.expect(c.read, "2f 00 00000002 00 0001 00", nil, 0)
			n.expect(c.read, "89 00 0000000000000002 00000001 00 00", fill(1024, 0), 0)
			n.expect(c.write, "93 00 0000000000000002 00000001 00 00", fill(512, 1), 0)
		})
	}
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	r.st.fail = func(*backing.Op) error { return backing.ErrLatched }
	n.expect("03 0c/00", "35 00 00000000 00 0000 00", nil, 0)
	n.expect("03 0c/00", "91 02 0000000000000000 00000000 00 00", nil, 0)
}

func TestCapacity(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	wantBytes(t, "10", n.expect("good", "25 00 00000000 00 00 00 00", nil, 8).in(), unhex(t, "000007ff 00000200"))
	wantBytes(t, "16", n.expect("good", "9e 10 0000000000000000 00000020 00 00", nil, 99).in(),
		unhex(t, "00000000000007ff 00000200 00 03 c000 00000000000000000000000000000000"))
	for i := range 16 {
		if c := n.expect("good", fmt.Sprintf("9e 10 0000000000000000 %08x 00 00", i), nil, 32); c.t.InLen != int64(i) {
			t.Errorf("%d bytes of %d", c.t.InLen, i)
		}
	}
	// More blocks than 32 bits count.
	st := newRigStore(0)
	st.info.Size = 4 << 40
	n = newRig(t, goldenConf(), st).nexus()
	wantBytes(t, "10", n.expect("good", "25 00 00000000 00 00 00 00", nil, 8).in(), unhex(t, "ffffffff 00000200"))
	wantBytes(t, "16", n.expect("good", "9e 10 0000000000000000 0000000c 00 00", nil, 99).in(), unhex(t, "00000001ffffffff 00000200"))
}

func TestModeSense(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	const (
		p01 = "010a 80 00 00000080 00 00 0000"
		p02 = "020e 0000 0000 0000 0000 0000 0000 0000"
		p08 = "0812 04 00 0000 0000 0000 0000 00 00 0000 00000000"
		p0a = "0a0a 02 10 00 00 0000 ffff 0000"
		px  = "4a01 001c 07 00 00 00 000000000000000000000000000000000000000000000000"
		p1a = "1a26 0000 00000000 00000000 00000000 00000000 00000000 000000000000000000000000000000 54"
		p1c = "1c0a 08 00 00000000 00000000"
	)
	for _, c := range []struct{ cdb, want string }{
		{"1a 00 3f 00 ff 00", "7b 00 10 08 00000800 00000200" + p01 + p02 + p08 + p0a + p1a + p1c},
		{"1a 08 3f ff ff 00", "93 00 10 00" + p01 + p02 + p08 + p0a + px + p1a + p1c},
		{"1a 08 0a ff ff 00", "2f 00 10 00" + p0a + px},
		{"1a 08 0a 01 ff 00", "23 00 10 00" + px},
		{"1a 08 02 00 ff 00", "13 00 10 00" + p02},
		{"1a 08 1a 00 ff 00", "2b 00 10 00" + p1a},
		{"1a 08 01 00 ff 00", "0f 00 10 00" + p01},
		{"1a 08 08 ff ff 00", "17 00 10 00" + p08},
		{"1a 08 4a 00 ff 00", "0f 00 10 00 0a0a 04 00 08 40 0000 0000 0000"},
		{"1a 08 9c 00 ff 00", "0f 00 10 00" + p1c},
		{"1a 00 3f 00 04 00", "7b 00 10 08"},
		{"1a 00 3f 00 00 00", ""},
		{"5a 00 0a 00 000000 00ff 00", "001a 00 10 0000 0008 00000800 00000200" + p0a},
		{"5a 10 0a 00 000000 00ff 00", "0022 00 10 0100 0010 0000000000000800 00000000 00000200" + p0a},
		{"5a 18 0a 00 000000 ffff 00", "0012 00 10 0000 0000" + p0a},
	} {
		wantBytes(t, c.cdb, n.expect("good", c.cdb, nil, 300).in(), unhex(t, c.want))
	}
	for _, c := range []struct{ cdb, want string }{
		{"1a 00 ff 00 ff 00", "05 39/00"}, {"5a 00 c8 00 000000 00ff 00", "05 39/00"},
		{"1a 00 03 00 ff 00", "05 24/00 cdb 2.5"}, {"1a 00 0a 02 ff 00", "05 24/00 cdb 3.7"},
		{"1a 00 08 01 ff 00", "05 24/00 cdb 3.7"}, {"1a 00 3f 01 ff 00", "05 24/00 cdb 3.7"}, {"1a 00 00 ff ff 00", "05 24/00 cdb 2.5"},
	} {
		n.expect(c.want, c.cdb, nil, 300)
	}
}

func TestModeSelect(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n, other := r.nexus(), r.nexus()
	const p0a = "0a0a 02 10 00 00 0000 ffff 0000"
	sel := func(want, list string) {
		t.Helper()
		b := unhex(t, list)
		n.expect(want, fmt.Sprintf("15 10 00 00 %02x 00", len(b)), b, 0)
	}
	sel("good", "")
	sel("good", "00000000")
	sel("good", "00000000"+p0a) // nothing changes: no unit attention
	other.expect("good", "00 00 00 00 00 00", nil, 0)
	sel("05 1a/00", "000000")
	sel("05 26/00 param 1.7", "00010000")
	sel("05 26/00 param 3.7", "00000007"+p0a)
	sel("05 1a/00", "00000008 000008")
	sel("good", "00000008 00000800 00000200")
	sel("good", "00000008 00000000 00000200")
	sel("05 26/00 param 4.7", "00000008 00000801 00000200")
	sel("05 26/00 param 9.7", "00000008 00000800 00001000")
	sel("05 26/00 param 4.5", "00000000 0300")
	sel("05 1a/00", "00000000 4a01")
	sel("05 26/00 param 6.7", "00000000 4a010000")
	sel("05 26/00 param 5.7", "00000000 4a02001c")
	sel("05 26/00 param 5.7", "00000000 4a00001c")
	sel("good", "00000000 4a01 001c 07 00 00 00 000000000000000000000000000000000000000000000000")
	sel("05 26/00 param 8.0", "00000000 4a01 001c 06 00 00 00 000000000000000000000000000000000000000000000000")
	sel("05 26/00 param 6.7", "00000000 0a0a 22 10 00 00 0000 ffff 0000") // TST
	sel("05 26/00 param 7.2", "00000000 0a0a 02 14 00 00 0000 ffff 0000") // QERR
	sel("05 26/00 param 5.7", "00000000 0a0b 02 10 00 00 0000 ffff 0000 00")
	sel("05 1a/00", "00000000 0a")
	sel("05 1a/00", "00000000 0a0a 02 10 00 00 0000 ffff")
	sel("05 26/00 param 6.1", "00000000 0a0a 00 10 00 00 0000 ffff 0000")
	sel("05 26/00 param 7.7", "00000000 0a0a 02 90 00 00 0000 ffff 0000")
	sel("05 26/00 param 28.5", "00000008 00000800 00000200 "+p0a+" 0a0a 02 10 10 00 0000 ffff 0000")
	n.expect("05 24/00 cdb 1.4", "15 00 00 00 04 00", fill(4, 0), 0)
	n.expect("05 24/00 cdb 1.0", "15 11 00 00 04 00", fill(4, 0), 0)
	n.expect("05 1a/00", "15 10 00 00 10 00", fill(8, 0), 0)
	n.expect("05 1a/00", "55 10 0000000000 ffff 00", fill(65535, 0), 0)

	// All or nothing: the second page is bad.
	sel("05 26/00 param 16.5", "00000000 0a0a 06 10 08 40 0000 ffff 0000 0300")
	n.expect("05 24/00 cdb 2.7", "12 00 01 00 ff 00", nil, 255)
	other.expect("good", "00 00 00 00 00 00", nil, 0)

	// D_SENSE, TAS.
	b := unhex(t, "0000 00 10 0000 0010 0000000000000800 00000000 00000200 0a0a 06 10 00 40 0000 ffff 0000")
	n.expect("05 26/00 param 6.7", fmt.Sprintf("55 10 0000000000 00%02x 00", len(b)), b, 0)
	b[4] = 1
	n.expect("good", fmt.Sprintf("55 10 0000000000 00%02x 00", len(b)), b, 0)
	c := n.expect("descriptor 05 24/00", "12 00 01 00 ff 00", nil, 255)
	wantBytes(t, "descriptor sense", c.t.Sense[:c.t.SenseLen], unhex(t, "72 05 24 00 00 00 00 08  02 06 00 00 cf 00 02 00"))
	if !r.u.tas.Load() {
		t.Error("TAS is off")
	}
	c = other.expect("descriptor 06 2a/01", "00 00 00 00 00 00", nil, 0)
	c = n.expect("descriptor 05 21/00", "88 00 ffffffffffffffff 00000001 00 00", nil, 512)
	r.u.mu.Lock()
	r.u.server.reset()
	r.u.mu.Unlock()
	n.expect("05 21/00", "88 00 ffffffffffffffff 00000001 00 00", nil, 512)

	// A store without a volatile cache has none to turn on.
	st := newRigStore(1 << 20)
	st.info.Volatile = false
	n = newRig(t, goldenConf(), st).nexus()
	n.expect("05 26/00 param 6.2", "15 10 00 00 18 00", unhex(t, "00000000 0812 04 00 0000 0000 0000 0000 00 00 0000 00000000"), 0)
	n.expect("good", "35 00 00000000 00 0000 00", nil, 0)
	if len(st.ops) != 0 {
		t.Error("synced a store that needs none")
	}
}

func TestStartStop(t *testing.T) {
	t.Run("fixed", func(t *testing.T) {
		r := newRig(t, goldenConf(), newRigStore(1<<20))
		n := r.nexus()
		n.expect("05 24/00 cdb 4.1", "1b 00 00 00 02 00", nil, 0)
		n.expect("05 24/00 cdb 4.1", "1b 00 00 00 03 00", nil, 0)
		n.expect("05 24/00 cdb 3.3", "1b 00 00 01 01 00", nil, 0) // START_VALID with a modifier
		n.expect("05 24/00 cdb 3.3", "1b 00 00 03 20 00", nil, 0) // idle_d
		n.expect("05 24/00 cdb 3.3", "1b 00 00 02 b0 00", nil, 0)
		n.expect("good", "1b 00 00 02 20 00", nil, 0) // idle_c
		n.expect("good", "1b 00 00 01 30 00", nil, 0) // standby_y
		n.expect("good", "1b 01 00 00 00 00", nil, 0)
		if o := r.st.ops; len(o) != 1 || o[0].kind != backing.Sync {
			t.Errorf("stop: %+v", o)
		}
		n.expect("02 04/02", "00 00 00 00 00 00", nil, 0)
		n.expect("02 04/02", "28 00 00000000 00 0001 00", nil, 512)
		wantBytes(t, "sense", n.expect("good", "03 00 00 00 ff 00", nil, 255).in(),
			unhex(t, "70 00 02 00000000 0a 00000000 0402 00 000000"))
		n.expect("good", "12 00 00 00 60 00", nil, 96)
		n.expect("good", "1b 00 00 00 01 00", nil, 0)
		n.expect("good", "00 00 00 00 00 00", nil, 0)
		n.expect("good", "1b 00 00 00 04 00", nil, 0) // NO_FLUSH
		n.expect("02 04/02", "00 00 00 00 00 00", nil, 0)
		r.u.mu.Lock()
		r.u.server.reset()
		r.u.mu.Unlock()
		n.expect("good", "00 00 00 00 00 00", nil, 0)
		for pc := 1; pc < 16; pc++ {
			n.expect("good", fmt.Sprintf("1b 01 00 00 %x2 00", pc), nil, 0)
			n.expect("good", "00 00 00 00 00 00", nil, 0)
		}
		if len(r.st.ops) != 1 {
			t.Errorf("%+v", r.st.ops)
		}
	})
	t.Run("removable", func(t *testing.T) {
		c := goldenConf()
		c.Removable = true
		r := newRig(t, c, newRigStore(1<<20))
		n, other := r.nexus(), r.nexus()
		const tur = "00 00 00 00 00 00"
		n.expect("good", "1b 00 00 00 00 00", nil, 0)
		n.expect("good", tur, nil, 0)
		n.expect("good", "1e 00 00 00 01 00", nil, 0)
		n.expect("05 53/02", "1b 00 00 00 02 00", nil, 0)
		other.expect("05 53/02", "1b 00 00 00 02 00", nil, 0)
		other.expect("good", "1e 00 00 00 00 00", nil, 0) // not its own
		other.expect("05 53/02", "1b 00 00 00 02 00", nil, 0)
		n.expect("good", "1e 00 00 00 00 00", nil, 0)
		n.expect("good", "1b 00 00 00 02 00", nil, 0)
		n.expect("good", "1b 00 00 00 02 00", nil, 0) // it is out: GOOD again
		for _, cdb := range []string{tur, "28 00 00000000 00 0001 00", "2a 00 00000000 00 0001 00", "25 00000000000000 00 00",
			"9e 10 0000000000000000 00000020 00 00", "35 02 00000000 00 0001 00", "34 00 00000000 00 0001 00",
			"2f 02 00000000 00 0001 00", "9e 12 0000000000000000 00000020 00 00", "42 00 00000000 00 0000 00",
			"89 00 0000000000000000 00000001 00 00", "8b 00 0000000000000000 00000001 00 00", "41 00 00000000 00 0001 00"} {
			n.expect("02 3a/00", cdb, fill(512, 0), 512)
			other.expect("02 3a/00", cdb, fill(512, 0), 512)
		}
		n.expect("02 3a/00", "1b 00 00 00 01 00", nil, 0) // START alone loads nothing
		n.expect("good", "1a 00 3f 00 ff 00", nil, 255)
		n.expect("good", "1b 00 00 00 03 00", nil, 0)
		n.expect("good", tur, nil, 0)
		other.expect("06 28/00", tur, nil, 0)
		other.expect("good", tur, nil, 0)
		// A prevention goes with its nexus.
		other.expect("good", "1e 00 00 00 01 00", nil, 0)
		n.expect("05 53/02", "1b 00 00 00 02 00", nil, 0)
		done := make(chan int)
		other.nx.Close(0, func(stuck int) { done <- stuck })
		<-done
		n.expect("good", "1b 00 00 00 02 00", nil, 0)
		n.expect("good", "1b 00 00 00 03 00", nil, 0)
	})
}

func TestReserve(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	a, b := r.nexus(), r.nexus()
	conflict := StatusReservationConflict.String()
	for _, op := range []struct{ reserve, release string }{
		{"16 00 00 00 00 00", "17 00 00 00 00 00"},
		{"56 00 000000000000 00 00", "57 00 000000000000 00 00"},
	} {
		a.expect("good", op.reserve, nil, 0)
		a.expect("good", op.reserve, nil, 0)
		b.expect(conflict, op.reserve, nil, 0)
		b.expect("good", op.release, nil, 0)
		for cdb, want := range map[string]string{
			"28 00 00000000 00 0001 00": conflict, "2a 00 00000000 00 0001 00": conflict, "1a 00 3f 00 ff 00": conflict,
			"00 00 00 00 00 00": conflict, "1e 00 00 00 01 00": conflict, "1b 00 00 00 00 00": conflict,
			"12 00 00 00 60 00": "good", "a0 00 00 000000 00000100 00 00": "good", "03 00 00 00 12 00": "good",
			"1e 00 00 00 00 00": "good", "1b 00 00 00 01 00": "good", "25 00000000000000 00 00": "good",
		} {
			b.expect(want, cdb, fill(512, 0), 512)
			a.expect("good", "28 00 00000000 00 0001 00", nil, 512)
		}
		a.expect("good", op.release, nil, 0)
		b.expect("good", "28 00 00000000 00 0001 00", nil, 512)
		b.expect("good", op.reserve, nil, 0)
		b.expect("good", op.release, nil, 0)
	}
}

func TestReportLUNs(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	c := goldenConf()
	u, err := NewUnit(c, newRigStore(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.tg.Map(0x123, u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	n := r.nexus()
	for _, c := range []struct {
		sel  byte
		want string
	}{
		{0, "00000010 00000000 0000000000000000 4123000000000000"},
		{1, "00000008 00000000 c101000000000000"},
		{2, "00000018 00000000 0000000000000000 4123000000000000 c101000000000000"},
		{0x10, "00000000 00000000"},
		{0x11, "00000010 00000000 0000000000000000 4123000000000000"},
	} {
		for _, lun := range []LUN{{}, LUNReportLUNs, EncodeLUN(77)} {
			cdb := []byte{0xa0, 0, c.sel, 0, 0, 0, 0, 0, 1, 0, 0, 0}
			x := n.run(lun, cdb, nil, [][]byte{make([]byte, 512)})
			n.want(x, "good")
			wantBytes(t, fmt.Sprint("select report ", c.sel), x.in(), unhex(t, c.want))
		}
	}
	for _, sel := range []int{3, 0x0f, 0x12, 0x13, 0xff} {
		n.expect("05 24/00 cdb 2.7", fmt.Sprintf("a0 00 %02x 000000 00000100 00 00", sel), nil, 512)
	}
	if c := n.expect("good", "a0 00 00 000000 00000009 00 00", nil, 512); c.t.InLen != 9 {
		t.Error(c.t.InLen)
	}
	// Its unit attention goes with the report.
	if err := r.tg.Map(5, mustUnit(t), MapOptions{}); err != nil {
		t.Fatal(err)
	}
	n.expect("good", "a0 00 00 000000 00000100 00 00", nil, 512)
	n.expect("good", "00 00 00 00 00 00", nil, 0)
}

func mustUnit(t *testing.T) *Unit {
	u, err := NewUnit(goldenConf(), newRigStore(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRequestSense(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.fresh()
	n.expect("good", "12 00 00 00 60 00", nil, 96)
	wantBytes(t, "unit attention", n.expect("good", "03 00 00 00 12 00", nil, 255).in(),
		unhex(t, "70 00 06 00000000 0a 00000000 2900 00 000000"))
	wantBytes(t, "none, descriptor", n.expect("good", "03 01 00 00 ff 00", nil, 255).in(), unhex(t, "72 00 00 00 00 00 00 00"))
	wantBytes(t, "cut", n.expect("good", "03 00 00 00 04 00", nil, 255).in(), unhex(t, "70 00 00 00"))
	n.expect("good", "00 00 00 00 00 00", nil, 0)
}

// LUNs without a unit, and the REPORT LUNS well-known logical unit.
func TestNoUnit(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	run := func(lun LUN, cdb string) *rigCall {
		return n.run(lun, unhex(t, cdb), nil, [][]byte{make([]byte, 256)})
	}
	none := EncodeLUN(3)
	c := run(none, "12 00 00 00 ff 00")
	n.want(c, "good")
	if b := c.in(); len(b) != 96 || b[0] != 0x7f {
		t.Errorf("INQUIRY: % x", b)
	}
	c = run(LUNReportLUNs, "12 00 00 00 ff 00")
	n.want(c, "good")
	if b := c.in(); len(b) != 96 || b[0] != 0x1e {
		t.Errorf("INQUIRY of the well-known unit: % x", b)
	}
	wantBytes(t, "VPD 00h", run(none, "12 01 00 00 ff 00").in(), unhex(t, "7f 00 0001 00"))
	n.want(run(none, "12 01 83 00 ff 00"), "05 24/00 cdb 2.7")
	wantBytes(t, "REQUEST SENSE", run(none, "03 00 00 00 ff 00").in(), unhex(t, "70 00 05 00000000 0a 00000000 2500 00 000000"))
	wantBytes(t, "REQUEST SENSE", run(LUNReportLUNs, "03 00 00 00 ff 00").in(), unhex(t, "70 00 00 00000000 0a 00000000 0000 00 000000"))
	for _, cdb := range []string{"00 00 00 00 00 00", "28 00 00000000 00 0001 00", "ff 00 00 00 00 00", "a3 0c 00 00 0000 00000100 00 00"} {
		n.want(run(none, cdb), "05 25/00")
	}
	n.want(run(LUN{0x80, 1, 2, 3}, "28 00 00000000 00 0001 00"), "05 25/00")
}

func TestGetLBAStatus(t *testing.T) {
	both(t, goldenConf(), 1<<20, func(t *testing.T, r *rig, n *rigNexus) {
		copy(r.st.b[4096:], fill(8192, 1))
		get := func(lba int) []byte {
			return n.expect("good", fmt.Sprintf("9e 12 %016x 00000100 00 00", lba), nil, 256).in()
		}
		wantBytes(t, "from 0", get(0), unhex(t, `00000034 00000000
			0000000000000000 00000008 01000000
			0000000000000008 00000010 00000000
			0000000000000018 000007e8 01000000`))
		wantBytes(t, "from the middle", get(9)[8:8+16], unhex(t, "0000000000000009 0000000f 00000000"))
		if c := n.expect("good", "9e 12 0000000000000000 00000008 00 00", nil, 256); c.t.InLen != 8 {
			t.Error(c.t.InLen)
		}
		// REPORT TYPE: what is asked for, and that it was heeded.
		typed := func(typ, room int) []byte {
			return n.expect("good", fmt.Sprintf("9e 12 0000000000000000 %08x %02x 00", room, typ), nil, 256).in()
		}
		holes := `0000000000000000 00000008 01000000
			0000000000000018 000007e8 01000000`
		wantBytes(t, "not mapped", typed(1, 256), unhex(t, "00000024 00000007"+holes))
		wantBytes(t, "mapped", typed(2, 256), unhex(t, "00000014 00000007 0000000000000008 00000010 00000000"))
		wantBytes(t, "deallocated", typed(3, 256), unhex(t, "00000024 00000007"+holes))
		wantBytes(t, "deallocated, no room", typed(3, 24), unhex(t, "00000014 00000003 0000000000000000 00000008 01000000"))
		wantBytes(t, "anchored", typed(4, 256), unhex(t, "00000004 00000007"))
		wantBytes(t, "unreadable", typed(16, 256), unhex(t, "00000004 00000007"))
		n.expect("05 24/00 cdb 14.7", "9e 12 0000000000000000 00000100 05 00", nil, 256)
		// Room for one descriptor: one is told of, the length says so.
		wantBytes(t, "no room", n.expect("good", "9e 12 0000000000000000 00000018 00 00", nil, 256).in(),
			unhex(t, "00000014 00000000 0000000000000000 00000008 01000000"))
		// More extents than the store gives at a time, and more than one answer has.
		for i := 0; i < 1<<20; i += 8192 {
			r.st.b[i] = 1
		}
		if b := get(0); len(b) != 256 || b[2] != 1 || b[3] != 4 { // what 256 bytes have room for, the last in part
			t.Errorf("%d bytes, %x", len(b), b[:8])
		}
		if b := n.expect("good", "9e 12 0000000000000000 00002000 02 00", nil, 8192).in(); len(b) != 8+64*16 || b[7] != 3 {
			t.Errorf("%d bytes, %x", len(b), b[:8])
		}
		r.st.refuse = map[backing.Kind]bool{backing.Extents: true}
		wantBytes(t, "unknown", get(1), unhex(t, "00000014 00000000 0000000000000001 000007ff 00000000"))
	})
	c := goldenConf()
	c.Thin = false
	n := newRig(t, c, newRigStore(1<<20)).nexus()
	wantBytes(t, "fully provisioned", n.expect("good", "9e 12 0000000000000001 00000100 00 00", nil, 256).in(),
		unhex(t, "00000014 00000000 0000000000000001 000007ff 00000000"))
}

func TestInquiry(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.fresh() // with a unit attention pending
	for i := range 300 {
		if c := n.expect("good", fmt.Sprintf("12 00 00 %04x 00", i), nil, 512); c.t.InLen != int64(min(i, 96)) {
			t.Errorf("allocation length %d: %d bytes", i, c.t.InLen)
		}
	}
	pages := n.expect("good", "12 01 00 00 ff 00", nil, 255).in()[4:]
	for _, p := range pages {
		b := n.expect("good", fmt.Sprintf("12 01 %02x 04 00 00", p), nil, 2048).in()
		if b[1] != p || int(b[2])<<8|int(b[3]) != len(b)-4 {
			t.Errorf("page %02x: % x", p, b)
		}
	}
	for p := range 256 {
		if !bytes.ContainsRune(pages, rune(p)) && bytes.IndexByte(pages, byte(p)) < 0 {
			n.expect("05 24/00 cdb 2.7", fmt.Sprintf("12 01 %02x 00 ff 00", p), nil, 255)
		}
	}
	n.expect("05 24/00 cdb 2.7", "12 00 80 00 ff 00", nil, 255)
	n.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
}

func TestReadDefects(t *testing.T) {
	n := newRig(t, goldenConf(), newRigStore(1<<20)).nexus()
	wantBytes(t, "10", n.expect("good", "37 00 1d 00000000 0020 00", nil, 64).in(), unhex(t, "00 1d 0000"))
	wantBytes(t, "12", n.expect("good", "b7 08 00000000 00000020 00 00", nil, 64).in(), unhex(t, "00 08 0000 00000000"))
}

func TestPreFetch(t *testing.T) {
	both(t, goldenConf(), 20<<20, func(t *testing.T, r *rig, n *rigNexus) {
		n.expect("good", "34 00 00000000 00 0001 00", nil, 0) // the store keeps nothing
		if len(r.st.ops) != 0 {
			t.Errorf("%+v", r.st.ops)
		}
		r.st.info.Cached = true
		const met = "CONDITION MET"
		n.expect(met, "34 02 00000003 00 0401 00", nil, 0)
		var at, sum int64 = 3 * 512, 0
		for _, o := range r.st.ops {
			if o.kind != backing.Read || o.off != at || o.len > stepBytes {
				t.Errorf("%+v", o)
			}
			at += o.len
			sum += o.len
		}
		if sum != 0x401*512 {
			t.Errorf("%d bytes read", sum)
		}
		n.expect(met, "90 00 0000000000009f00 00000000 00 00", nil, 0) // to the end
		n.expect(met, "34 00 0000a000 00 0000 00", nil, 0)             // nothing
		n.expect(met, "90 00 0000000000000000 00008000 00 00", nil, 0)
		n.expect("good", "90 00 0000000000000000 00008001 00 00", nil, 0) // more than it takes
		r.st.fail = func(*backing.Op) error { return syscall.EIO }
		n.expect("03 11/00 info 5", "34 00 00000005 00 0001 00", nil, 0)
	})
}

// A CDB that is shorter than its command.
func TestShortCDB(t *testing.T) {
	n := newRig(t, goldenConf(), newRigStore(1<<20)).nexus()
	for _, cdb := range []string{"28", "28 00 00 00 00 00", "00", "88 00 00 00 00 00 00 00 00 00", "12 00 00"} {
		n.want(n.do(cdb, nil, 512), fmt.Sprintf("05 24/00 cdb %d", len(unhex(t, cdb))))
	}
}
