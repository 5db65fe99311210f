package scsi

import (
	"bytes"
	"testing"
)

// FuzzCDB runs random CDBs with random data over a small unit. Each task ends
// once; nothing is written outside of the room for data, of the medium, or into
// what the initiator sent; and what is there besides the unit stays well.
func FuzzCDB(f *testing.F) {
	for i := range diskTable {
		u := diskTable[i].usage
		f.Add(u, []byte{0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, uint16(512), byte(i))
		zero := make([]byte, len(u))
		zero[0] = u[0]
		if diskTable[i].sa != noSA {
			zero[1] = byte(diskTable[i].sa)
		}
		zero[len(u)-2] = 1
		f.Add(zero, bytes.Repeat([]byte{0}, 1024), uint16(1024), byte(i))
	}
	var rigs [4]*rigNexus
	for i := range rigs {
		c := goldenConf()
		c.Thin, c.Removable = i&1 != 0, i&2 != 0
		if c.SetAccess = i&2 == 0; c.SetAccess {
			c.Memory = &rigMemory{}
		}
		st := newRigStore(64 << 10)
		st.info.Cached = i&2 != 0
		st.info.BlockAlign = 1 // bounce buffers are the store's business
		st.later = i&1 == 0
		rigs[i] = newRig(f, c, st).nexus()
	}
	f.Fuzz(func(t *testing.T, cdb, data []byte, room uint16, how byte) {
		if len(cdb) == 0 {
			return
		}
		n := rigs[how&3]
		n.r.tb = t
		// Every input finds the unit as it was.
		u := n.r.u
		n.waitMedium()
		u.mu.Lock()
		u.server.reset()
		u.pr = prState{table: noReservations}
		u.setReservation(nil)
		u.mu.Unlock()
		u.setNotReady(0)
		u.disk.saved.Store(nil)
		u.modeSet(u.modeDefault())
		u.mu.Lock()
		u.setAccess(n.r.tg, groupAccess{}, nil)
		u.mu.Unlock()
		clear(n.r.st.b)
		// Guard bytes around what may be touched; DataIn in pieces.
		const guard = 32
		in := bytes.Repeat([]byte{0xa5}, int(room)+2*guard)
		piece := int(how>>2)*16 + 1
		out := bytes.Clone(data)
		var lun LUN
		if how&0x10 != 0 {
			lun = EncodeLUN(9)
		}
		c := n.run(lun, cdb, split2(out[:len(out):len(out)], piece), split2(in[guard:guard+int(room):guard+int(room)], piece))
		if !bytes.Equal(out, data) {
			t.Errorf("% x: wrote into DataOut", cdb)
		}
		used := guard + int(c.t.InLen)
		for i, b := range in {
			if (i < guard || i >= used && c.t.Status == StatusGood) && b != 0xa5 {
				t.Fatalf("% x: touched byte %d of room for %d, InLen %d", cdb, i-guard, room, c.t.InLen)
			}
		}
		if c.t.Want < 0 || c.t.InLen > c.t.Want {
			t.Errorf("% x: InLen %d, Want %d", cdb, c.t.InLen, c.t.Want)
		}
		if (c.t.Status == StatusCheckCondition) != (c.t.SenseLen != 0) {
			t.Errorf("% x: %v with %d bytes of sense data", cdb, c.t.Status, c.t.SenseLen)
		}
		switch c.t.Status {
		case StatusGood, StatusConditionMet, StatusCheckCondition, StatusReservationConflict:
		default:
			t.Errorf("% x: %v", cdb, c.t.Status)
		}
		var outLen, inLen int64
		n.l.Do(func() { outLen, inLen = n.ln.Lengths(&c.t) })
		if outLen < 0 || inLen < 0 || outLen > 0 && inLen > 0 {
			t.Errorf("% x: lengths %d out, %d in", cdb, outLen, inLen)
		}
		n.r.st.mu.Lock()
		bad := n.r.st.bad
		n.r.st.bad, n.r.st.ops = nil, nil
		n.r.st.mu.Unlock()
		for _, b := range bad {
			t.Errorf("% x: %s", cdb, b)
		}
	})
}
