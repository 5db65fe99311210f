package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// rangeList are block device range descriptors: pairs of LBA and number of blocks.
func rangeList(pairs ...uint64) []byte {
	b := make([]byte, len(pairs)*8)
	for i := 0; i < len(pairs); i += 2 {
		binary.BigEndian.PutUint64(b[i*8:], pairs[i])
		binary.BigEndian.PutUint32(b[i*8+8:], uint32(pairs[i+1]))
	}
	return b
}

// populateList is a parameter list of POPULATE TOKEN.
func populateList(timeout uint32, ranges []byte) []byte {
	b := make([]byte, 16, 16+len(ranges))
	binary.BigEndian.PutUint16(b, uint16(14+len(ranges)))
	binary.BigEndian.PutUint32(b[4:], timeout)
	binary.BigEndian.PutUint16(b[14:], uint16(len(ranges)))
	return append(b, ranges...)
}

// writeTokenList is one of WRITE USING TOKEN.
func writeTokenList(flags byte, offset uint64, token, ranges []byte) []byte {
	b := make([]byte, 536, 536+len(ranges))
	binary.BigEndian.PutUint16(b, uint16(534+len(ranges)))
	b[2] = flags
	binary.BigEndian.PutUint64(b[8:], offset)
	copy(b[16:528], token)
	binary.BigEndian.PutUint16(b[534:], uint16(len(ranges)))
	return append(b, ranges...)
}

func tokenCDB(sa byte, id uint32, list []byte) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x83, sa
	binary.BigEndian.PutUint32(cdb[6:], id)
	binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
	return cdb
}

func (n *rigNexus) populate(lun uint16, id uint32, list []byte) *rigCall {
	n.r.tb.Helper()
	return n.run(EncodeLUN(lun), tokenCDB(0x10, id, list), [][]byte{list}, nil)
}

func (n *rigNexus) writeToken(lun uint16, id uint32, list []byte) *rigCall {
	n.r.tb.Helper()
	return n.run(EncodeLUN(lun), tokenCDB(0x11, id, list), [][]byte{list}, nil)
}

// info is RECEIVE ROD TOKEN INFORMATION.
func (n *rigNexus) info(lun uint16, id uint32) *rigCall {
	n.r.tb.Helper()
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x84, 0x07
	binary.BigEndian.PutUint32(cdb[2:], id)
	binary.BigEndian.PutUint32(cdb[10:], 1024)
	return n.run(EncodeLUN(lun), cdb, nil, [][]byte{make([]byte, 1024)})
}

// token makes a token.
func (n *rigNexus) token(lun uint16, ranges ...uint64) []byte {
	n.r.tb.Helper()
	n.want(n.populate(lun, 1, populateList(0, rangeList(ranges...))), "good")
	b := n.want(n.info(lun, 1), "good").in()
	if len(b) != 32+4+2+512 || binary.BigEndian.Uint32(b[32:]) != 514 {
		n.r.tb.Fatalf("%d bytes: % x", len(b), b[:min(len(b), 40)])
	}
	return bytes.Clone(b[38:])
}

var zeroToken = append([]byte{0xff, 0xff, 0, 1, 0, 0, 1, 0xf8}, make([]byte, 504)...)

