package scsi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// The numbers here are those of SPC-4 (r37), not of the code.

// prList is a basic parameter list (SPC-4 table 214).
func prList(key, saKey uint64, flags byte, ids ...string) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint64(b, key)
	binary.BigEndian.PutUint64(b[8:], saKey)
	b[20] = flags
	if flags&0x08 != 0 {
		all := strings.Join(ids, "")
		b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
		b = append(b, all...)
	}
	return b
}

// prMove is the list of REGISTER AND MOVE (SPC-4 table 217).
func prMove(key, saKey uint64, flags byte, port uint16, id string) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint64(b, key)
	binary.BigEndian.PutUint64(b[8:], saKey)
	b[17] = flags
	binary.BigEndian.PutUint16(b[18:], port)
	binary.BigEndian.PutUint32(b[20:], uint32(len(id)))
	return append(b, id...)
}

const conflicts = "RESERVATION CONFLICT"

func outCDB(sa, scopeType byte, n uint32) string {
	return fmt.Sprintf("5f %02x %02x 0000 %08x 00", sa, scopeType, n)
}

// out runs a PERSISTENT RESERVE OUT.
func (n *rigNexus) out(outcome string, sa, scopeType byte, list []byte) {
	n.r.tb.Helper()
	n.expect(outcome, outCDB(sa, scopeType, uint32(len(list))), list, 0)
}

// keys wants PRGENERATION and the registered keys.
func (n *rigNexus) keys(generation uint32, keys ...uint64) {
	n.r.tb.Helper()
	b := n.expect("good", "5e 00 0000000000 ffff 00", nil, 65535).in()
	want := binary.BigEndian.AppendUint32(nil, generation)
	want = binary.BigEndian.AppendUint32(want, uint32(8*len(keys)))
	for _, k := range keys {
		want = binary.BigEndian.AppendUint64(want, k)
	}
	if !bytes.Equal(b, want) {
		n.r.tb.Errorf("READ KEYS % x, want % x", b, want)
	}
}

// held wants the reservation: its key and type; type 0: none.
func (n *rigNexus) held(key uint64, typ byte) {
	n.r.tb.Helper()
	b := n.expect("good", "5e 01 0000000000 ffff 00", nil, 100).in()
	var want []byte
	if typ == 0 {
		want = append(want, 0, 0, 0, 0)
	} else {
		want = append(want, 0, 0, 0, 16)
		want = binary.BigEndian.AppendUint64(want, key)
		want = append(want, 0, 0, 0, 0, 0, typ, 0, 0)
	}
	if !bytes.Equal(b[4:], want) {
		n.r.tb.Errorf("READ RESERVATION % x, want % x", b[4:], want)
	}
}

// ua wants a unit attention condition, and no other; "": none.
func (n *rigNexus) ua(asc string) {
	n.r.tb.Helper()
	if asc != "" {
		n.expect("06 "+asc, "00 00 00 00 00 00", nil, 0)
	}
	n.expect("good", "00 00 00 00 00 00", nil, 0)
}

// access wants READ and WRITE allowed or in conflict.
func (n *rigNexus) access(read, write bool) {
	n.r.tb.Helper()
	for _, c := range []struct {
		cdb string
		ok  bool
	}{{"28 00 00000000 00 0001 00", read}, {"2a 00 00000000 00 0001 00", write}} {
		want := conflicts
		if c.ok {
			want = "good"
		}
		n.expect(want, c.cdb, make([]byte, 512), 512)
	}
}

// sharedConf is a disk that initiators of several names may write.
func sharedConf() UnitConfig {
	c := goldenConf()
	c.Shared = true
	return c
}

