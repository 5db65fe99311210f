package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// copyRig is a rig with more units: LUN i has NAA copyNAA+i.
type copyRig struct {
	*rig
	us  []*Unit
	sts []*rigStore
}

const copyNAA = 0x3123456789abcdef

// newCopyRig makes a rig with a unit for each store, with blocks of the given sizes.
func newCopyRig(t testing.TB, later bool, blocks ...int) *copyRig {
	t.Helper()
	r := &copyRig{}
	for i, bs := range blocks {
		st := newRigStore(8 << 20)
		st.later = later
		if bs == 0 {
			bs = 512
		}
		c := goldenConf()
		c.Name, c.NAA, c.Serial, c.BlockSize, c.Shared = fmt.Sprint("d", i), copyNAA+uint64(i), fmt.Sprint("SN", i), bs, true
		r.sts = append(r.sts, st)
		if i == 0 {
			r.rig = newRig(t, c, st)
			r.us = append(r.us, r.u)
			continue
		}
		u, err := NewUnit(c, st)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.tg.Map(uint16(i), u, MapOptions{}); err != nil {
			t.Fatal(err)
		}
		r.us = append(r.us, u)
	}
	return r
}

// nexus attaches an initiator and takes the first unit attention of each unit away.
func (r *copyRig) nexus() *rigNexus {
	r.tb.Helper()
	n := r.rig.nexus()
	for _, e := range n.nx.LUNs()[1:] {
		n.want(n.run(EncodeLUN(e.LUN), make([]byte, 6), nil, nil), "06 29/00")
	}
	return n
}

// naaTarget is a CSCD descriptor with a NAA designator.
func naaTarget(naa uint64, bs int) []byte {
	b := make([]byte, 32)
	b[0], b[4], b[5], b[7] = 0xe4, 1, 3, 8
	binary.BigEndian.PutUint64(b[8:], naa)
	b[29], b[30], b[31] = byte(bs>>16), byte(bs>>8), byte(bs)
	return b
}

// blockSegment is a segment descriptor of type 02h.
func blockSegment(src, dst, blocks int, from, to uint64) []byte {
	b := make([]byte, 28)
	b[0], b[3], b[5], b[7] = 2, 24, byte(src), byte(dst)
	binary.BigEndian.PutUint16(b[10:], uint16(blocks))
	binary.BigEndian.PutUint64(b[12:], from)
	binary.BigEndian.PutUint64(b[20:], to)
	return b
}

// byteSegment is one of type 0Ah.
func byteSegment(src, dst, n int, from, to uint64, srcOff, dstOff int) []byte {
	b := make([]byte, 32)
	b[0], b[3], b[5], b[7] = 0x0a, 28, byte(src), byte(dst)
	binary.BigEndian.PutUint32(b[8:], uint32(n))
	binary.BigEndian.PutUint64(b[12:], from)
	binary.BigEndian.PutUint64(b[20:], to)
	binary.BigEndian.PutUint16(b[28:], uint16(srcOff))
	binary.BigEndian.PutUint16(b[30:], uint16(dstOff))
	return b
}

// copyParamList is the parameter list of EXTENDED COPY(LID1).
func copyParamList(id, usage byte, targets, segments [][]byte) []byte {
	ts, ss := bytes.Join(targets, nil), bytes.Join(segments, nil)
	b := make([]byte, 16, 16+len(ts)+len(ss))
	b[0], b[1] = id, usage<<3
	binary.BigEndian.PutUint16(b[2:], uint16(len(ts)))
	binary.BigEndian.PutUint32(b[8:], uint32(len(ss)))
	return append(append(b, ts...), ss...)
}

func copyCDB(list []byte) []byte {
	cdb := make([]byte, 16)
	cdb[0] = 0x83
	binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
	return cdb
}

// xcopy sends EXTENDED COPY to a LUN.
func (n *rigNexus) xcopy(lun uint16, list []byte) *rigCall {
	n.r.tb.Helper()
	return n.run(EncodeLUN(lun), copyCDB(list), [][]byte{list}, nil)
}

// simple is a list with one segment from LUN src to LUN dst of a copyRig.
func (r *copyRig) simple(src, dst, blocks int, from, to uint64) []byte {
	return copyParamList(0, listIDNone, [][]byte{
		naaTarget(copyNAA+uint64(src), r.us[src].blockSize), naaTarget(copyNAA+uint64(dst), r.us[dst].blockSize),
	}, [][]byte{blockSegment(0, 1, blocks, from, to)})
}

