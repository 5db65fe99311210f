package ibmvio

import (
	"encoding/binary"
	"encoding/hex"
	"runtime"
	"testing"

	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp/iu"
)

// login begins anew and logs in.
func (r *rig) login() {
	r.Helper()
	r.init()
	r.unitOf(0xc010400, "80010000003c0100000000000c010400", "0000000000000000c0065603000000c000000100000000000006")
	if e := r.await(); e.Length() != iu.LoginRspLen {
		r.Fatalf("%x", e)
	}
}

// cmd sends an SRP_CMD with a direct buffer of n bytes at at.
func (r *rig) cmd(unit uint64, tag uint64, lun crq.Address, cdb []byte, f iu.Format, at uint64, n uint32) {
	b := make([]byte, 256)
	u := iu.AsCmd(b)
	u.Reset()
	u.SetTag(tag)
	u.SetLUN(lun.Encode())
	copy(u.CDB()[:], cdb)
	if n > 0 {
		if f == iu.Direct {
			u.SetFormats(iu.NoData, iu.Direct)
		} else {
			u.SetFormats(iu.Direct, iu.NoData)
		}
		iu.Segment{Addr: at, Len: n}.Encode(b[48:])
	}
	r.put(unit, b)
	r.call(crq.Command(crq.SRP, 256, unit))
}

// rsp waits for the response of the unit.
func (r *rig) rsp(unit uint64) iu.Response {
	r.Helper()
	e := r.await()
	p, err := iu.ParseRsp(r.look(unit, e.Length()))
	if err != nil {
		r.Fatalf("%x: %v", e, err)
	}
	return p
}

// read is READ(10) of n blocks.
func read10(lba uint32, n uint16) []byte {
	c := make([]byte, 10)
	c[0] = 0x28
	binary.BigEndian.PutUint32(c[2:], lba)
	binary.BigEndian.PutUint16(c[7:], n)
	return c
}

// ready takes the unit attention conditions.
func (r *rig) ready() {
	r.Helper()
	for _, at := range []crq.Address{{}, {LUN: 1}, {ID: 2}} {
		for range 3 {
			r.cmd(0xc010000, 1, at, make([]byte, 6), iu.NoData, 0, 0)
			if r.rsp(0xc010000).Status() == scsi.StatusGood {
				break
			}
		}
	}
}

// TestResume: a client that hears of its server's return by event 6 repeats what was not
// answered, and nothing of it ends with a unit attention.
func TestResume(t *testing.T) {
	r := newRig(t, 16, false)
	r.login()
	r.ready()
	r.a.loop.Do(func() {
		r.a.lost(r.partition)
		r.a.attach(r.partition, Greeting{Registered: true, Served: true, Epoch: r.epoch})
	})
	r.entry("ff060000000000000000000000000000")
	// What it sent before it heard of that is not for this server.
	r.cmd(0xc020000, 7, crq.Address{}, make([]byte, 6), iu.NoData, 0, 0)
	r.login()
	for _, at := range []crq.Address{{}, {LUN: 1}, {ID: 2}} {
		r.cmd(0xc010000, 1, at, make([]byte, 6), iu.NoData, 0, 0)
		if p := r.rsp(0xc010000); p.Status() != scsi.StatusGood {
			t.Errorf("%v after event 6: %v, sense %x", at, p.Status(), p.Sense)
		}
	}
	if n := r.a.count.Ignored.Load(); n != 1 {
		t.Errorf("%d entries ignored, want 1", n)
	}
}

// TestGreets: a client whose INIT found nobody is sent one.
func TestGreets(t *testing.T) {
	r := newRig(t, 16, false)
	r.a.loop.Do(func() { r.a.attach(r.partition, Greeting{Registered: true}) })
	r.entry("c0010000000000000000000000000000")
	r.call(crq.Message(crq.InitMsg, crq.InitComplete))
	r.unitOf(0xc010400, "80010000003c0100000000000c010400", "0000000000000000c0065603000000c000000100000000000006")
	r.entry("8001000000000034c0065603000000c0")
}

// TestReset: INIT is answered when the commands of the client's earlier life have left
// the store, and none of them is answered.
func TestReset(t *testing.T) {
	for _, how := range []string{"INIT", "free", "lost"} {
		r := newRig(t, 16, true)
		r.login()
		r.ready()
		r.hold.SetDeaf(true)
		r.put(0x23000, make([]byte, 512))
		r.cmd(0xc020000, 7, crq.Address{LUN: 1}, read10(0, 1), iu.Direct, 0x23000, 512)
		held := r.hold.Wait(t, 1)
		switch how {
		case "free":
			r.mu.Lock()
			r.epoch++
			e := r.epoch
			r.mu.Unlock()
			r.a.loop.Do(func() { r.a.notice(Freed, e) })
		case "lost":
			r.a.loop.Do(func() {
				r.a.lost(r.partition)
				r.a.attach(r.partition, Greeting{Epoch: r.epoch})
			})
		}
		r.call(crq.Message(crq.InitMsg, crq.Init))
		r.a.loop.Do(func() {})
		if _, ok := r.take(); ok {
			t.Errorf("%s: INIT is answered while a command is in the store", how)
		}
		held[0].Go()
		r.entry("c0020000000000000000000000000000")
		if b := r.look(0xc020000, 1); b[0] != byte(iu.TypeCmd) {
			t.Errorf("%s: a command of an earlier life was answered", how)
		}
	}
}