func TestPRCapabilities(t *testing.T) {
	n := newRig(t, goldenConf(), newRigStore(1<<20)).nexus()
	want := "0008 1c b0 ea01 0000" // CRH, SIP_C, ATP_C; TMV, ALLOW COMMANDS 011b
	if got := hex.EncodeToString(n.expect("good", "5e 02 0000000000 0100 00", nil, 256).in()); got != strings.ReplaceAll(want, " ", "") {
		t.Errorf("%s, want %s", got, want)
	}
	c := goldenConf()
	c.Memory = &rigMemory{}
	n = newRig(t, c, newRigStore(1<<20)).nexus()
	want = "0008 9d b0 ea01 0000" // RLR_C and PTPL_C too
	if got := hex.EncodeToString(n.expect("good", "5e 02 0000000000 0100 00", nil, 256).in()); got != strings.ReplaceAll(want, " ", "") {
		t.Errorf("%s, want %s", got, want)
	}
	n.out("good", 0, 0, prList(0, 1, 1))
	if b := n.expect("good", "5e 02 0000000000 0004 00", nil, 256).in(); !bytes.Equal(b, []byte{0, 8, 0x9d, 0xb1}) {
		t.Errorf("PTPL_A, cut: % x", b)
	}
}

// Lengths are not what the allocation length cuts.
func TestPRAllocationLength(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	a, b := r.nexus(), r.nexus()
	a.out("good", 0, 0, prList(0, 0x11, 0))
	b.out("good", 0, 0, prList(0, 0x22, 0))
	for _, sa := range []string{"00", "03"} {
		whole := a.expect("good", "5e "+sa+" 0000000000 ffff 00", nil, 65535).in()
		for alloc := range len(whole) + 5 {
			got := a.expect("good", fmt.Sprintf("5e %s 0000000000 %04x 00", sa, alloc), nil, 65535).in()
			if !bytes.Equal(got, whole[:min(alloc, len(whole))]) {
				t.Fatalf("allocation length %d: % x", alloc, got)
			}
		}
	}
}

func TestPRFullStatus(t *testing.T) {
	r := newRig(t, sharedConf(), newRigStore(1<<20))
	a := r.nexus()
	id := "\x45\x00\x00\x18" + "iqn.i,i,0x000000000001\x00\x00"
	srp := r.attach(r.tg.NewPort(PortConfig{RelID: 0x1234, Protocol: 4}), "srp")
	srp.nx.fe = rigFE{t, "\x04\x00\x00\x00\x00\x00\x00\x00" + "0123456789abcdef"}
	srp.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	a.expect("06 3f/03", "00 00 00 00 00 00", nil, 0)
	a.out("good", 0, 0, prList(0, 0x1122334455667788, 0))
	srp.out("good", 0, 0, prList(0, 0x99, 0))
	a.out("good", 1, 5, prList(0x1122334455667788, 0, 0))
	want := "00000002 00000064" +
		"1122334455667788 00000000 01 05 00000000 " + fmt.Sprintf("%04x", goldenPort.RelID) + " 0000001c" + hex.EncodeToString([]byte(id)) +
		"0000000000000099 00000000 00 00 00000000 1234 00000018 0400000000000000" + hex.EncodeToString([]byte("0123456789abcdef"))
	want = strings.ReplaceAll(want, " ", "")
	want = want[:8] + fmt.Sprintf("%08x", len(want)/2-8) + want[16:]
	if got := hex.EncodeToString(a.expect("good", "5e 03 0000000000 ffff 00", nil, 65535).in()); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// Who may do what under which type (SPC-4 table 65, SBC-3 table 13).
func TestPRAccess(t *testing.T) {
	for _, c := range []struct {
		typ                               byte
		regRead, regWrite, read, write    bool
		name                              string
		released                          string // unit attention of a registrant at RELEASE
		reserveAgain, reserveByRegistrant string
	}{
		{1, true, false, true, false, "WE", "", "good", conflicts},
		{3, false, false, false, false, "EA", "", "good", conflicts},
		{5, true, true, true, false, "WE-RO", "2a/04", "good", conflicts},
		{6, true, true, false, false, "EA-RO", "2a/04", "good", conflicts},
		{7, true, true, true, false, "WE-AR", "2a/04", "good", "good"},
		{8, true, true, false, false, "EA-AR", "2a/04", "good", "good"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, goldenConf(), newRigStore(1<<20))
			holder, reg, other := r.nexus(), r.nexus(), r.nexus()
			holder.out("good", 0, 0, prList(0, 1, 0))
			reg.out("good", 0, 0, prList(0, 2, 0))
			holder.out("good", 1, c.typ, prList(1, 0, 0))
			holder.out(c.reserveAgain, 1, c.typ, prList(1, 0, 0))
			another := byte(1)
			if c.typ == 1 {
				another = 3
			}
			holder.out(conflicts, 1, another, prList(1, 0, 0))
			reg.out(c.reserveByRegistrant, 1, c.typ, prList(2, 0, 0))
			other.out(conflicts, 1, c.typ, prList(0, 0, 0))
			key := uint64(1)
			if c.typ >= 7 {
				key = 0
			}
			other.held(key, c.typ)
			holder.access(true, true)
			reg.access(c.regRead, c.regWrite)
			other.access(c.read, c.write)
			other.ua("") // TEST UNIT READY is allowed
			// From one who is not registered, of another type, from one who does not
			// hold it, and at last.
			other.out(conflicts, 2, c.typ, prList(0, 0, 0))
			holder.out("05 26/04", 2, another, prList(1, 0, 0))
			holder.held(key, c.typ)
			if c.typ < 7 {
				reg.out("good", 2, c.typ, prList(2, 0, 0))
				holder.held(key, c.typ)
			}
			holder.out("good", 2, c.typ, prList(1, 0, 0))
			holder.held(0, 0)
			holder.keys(2, 1, 2)
			holder.ua("")
			reg.ua(c.released)
			other.ua("")
			other.access(true, true)
		})
	}
}