func TestExtendedCopy(t *testing.T) {
	for _, later := range []bool{false, true} {
		for _, moves := range []bool{false, true} {
			t.Run(fmt.Sprintf("later=%v,moves=%v", later, moves), func(t *testing.T) {
				r := newCopyRig(t, later, 512, 512, 4096)
				for i, st := range r.sts {
					copy(st.b, pattern(len(st.b), uint64(i)))
					if !moves {
						st.refuse = map[backing.Kind]bool{backing.Copy: true}
					}
				}
				n := r.nexus()
				ts := [][]byte{naaTarget(copyNAA, 512), naaTarget(copyNAA+1, 512), naaTarget(copyNAA+2, 4096)}
				want := make([][]byte, 3)
				for i, st := range r.sts {
					want[i] = bytes.Clone(st.b)
				}
				dc := blockSegment(0, 2, 3, 8, 100)
				dc[1] |= 0x02 // the count is in blocks of the destination
				for i, c := range []struct {
					segs     [][]byte
					src, dst int
					from, to int64
					n        int
				}{
					{[][]byte{blockSegment(0, 1, 1, 5, 7)}, 0, 1, 5 * 512, 7 * 512, 512},
					{[][]byte{blockSegment(0, 1, 9999, 5, 7)}, 0, 1, 5 * 512, 7 * 512, 9999 * 512},
					{[][]byte{blockSegment(1, 0, 16384, 0, 0)}, 1, 0, 0, 0, 8 << 20},
					{[][]byte{blockSegment(2, 1, 700, 3, 8)}, 2, 1, 3 * 4096, 8 * 512, 700 * 4096},
					{[][]byte{dc}, 0, 2, 8 * 512, 100 * 4096, 3 * 4096},
					{[][]byte{blockSegment(1, 1, 5000, 0, 9000)}, 1, 1, 0, 9000 * 512, 5000 * 512},
					{[][]byte{blockSegment(1, 1, 0, 16384, 16384)}, 1, 1, 0, 0, 0},
					{[][]byte{byteSegment(0, 2, 5<<20, 16, 1, 0, 0)}, 0, 2, 16 * 512, 4096, 5 << 20},
				} {
					n.want(n.xcopy(uint16(i%3), copyParamList(1, 0, ts, c.segs)), "good")
					copy(want[c.dst][c.to:], want[c.src][c.from:c.from+int64(c.n)])
					for d, st := range r.sts {
						if !bytes.Equal(st.b, want[d]) {
							t.Fatalf("copy %d: unit %d is not as it should be", i, d)
						}
					}
				}
				// A chain in one command: segments are done in order.
				n.want(n.xcopy(0, copyParamList(1, 0, ts, [][]byte{
					blockSegment(0, 1, 4000, 0, 4000), blockSegment(1, 0, 4000, 4000, 10000), blockSegment(0, 1, 4000, 10000, 12000),
				})), "good")
				if !bytes.Equal(r.sts[1].b[12000*512:16000*512], want[0][:4000*512]) {
					t.Error("the chain was not done in order")
				}
				// Overlapping, towards lower addresses: as if it were done piece by piece.
				copy(want[1], r.sts[1].b)
				n.want(n.xcopy(1, copyParamList(1, 0, ts, [][]byte{blockSegment(1, 1, 16000, 300, 0)})), "good")
				if !bytes.Equal(r.sts[1].b[:16000*512], want[1][300*512:16300*512]) {
					t.Error("overlapping: other data")
				}
				var kinds []backing.Kind
				for _, st := range r.sts {
					for _, o := range st.ops {
						kinds = append(kinds, o.kind)
					}
				}
				if got := slices.Contains(kinds, backing.Write) && slices.Contains(kinds, backing.Read); moves && slices.Contains(kinds, backing.Copy) == false || !got {
					t.Errorf("kinds %v", kinds)
				}
			})
		}
	}
}

