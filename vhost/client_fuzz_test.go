package vhost_test

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// FuzzMachine plays a whole machine whose front end and driver do anything in any
// order: requests and garbage in running rings, rings stopped, moved and started again,
// memory that comes, goes and is cut off, features, resets, and new connections that
// bring a record of requests in flight with anything in it. FuzzMessages and FuzzRing
// have messages and rings each for themselves. Every message is answered or ends the
// connection, the next connection is served, and another machine does not notice.
func FuzzMachine(f *testing.F) {
	// Each three bytes are a step, see below.
	f.Add([]byte{0, 0, 0, 0, 1, 1, 0, 2, 2})
	f.Add([]byte{0, 1, 9, 8, 0, 0, 0, 2, 9, 4, 2, 0, 5, 2, 4, 0, 0, 0})
	f.Add([]byte{0, 3, 3, 7, 64, 1, 7, 80, 1, 7, 96, 255, 8, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0x21, 1, 1, 0x32, 2, 1, 0, 3, 0, 0, 9, 0, 0, 0, 0, 0})
	f.Add([]byte{6, 0, 0, 0, 4, 1, 6, 1, 0, 0, 4, 1, 12, 0, 0, 0, 4, 1, 6, 2, 0})
	f.Add([]byte{10, 3, 0, 10, 34, 0, 8, 0, 0, 5, 0, 0, 5, 1, 1, 5, 2, 2, 5, 3, 3})
	f.Add([]byte{1, 0, 33, 1, 1, 50, 2, 9, 0, 0, 1, 0, 32, 0, 0, 9, 0, 0, 0, 0, 0}) // a failed ring, and memory taken away
	f.Add([]byte{0, 0, 0, 7, 18, 1, 7, 20, 7, 7, 22, 3, 8, 1, 1, 11, 9, 200, 3, 0, 0})

	r := newRig(f, rigOptions{exports: 2})
	good(f, r.exports[1].dial(vhosttest.Options{}).Request(0), lun0, make([]byte, 6), nil, nil)
	f.Fuzz(func(t *testing.T, steps []byte) {
		if len(steps) > 3*200 {
			return
		}
		m := &machine{T: t, e: r.exports[0]}
		m.connect()
		for ; len(steps) >= 3 && !t.Failed(); steps = steps[3:] {
			m.step(steps[0], steps[1], steps[2])
		}
		m.answered(m.c.Set(vhosttest.SetStatus, true, binary.NativeEndian.AppendUint64(nil, 0)))
		if err := m.c.Close(); err != nil {
			t.Error(err)
		}
		c, err := vhosttest.Dial(m.e.path, m.options())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
		good(t, r.exports[1].clients[0].Request(0), lun0, make([]byte, 6), nil, nil)
	})
}

type machine struct {
	*testing.T
	e    *export
	c    *vhosttest.Client
	data uint64
	down bool // the connection is over
}

func (m *machine) options() vhosttest.Options {
	return vhosttest.Options{Style: vhosttest.QEMU10, Size: 16, Table: 4, MemoryBytes: 256 << 10, Scratch: 4096, Timeout: patience}
}

func (m *machine) connect() {
	var err error
	if m.c, err = vhosttest.Dial(m.e.path, m.options()); err != nil {
		m.Fatal(err)
	}
	if err := m.c.Start(); err != nil {
		m.Fatal(err)
	}
	if m.data, err = m.c.Mem.Alloc(4096, 4096); err != nil {
		m.Fatal(err)
	}
}

// answered notes whether the connection is over; no answer at all is an error.
func (m *machine) answered(err error) {
	m.Helper()
	var no *vhosttest.RefusedError
	switch {
	case err == nil || errors.As(err, &no):
	case errors.Is(err, os.ErrDeadlineExceeded):
		m.Errorf("the back end neither answers nor ends the connection: %v", err)
	default:
		m.down = true
	}
}

// again connects anew, with whatever is in the inflight region; where the back end
// does not take it, with a new one.
func (m *machine) again() {
	m.c.Disconnect()
	m.down = false
	if m.answered(m.c.Reconnect()); !m.down {
		return
	}
	if err := m.c.Close(); err != nil {
		m.Error(err)
	}
	m.connect()
	m.down = false
}