func TestTokens(t *testing.T) {
	for _, later := range []bool{false, true} {
		for _, moves := range []bool{false, true} {
			t.Run(fmt.Sprintf("later=%v,moves=%v", later, moves), func(t *testing.T) {
				r := newCopyRig(t, later, 512, 512, 4096)
				for i, st := range r.sts {
					copy(st.b, pattern(len(st.b), uint64(i)))
					st.refuse = map[backing.Kind]bool{backing.Copy: !moves}
				}
				n := r.nexus()
				src, dst := r.sts[0].b, r.sts[1].b
				block := func(b []byte, lba, n int) []byte { return b[lba*512 : (lba+n)*512] }
				k := n.token(0, 100, 50, 1000, 30, 10, 20)
				// Ranges of the token and of the list meet anywhere.
				n.want(n.writeToken(1, 2, writeTokenList(0, 0, k, rangeList(0, 60, 200, 40))), "good")
				if !bytes.Equal(block(dst, 0, 50), block(src, 100, 50)) || !bytes.Equal(block(dst, 50, 10), block(src, 1000, 10)) ||
					!bytes.Equal(block(dst, 200, 20), block(src, 1010, 20)) || !bytes.Equal(block(dst, 220, 20), block(src, 10, 20)) {
					t.Error("other data")
				}
				// From an offset; to the unit that the token is of; by a token of the moment.
				src[105*512]++
				n.want(n.writeToken(0, 3, writeTokenList(0, 5, k, rangeList(4000, 45))), "good")
				if !bytes.Equal(block(src, 4000, 45), block(src, 105, 45)) {
					t.Error("from an offset: other data")
				}
				// Blocks of another length.
				n.want(n.writeToken(2, 4, writeTokenList(0, 2, k, rangeList(9, 4))), "good")
				if !bytes.Equal(r.sts[2].b[9*4096:13*4096], append(bytes.Clone(block(src, 116, 34)[:32*512]), block(src, 1000, 0)...)) {
					t.Error("longer blocks: other data")
				}
				// Zeros, without and with the end.
				n.want(n.writeToken(1, 5, writeTokenList(2, 0, zeroToken, rangeList(0, 60, 16000, 384))), "good")
				if !allZero(block(dst, 0, 60)) || !allZero(block(dst, 16000, 384)) || allZero(block(dst, 60, 1)) {
					t.Error("zeros: other data")
				}
				// The whole of a unit.
				k = n.token(0, 0, 16384)
				n.want(n.writeToken(1, 6, writeTokenList(2, 0, k, rangeList(0, 16384))), "good")
				if !bytes.Equal(dst, src) {
					t.Error("the whole: other data")
				}
				wantBytes(t, "information", n.want(n.info(1, 6), "good").in(),
					unhex(t, "00000020 11 01 0000 fffffffe 00 00 00 f1 0000000000004000 0001 000000000000 00000000"))
				// It was deleted with the success.
				n.want(n.writeToken(1, 6, writeTokenList(0, 0, k, rangeList(0, 1))), "05 23/04")
			})
		}
	}
}