// Written from SPC-4 §6.4.
func TestExtendedCopyRefused(t *testing.T) {
	r := newCopyRig(t, false, 512, 512, 4096)
	n := r.nexus()
	a, b, k := naaTarget(copyNAA, 512), naaTarget(copyNAA+1, 512), naaTarget(copyNAA+2, 4096)
	seg := blockSegment(0, 1, 1, 0, 0)
	with := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	list := func(ts [][]byte, ss ...[]byte) []byte { return copyParamList(1, 0, ts, ss) }
	good := list([][]byte{a, b}, seg)
	many := func(x []byte, n int) (l [][]byte) {
		for range n {
			l = append(l, x)
		}
		return l
	}
	tape := with(b, 1, 1)
	for i, c := range []struct {
		list []byte
		want string
	}{
		{good, "good"},
		{nil, "good"},
		{list(nil), "good"},
		{list([][]byte{a, b}), "good"},
		{good[:15], "05 1a/00"},
		{good[:len(good)-1], "05 1a/00"},
		{good[:47], "05 1a/00"},
		{append(bytes.Clone(good), make([]byte, 5000)...), "05 1a/00"},
		{with(good, 1, 1<<3), "05 26/00 param 1.4"},
		{with(good, 1, 3<<3), "05 26/00 param 0.7"},
		{with(good, 15, 4), "05 26/0b"},
		{with(good, 3, 63), "05 26/00 param 2.7"},
		{with(good, 16, 0xe0), "05 26/07"},
		{with(good, 16+7, 21), "05 26/00 param 23.7"},
		{with(good, 80, 0x03), "05 26/09"},
		{with(good, 80+3, 25), "05 26/00 param 82.7"},
		{with(good, 11, 27), "05 1a/00"},
		{with(good, 11, 3), "05 1a/00"},
		{list(many(a, 8), seg), "good"},
		{list(many(a, 9), seg), "05 26/06"},
		{list([][]byte{a, b}, many(seg, 64)...), "good"},
		{list([][]byte{a, b}, many(seg, 65)...), "05 26/08"},
		{list([][]byte{a, naaTarget(copyNAA+1, 4096)}, seg), "05 26/00 param 77.7"},
		// What is wrong with a segment: its number, and where in it.
		{list([][]byte{a, b}, seg, blockSegment(0, 2, 1, 0, 0)), "0a 08/04 info 1 param 6"},
		{list([][]byte{a, b}, blockSegment(9, 0, 1, 0, 0)), "0a 08/04 info 0 param 4"},
		{list([][]byte{a, naaTarget(copyNAA+7, 512)}, seg), "0a 08/04 info 0 param 6"},
		{list([][]byte{a, with(b, 4, 2)}, seg), "0a 08/04 info 0 param 6"},
		{list([][]byte{a, with(b, 5, 0x13)}, seg), "0a 08/04 info 0 param 6"},
		{list([][]byte{a, tape}, seg), "0a 0d/03 info 0 param 6"},
		{list([][]byte{a, b}, blockSegment(0, 1, 2, 16383, 0)), "0a 00/00 info 0"},
		{list([][]byte{a, b}, blockSegment(0, 1, 2, 0, 16383)), "0a 00/00 info 0"},
		{list([][]byte{a, b}, blockSegment(0, 1, 1, 0, 1<<63)), "0a 00/00 info 0"},
		{list([][]byte{a, b}, blockSegment(0, 1, 1, ^uint64(0), 0)), "0a 00/00 info 0"},
		{list([][]byte{a, k}, blockSegment(0, 1, 1, 0, 0)), "0a 26/0a info 0 param 8"},
		{list([][]byte{a, b}, byteSegment(0, 1, 513, 0, 0, 0, 0)), "0a 26/0a info 0 param 8"},
		{list([][]byte{a, b}, byteSegment(0, 1, 512, 0, 0, 1, 0)), "0a 26/0a info 0 param 28"},
		{list([][]byte{a, b}, byteSegment(0, 1, 512, 0, 0, 0, 512)), "0a 26/0a info 0 param 30"},
		{list([][]byte{a, b}, byteSegment(0, 1, 1<<28+512, 0, 0, 0, 0)), "0a 26/00 info 0 param 8"},
	} {
		if o := n.xcopy(0, c.list).outcome(); o != c.want {
			t.Errorf("list %d: %s, want %s", i, o, c.want)
		}
	}
	// By the T10 designator.
	t10 := make([]byte, 32)
	t10[0], t10[4], t10[5], t10[7], t10[30] = 0xe4, 2, 1, byte(8+len("SN1")), 2
	copy(t10[8:], "VTGT    SN1")
	n.want(n.xcopy(0, list([][]byte{a, t10}, seg)), "good")
}