// SPC-4 table 67, 68 and what they say of PRGENERATION and unit attention conditions.
func TestPRRegister(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	a, b := r.nexus(), r.nexus()
	a.out("good", 0, 0xff, prList(0, 0, 0)) // nothing
	a.keys(0)
	a.out(conflicts, 0, 0, prList(1, 2, 0))
	a.keys(0)
	a.out("good", 0, 0x2f, prList(0, 0xa, 0)) // SCOPE and TYPE are ignored
	a.keys(1, 0xa)
	a.out(conflicts, 0, 0, prList(0, 0xb, 0))
	a.out(conflicts, 0, 0, prList(0xb, 0, 0))
	a.out("good", 0, 0, prList(0xa, 0xa, 0))
	a.keys(2, 0xa)
	a.out("good", 0, 0, prList(0xa, 0xb, 0))
	a.keys(3, 0xb)
	b.out("good", 6, 0, prList(0x77, 0, 0)) // nothing
	b.keys(3, 0xb)
	b.out("good", 6, 0, prList(0x77, 0xb, 0)) // the key is ignored
	b.keys(4, 0xb, 0xb)
	b.out("good", 6, 0, prList(0x78, 0xc, 0))
	b.keys(5, 0xb, 0xc)
	// The key of a holder may change.
	a.out("good", 1, 5, prList(0xb, 0, 0))
	a.out("good", 0, 0, prList(0xb, 0xd, 0))
	b.held(0xd, 5)
	b.keys(6, 0xd, 0xc)
	// A holder that unregisters lets go, and registrants hear of it.
	a.out("good", 0, 0, prList(0xd, 0, 0))
	b.ua("2a/04")
	b.held(0, 0)
	b.keys(7, 0xc)
	a.ua("")
	// Of WE and EA nobody hears.
	b.out("good", 1, 3, prList(0xc, 0, 0))
	a.out("good", 0, 0, prList(0, 0xa, 0))
	b.out("good", 6, 0, prList(0, 0, 0))
	a.ua("")
	a.held(0, 0)
	// All registrants: the last one lets go.
	b.out("good", 0, 0, prList(0, 0xb, 0))
	a.out("good", 1, 8, prList(0xa, 0, 0))
	a.out("good", 0, 0, prList(0xa, 0, 0))
	b.ua("")
	b.held(0, 8)
	b.out("good", 0, 0, prList(0xb, 0, 0))
	b.held(0, 0)
	b.keys(12)
}