// Written from SBC-3 §5.14, §5.48 and SPC-4 §5.17.6, §6.30.
func TestTokensRefused(t *testing.T) {
	r := newCopyRig(t, false, 512, 512, 4096)
	n := r.nexus()
	with := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	many := make([]uint64, 2*129)
	for i := range 129 {
		many[2*i], many[2*i+1] = uint64(i), 1
	}
	good := populateList(0, rangeList(0, 8))
	rtv := with(with(good, 2, 2), 9, 1)
	for i, c := range []struct {
		list []byte
		want string
	}{
		{nil, "good"}, {good, "good"}, {rtv, "good"},
		{good[:15], "05 1a/00"}, {good[:31], "05 1a/00"},
		{with(good, 1, 13), "05 1a/00"}, {with(good, 1, 31), "05 1a/00"},
		{with(good, 15, 0), "05 26/00 param 14.7"}, {with(good, 15, 15), "05 26/00 param 14.7"}, {with(good, 15, 32), "05 1a/00"},
		{with(rtv, 9, 0x80), "05 26/00 param 8.7"},
		{populateList(601, rangeList(0, 8)), "05 26/00 param 4.7"}, {populateList(600, rangeList(0, 8)), "good"},
		{populateList(0, rangeList(many[:256]...)), "good"}, {populateList(0, rangeList(many...)), "05 1a/00"},
		{populateList(0, rangeList(16384, 0)), "good"}, {populateList(0, rangeList(16384, 1)), "05 21/00"},
		{populateList(0, rangeList(1<<63, 1)), "05 21/00"}, {populateList(0, rangeList(16383, 1, ^uint64(0), 0)), "05 21/00"},
		{populateList(0, rangeList(8, 8, 0, 9)), "05 26/00 param 32.7"}, {populateList(0, rangeList(8, 8, 0, 8, 16, 1)), "good"},
	} {
		if o := n.populate(0, 7, c.list).outcome(); o != c.want {
			t.Errorf("POPULATE TOKEN %d: %s, want %s", i, o, c.want)
		}
	}
	k := n.token(0, 0, 8)
	good = writeTokenList(0, 0, k, rangeList(0, 8))
	for i, c := range []struct {
		lun  uint16
		list []byte
		want string
	}{
		{1, nil, "good"}, {1, good, "good"},
		{1, good[:535], "05 1a/00"}, {1, good[:551], "05 1a/00"},
		{1, with(good, 535, 0), "05 26/00 param 534.7"},
		{1, writeTokenList(0, 0, k, rangeList(0, 4, 3, 1)), "05 26/00 param 552.7"},
		{1, writeTokenList(0, 0, k, rangeList(16384, 1)), "05 21/00"},
		{1, writeTokenList(0, 0, k, rangeList(0, 9)), "05 26/00 param 8.7"},
		{1, writeTokenList(0, 1, k, rangeList(0, 8)), "05 26/00 param 8.7"},
		{1, writeTokenList(0, 9, k, rangeList(0, 0)), "05 26/00 param 8.7"},
		{1, writeTokenList(0, ^uint64(0), k, rangeList(0, 1)), "05 26/00 param 8.7"},
		{2, writeTokenList(0, 0, k, rangeList(0, 1)), "good"},
		{1, with(good, 16+3, 1), "05 23/01"}, {1, with(good, 16+7, 0), "05 23/0a"},
		{1, with(good, 16+8, k[8]+1), "05 23/04"}, {1, with(good, 16+280, k[280]+1), "05 23/04"},
		{1, with(good, 16+511, 1), "05 23/04"},
		{1, writeTokenList(0, 0, with(zeroToken, 511, 1), rangeList(0, 1)), "05 23/05"},
	} {
		if o := n.writeToken(c.lun, 7, c.list).outcome(); o != c.want {
			t.Errorf("WRITE USING TOKEN %d: %s, want %s", i, o, c.want)
		}
	}
	n.want(n.info(1, 99), "05 24/00 cdb 2.7")
	// As many tokens as there may be; those that are too old make room.
	list := populateList(0, rangeList(0, 8))
	n.nx.copies.tokens = nil
	for range maxTokens {
		n.want(n.populate(0, 7, list), "good")
	}
	n.want(n.populate(0, 8, list), "05 55/0d")
	n.want(n.info(0, 8), "05 24/00 cdb 2.7")
	n.nx.copies.tokens[3].used -= 61 * int64(time.Second)
	n.want(n.populate(0, 8, list), "good")
}

// A token is for the nexus that asked for it, while it sees the LUN, and not for ever.
func TestTokenBound(t *testing.T) {
	r := newCopyRig(t, false, 512, 512)
	n, o := r.nexus(), r.nexus()
	for i := range r.sts[0].b {
		r.sts[0].b[i] = 's'
	}
	use := func(x *rigNexus, k []byte, want string) {
		t.Helper()
		x.want(x.writeToken(1, 9, writeTokenList(0, 0, k, rangeList(0, 8))), want)
	}
	k := n.token(0, 0, 8)
	k2 := n.token(0, 0, 8)
	if bytes.Equal(k, k2) {
		t.Error("the same token twice")
	}
	wantBytes(t, "the head of a token", append(bytes.Clone(k[:8]), k[16:72]...), unhex(t, `
		00010000 0000 01f8
		e4 00 0000 01 03 00 08 3123456789abcdef 00000000 00000000 00000000 00 000200
		0000000000000000 0000000000001000 0000000000000000`))
	use(o, k, "05 23/04")
	if !allZero(r.sts[1].b) {
		t.Error("another nexus has used the token")
	}
	use(n, k, "good")
	if !bytes.Equal(r.sts[1].b[:4096], r.sts[0].b[:4096]) {
		t.Error("other data")
	}
	// It lives on by being used, and ends if it is not.
	age := func(d time.Duration) {
		for _, x := range n.nx.copies.tokens {
			x.used -= int64(d)
		}
	}
	age(50 * time.Second)
	use(n, k, "good")
	age(50 * time.Second)
	use(n, k, "good")
	use(n, k2, "05 23/07")
	use(n, k2, "05 23/04")
	// A reservation of another at the source.
	o.expect("good", "16 00 00 00 00 00", nil, 0)
	use(n, k, "0a 0d/01 info 0")
	b := n.want(n.info(1, 9), "good").in()
	wantBytes(t, "information of a failure", b, unhex(t, `
		00000034 11 02 0000 fffffffe 02 14 14 f1 0000000000000000 0000 000000000000
		f0 00 0a 00000000 0a 00000000 0d 01 00 000000 0000 00000000`))
	o.expect("good", "17 00 00 00 00 00", nil, 0)
	use(n, k, "good")
	// The LUN goes, and comes again: the token is not for it any more.
	done := make(chan int, 1)
	if err := r.tg.Unmap(0, 0, func(n int) { done <- n }); err != nil {
		t.Fatal(err)
	}
	tempotest.Recv(t, done, "the end of Unmap")
	n.run(EncodeLUN(1), make([]byte, 6), nil, nil)
	use(n, k, "05 23/08")
	if err := r.tg.Map(0, r.us[0], MapOptions{}); err != nil {
		t.Fatal(err)
	}
	n.run(EncodeLUN(1), make([]byte, 6), nil, nil)
	use(n, k, "05 23/04")
}