// A LUN that is not mapped to the nexus cannot be named, whoever asks: not one of
// another target, not one that the initiator's mask hides, not the initiator's own
// by another port's numbers.
func TestCopyBetweenMapped(t *testing.T) {
	r := newCopyRig(t, false, 512, 512)
	// A target of somebody else's, and a LUN that only "friend" sees.
	hiddenStore, foreignStore := newRigStore(1<<20), newRigStore(1<<20)
	unit := func(i uint64, st *rigStore) *Unit {
		c := goldenConf()
		c.NAA, c.Serial = copyNAA+i, fmt.Sprint("SN", i)
		u, err := NewUnit(c, st)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	hidden, foreign := unit(8, hiddenStore), unit(9, foreignStore)
	if err := r.tg.Map(8, hidden, MapOptions{Visible: func(id InitiatorID) bool { return id == "friend" }}); err != nil {
		t.Fatal(err)
	}
	other := NewTarget(TargetConfig{Name: "other", Group: 2})
	if err := other.Map(0, foreign, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close(0, func(int) {}) })
	for _, st := range []*rigStore{hiddenStore, foreignStore, r.sts[0]} {
		for i := range st.b {
			st.b[i] = 's'
		}
	}
	n, friend := r.nexus(), r.attach(r.p, "friend")
	stranger := r.attach(other.NewPort(PortConfig{RelID: 9, Protocol: 5, Name: "iqn.o,t,0x0009"}), "stranger")
	for _, x := range []*rigNexus{friend, stranger} {
		for _, e := range x.nx.LUNs() {
			x.run(EncodeLUN(e.LUN), make([]byte, 6), nil, nil)
		}
	}
	try := func(x *rigNexus, lun uint16, src, dst uint64, want string) {
		t.Helper()
		x.want(x.xcopy(lun, copyParamList(0, listIDNone, [][]byte{naaTarget(copyNAA+src, 512), naaTarget(copyNAA+dst, 512)}, [][]byte{blockSegment(0, 1, 8, 0, 16)})), want)
	}
	const from, to = "0a 08/04 info 0 param 4", "0a 08/04 info 0 param 6"
	for _, u := range []uint64{8, 9} {
		try(n, 0, u, 1, from)
		try(n, 0, 1, u, to)
		try(n, 0, u, u, from)
	}
	try(friend, 8, 9, 8, from)
	try(friend, 0, 8, 9, to)
	try(stranger, 0, 0, 9, from)
	try(stranger, 0, 9, 8, to)
	for _, st := range append([]*rigStore{hiddenStore, foreignStore}, r.sts...) {
		for _, o := range st.ops {
			t.Errorf("an operation of kind %d", o.kind)
		}
	}
	// To friend the hidden one is like any other.
	try(friend, 0, 8, 1, "good")
	if !bytes.Equal(r.sts[1].b[16*512:24*512], hiddenStore.b[:8*512]) {
		t.Error("other data")
	}
	// Until it is hidden from friend, too.
	done := make(chan int, 1)
	if err := r.tg.Remap(8, MapOptions{Visible: func(InitiatorID) bool { return false }}, 0, func(n int) { done <- n }); err != nil {
		t.Fatal(err)
	}
	tempotest.Recv(t, done, "the end of Remap")
	friend.run(LUN{}, make([]byte, 6), nil, nil)
	try(friend, 0, 8, 1, from)
}

// Reservations and write protection hold at both ends, for whoever asks.
func TestCopyAccess(t *testing.T) {
	for _, moves := range []bool{false, true} {
		r := newCopyRig(t, false, 512, 512, 512)
		for _, st := range r.sts {
			st.refuse = map[backing.Kind]bool{backing.Copy: !moves}
		}
		n, o := r.nexus(), r.nexus()
		const failed = "0a 0d/01 info 0"
		at := func(x *rigNexus, lun uint16, cdb string) {
			t.Helper()
			x.lun = EncodeLUN(lun)
			x.expect("good", cdb, nil, 0)
			x.lun = LUN{}
		}
		copyTo := func(x *rigNexus, src, dst int, want string) {
			t.Helper()
			x.want(x.xcopy(2, r.simple(src, dst, 8, 0, 0)), want)
		}
		copyTo(n, 0, 1, "good")
		at(o, 0, "16 00 00 00 00 00")
		copyTo(n, 0, 1, failed)
		copyTo(o, 0, 1, "good")
		at(o, 0, "17 00 00 00 00 00")
		at(o, 1, "16 00 00 00 00 00")
		copyTo(n, 0, 1, failed)
		copyTo(n, 1, 0, failed)
		at(o, 1, "17 00 00 00 00 00")
		// Write Exclusive: others may read.
		reg := make([]byte, 24)
		reg[15] = 1
		o.want(o.run(EncodeLUN(1), unhex(t, "5f 00 00 00 00 00000018 00"), [][]byte{reg}, nil), "good")
		reg[7], reg[15] = 1, 0
		o.want(o.run(EncodeLUN(1), unhex(t, "5f 01 01 00 00 00000018 00"), [][]byte{reg}, nil), "good")
		copyTo(n, 0, 1, failed)
		copyTo(n, 1, 0, "good")
		// The unit that manages the copy is reserved itself.
		n.want(n.xcopy(1, r.simple(0, 2, 1, 0, 0)), "RESERVATION CONFLICT")
		o.want(o.run(EncodeLUN(1), unhex(t, "5f 02 01 00 00 00000018 00"), [][]byte{reg}, nil), "good")
		copyTo(n, 0, 1, "good")
		// Read-only to this target.
		done := make(chan int, 1)
		if err := r.tg.Remap(1, MapOptions{ReadOnly: true}, 0, func(n int) { done <- n }); err != nil {
			t.Fatal(err)
		}
		tempotest.Recv(t, done, "the end of Remap")
		copyTo(n, 0, 1, failed)
		copyTo(n, 1, 0, "good")
		// The unit attention of that was not taken from the initiator.
		n.want(n.run(EncodeLUN(1), make([]byte, 6), nil, nil), "06 2a/01")
	}
}

