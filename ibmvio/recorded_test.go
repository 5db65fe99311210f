package ibmvio

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/srp/iu"
)

// rig is a target with a disk at ids 0 (LUNs 0 and 1) and 2 (LUN 0), and a client that
// sends what it is told to.
type rig struct {
	*partition
	group  *loop.Group
	hold   *scsitest.HoldStore // nil unless asked for
	target *scsi.Target
	units  []*scsi.Unit
	next   uint64
}

func newRig(tb testing.TB, limit int, hold bool) *rig {
	tb.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		tb.Fatal(err)
	}
	r := &rig{group: g, target: scsi.NewTarget(scsi.TargetConfig{Name: "t1"})}
	for i, at := range []crq.Address{{}, {LUN: 1}, {ID: 2}} {
		var st backing.Store
		if st, err = backing.Open("mem:", backing.Options{Size: 8 << 20, Group: g}); err != nil {
			tb.Fatal(err)
		}
		if hold && i == 1 {
			r.hold = &scsitest.HoldStore{Store: st}
			st = r.hold
		}
		u, err := scsi.NewUnit(scsi.UnitConfig{Name: string(rune('a' + i)), Vendor: "VTGT", Product: "VIRTUAL DISK", Revision: "0001",
			Serial: "1", NAA: 0x3000000000000001 + uint64(i), Thin: true}, st)
		if err != nil {
			tb.Fatal(err)
		}
		r.units = append(r.units, u)
		if err := r.target.Map(uint16(i), u, scsi.MapOptions{Address: at}); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { st.Close() })
	}
	var ts []TargetPort
	for _, id := range []uint8{0, 2} {
		vendor, product := "", ""
		if id == 2 {
			vendor, product = "IBM", "VDASD blkdev"
		}
		ts = append(ts, TargetPort{ID: id, Port: r.target.NewPort(scsi.PortConfig{RelID: uint16(id) + 1, Protocol: 4, Name: "n", DeviceName: "d",
			Vendor: vendor, Product: product,
			View: func(m *scsi.Mapping) (uint16, bool) {
				a := m.Address.(crq.Address)
				return uint16(a.LUN), a.ID == id
			}})})
	}
	a := newAdapter(adapterConfig{Name: "t1", Loop: g.Pick(), Initiator: [16]byte{1, 15: 9}, Limit: limit, Deadline: tempotest.Patience, Log: discard()})
	if err := a.setTargets(ts); err != nil {
		tb.Fatal(err)
	}
	r.partition = newPartition(tb, a)
	tb.Cleanup(func() {
		a.loop.Do(func() { r.partition.Close(nil) })
		if n := a.close(tempotest.Patience); n != 0 {
			tb.Errorf("%d stuck", n)
		}
		for _, f := range []func(time.Duration, func(int)){r.target.Close, r.units[0].Close, r.units[1].Close, r.units[2].Close} {
			ch := make(chan int, 1)
			f(tempotest.Patience, func(n int) { ch <- n })
			if n := <-ch; n != 0 {
				tb.Errorf("%d stuck at the end", n)
			}
		}
		g.Close()
	})
	a.loop.Do(func() { a.attach(r.partition, Greeting{}) })
	return r
}

