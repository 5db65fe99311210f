package vhost

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
)

// The memory of FuzzRing's guest: two regions side by side, in the middle of a file
// whose other bytes are nobody's to touch.
const (
	fuzzMem  = 1 << 16
	fuzzEdge = 1 << 14
	fuzzSize = 16 // entries of its ring

	fuzzDesc    = 0 // offsets of what FuzzRing places
	fuzzAvail   = 0x200
	fuzzUsed    = 0x300
	fuzzTable   = 0x400 // of fuzzSize indirect descriptors
	fuzzHeaders = 0x1000
)

// fuzzer is the device of a fuzzing process.
type fuzzer struct {
	d    *device
	file []byte // all of it, as the driver sees it
	fd   int
	good *queue
	runs int
}

func newFuzzer(f *testing.F) *fuzzer {
	group, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(group.Close)
	st, err := backing.Open("mem:", backing.Options{Size: 1 << 20, Group: group})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { st.Close() })
	rig := scsitest.NewRig(f, group, st, scsi.UnitConfig{BlockSize: 512, Thin: true})
	f.Cleanup(rig.Close)
	_, p := rig.Target("t1", 0)
	z := &fuzzer{}
	if z.d, err = newDevice(deviceConfig{Name: "vm", Group: group, Targets: []TargetPort{{0, p}}}); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if n := z.d.close(patience); n != 0 {
			f.Errorf("%d requests are stuck", n)
		}
	})
	g := newGuest(f, z.d)
	z.good = g.newQueue(3, 16, allOn).start()
	if z.fd, err = sys.NewMemfd("fuzz", fuzzMem+2*fuzzEdge); err != nil {
		f.Fatal(err)
	}
	if z.file, err = sys.MapShared(z.fd, 0, fuzzMem+2*fuzzEdge); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		g.close()
		sys.Unmap(z.file)
		sys.Close(z.fd)
	})
	return z
}

// image lays fuzz's bytes out as a guest's memory. Descriptors are made of 8 bytes
// each, so that most of them point somewhere.
func (z *fuzzer) image(data []byte) (mem []byte) {
	for i := range z.file {
		z.file[i] = 0xa5
	}
	mem = z.file[fuzzEdge : fuzzEdge+fuzzMem]
	clear(mem)
	take := func(n int) []byte {
		b := make([]byte, n)
		data = data[copy(b, data):]
		return b
	}
	desc := func(at int) {
		b := take(8)
		a := guestBase + uint64(binary.LittleEndian.Uint16(b[0:])) + uint64(b[6])<<56
		binary.LittleEndian.PutUint64(mem[at:], a)
		binary.LittleEndian.PutUint32(mem[at+8:], uint32(binary.LittleEndian.Uint16(b[2:]))+uint32(b[7])<<24)
		binary.LittleEndian.PutUint16(mem[at+12:], uint16(b[4]))
		binary.LittleEndian.PutUint16(mem[at+14:], uint16(b[5]))
	}
	for i := range fuzzSize {
		desc(fuzzDesc + 16*i)
	}
	b := take(2 + fuzzSize)
	binary.LittleEndian.PutUint16(mem[fuzzAvail+2:], uint16(b[0]))
	for i := range fuzzSize {
		mem[fuzzAvail+4+2*i] = b[2+i]
	}
	for i := range fuzzSize {
		desc(fuzzTable + 16*i)
	}
	copy(mem[fuzzHeaders:], data)
	return mem
}

// run lets the device loose on the image.
func (z *fuzzer) run(t *testing.T, how uint16, data []byte) {
	mem := z.image(data)
	half := uint64(fuzzMem / 2)
	if how&1 != 0 {
		half = 0x1333 // regions that no page divides
	}
	m, err := z.d.memory().Map([]gmem.Region{
		{Guest: guestBase, Size: half, User: guestBase, FD: z.fd, Off: fuzzEdge},
		{Guest: guestBase + half, Size: fuzzMem - half, User: guestBase + half, FD: z.fd, Off: fuzzEdge + half},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		done := make(chan struct{})
		m.Retire(func() { close(done) })
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("memory is still pinned")
		}
	}()
	var features uint64 = 1<<virtioscsi.FeatureVersion1 | 1<<virtioscsi.FeatureHotplug
	if how&2 != 0 {
		features |= 1 << virtioscsi.FeatureEventIdx
	}
	if how&4 != 0 {
		features |= 1 << virtioscsi.FeatureIndirectDesc
	}
	index := requestQueue
	if how&8 != 0 {
		index = int(how>>4) & 1
	}
	kick, err := sys.NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	s := ringStart{Config: vring.Config{Size: fuzzSize, Base: uint32(how >> 12)}, Features: features, Mem: m,
		Desc: guestBase + fuzzDesc, Avail: guestBase + fuzzAvail, Used: guestBase + fuzzUsed, Kick: kick, Call: -1, Err: -1}
	if how&32 != 0 { // places that are no good
		s.Desc = guestBase + uint64(how&0xff0)
	}
	if how&64 != 0 {
		// The record lies in memory that the guest writes to.
		b, err := m.Slice(guestBase+fuzzMem-uint64(vring.InflightSize(1, fuzzSize)), uint64(vring.InflightSize(1, fuzzSize)))
		if err != nil {
			t.Fatal(err)
		}
		if how&128 != 0 {
			copy(b, mem[fuzzHeaders:])
		}
		if s.Inflight, err = vring.OpenInflight(b, 0, fuzzSize); err != nil {
			t.Fatal(err)
		}
	}
	v := newVirtqueue(z.d, index)
	v.enable(true)
	if err := v.start(s); err == nil {
		var wg sync.WaitGroup
		if how&256 != 0 { // the driver writes to the ring meanwhile
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range 200 {
					mem[(i*37)%0x600] ^= byte(how >> 4)
				}
			}()
		}
		if how&512 != 0 {
			z.d.home.Do(func() { z.d.events.add(z.d.table.Load().list[0], scsi.Event{Kind: scsi.LUNAdded, LUN: how}) })
		}
		v.do(func() { v.r.look() })
		wg.Wait()
		if _, stuck, err := v.stop(patience); stuck != 0 || err != nil {
			t.Fatalf("%d stuck, %v", stuck, err)
		}
	}
	edges := append(append([]byte(nil), z.file[:fuzzEdge]...), z.file[fuzzEdge+fuzzMem:]...)
	if !bytes.Equal(edges, bytes.Repeat([]byte{0xa5}, 2*fuzzEdge)) {
		t.Fatal("memory of nobody was written to")
	}
	if z.runs++; z.runs%64 == 0 {
		z.well(t)
	}
}