// The results of RECEIVE COPY RESULTS, written from SPC-4 §6.23 to §6.27.
func TestReceiveCopyResults(t *testing.T) {
	r := newCopyRig(t, false, 512, 512, 4096)
	n, o := r.nexus(), r.nexus()
	get := func(x *rigNexus, sa, id int, want, data string) {
		t.Helper()
		c := x.expect(want, fmt.Sprintf("84 %02x %02x 00 00000000 0000 00000400 00 00", sa, id), nil, 1024)
		if want == "good" {
			wantBytes(t, fmt.Sprintf("service action %d", sa), c.in(), unhex(t, data))
		}
	}
	get(n, 3, 0, "good", `
		0000002b 01 000000
		0008 0040           # target, segment descriptors
		00001000 10000000   # bytes of descriptors, of a segment
		00000000 00000000 00000000
		0000 0010 10        # concurrent copies
		09 00 00 000000     # granularity
		03 02 0a e4`)
	const none = "05 24/00 cdb 2.7"
	for _, sa := range []int{0, 1, 4} {
		get(n, sa, 5, none, "")
	}
	ts := [][]byte{naaTarget(copyNAA, 512), naaTarget(copyNAA+1, 512)}
	seg, bad := blockSegment(0, 1, 16, 0, 0), blockSegment(0, 3, 16, 0, 0)
	n.want(n.xcopy(0, copyParamList(5, 0, ts, [][]byte{seg, seg, seg})), "good")
	get(n, 0, 5, "good", "00000008 01 0003 00 00006000")
	get(n, 1, 5, "good", "00000000")
	get(n, 4, 5, "good", "00000000")
	get(o, 0, 5, none, "") // another nexus's
	n.lun = EncodeLUN(1)
	get(n, 0, 5, none, "") // another unit's
	n.lun = LUN{}
	n.want(n.xcopy(0, copyParamList(5, 0, ts, [][]byte{seg, bad})), "0a 08/04 info 1 param 6")
	get(n, 0, 5, "good", "00000008 02 0001 00 00002000")
	sense := "f0 00 0a 00000001 0a 00000000 08 04 00 a00006"
	get(n, 4, 5, "good", "0000004a"+string(bytes.Repeat([]byte("00"), 52))+" 02 00 0012 "+sense)
	get(n, 4, 5, none, "")
	n.want(n.xcopy(0, copyParamList(6, listIDDiscard, ts, [][]byte{seg})), "good")
	get(n, 0, 6, none, "")
	n.want(n.xcopy(0, copyParamList(6, listIDDiscard, ts, [][]byte{bad})), "0a 08/04 info 0 param 6")
	get(n, 0, 6, "good", "00000008 02 0000 00 00000000")
	n.want(n.xcopy(0, copyParamList(0, listIDNone, ts, [][]byte{seg})), "good")
	get(n, 0, 0, none, "")
	for id := range 256 {
		n.want(n.xcopy(0, copyParamList(byte(id), 0, ts, [][]byte{seg})), "good")
	}
	if e := len(n.nx.copies.entries); e > maxResults {
		t.Errorf("%d results are kept", e)
	}
	get(n, 0, 255, "good", "00000008 01 0001 00 00002000")
	get(n, 0, 1, none, "")
	if units, count := transferCount(3 << 50); units != 2 || count != 3<<30 {
		t.Errorf("3 PiB are %d of unit %d", count, units)
	}
}

// hang keeps the operations of a store until the returned function is called.
func (s *rigStore) hang() (free func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{})
	s.hold = ch
	return func() {
		s.mu.Lock()
		s.hold = nil
		s.mu.Unlock()
		close(ch)
	}
}

// submit starts a command without waiting for it.
func (n *rigNexus) submit(tag uint64, lun uint16, cdb []byte, out, in [][]byte) *rigCall {
	c := &rigCall{done: make(chan struct{})}
	c.t.Ref, c.t.LUN, c.t.Tag = c, EncodeLUN(lun), tag
	c.t.CDBLen = uint8(copy(c.t.CDB[:], cdb))
	c.t.DataOut, c.t.DataIn = out, in
	n.l.Do(func() {
		n.ln.Submit(&c.t)
		n.ln.Kick()
	})
	return c
}

// manage runs a task management function; the answer comes by the channel.
func (n *rigNexus) manage(f TMFunc, lun uint16, tag uint64) chan TMResponse {
	ch := make(chan TMResponse, 1)
	n.nx.Manage(&TMF{Func: f, LUN: EncodeLUN(lun), Tag: tag, Lane: n.ln, Done: func(m *TMF) { ch <- m.Response }})
	return ch
}

func (c *rigCall) await(t testing.TB) *rigCall {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(tempotest.Patience):
		t.Fatal("the command does not end")
	}
	return c
}

func (c *rigCall) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// count is the number of operations of a kind that the store has seen.
func (s *rigStore) count(k backing.Kind) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.ops {
		if o.kind == k {
			n++
		}
	}
	return n
}