func TestPRClear(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	a, b, c := r.nexus(), r.nexus(), r.nexus()
	a.out("good", 0, 0, prList(0, 1, 0))
	b.out("good", 0, 0, prList(0, 2, 0))
	a.out("good", 1, 1, prList(1, 0, 0))
	c.out(conflicts, 3, 0, prList(0, 0, 0))
	b.out(conflicts, 3, 0, prList(1, 0, 0))
	b.out("good", 3, 0x99, prList(2, 0x55, 0))
	b.keys(3)
	b.held(0, 0)
	a.ua("2a/03")
	b.ua("")
	c.ua("")
	a.out(conflicts, 3, 0, prList(1, 0, 0))
}

// SPC-4 table 72.
func TestPRPreempt(t *testing.T) {
	for _, sa := range []byte{4, 5} {
		r := newRig(t, goldenConf(), newRigStore(1<<20))
		a, b, c, d := r.nexus(), r.nexus(), r.nexus(), r.nexus()
		start := func() {
			for i, n := range []*rigNexus{a, b, c} {
				n.out("good", 6, 0, prList(0, uint64(i+1), 0))
			}
		}
		clear := func() {
			a.out("good", 6, 0, prList(0, 9, 0))
			a.out("good", 3, 0, prList(9, 0, 0))
			for _, n := range []*rigNexus{a, b, c, d} {
				for n.do("00 00 00 00 00 00", nil, 0).t.Status != StatusGood {
				}
			}
		}
		start()
		d.out(conflicts, sa, 1, prList(0, 1, 0))
		a.out(conflicts, sa, 1, prList(2, 1, 0))
		// Without a reservation: registrations, whatever SCOPE and TYPE are.
		a.out(conflicts, sa, 1, prList(1, 0, 0))
		a.out(conflicts, sa, 1, prList(1, 7, 0))
		a.out("good", sa, 0xff, prList(1, 2, 0))
		a.keys(4, 1, 3)
		b.ua("2a/05")
		c.ua("")
		a.ua("")
		// Oneself: no condition, and the registration is gone.
		a.out("good", sa, 1, prList(1, 1, 0))
		a.ua("")
		a.keys(5, 3)
		clear()

		// The holder: its key, one more registrant with it, another type.
		start()
		d.out("good", 6, 0, prList(0, 2, 0))
		b.out("good", 1, 5, prList(2, 0, 0))
		a.out("05 26/00 param 8.7", sa, 1, prList(1, 0, 0))
		a.out("05 24/00 cdb 2.7", sa, 0x11, prList(1, 2, 0))
		a.out("05 24/00 cdb 2.3", sa, 0x02, prList(1, 2, 0))
		a.out("good", sa, 3, prList(1, 2, 0))
		a.held(1, 3)
		b.ua("2a/05")
		d.ua("2a/05")
		c.ua("2a/04")
		a.ua("")
		a.access(true, true)
		c.access(false, false)
		// Of the same type: no condition for the others.
		c.out("good", sa, 3, prList(3, 1, 0))
		c.held(3, 3)
		a.ua("2a/05")
		// The holder preempts itself: registered still, another type.
		b.out("good", 6, 0, prList(0, 2, 0))
		c.out("good", sa, 6, prList(3, 3, 0))
		c.held(3, 6)
		c.ua("")
		b.ua("2a/04")
		// A registration that holds nothing.
		c.out("good", sa, 0, prList(3, 2, 0))
		b.ua("2a/05")
		c.held(3, 6)
		clear()

		// All registrants.
		start()
		b.out("good", 1, 7, prList(2, 0, 0))
		a.out("good", sa, 0, prList(1, 3, 0))
		c.ua("2a/05")
		a.held(0, 7)
		a.out(conflicts, sa, 0, prList(1, 3, 0))
		c.out("good", 6, 0, prList(0, 3, 0))
		a.out("good", sa, 1, prList(1, 0, 0))
		a.held(1, 1)
		b.ua("2a/05")
		c.ua("2a/05")
		a.ua("")
		clear()
		// The last registrant takes itself away, and the reservation goes.
		a.out("good", 6, 0, prList(0, 1, 0))
		a.out("good", 1, 8, prList(1, 0, 0))
		a.out("good", sa, 0, prList(1, 1, 0))
		a.held(0, 0)
		d.access(true, true)
	}
}

