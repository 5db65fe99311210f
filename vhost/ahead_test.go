package vhost

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
)

// one has the ring look once, on its loop, with all of adds in it.
func (q *queue) one(adds func(), then func(r *ring)) {
	q.g.Helper()
	r := q.v.r
	r.loop.Do(func() {
		adds()
		q.drv.Kick() // makes them available
		r.look()
		then(r)
	})
}

// TestAhead: what waits for its data in a batch runs in its turn, whatever comes
// behind it, and nothing waits when the batch has ended.
func TestAhead(t *testing.T) {
	m := newMachine(t, machineOptions{})
	q := m.newQueue(2, 64, allOn).start().ready()
	q.command(0, 512).fill(lun0, 1, read10(0, 1)).good() // makes the queue into the store
	w := q.command(4096, 0).fill(lun0, 1, write10(8, 8))
	copy(w.data(), bytes.Repeat([]byte{0x5a}, 4096))
	r1 := q.command(0, 4096).fill(lun0, 2, read10(8, 8))
	none := q.command(0, 0).fill(virtioscsi.MakeLUN(9, 0), 3, make([]byte, 6))
	r2 := q.command(0, 4096).fill(lun0, 4, read10(8, 8))
	ready := q.command(0, 0).fill(lun0, 5, make([]byte, 6))
	r3 := q.command(0, 4096).fill(lun0, 6, read10(16, 8))
	// READs come between others, and last.
	all := []*command{w, r1, none, r2, ready}
	for tag := range uint64(12) {
		all = append(all, q.command(0, 512).fill(lun0, 10+tag, read10(8, 1)))
	}
	all = append(all, r3)
	q.one(func() {
		for _, c := range all {
			out, in := c.bufs()
			c.head, _ = q.drv.Add(out, in, false)
		}
	}, func(r *ring) {
		if r.staged != nil {
			t.Error("a request waits, and the batch has ended")
		}
	})
	for range all {
		q.wait()
	}
	for _, c := range all {
		if a := c.answer(); c == none && a.Response() != virtioscsi.BadTarget || c != none && (a.Response() != virtioscsi.OK || a.Status() != scsi.StatusGood) {
			t.Errorf("response %v, status %v, sense %x", a.Response(), a.Status(), a.Sense())
		}
	}
	for _, c := range []*command{r1, r2, all[6]} {
		if !bytes.Equal(c.room(), w.data()[:c.nin]) {
			t.Errorf("a READ of %d bytes behind the WRITE has not what was written", c.nin)
		}
	}
	if !bytes.Equal(r3.room(), make([]byte, 4096)) {
		t.Error("a READ of what was never written has no zeros")
	}
}

// TestAheadGone takes a header away behind a READ that waits for its data, and breaks the
// ring there: no request is left behind.
func TestAheadGone(t *testing.T) {
	for _, gone := range []bool{true, false} {
		m := newMachine(t, machineOptions{})
		q := m.newQueue(2, 64, allOn).start().ready()
		c := q.command(0, 4096).fill(lun0, 1, read10(0, 8))
		c.good() // makes the queue into the store
		if err := sys.Ftruncate(m.FD, 8<<20); err != nil {
			t.Fatal(err)
		}
		q.one(func() {
			out, in := c.bufs()
			c.head, _ = q.drv.Add(out, in, false)
			n := virtioscsi.ReqLen
			if !gone {
				n-- // no header has so few bytes
			}
			q.drv.Add(split(guestBase+16<<20, n, 1), in, false)
		}, func(r *ring) {
			if r.staged != nil || r.dead != gone || r.failure == nil {
				t.Errorf("waiting: %v, dead: %v, failure: %v", r.staged != nil, r.dead, r.failure)
			}
		})
		if !gone {
			if head, _ := q.wait(); head != c.head || c.answer().Status() != scsi.StatusGood {
				t.Errorf("head %d, status %v", head, c.answer().Status())
			}
		}
		if _, stuck, err := q.v.stop(0); stuck != 0 || err != nil {
			t.Errorf("%d stuck, %v", stuck, err)
		}
	}
}

func cdb16(op byte, lba uint64, blocks uint32) []byte {
	b := append([]byte{op, 0}, binary.BigEndian.AppendUint64(nil, lba)...)
	return append(binary.BigEndian.AppendUint32(b, blocks), 0, 0)
}

// TestNear: only of a READ or WRITE that lies in the medium it is known where its data
// are, and only of a store in memory.
func TestNear(t *testing.T) {
	for _, spec := range []string{"mem:", "null:"} {
		m := newMachine(t, machineOptions{spec: spec, size: 1 << 20})
		q := m.newQueue(2, 64, allOn).start().ready()
		q.command(0, 512).fill(lun0, 1, read10(0, 1)).good() // makes the queue into the store
		for _, x := range []struct {
			lun  uint16
			cdb  []byte
			want int
		}{
			{0, []byte{0x08, 0, 0, 8, 2, 0}, 1024},
			{0, []byte{0x0a, 0, 0, 8, 0, 0}, 256 * 512},
			{0, read10(2040, 8), 4096},
			{0, write10(0, 2048), 1 << 20},
			{0, cdb16(0x88, 2047, 1), 512},
			{0, cdb16(0x8a, 2047, 2), 0},
			{0, cdb16(0x88, 1<<63, 1<<31), 0},
			{0, read10(2041, 8), 0},
			{0, read10(0, 0), 0},
			{0, scsitest.CDB10(0x2f, 0, 8), 0}, // VERIFY
			{1, read10(0, 8), 0},
			{0xffff, read10(0, 8), 0},
		} {
			q.v.r.loop.Do(func() {
				var req srp.Request
				req.LUN = scsi.LUN{0x40 | byte(x.lun>>8), byte(x.lun)}
				copy(req.CDB[:], x.cdb)
				near := q.v.r.queue(q.v.r.d.table.Load().list[0]).Near(&req)
				want := x.want
				if spec == "null:" {
					want = 0
				}
				if near.Len() != want {
					t.Errorf("%s, LUN %d, % x: %d bytes, want %d", spec, x.lun, x.cdb, near.Len(), want)
				}
			})
		}
	}
}