// With IMMED the command ends and the copy goes on; it tells how far it is, and ends by
// COPY OPERATION ABORT, a reset, the loss of the nexus, but not by ABORT TASK SET.
func TestTokenBackground(t *testing.T) {
	for _, how := range []string{"good", "COPY OPERATION ABORT", "reset", "ABORT TASK SET", "close"} {
		t.Run(how, func(t *testing.T) {
			r := newCopyRig(t, true, 512, 512)
			for _, st := range r.sts {
				st.refuse = map[backing.Kind]bool{backing.Copy: true}
			}
			n := r.nexus()
			k := n.token(0, 0, 16384)
			free := r.sts[1].hang()
			list := writeTokenList(1, 0, k, rangeList(0, 16384))
			n.want(n.writeToken(1, 5, list), "good")
			n.want(n.writeToken(1, 5, list), "05 00/16")
			tempotest.Wait(t, "a write", func() bool { return r.sts[1].count(backing.Write) > 0 })
			b := n.want(n.info(1, 5), "good").in()
			if b[5] != 0x12 || binary.BigEndian.Uint32(b[8:]) != 200 {
				t.Errorf("% x", b)
			}
			want := byte(0x60)
			done := make(chan int, 1)
			switch how {
			case "COPY OPERATION ABORT":
				n.want(n.run(EncodeLUN(1), unhex(t, "83 1c 00000005 0000000000000000 00 00"), nil, nil), "good")
				n.want(n.run(EncodeLUN(1), unhex(t, "83 1c 00000006 0000000000000000 00 00"), nil, nil), "05 24/00 cdb 2.7")
			case "reset":
				want = 0x02
				m := n.manage(LUNReset, 1, 0)
				free()
				if got := tempotest.Recv(t, m, "the answer"); got != TMComplete {
					t.Error(got)
				}
			case "ABORT TASK SET":
				want = 0x01
				if got := tempotest.Recv(t, n.manage(AbortTaskSet, 1, 0), "the answer"); got != TMComplete {
					t.Error(got)
				}
			case "close":
				n.nx.Close(0, func(n int) { done <- n })
			default:
				want = 0x01
			}
			if how != "reset" {
				free()
			}
			if how == "close" {
				if s := tempotest.Recv(t, done, "the end of Close"); s != 0 {
					t.Errorf("%d stuck", s)
				}
				return
			}
			n.run(EncodeLUN(1), make([]byte, 6), nil, nil)
			tempotest.Wait(t, "the end of the copy", func() bool {
				b = n.info(1, 5).in()
				return b[5] != 0x12
			})
			if b[5] != want {
				t.Errorf("status %02x, want %02x", b[5], want)
			}
			if blocks := binary.BigEndian.Uint64(b[16:]); (blocks == 16384) != (want == 1) {
				t.Errorf("%d blocks", blocks)
			}
			r.checkQuiet(t, n)
		})
	}
}