func TestPRBadLists(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	a := r.nexus()
	for sa := range byte(9) {
		for _, n := range []int{0, 1, 23, 25, 28} {
			if sa == 7 && n > 24 {
				continue
			}
			a.out("05 1a/00", sa, 1, make([]byte, n))
		}
		a.expect("05 1a/00", outCDB(sa, 1, 24), make([]byte, 20), 0) // less came than was announced
		a.expect("05 1a/00", outCDB(sa, 1, 1<<31), make([]byte, 1<<15), 0)
		if sa != 0 && sa != 7 {
			a.out("05 26/00 param 20.3", sa, 1, prList(0, 1, 8))
		}
	}
	a.expect("05 24/00 cdb 1.4", outCDB(9, 0, 24), make([]byte, 24), 0)
	a.expect("05 24/00 cdb 1.4", "5e 04 0000000000 ffff 00", nil, 100)
	// No memory: APTPL cannot be granted.
	a.out("05 26/00 param 20.0", 0, 0, prList(0, 1, 1))
	a.out("05 26/00 param 20.0", 6, 0, prList(0, 1, 1))
	a.out("05 26/04", 8, 1, prList(0, 1, 0)) // nothing is lost
	a.keys(0)
	a.out("good", 0, 0, prList(0, 1, 0))
	a.out("05 24/00 cdb 2.7", 1, 0x21, prList(1, 0, 0))
	for _, typ := range []byte{0, 2, 4, 9, 15} {
		a.out("05 24/00 cdb 2.3", 1, typ, prList(1, 0, 0))
	}
	a.out("good", 1, 1, prList(1, 0, 1)) // APTPL is ignored here
	a.out("05 24/00 cdb 2.7", 2, 0x11, prList(1, 0, 0))
	// The key is looked at first.
	a.out(conflicts, 1, 0x21, prList(2, 0, 0))
}

func iqn(n int) string { return iscsiTransportID(fmt.Sprintf("iqn.i,i,0x%012x", n)) }