// TestPing: a PING is answered.
func TestPing(t *testing.T) {
	r := newRig(t, 16, false)
	r.init()
	r.call(crq.Entry(unhex(t, "800600f5000000001122334455667788")))
	r.entry("800600f6000000001122334455667788")
}

// TestMADs has datagrams that nobody knows or that are wrong.
func TestMADs(t *testing.T) {
	r := newRig(t, 16, false)
	r.init()
	for _, c := range []struct{ unit, want string }{
		{"00000077000000101122334455667788", "0000007700f100101122334455667788"},
		{"00000003000000001122334455667788" + "0000000000000000", "0000000300f700001122334455667788"},
		{"00000003000000941122334455667788" + "0000000000000000", "0000000300f700941122334455667788"}, // nothing is there
		{"0000000500ff00001122334455667788" + "0000000000000000", "0000000500f700001122334455667788"},
		{"00000002000000101122334455667788" + "0000000000000000", "00000002000000101122334455667788"},
	} {
		r.unitOf(0xc010100, "80020000001e0100000000000c010100", c.unit)
		r.entry("80020000000000101122334455667788")
		if got := hex.EncodeToString(r.look(0xc010100, 16)); got != c.want {
			t.Errorf("%s is answered with %s, want %s", c.unit, got, c.want)
		}
	}
	// Empty units stay; a fifth gives the first back.
	for i := range 5 {
		at := uint64(0xc020000 + i<<12)
		b := make([]byte, 256)
		copy(b, unhex(t, "000000010000002011223344556677"))
		b[15] = byte(i)
		r.put(at, b)
		r.call(crq.Command(crq.MAD, 32, at))
	}
	r.entry("80020000000000101122334455667700")
	// Host configuration is text.
	r.put(0x9000, make([]byte, 64))
	r.unitOf(0xc010100, "80020000001e0100000000000c010100", "00000004000000401122334455667788"+"0000000000009000")
	r.entry("80020000000000101122334455667788")
	if got := string(r.look(0x9000, 8)); got != "vtgt t1\x00" {
		t.Errorf("host configuration %q", got)
	}
}

// TestLogout: after SRP_I_LOGOUT a client may log in again; nothing is answered.
func TestLogout(t *testing.T) {
	r := newRig(t, 16, false)
	r.login()
	r.ready()
	r.unitOf(0xc010100, "80010000003c0100000000000c010100", "03000000000000001122334455667788")
	r.unitOf(0xc010400, "80010000003c0100000000000c010400", "0000000000000000c0065603000000c000000100000000000006")
	r.entry("8001000000000034c0065603000000c0")
	// A login in a login is rejected, and the first one stays.
	r.unitOf(0xc010400, "80010000003c0100000000000c010400", "0000000000000000c0065603000000c000000100000000000006")
	r.entry("8001000000000020c0065603000000c0")
	if b := r.look(0xc010400, 8); hex.EncodeToString(b) != "c200000000010006" {
		t.Errorf("%x", b)
	}
}

// TestFull: responses wait for room in the client's queue, and all come.
func TestFull(t *testing.T) {
	const n = ringLen + 40
	r := newRig(t, 128, false)
	r.login()
	r.ready()
	for i := range n {
		r.cmd(0xd000000+uint64(i)<<12, uint64(i), crq.Address{}, make([]byte, 6), iu.NoData, 0, 0)
	}
	if !tempotest.Settles(func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.full > 0 }) {
		t.Fatal("the queue is never full")
	}
	credit := int32(0)
	for i := range n {
		e := r.await()
		p, err := iu.ParseRsp(r.look(0xd000000+e.Pointer()<<12, e.Length()))
		if err != nil || p.Status() != scsi.StatusGood {
			t.Fatalf("%d: %x %v", i, e, err)
		}
		credit += p.Delta()
	}
	if credit != n {
		t.Errorf("credit %d, want %d", credit, n)
	}
}