// well has a good ring answered.
func (z *fuzzer) well(t *testing.T) {
	defer func(tb testing.TB) { z.good.g.TB = tb }(z.good.g.TB)
	q := z.good
	q.g.TB = t // the one at hand
	q.g.next = q.g.queuesEnd()
	c := q.command(0, 512).fill(lun0, 1, read10(0, 1))
	out, in := c.bufs()
	q.mu.Lock()
	q.drv.Add(out, in, false)
	if q.drv.Kick() {
		sys.EventfdSignal(q.kick)
	}
	q.mu.Unlock()
	for end := time.Now().Add(patience); ; {
		if _, _, ok := q.used(); ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal("another ring is not served any more")
		}
		q.sleep()
	}
}

// queuesEnd is where memory behind the first ring begins.
func (g *guest) queuesEnd() uint64 { return guestBase + ringArea }

// FuzzRing gives the device rings, descriptors and headers of any bytes: it must not
// crash, hang, or write where the guest has no memory, and other rings go on.
func FuzzRing(f *testing.F) {
	z := newFuzzer(f)
	d := func(addr, n int, flags, next byte) []byte {
		return []byte{byte(addr), byte(addr >> 8), byte(n), byte(n >> 8), flags, next, 0, 0}
	}
	table := func(ds ...[]byte) []byte {
		return append(bytes.Join(ds, nil), make([]byte, 8*(fuzzSize-len(ds)))...)
	}
	seed := func(descs, indirect []byte, n byte, headers []byte) []byte {
		avail := append([]byte{n, 0}, make([]byte, fuzzSize)...)
		return bytes.Join([][]byte{descs, avail, indirect, headers}, nil)
	}
	var req virtioscsi.Req
	for _, cdb := range [][]byte{read10(0, 1), {0x12, 0, 0, 0, 255, 0}, {0xa0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0}} {
		req.Set(lun0, 1, scsi.Simple, cdb)
		read := []byte(req[:])
		direct := table(d(fuzzHeaders, 51, 1, 1), d(0x2000, 108, 3, 2), d(0x3000, 512, 2, 0))
		f.Add(uint16(2), seed(direct, table(), 1, read))
		f.Add(uint16(2+64), seed(direct, table(), 1, read))
		f.Add(uint16(6+256), seed(table(d(fuzzTable, 48, 4, 0)), direct, 1, read))
		f.Add(uint16(1+4), seed(table(d(fuzzHeaders, 20, 1, 1), d(fuzzHeaders+20, 31, 1, 2), d(0x1300, 620, 2, 0)), table(), 1, read))
	}
	req.Set(lun0, 2, scsi.Simple, write10(0, 1))
	f.Add(uint16(0), seed(table(d(fuzzHeaders, 51+512, 1, 1), d(0x2000, 108, 2, 0)), table(), 1, req[:]))
	for sub := range uint32(8) {
		var tmf virtioscsi.TMF
		tmf.Set(sub, lun0, 1)
		f.Add(uint16(8), seed(table(d(fuzzHeaders, 24, 1, 1), d(0x2000, 1, 2, 0)), table(), 1, tmf[:]))
	}
	var an virtioscsi.AN
	an.Set(virtioscsi.TypeANQuery, lun0, 1)
	f.Add(uint16(8), seed(table(d(fuzzHeaders, 16, 1, 1), d(0x2000, 5, 2, 0)), table(), 1, an[:]))
	f.Add(uint16(8+16+512), seed(table(d(0x2000, 16, 2, 0)), table(), 1, nil))
	rec := make([]byte, vring.InflightSize(1, fuzzSize))
	rec[8], rec[10], rec[16], rec[32] = 1, fuzzSize, 1, 1
	f.Add(uint16(64+128), seed(table(d(fuzzHeaders, 51, 1, 1), d(0x2000, 620, 2, 0)), table(), 1, rec))
	f.Fuzz(func(t *testing.T, how uint16, data []byte) { z.run(t, how, data) })
}