func TestPRSpecIPT(t *testing.T) {
	r := newRig(t, sharedConf(), newRigStore(1<<20))
	a, b := r.nexus(), r.nexus()
	full := func() int {
		return int(binary.BigEndian.Uint32(a.expect("good", "5e 00 0000000000 ffff 00", nil, 65535).in()[4:])) / 8
	}
	// Damaged lists.
	whole := prList(0, 5, 8, iqn(2), iqn(3))
	a.out("05 1a/00", 0, 0, whole[:24])
	a.out("05 1a/00", 0, 0, whole[:len(whole)-1])
	cut := bytes.Clone(whole)
	cut[27] -= 4
	a.out("05 26/00 param 24.7", 0, 0, cut)
	for _, bad := range []string{
		"\x00" + strings.Repeat("\x01", 23),                             // Fibre Channel at an iSCSI port
		"\xc5\x00\x00\x14" + strings.Repeat("x", 20),                    // format
		"\x05\x00\x00\x14" + strings.Repeat("x", 20),                    // no null byte
		"\x45\x00\x00\x14" + "iqn.x" + "\x00" + strings.Repeat("x", 14), // no ISID
		"\x05\x00\x00\x14" + strings.Repeat("\x00", 20),                 // no name
	} {
		a.out("05 26/00 param 28.7", 0, 0, prList(0, 5, 8, bad))
	}
	a.keys(0)
	// In another spelling: the same port.
	a.out("good", 0, 0, prList(0, 5, 8, "\x45\x00\x00\x20IQN.I,i,0x2\x00"+strings.Repeat("z", 20), iqn(3), iqn(3)))
	a.keys(1, 5, 5, 5)
	b.out("good", 1, 1, prList(5, 0, 0))
	r.nexus().out("good", 0, 0, prList(5, 6, 0)) // iqn(3) comes and is registered
	a.keys(2, 5, 5, 6)
	a.out("05 26/00 param 20.3", 0, 0, prList(5, 6, 8, iqn(4)))
	a.out(conflicts, 0, 0, prList(0, 6, 8, iqn(4)))
	// One of the list is registered: none of it is.
	d := r.nexus()
	d.out("05 26/00 param 24.7", 0, 0, prList(0, 7, 8, iqn(9), iqn(1)))
	d.keys(2, 5, 5, 6)
	// A node's name means its ports that are there.
	r.attach(r.p, "iqn.j,i,0x000000000001")
	r.attach(r.p, "iqn.j,i,0x000000000002")
	d.out("good", 0, 0, prList(0, 8, 8, iscsiTransportID("iqn.j")))
	if n := full(); n != 6 {
		t.Error(n, "registrations")
	}
	// Nobody of that name: it stands for itself.
	d.out("good", 3, 0, prList(8, 0, 0))
	a.ua("2a/03")
	d.out("good", 0, 0, prList(0, 8, 8, iscsiTransportID("iqn.k")))
	k := r.attach(r.p, "iqn.k")
	k.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	k.out("good", 1, 3, prList(8, 0, 0))
	// Where the name alone counts, a port of the node is the node.
	d.out("good", 3, 0, prList(8, 0, 0))
	k.ua("2a/03")
	d.out("good", 0, 0, prList(0, 8, 8, iscsiTransportID("iqn.k,i,0x5")))
	k.out("good", 1, 3, prList(8, 0, 0))
	// More than there is room for: none.
	var many []string
	for i := range 64 {
		many = append(many, iqn(1000+i))
	}
	for i := 0; ; i++ {
		if i > 32 {
			t.Fatal("no bound")
		}
		x := r.fresh()
		x.do("00 00 00 00 00 00", nil, 0)
		before := full()
		for j := range many {
			many[j] = iqn(10000 + i*100 + j)
		}
		list := prList(0, 8, 8, many...)
		if before+65 > 1024 {
			x.out("05 55/04", 0, 0, list)
			if full() != before {
				t.Error("a part was registered")
			}
			break
		}
		x.out("good", 0, 0, list)
	}
}