func (m *machine) step(op, a, b byte) {
	if m.down {
		m.again()
	}
	c := m.c
	q := c.Request(0)
	l := q.Ring().Layout
	w := raw{q, c}
	u64s := func(v ...uint64) (p []byte) {
		for _, x := range v {
			p = binary.NativeEndian.AppendUint64(p, x)
		}
		return p
	}
	u32s := func(v ...uint32) (p []byte) {
		for _, x := range v {
			p = binary.NativeEndian.AppendUint32(p, x)
		}
		return p
	}
	ring := uint32(a % 4)
	addrs := []uint64{m.data, l.Desc, l.Used, 1 << 40, ^uint64(0) - uint64(b), 4<<30 + uint64(b)<<8, 0}
	switch op % 13 {
	case 0: // a request, sound but for its CDB
		x := &vhosttest.Request{LUN: vhosttest.LUN(a&1, uint16(b&1)), Indirect: a&2 != 0, Tag: uint64(b)}
		x.SetCDB([]byte{0x00, 0x28, 0x2a, 0x12, 0x89, 0x5f, 0xa0, b}[a>>2&7], 0, 0, 0, 0, b, 0, 0, 1, 0)
		at := m.data
		if b&0x80 != 0 {
			at = 4<<30 + 4096
		}
		if a&0x40 != 0 {
			x.Out = []vhosttest.Buf{{Addr: at, Len: 512}}
		} else {
			x.In = []vhosttest.Buf{{Addr: at, Len: 512}}
		}
		if q.Submit(x) == nil {
			q.Kick()
		}
		_, _ = q.Next() // whatever it says: the ring's memory may be garbage
	case 1:
		w.desc(0, int(a%16), addrs[b%7], uint32(b)<<(a>>4), uint16(b>>4), uint16(a%18))
	case 2:
		w.avail(uint16(a % 17))
	case 3:
		w.index(uint16(a)<<8 | uint16(b))
	case 4:
		_, err := c.StopRing(int(ring))
		m.answered(err)
	case 5:
		switch b % 5 {
		case 0:
			m.answered(c.Set(vhosttest.SetVringNum, true, u32s(ring, 1<<(a>>4))))
		case 1:
			m.answered(c.Set(vhosttest.SetVringBase, true, u32s(ring, uint32(a>>4))))
		case 2:
			m.answered(c.Set(vhosttest.SetVringAddr, true, append(u32s(ring, 0),
				u64s(l.Desc+vhosttest.UserBase, addrs[a%7]+vhosttest.UserBase, l.Avail+vhosttest.UserBase, 0)...)))
		case 3:
			m.answered(c.Enable(int(ring), a&4 != 0))
		case 4:
			m.answered(c.Set(vhosttest.SetVringKick, true, u64s(uint64(ring)), c.Mem.Regions()[0].FD))
		}
	case 6:
		r := c.Mem.Regions()
		switch a % 4 {
		case 0:
			m.answered(c.RemRegion(r[1]))
		case 1:
			m.answered(c.AddRegion(r[1]))
		case 2:
			m.answered(c.RemRegion(r[0]))
		case 3:
			m.answered(c.SetMemTable(r[:b%3]))
		}
	case 7: // the record
		if p := c.InflightBytes(); len(p) > 0 {
			ring := len(p) / 3 * 2 // the request ring's part
			p[(ring+int(a))%len(p)] = b
		}
	case 8:
		m.again()
	case 9:
		m.answered(c.Set(vhosttest.ResetDevice, true, nil))
	case 10:
		m.answered(c.Set(vhosttest.SetFeatures, true, u64s(c.Features^1<<(a%64))))
	case 11: // a header, while it is read
		c.Mem.At(m.data, 4096)[int(a)<<4] = b
		q.Notify()
	case 12: // the second region is the guest's to take away; nothing of the client is there
		_ = sys.Ftruncate(c.Mem.Regions()[1].FD, int64(b)<<9)
	}
}
