package srptest

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/srp/iu"
)

// rawCmd is an SRP_CMD with a direct data-in buffer of n bytes.
func rawCmd(w Wire, tag uint64, cdb []byte, n int) []byte {
	b := make([]byte, iu.CmdLen+iu.DescLen)
	u := iu.AsCmd(b)
	u.Reset()
	u.SetTag(tag)
	copy(u.CDB()[:], cdb)
	u.SetFormats(iu.NoData, iu.Direct)
	w.Memory().Alloc(n).Encode(b[iu.CmdLen:])
	return b
}

// attack is a unit that breaks the rules. Where status is set the command is answered
// with it; else the target ends the link.
type attack struct {
	name   string
	b      []byte
	status scsi.Status
}

// wrongKey is the attack that means nothing where there are no keys.
const wrongKey = "wrong key"

// attacks are made for the memory of w.
func attacks(w Wire) (list []attack) {
	add := func(name string, st scsi.Status, f func(b []byte) []byte) {
		list = append(list, attack{name, f(rawCmd(w, 0x66, scsitest.CDB10(0x28, 0, 1), 512)), st})
	}
	indirect := func(f func(d []byte)) func(b []byte) []byte {
		return func(b []byte) []byte {
			iu.AsCmd(b).SetFormats(iu.NoData, iu.Indirect)
			iu.AsCmd(b).SetCounts(0, 1)
			d := make([]byte, iu.IndirectHeadLen+iu.DescLen)
			iu.Segment{Addr: memBase, Key: memKey, Len: iu.DescLen}.Encode(d)
			binary.BigEndian.PutUint32(d[16:], 512)
			copy(d[iu.IndirectHeadLen:], b[iu.CmdLen:])
			f(d)
			return append(b[:iu.CmdLen], d...)
		}
	}
	const drop = scsi.StatusGood
	bad := scsi.StatusCheckCondition
	add("no bytes", drop, func(b []byte) []byte { return nil })
	add("truncated header", drop, func(b []byte) []byte { return b[:47] })
	add("truncated descriptor", drop, func(b []byte) []byte { return b[:63] })
	add("too long", drop, func(b []byte) []byte { return append(b, make([]byte, 256)...) })
	add("unknown type", drop, func(b []byte) []byte { b[0] = 0x3f; return b })
	add("a target's type", drop, func(b []byte) []byte { b[0] = byte(iu.TypeRsp); return b })
	add("response to nothing", drop, func(b []byte) []byte { b[0] = byte(iu.TypeCredRsp); return b })
	add("unknown format", drop, func(b []byte) []byte { b[5] = 0x0f; return b })
	add("reserved bits of the CDB length", drop, func(b []byte) []byte { b[31] = 3; return b })
	add("CDB length beyond the end", drop, func(b []byte) []byte { b[31] = 0xfc; return b })
	add("more inline than there is", drop, indirect(func(d []byte) {
		binary.BigEndian.PutUint32(d[12:], 1600)
	}))
	list[len(list)-1].b[7] = 100
	add("table of odd length", drop, indirect(func(d []byte) { d[15] = 17 }))
	add("table shorter than what is inline", drop, indirect(func(d []byte) { d[15] = 0 }))
	add("huge table", drop, indirect(func(d []byte) { binary.BigEndian.PutUint32(d[12:], 0xfffffff0) }))
	add("table that wraps", drop, indirect(func(d []byte) {
		iu.Segment{Addr: ^uint64(0) - 3, Len: 32}.Encode(d)
	}))
	add("table nowhere", bad, indirect(func(d []byte) { iu.Segment{Addr: 1 << 60, Key: memKey, Len: 32}.Encode(d) }))
	add("total beyond the list", bad, indirect(func(d []byte) {
		binary.BigEndian.PutUint32(d[16:], 1024)
		binary.BigEndian.PutUint32(d[iu.IndirectHeadLen+12:], 256)
	}))
	add("segment that wraps", bad, indirect(func(d []byte) {
		iu.Segment{Addr: ^uint64(0) - 3, Key: memKey, Len: 512}.Encode(d[iu.IndirectHeadLen:])
	}))
	add("buffer nowhere", bad, func(b []byte) []byte {
		iu.Segment{Addr: 1 << 60, Key: memKey, Len: 512}.Encode(b[iu.CmdLen:])
		return b
	})
	add(wrongKey, bad, func(b []byte) []byte { b[iu.CmdLen+8]++; return b })
	add("buffer longer than the memory", bad, func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[iu.CmdLen+12:], 0xffffffff)
		b[32+8] = 4 // four blocks
		return b
	})
	return list
}

// hostile sends each of them; the target lives on.
func hostile(r *rig) {
	w, ok := r.link.(Wire)
	if !ok {
		r.Skip("not a carrier of information units")
	}
	var failed uint64
	for _, a := range attacks(w) {
		if r.c.Keyless && a.name == wrongKey {
			continue
		}
		w = r.link.(Wire)
		// Memory is the link's: build it anew.
		for _, x := range attacks(w) {
			if x.name == a.name {
				a = x
			}
		}
		if err := w.Send(a.b); err != nil {
			r.Fatalf("%s: %v", a.name, err)
		}
		if a.status != scsi.StatusGood {
			failed++
			r.eventually(a.name+": a move fails", func() bool { return r.port.Stats().MoveErrors == failed })
			r.good(&Command{CDB: make([]byte, 6)})
			continue
		}
		select {
		case <-w.Down():
		case <-after():
			r.Fatalf("%s: the link is still there", a.name)
		}
		r.connect()
	}
}