// Task management during a copy is answered when the copy has left both stores, and
// nothing of it lands afterwards.
func TestCopyAborted(t *testing.T) {
	for _, moves := range []bool{false, true} {
		for _, c := range []struct {
			name    string
			f       TMFunc
			lun     uint16
			outcome string
			tm      TMResponse
		}{
			{"ABORT TASK", AbortTask, 0, "aborted", TMComplete},
			{"ABORT TASK SET", AbortTaskSet, 0, "aborted", TMComplete},
			{"CLEAR TASK SET", ClearTaskSet, 0, "aborted", TMComplete},
			{"LOGICAL UNIT RESET", LUNReset, 0, "aborted", TMComplete},
			{"I_T NEXUS RESET", NexusReset, 0, "aborted", TMComplete},
			{"TARGET RESET", TargetWarmReset, 0, "aborted", TMComplete},
			{"reset of the destination", LUNReset, 2, "0a 0d/01 info 0", TMComplete},
			{"ABORT TASK at another unit", AbortTask, 2, "good", TMNoTask},
			{"ABORT TASK SET at another unit", AbortTaskSet, 2, "good", TMComplete},
			{"QUERY TASK SET at another unit", QueryTaskSet, 2, "good", TMComplete},
		} {
			t.Run(fmt.Sprintf("moves=%v,%s", moves, c.name), func(t *testing.T) {
				r := newCopyRig(t, true, 512, 512, 512)
				for _, st := range r.sts {
					st.refuse = map[backing.Kind]bool{backing.Copy: !moves}
				}
				for i := range r.sts[1].b {
					r.sts[1].b[i] = 's'
				}
				n := r.nexus()
				free := r.sts[2].hang()
				// LUN 0 manages, from LUN 1 to LUN 2.
				list := r.simple(1, 2, 16384, 0, 0)
				x := n.submit(77, 0, copyCDB(list), [][]byte{list}, nil)
				kind := backing.Write
				if moves {
					kind = backing.Copy
				}
				tempotest.Wait(t, "the copy to be in the store", func() bool { return r.sts[2].count(kind) > 0 })
				m := n.manage(c.f, c.lun, 77)
				if c.tm == TMComplete && c.outcome != "good" {
					// The answer cannot come before what is in the store has ended.
					for range 100 {
						n.l.Do(func() {})
					}
					select {
					case got := <-m:
						t.Errorf("answered %v with an operation in the store", got)
					default:
					}
					if x.ended() {
						t.Error("the copy has ended with an operation in the store")
					}
				}
				free()
				if got := tempotest.Recv(t, m, "the answer"); got != c.tm {
					t.Errorf("answered %v", got)
				}
				if o := x.await(t).outcome(); o != c.outcome {
					t.Errorf("the copy ends with %s, want %s", o, c.outcome)
				}
				ops := r.sts[2].count(kind)
				if c.outcome != "good" && !moves && ops == 8 {
					t.Error("nothing was aborted")
				}
				r.checkQuiet(t, n)
				if got := r.sts[2].count(kind); got != ops {
					t.Errorf("%d operations later", got-ops)
				}
			})
		}
	}
}

// checkQuiet wants no task of the nexus in any unit, and a unit that works.
func (r *copyRig) checkQuiet(t *testing.T, n *rigNexus) {
	t.Helper()
	for range 100 {
		n.l.Do(func() {})
	}
	for i, u := range r.us {
		tempotest.Wait(t, fmt.Sprintf("no task in unit %d", i), func() bool { return u.Stats().InFlight == 0 })
		for range 4 { // unit attentions
			if n.run(EncodeLUN(uint16(i)), make([]byte, 6), nil, nil).outcome() == "good" {
				break
			}
		}
		n.want(n.run(EncodeLUN(uint16(i)), unhex(t, "28 00 00000000 00 0001 00"), nil, [][]byte{make([]byte, 512)}), "good")
		n.want(n.run(EncodeLUN(uint16(i)), unhex(t, "16 00 00 00 00 00"), nil, nil), "good") // alone
		n.want(n.run(EncodeLUN(uint16(i)), unhex(t, "17 00 00 00 00 00"), nil, nil), "good")
		if g := u.gate.Load(); g != 0 {
			t.Errorf("unit %d: gate %x", i, g)
		}
	}
}

// Commands that run alone, and ordered ones, come between two pieces' tasks without
// stopping the copy that they wait for: not on one unit, not across two.
func TestCopyAndExclusive(t *testing.T) {
	for _, moves := range []bool{false, true} {
		r := newCopyRig(t, true, 512, 512)
		for _, st := range r.sts {
			st.refuse = map[backing.Kind]bool{backing.Copy: !moves}
		}
		n, o := r.nexus(), r.nexus()
		frees := []func(){r.sts[0].hang(), r.sts[1].hang()}
		a, b := r.simple(0, 1, 16000, 0, 0), r.simple(1, 0, 16000, 0, 0)
		calls := []*rigCall{
			n.submit(1, 0, copyCDB(a), [][]byte{a}, nil),
			n.submit(2, 1, copyCDB(b), [][]byte{b}, nil),
		}
		for lun := range uint16(2) {
			x := o.submit(3, lun, unhex(t, "1d 04 00 0000 00"), nil, nil) // SEND DIAGNOSTIC
			y := o.submit(4, lun, unhex(t, "16 00 00 00 00 00"), nil, nil)
			z := o.submit(5, lun, unhex(t, "17 00 00 00 00 00"), nil, nil)
			w := n.submit(6, lun, unhex(t, "89 00 0000000000000000 000000 01 00 00"), [][]byte{make([]byte, 1024)}, nil)
			calls = append(calls, x, y, z, w)
		}
		for _, f := range frees {
			f()
		}
		for i, c := range calls {
			if got := c.await(t).outcome(); got != "good" {
				t.Errorf("command %d: %s", i, got)
			}
		}
		r.checkQuiet(t, n)
	}
}