func TestPRAllTargetPorts(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	tg2 := NewTarget(TargetConfig{Name: "t2"})
	if err := tg2.Map(3, r.u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	port := func(tg *Target, rel uint16, protocol uint8) *Port {
		return tg.NewPort(PortConfig{RelID: rel, Protocol: protocol})
	}
	p2, p3 := port(r.tg, 50, 5), port(tg2, 60, 5)
	port(r.tg, 70, 4) // SRP: no iSCSI initiator can come by it
	defer tg2.Close(0, nil)
	name := "iqn.i,i,0x00000000000a"
	a := r.attach(r.p, name)
	a.do("00 00 00 00 00 00", nil, 0)
	a.out("good", 0, 0, prList(0, 1, 4))
	a.keys(1, 1, 1, 1)
	// It is registered at the others: by its second path it reserves.
	b := r.attach(p2, name)
	b.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	b.out("good", 1, 6, prList(1, 0, 0))
	a.access(true, true)
	c := r.attach(p3, name)
	c.run(EncodeLUN(3), make([]byte, 6), nil, nil)
	c.want(c.run(EncodeLUN(3), []byte{0x28, 8: 1, 9: 0}, nil, [][]byte{make([]byte, 512)}), "good")
	// New keys where the old one was this; another key at another port stays.
	b.out("good", 0, 0, prList(1, 7, 0))
	a.out("good", 0, 0, prList(1, 2, 4))
	a.keys(3, 2, 7, 2)
	a.out("good", 0, 0, prList(2, 0, 4))
	a.keys(4, 7)
	// REGISTER AND IGNORE: all of them, whatever they were.
	a.out("good", 6, 0, prList(0, 9, 4))
	a.keys(5, 9, 9, 9)
	// With SPEC_I_PT: all initiators at all ports.
	a.out("good", 3, 0, prList(9, 0, 0))
	a.out("good", 0, 0, prList(0, 4, 12, iqn(77)))
	a.keys(7, 4, 4, 4, 4, 4, 4)
}

func TestPRMove(t *testing.T) {
	c := goldenConf()
	c.Memory = &rigMemory{}
	r := newRig(t, c, newRigStore(1<<20))
	r.tg.NewPort(PortConfig{RelID: 99, Protocol: 5})
	rel := goldenPort.RelID
	a, b := r.nexus(), r.nexus()
	a.out(conflicts, 7, 0, prMove(0, 1, 0, rel, iqn(2)))
	a.out("good", 0, 0, prList(0, 1, 0))
	a.out("05 24/00 cdb 1.4", 7, 0, prMove(1, 2, 0, rel, iqn(2))) // no reservation
	a.out("good", 1, 3, prList(1, 0, 0))
	a.out(conflicts, 7, 0, prMove(2, 2, 0, rel, iqn(2)))
	a.out("05 26/00 param 8.7", 7, 0, prMove(1, 0, 0, rel, iqn(2)))
	a.out("05 26/00 param 24.7", 7, 0, prMove(1, 2, 0, rel, iqn(1))) // oneself
	a.out("05 26/00 param 24.7", 7, 0, prMove(1, 2, 0, 99, iqn(1)))
	a.out("05 26/00 param 18.7", 7, 0, prMove(1, 2, 0, 98, iqn(2))) // no such port
	a.out("05 26/00 param 20.7", 7, 0, prMove(1, 2, 0, rel, ""))
	a.out("05 26/00 param 20.7", 7, 0, prMove(1, 2, 0, rel, iqn(2)+"abcd"))
	a.out("05 1a/00", 7, 0, prMove(1, 2, 0, rel, iqn(2))[:50])
	a.out("good", 7, 0xff, prMove(1, 2, 0, rel, iqn(2)))
	a.keys(2, 1, 2)
	b.held(2, 3)
	b.access(true, true)
	a.access(false, false)
	a.out(conflicts, 7, 0, prMove(1, 2, 0, rel, iqn(2)))
	// Back, without remaining, and to stay.
	b.out("good", 7, 0, prMove(2, 5, 3, rel, iqn(1)))
	a.keys(3, 5)
	a.held(5, 3)
	a.ua("")
	b.ua("")
	if !r.u.Reservations().Persistent {
		t.Error("APTPL was not taken over")
	}
	// To one who is not there yet, by another port.
	a.out("good", 7, 0, prMove(5, 6, 0, 99, iqn(40)))
	r.u.mu.Lock()
	if h := r.u.pr.table.holder; h != (regID{99, iqn(40)}) {
		t.Errorf("held by %+v", h)
	}
	r.u.mu.Unlock()
	a.out("good", 3, 0, prList(5, 0, 0))
	for _, typ := range []byte{7, 8} {
		a.out("good", 6, 0, prList(0, 1, 0))
		a.out("good", 1, typ, prList(1, 0, 0))
		a.out(conflicts, 7, 0, prMove(1, 2, 0, rel, iqn(2)))
		a.out("good", 3, 0, prList(1, 0, 0))
	}
}

// RESERVE and persistent reservations: SPC-2 §5.5.1, SPC-4 §5.13.3.
func TestPRAndReserve(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	a, b, c := r.nexus(), r.nexus(), r.nexus()
	const reserve, release = "16 00 00 00 00 00", "17 00 00 00 00 00"
	// Under RESERVE no PERSISTENT RESERVE command is allowed, not even its holder's.
	a.expect("good", reserve, nil, 0)
	for _, n := range []*rigNexus{a, b} {
		for sa := range 4 {
			n.expect(conflicts, fmt.Sprintf("5e %02x 0000000000 ffff 00", sa), nil, 100)
		}
		n.out(conflicts, 0, 0, prList(0, 1, 0))
		n.out(conflicts, 5, 0, prList(0, 1, 0))
	}
	a.expect("good", release, nil, 0)
	// With registrations and no reservation: RESERVE and RELEASE are not.
	a.out("good", 0, 0, prList(0, 1, 0))
	b.out("good", 0, 0, prList(0, 2, 0))
	for _, n := range []*rigNexus{a, b, c} {
		n.expect(conflicts, reserve, nil, 0)
		n.expect(conflicts, release, nil, 0)
	}
	for _, typ := range []byte{1, 3, 5, 6, 7, 8} {
		a.out("good", 1, typ, prList(1, 0, 0))
		want := conflicts
		if typ >= 5 {
			want = "good"
		}
		for _, cdb := range []string{reserve, release, "56 00 000000000000 00 00", "57 00 000000000000 00 00"} {
			a.expect("good", cdb, nil, 0)
			b.expect(want, cdb, nil, 0)
			c.expect(conflicts, cdb, nil, 0)
		}
		if r.u.Reservations().Reserved != "" {
			t.Error("RESERVE had an effect")
		}
		a.out("good", 2, typ, prList(1, 0, 0))
		if typ >= 5 {
			b.ua("2a/04")
		}
	}
	a.out("good", 3, 0, prList(1, 0, 0))
	b.ua("2a/03")
	c.expect("good", reserve, nil, 0)
}

// Registrations outlive the nexus, and what happens meanwhile is told at its return.
func TestPRAbsent(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	a, b := r.nexus(), r.nexus()
	a.out("good", 0, 0, prList(0, 1, 0))
	b.out("good", 0, 0, prList(0, 2, 0))
	b.out("good", 1, 3, prList(2, 0, 0))
	gone := func() {
		done := make(chan int, 1)
		b.nx.Close(0, func(n int) { done <- n })
		<-done
	}
	back := func() { b = r.attach(r.p, "iqn.i,i,0x000000000002") }
	gone()
	a.access(false, false)
	back()
	b.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	b.ua("")
	b.access(true, true)
	gone()
	a.out("good", 4, 1, prList(1, 2, 0))
	back()
	b.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	b.ua("2a/05")
	b.access(true, false)
	gone()
	back()
	b.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	b.ua("")
}

func TestClearReservations(t *testing.T) {
	c := goldenConf()
	m := &rigMemory{}
	c.Memory = m
	r := newRig(t, c, newRigStore(1<<20))
	a, b := r.nexus(), r.nexus()
	a.out("good", 0, 0, prList(0, 1, 1))
	a.out("good", 1, 3, prList(1, 0, 0))
	b.access(false, false)
	if err := r.u.ClearReservations(0); err != nil {
		t.Fatal(err)
	}
	a.ua("2a/03")
	b.access(true, true)
	a.keys(2)
	if m.saved("reservations") != nil {
		t.Error("the record is there still")
	}
	b.expect("good", "16 00 00 00 00 00", nil, 0)
	a.access(false, false)
	if err := r.u.ClearReservations(0); err != nil {
		t.Fatal(err)
	}
	a.access(true, true)
}