// put maps b at an address.
func (r *rig) put(at uint64, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.partition.units[at] = b
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// unitOf maps a unit of Linux's, 256 bytes, and sends the entry.
func (r *rig) unitOf(at uint64, entry, unit string) {
	r.Helper()
	b := make([]byte, 256)
	copy(b, unhex(r, unit))
	r.put(at, b)
	r.call(crq.Entry(unhex(r, entry)))
}

// entry wants an entry.
func (r *rig) entry(want string) {
	r.Helper()
	e := r.await()
	if got := hex.EncodeToString(e[:]); got != want {
		r.Fatalf("entry %s, want %s", got, want)
	}
}

// TestLinux replays what the client of Linux 6.1 sends, as it was recorded on a pseries
// machine.
func TestLinux(t *testing.T) {
	r := newRig(t, 256, true)
	r.call(crq.Entry(unhex(t, "c0010000000000000000000000000000")))
	r.entry("c0020000000000000000000000000000")

	info := make([]byte, crq.InfoLen)
	copy(info, "16.a")
	copy(info[8:], "UNKNOWN")
	copy(info[104:], unhex(t, "ffffffff0000000100000002"))
	r.put(0x10968, info)
	r.unitOf(0xc010100, "80020000001e0100000000000c010100", "0000000300000094b0015603000000c00000000000010968")
	r.entry("8002000000000010b0015603000000c0")
	if got := hex.EncodeToString(r.look(0xc010100, 16)); got != "0000000300000094b0015603000000c0" {
		t.Errorf("unit %s", got)
	}
	i := (*crq.Info)(r.look(0x10968, crq.InfoLen))
	if i.Version() != "16.a" || i.OS() != crq.OSAIX || i.MaxTransfer() != 4<<20 || i.MADVersion() != 1 {
		t.Errorf("adapter information %x", i[:])
	}
	if st := r.a.status(); st.Partition != "UNKNOWN" || st.OS != "Linux" {
		t.Errorf("%+v", st)
	}

	r.unitOf(0xc010200, "80020000001e0100000000000c010200", "000000080000001060035603000000c0")
	r.entry("800200000000001060035603000000c0")

	caps := unhex(t, "00000004686f737430000000000000000000000000000000000000000000000000000000373130303030303200000000000000000000000000000000000000000000000000000001000c00010000000100000002000c000100000001")
	r.put(0x19fc, caps)
	r.unitOf(0xc010300, "80020000001e0100000000000c010300", "000000050000005c10055603000000c000000000000019fc")
	r.entry("800200000000001010055603000000c0")
	if got := hex.EncodeToString(r.look(0x19fc, 92)[68:]); got != "00000001000c000000000001"+"00000002000c000100000001" {
		t.Errorf("capabilities %s", got)
	}

	r.unitOf(0xc010400, "80010000003c0100000000000c010400", "0000000000000000c0065603000000c000000100000000000006")
	r.entry("8001000000000034c0065603000000c0")
	if got := hex.EncodeToString(r.look(0xc010400, 52)); got != "c000000000000100c0065603000000c000000100000001000006"+"0000000000000000000000000000000000000000000000000000" {
		t.Errorf("SRP_LOGIN_RSP %s", got)
	}

	// INQUIRY, 36 bytes, of id 0 LUN 0: direct; then of an id that is not there, and of a channel.
	for k, lun := range []string{"8000000000000000", "8100000000000000", "8020000000000000", "8200000000000000"} {
		r.put(0x23000, make([]byte, 36))
		r.unitOf(0xc010500, "8001000000140100000000000c010500", "0200000000010000"+"a0065603000000c0"+"00000000"+lun+"00000000"+
			"12000000240000000000000000000000"+"0000000000023000"+"00000000"+"00000024")
		r.entry("8001000000000024a0065603000000c0")
		if got := hex.EncodeToString(r.look(0xc010500, 36)); got != "c100000000000001a0065603000000c0"+"0000000000000000000000000000000000000000" {
			t.Errorf("SRP_RSP %s", got)
		}
		b := r.look(0x23000, 36)
		if there := k == 0 || k == 3; there != (b[0] == 0) || !there && b[0] != 0x7f || k == 0 && string(b[8:28]) != "VTGT    VIRTUAL DISK" ||
			k == 3 && string(b[8:32]) != "IBM     VDASD blkdev    " {
			t.Errorf("INQUIRY of %s: %x", lun, b)
		}
	}
	// REPORT LUNS with room for 4096: LUNs 0 and 1; what is left in the flag that Linux reads.
	r.put(0x24000, make([]byte, 4096))
	r.unitOf(0xc010500, "8001000000140100000000000c010500", "0200000000010000"+"a0065603000000c0"+"00000000"+"8000000000000000"+"00000000"+
		"a0000000000000001000000000000000"+"0000000000024000"+"00000000"+"00001000")
	r.entry("8001000000000024a0065603000000c0")
	if got := hex.EncodeToString(r.look(0xc010500, 36)); got != "c100000000000001a0065603000000c0"+"00001000"+"00000000"+"00000fe8"+"0000000000000000" {
		t.Errorf("SRP_RSP %s", got)
	}
	if got := hex.EncodeToString(r.look(0x24000, 24)); got != "0000001000000000"+"0000000000000000"+"0001000000000000" {
		t.Errorf("REPORT LUNS %s", got)
	}
	// The power-on unit attention: sense data of fixed format behind the response.
	r.unitOf(0xc010500, "80010000001e0100000000000c010500", "0200000000000000"+"a0065603000000c0"+"00000000"+"8000000000000000"+"00000000"+
		"00000000000000000000000000000000")
	r.entry("8001000000000036a0065603000000c0")
	if b := r.look(0xc010500, 54); b[18] != byte(iu.SnsValid) || b[19] != 2 || b[36+2] != 6 || b[36+12] != 0x29 {
		t.Errorf("SRP_RSP %x", b)
	}
	r.linuxReads()
	r.unitOf(0xc010500, "80010000001e0100000000000c010500", "0200000000000000"+"a0065603000000c0"+"00000000"+"8001000000000000"+"00000000"+
		"00000000000000000000000000000000")
	r.entry("8001000000000036a0065603000000c0") // unit attention
	r.linuxAborts()
}

// linuxReads has a READ of 1 MiB: 16 descriptors, of which 10 are in the unit too.
func (r *rig) linuxReads() {
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i>>9 + i)
	}
	for k, n := range []int{16, 11, 10, 2} { // descriptors, of 64 KiB each
		size := n << 16
		list := make([]byte, 16*n)
		for i := range n {
			at := uint64(0xc030000 + i<<16)
			iu.Segment{Addr: at, Len: 1 << 16}.Encode(list[16*i:])
			r.put(at, append([]byte(nil), want[i<<16:(i+1)<<16]...))
		}
		inline := min(n, 10)
		table := uint64(0xc010500 + 48 + 20)
		if n > inline {
			table = 0xd130000
			r.put(table, list)
		}
		for _, op := range []string{"2a", "28"} {
			var cdb [16]byte
			copy(cdb[:], unhex(r, op+"000000040000000000"))
			binary.BigEndian.PutUint16(cdb[7:], uint16(size/512))
			b := make([]byte, 256)
			copy(b, unhex(r, "0200000000000000"+"703e5503000000c0"+"00000000"+"8000000000000000"+"00000000"))
			if op == "2a" {
				b[5], b[6] = 0x20, byte(inline)
			} else {
				b[5], b[7] = 0x02, byte(inline)
				for i := range n {
					r.put(uint64(0xc030000+i<<16), make([]byte, 1<<16))
				}
			}
			copy(b[32:], cdb[:])
			iu.Segment{Addr: table, Len: uint32(16 * n)}.Encode(b[48:])
			binary.BigEndian.PutUint32(b[64:], uint32(size))
			copy(b[68:], list[:16*inline])
			r.put(0xc010500, b)
			r.call(crq.Command(crq.SRP, 256, 0xc010500))
			r.entry("8001000000000024703e5503000000c0")
			if b := r.look(0xc010500, 36); b[18] != 0 || b[19] != 0 {
				r.Fatalf("%d, %s: %x", k, op, b)
			}
		}
		for i := range n {
			if !bytes.Equal(r.look(uint64(0xc030000+i<<16), 1<<16), want[i<<16:(i+1)<<16]) {
				r.Fatalf("%d descriptors: piece %d differs", n, i)
			}
		}
	}
}