// A unit that goes, or shrinks, during the copy.
func TestCopyUnmapped(t *testing.T) {
	for _, moves := range []bool{false, true} {
		for _, lun := range []uint16{0, 1, 2} {
			r := newCopyRig(t, true, 512, 512, 512)
			for _, st := range r.sts {
				st.refuse = map[backing.Kind]bool{backing.Copy: !moves}
			}
			n := r.nexus()
			free := r.sts[2].hang()
			list := copyParamList(0, listIDNone, [][]byte{naaTarget(copyNAA+1, 512), naaTarget(copyNAA+2, 512)},
				[][]byte{blockSegment(0, 1, 16000, 0, 0), blockSegment(0, 1, 16000, 0, 0)})
			x := n.submit(1, 0, copyCDB(list), [][]byte{list}, nil)
			tempotest.Wait(t, "the copy to be in the store", func() bool { return r.sts[2].count(backing.Write)+r.sts[2].count(backing.Copy) > 0 })
			done := make(chan int, 1)
			if err := r.tg.Unmap(lun, 0, func(n int) { done <- n }); err != nil {
				t.Fatal(err)
			}
			free()
			if s := tempotest.Recv(t, done, "the end of Unmap"); s != 0 {
				t.Errorf("%d stuck", s)
			}
			want := "0a 0d/02 info "
			if lun == 0 {
				want = "05 25/00"
			}
			if got := x.await(t).outcome(); len(got) < len(want) || got[:len(want)] != want {
				t.Errorf("moves=%v, LUN %d: %s", moves, lun, got)
			}
		}
	}
}

// A unit that stops at an error holds the copy, which goes on with it.
func TestCopyStopped(t *testing.T) {
	r := newCopyRig(t, false, 512, 512)
	n := r.nexus()
	r.us[1].SetOnError(OnErrorStop)
	broken := true
	r.sts[1].fail = func(op *backing.Op) error {
		if broken && (op.Kind == backing.Write || op.Kind == backing.Copy) {
			return fmt.Errorf("broken")
		}
		return nil
	}
	for i := range r.sts[0].b {
		r.sts[0].b[i] = 's'
	}
	for _, end := range []string{"good", "aborted"} {
		r.sts[1].mu.Lock()
		broken = true
		r.sts[1].mu.Unlock()
		list := r.simple(0, 1, 16000, 0, 0)
		x := n.submit(1, 0, copyCDB(list), [][]byte{list}, nil)
		tempotest.Wait(t, "the unit to stop", func() bool { return r.us[1].State().Stopped })
		if end == "aborted" {
			if got := tempotest.Recv(t, n.manage(AbortTask, 0, 1), "the answer"); got != TMComplete {
				t.Errorf("%v", got)
			}
		}
		r.sts[1].mu.Lock()
		broken = false
		r.sts[1].mu.Unlock()
		if err := r.us[1].Resume(); err != nil {
			t.Fatal(err)
		}
		if got := x.await(t).outcome(); got != end {
			t.Errorf("%s, want %s", got, end)
		}
	}
	r.checkQuiet(t, n)
	if !bytes.Equal(r.sts[1].b[:16000*512], r.sts[0].b[:16000*512]) {
		t.Error("other data")
	}
}

// As many copies at a time as is told, no more; their buffers come back.
func TestCopyLimit(t *testing.T) {
	r := newCopyRig(t, true, 512, 512)
	n := r.nexus()
	free := r.sts[1].hang()
	list := r.simple(0, 1, 100, 0, 0)
	var xs []*rigCall
	for range maxCopies {
		xs = append(xs, n.submit(1, 0, copyCDB(list), [][]byte{list}, nil))
	}
	named := copyParamList(3, 0, [][]byte{naaTarget(copyNAA, 512)}, nil)
	n.want(n.xcopy(0, list), "TASK SET FULL")
	n.want(n.xcopy(0, named), "TASK SET FULL")
	free()
	for _, x := range xs {
		n.want(x.await(t), "good")
	}
	n.want(n.xcopy(0, named), "good")
	// The same list identifier twice.
	free = r.sts[1].hang()
	busy := copyParamList(3, 0, [][]byte{naaTarget(copyNAA, 512), naaTarget(copyNAA+1, 512)}, [][]byte{blockSegment(0, 1, 9, 0, 0)})
	x := n.submit(1, 0, copyCDB(busy), [][]byte{busy}, nil)
	n.want(n.xcopy(0, busy), "05 00/16")
	wantBytes(t, "status", n.expect("good", "84 00 03 00 00000000 0000 00000400 00 00", nil, 99).in(), unhex(t, "00000008 00 0000 00 00000000"))
	free()
	n.want(x.await(t), "good")
	n.want(n.xcopy(0, busy), "good")
}