// TestFirmwareRoom: sense data do not reach beyond the room of a unit without a login.
func TestFirmwareRoom(t *testing.T) {
	r := newRig(t, 16, false)
	r.init()
	u := make([]byte, 64, 128)
	iu.AsCmd(u).Reset()
	iu.AsCmd(u).SetLUN(crq.Address{}.Encode())
	u = append(u, []byte("beyond")...)
	r.put(0xc010000, u)
	r.call(crq.Command(crq.SRP, 64, 0xc010000))
	if e := r.await(); e.Length() != 54 {
		t.Errorf("%x", e)
	}
	if b := r.look(0xc010000, 70); string(b[64:]) != "beyond" {
		t.Errorf("%x", b)
	}
}

// TestFastFail: a client that asked for it hears of a READ or WRITE that the device could
// not do by the status of the entry; of other commands, and of other errors, as ever.
func TestFastFail(t *testing.T) {
	r := newRig(t, 16, false)
	for _, c := range []struct {
		op   byte
		key  scsi.SenseKey
		fast bool
		want crq.Status
	}{
		{0x28, scsi.HardwareError, true, crq.AdapterFail},
		{0x8a, scsi.HardwareError, true, crq.AdapterFail},
		{0x28, scsi.HardwareError, false, crq.OK},
		{0x28, scsi.MediumError, true, crq.OK},
		{0x00, scsi.HardwareError, true, crq.OK},
	} {
		r.a.loop.Do(func() {
			a := r.a
			a.fast = c.fast
			q := a.table.Load().list[0].q
			x := q.Get()
			x.CDB[0], x.CDBLen = c.op, 16
			x.Status = scsi.StatusCheckCondition
			x.SenseLen = uint8(scsi.Sense{Key: c.key, ASC: 0x4400}.Encode(x.Sense[:], false))
			s := &slot{a: a}
			n, st := a.result(s, x)
			p, err := iu.ParseRsp(s.buf[:n])
			if err != nil || st != c.want || (p.Status() == scsi.StatusGood) != (c.want == crq.AdapterFail) {
				t.Errorf("%+v: %v %v %v", c, st, p.Status(), err)
			}
			a.fast = false
			q.Put(x)
		})
	}
}

// TestResiduals: what is left of a buffer is told as the client's operating system reads
// it.
func TestResiduals(t *testing.T) {
	r := newRig(t, 16, false)
	for _, c := range []struct {
		os      crq.OS
		out, in int64
		want    iu.RspFlags
	}{
		{crq.OSLinux, 0, 512, iu.DIOver}, {crq.OSLinux, 512, 0, iu.DOOver}, {crq.OSLinux, 0, -512, 0}, {crq.OSLinux, -512, 0, 0},
		{crq.OSAIX, 0, 512, iu.DIUnder}, {crq.OSAIX, 512, 0, iu.DOUnder}, {crq.OSUnknown, 0, -512, iu.DIOver}, {crq.OSUnknown, -512, 0, iu.DOOver},
	} {
		r.a.loop.Do(func() {
			var u iu.Rsp
			u.Reset()
			r.a.os = c.os
			r.a.residuals(&u, c.out, c.in)
			if n := u.OutResidual() + u.InResidual(); u.Flags() != c.want || (n == 512) != (c.want != 0) {
				t.Errorf("%+v: flags %#x, %d bytes", c, u.Flags(), n)
			}
		})
	}
}

// TestAlloc: a command allocates nothing.
func TestAlloc(t *testing.T) {
	if testing.Short() {
		t.Skip("full tests count allocations")
	}
	r := newRig(t, 16, false)
	r.login()
	r.ready()
	r.put(0x23000, make([]byte, 512))
	unit := make([]byte, 256)
	r.cmd(0xc020000, 7, crq.Address{}, read10(0, 1), iu.Direct, 0x23000, 512)
	r.rsp(0xc020000)
	b := iu.AsCmd(unit)
	b.Reset()
	b.SetTag(7)
	b.SetLUN(crq.Address{}.Encode())
	copy(b.CDB()[:], read10(0, 1))
	b.SetFormats(iu.NoData, iu.Direct)
	iu.Segment{Addr: 0x23000, Len: 512}.Encode(unit[48:])
	e := crq.Command(crq.SRP, 256, 0xc020000)
	once := func() {
		r.mu.Lock()
		copy(r.partition.units[0xc020000], unit)
		r.mu.Unlock()
		r.call(e)
		for {
			if _, ok := r.take(); ok {
				return
			}
			runtime.Gosched()
		}
	}
	for range 100 {
		once()
	}
	var was, is runtime.MemStats
	const n = 20000
	runtime.ReadMemStats(&was)
	for range n {
		once()
	}
	runtime.ReadMemStats(&is)
	// The partition's own list of entries is made anew for each.
	if per := float64(is.Mallocs-was.Mallocs) / n; per > 1.2 {
		t.Errorf("%.2f allocations per command, of which 1 is the test's", per)
	}
}