func FuzzTokenLists(f *testing.F) {
	k := make([]byte, 512)
	copy(k, []byte{0, 1, 0, 0, 0, 0, 1, 0xf8})
	f.Add(populateList(0, rangeList(0, 8, 100, 5)), uint64(1), byte(0))
	f.Add(populateList(9, rangeList(1<<63, 1<<31)), uint64(1)<<63, byte(3))
	f.Add(writeTokenList(3, 1, k, rangeList(4, 4, 9, 1)), uint64(0), byte(1))
	f.Add(writeTokenList(0, 2, zeroToken, rangeList(4, 4)), uint64(0), byte(2))
	f.Add(bytes.Repeat([]byte{0xff}, 600), uint64(7), byte(0))
	r := newCopyRig(f, false, 512, 4096)
	f.Fuzz(func(t *testing.T, b []byte, offset uint64, how byte) {
		given := bytes.Clone(b)
		src, dst := r.us[how&1], r.us[how>>1&1]
		p, s := decodePopulate(b, src.blocks(), int64(src.blockSize))
		if s.Key == NoSense && (len(p.ranges) == 0 || len(p.ranges) > maxTokenRanges || p.size > maxTokenBytes || p.timeout <= 0 || p.timeout > maxTokenTimeout) {
			t.Fatalf("%+v", p)
		}
		w, ws := decodeWriteToken(b, dst.blocks(), int64(dst.blockSize))
		if !bytes.Equal(b, given) {
			t.Fatal("changed")
		}
		if s.Key != NoSense {
			// Something to write from.
			p = populateParams{ranges: []blockRange{{0, 3}, {7, 0}, {16, 100}}, size: 103 * int64(src.blockSize)}
		}
		if ws.Key != NoSense {
			w = writeTokenParams{ranges: []blockRange{{5, 1}, {9, 0}, {20, 30}}, size: 31 * int64(dst.blockSize)}
		}
		w.offset ^= offset
		rs, s := w.resolve(&rodToken{src: copyEnd{unit: src}, ranges: p.ranges, size: p.size}, copyEnd{unit: dst})
		if s.Key != NoSense {
			return
		}
		var sum int64
		for i := range rs {
			if rs[i].n <= 0 || rs[i].check().Key != NoSense {
				t.Fatalf("range %+v", rs[i])
			}
			sum += rs[i].n
		}
		if sum != w.size {
			t.Fatalf("%d bytes of %d", sum, w.size)
		}
	})
}

// The third-party copy VPD page, written from SPC-4 §7.8.17 and SBC-3 §6.6.7.
func TestVPDCopy(t *testing.T) {
	r := newCopyRig(t, false, 512)
	n := r.nexus()
	wantBytes(t, "8f", n.expect("good", "12 01 8f 0400 00", nil, 1024).in(), unhex(t, `
		00 8f 018c
		0000 0020 000000000000 0080 00000258 0000003c 0000000000800000 0000000000020000
		0001 0010 0e 83 04 00 10 11 1c 84 06 00 01 03 04 05 07 00
		0004 001c 00000000 0008 0040 00001000 00000000 000000000000000000000000
		0008 0004 03 02 0a e4
		0106 005c 00 0000000000000000000000 00000000 00000000 00000258 000000000000000000000000000000000000 0030
		  00 00 002c 0000 0000 0000000100000000 0000000004000000 0000000004000000 0000000004000000 0000000000000000
		0108 0084 0000 0080
		  00010000 03 00 0000 `+string(bytes.Repeat([]byte("00"), 56))+`
		  ffff0001 02 00 0000 `+string(bytes.Repeat([]byte("00"), 56))+`
		8001 0020 00000010 00000010 10000000 09 00 000000000000000000000000000000000000
		c001 001c 00000000 00 `+string(bytes.Repeat([]byte("00"), 23))))
}