// The lane of a copy closes with the lane that it is beside.
func TestCopyLaneCloses(t *testing.T) {
	for _, whole := range []bool{false, true} {
		r := newCopyRig(t, true, 512, 512)
		n := r.nexus()
		free := r.sts[1].hang()
		list := r.simple(0, 1, 16000, 0, 0)
		x := n.submit(1, 0, copyCDB(list), [][]byte{list}, nil)
		done := make(chan int, 1)
		if whole {
			n.nx.Close(0, func(n int) { done <- n })
		} else {
			n.ln.Close(func(n int) { done <- n })
		}
		free()
		if s := tempotest.Recv(t, done, "the end of Close"); s != 0 {
			t.Errorf("%d stuck", s)
		}
		if got := x.await(t).outcome(); got != "aborted" {
			t.Error(got)
		}
		for i, u := range r.us {
			tempotest.Wait(t, fmt.Sprintf("unit %d without lanes", i), func() bool {
				u.mu.Lock()
				defer u.mu.Unlock()
				return len(u.lanes) == 0
			})
		}
	}
}

func FuzzDecodeCopy(f *testing.F) {
	ts := [][]byte{naaTarget(copyNAA, 512), naaTarget(copyNAA+1, 4096)}
	f.Add(copyParamList(1, 0, ts, [][]byte{blockSegment(0, 1, 8, 1, 2), byteSegment(1, 0, 4096, 1, 2, 0, 0)}))
	f.Add(copyParamList(0, 3, nil, nil))
	f.Add(copyParamList(0, 1, ts, [][]byte{make([]byte, 4)}))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Add([]byte{0, 0, 0, 32, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	r := newCopyRig(f, false, 512, 4096)
	luns := r.tg.LUNs()
	f.Fuzz(func(t *testing.T, b []byte) {
		given := bytes.Clone(b)
		p, s := decodeCopy(b)
		if !bytes.Equal(b, given) {
			t.Fatal("changed")
		}
		if s.Key != NoSense {
			return
		}
		if len(p.targets) > maxCopyTargets || len(p.segments) > maxCopySegments {
			t.Fatalf("%d targets, %d segments", len(p.targets), len(p.segments))
		}
		rs, s := p.resolve(luns)
		if s.Key != NoSense {
			return
		}
		if len(rs) != len(p.segments) {
			t.Fatalf("%d ranges for %d segments", len(rs), len(p.segments))
		}
		for i := range rs {
			r := &rs[i]
			if r.bad.Key != NoSense {
				continue
			}
			for _, e := range []copyEnd{r.src, r.dst} {
				bs := int64(e.unit.blockSize)
				if e.off < 0 || r.n < 0 || e.off%bs != 0 || r.n%bs != 0 || r.n > maxCopySegmentLen {
					t.Fatalf("range %+v", r)
				}
				if r.check().Key == NoSense && e.off+r.n > e.unit.Capacity() {
					t.Fatalf("range %+v leaves its medium", r)
				}
			}
		}
	})
}

// Another unit under the number of the destination, while the copy reads: it is not the
// one that was named.
func TestCopyOtherUnit(t *testing.T) {
	r := newCopyRig(t, true, 512, 512, 512)
	for _, st := range r.sts {
		st.refuse = map[backing.Kind]bool{backing.Copy: true}
	}
	for i := range r.sts[1].b {
		r.sts[1].b[i] = 's'
	}
	n := r.nexus()
	free := r.sts[1].hang()
	list := r.simple(1, 2, 16000, 0, 0)
	x := n.submit(1, 0, copyCDB(list), [][]byte{list}, nil)
	tempotest.Wait(t, "a read", func() bool { return r.sts[1].count(backing.Read) > 0 })
	done := make(chan int, 1)
	if err := r.tg.Unmap(2, 0, func(n int) { done <- n }); err != nil {
		t.Fatal(err)
	}
	if s := tempotest.Recv(t, done, "the end of Unmap"); s != 0 {
		t.Errorf("%d stuck", s)
	}
	st := newRigStore(8 << 20)
	c := goldenConf()
	c.NAA, c.Serial = copyNAA+7, "SN7"
	u, err := NewUnit(c, st)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.tg.Map(2, u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	free()
	if got := x.await(t).outcome(); got != "0a 0d/02 info 0" {
		t.Error(got)
	}
	if n := st.count(backing.Write) + st.count(backing.Zero); n != 0 || !allZero(st.b) {
		t.Errorf("%d operations on the other unit", n)
	}
}