// linuxAborts has a command that is held aborted, as often as the client likes: no unit
// for it, and its credit with the answer.
func (r *rig) linuxAborts() {
	for range 200 {
		r.put(0x23000, make([]byte, 512))
		r.unitOf(0xc010600, "8001000000780100000000000c010600", "0200000000010000"+"e0465003000000c0"+"00000000"+"8001000000000000"+"00000000"+
			"28000000000000000100000000000000"+"0000000000023000"+"00000000"+"00000200")
		r.hold.Wait(r, 1)
		r.unitOf(0xc010700, "80010000003c0100000000000c010700", "0100000000000000"+"90485003000000c0"+"00000000"+"8001000000000000"+"0000"+"0100"+"e0465003000000c0")
		r.entry("800100000000002890485003000000c0")
		if got := hex.EncodeToString(r.look(0xc010700, 40)); got != "c100000000000002"+"90485003000000c0"+"0000010000000000000000000000000000000004"+"00000000" {
			r.Fatalf("answer to ABORT TASK %s", got)
		}
		if b := r.look(0xc010600, 1); b[0] != 2 {
			r.Fatalf("the aborted command's unit was written: %x", b)
		}
	}
}

// TestSLOF replays what the firmware of a pseries machine sends: no datagram, no login.
func TestSLOF(t *testing.T) {
	r := newRig(t, 256, false)
	for range 2 { // it opens its device again and again
		r.call(crq.Entry(unhex(t, "c0010000000000000000000000000000")))
		r.entry("c0020000000000000000000000000000")
		ask := func(lun, cdb string, n uint32) []byte {
			t.Helper()
			b := unhex(t, "0200000000010001"+"0000000000000001"+"00000000"+lun+"00000000"+cdb+"000000001e66ecb8"+"00000000")
			b = binary.BigEndian.AppendUint32(b, n)
			r.put(0x1e66dc88, b)
			r.put(0x1e66ecb8, make([]byte, n))
			r.call(crq.Entry(unhex(t, "8001000000000040000000001e66dc88")))
			e := r.await()
			if e.Pointer() != 1 || e.Length() > 64 || e.Format() != crq.SRP || e.Status() != crq.OK {
				t.Fatalf("entry %x", e)
			}
			return r.look(0x1e66dc88, 36)
		}
		if b := ask("8000000000000000", "a0000000000000000200000000000000", 512); hex.EncodeToString(b) != "c100000000000001"+"0000000000000001"+"00002000"+"00000000"+"000001e8"+"0000000000000000" {
			t.Errorf("REPORT LUNS: %x", b)
		}
		if b := ask("8000000000000000", "12000000240000000000000000000000", 36); b[19] != 0 || r.look(0x1e66ecb8, 1)[0] != 0 {
			t.Errorf("INQUIRY: %x", b)
		}
		if b := ask("8500000000000000", "12000000240000000000000000000000", 36); b[19] != 0 || r.look(0x1e66ecb8, 1)[0] != 0x7f {
			t.Errorf("INQUIRY of nothing: %x", b)
		}
		if b := ask("8000000000000000", "00000000000000000000000000000000", 0); b[19] > 2 {
			t.Errorf("TEST UNIT READY: %x", b)
		}
		// H_FREE_CRQ.
		r.mu.Lock()
		r.epoch++
		epoch := r.epoch
		r.mu.Unlock()
		r.l.Do(func() { r.a.notice(Freed, epoch) })
	}
	if st := r.a.status(); st.State != NoClient.String() {
		t.Errorf("%+v", st)
	}
}
