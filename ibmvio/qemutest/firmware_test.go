package qemutest

import (
	"bytes"
	"testing"

	"github.com/vtgt/vtgt/ibmvio/wire"
)

// TestFirmware: SLOF's client, which QEMU's firmware has, gets the answers to its
// commands. It uses no TCEs: its addresses are the guest's physical ones. It sends SRP
// commands without a MAD and without a login, and asks one target after the other; here
// none has a disk.
func TestFirmware(t *testing.T) {
	m := machine(t, true, "-M", "pseries,"+caps, "-m", "512", "-serial", "null")
	l := m.serve()
	if e := l.entry(); e != 0xc001<<48 {
		t.Fatalf("%#x instead of INIT", e)
	}
	l.write(wire.AppendSend(nil, wire.Quiet, l.epoch, 0, entryOf(0xc002<<48, 0)))
	for id := range byte(8) {
		e := l.whole()
		if be(e) != 0x8001<<48|64 { // an SRP IU of 64 bytes
			t.Fatalf("% x", e)
		}
		at := be(e[8:])
		s, iu := l.read(at, 64)
		// SRP_CMD of tag 1: REPORT LUNS of LUN 0 at target id (SRP r16a §6.8).
		want := []byte{0x02, 15: 1, 20: 0x80 | id, 31: 0, 32: 0xa0}
		if s != wire.OK || iu[0] != want[0] || !bytes.Equal(iu[8:16], want[8:16]) || iu[20] != want[20] || iu[32] != want[32] {
			t.Fatalf("%v: % x", s, iu)
		}
		// CHECK CONDITION, ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED; all of it in
		// one piece.
		rsp := []byte{0: 0xc1, 7: 1, 18: 2, 19: 2, 31: 18, 36: 0x70, 38: 5, 43: 10, 48: 0x25, 53: 0}
		copy(rsp[8:], iu[8:16])
		b := append(wire.AppendWrite(nil, wire.Quiet|wire.Link, l.epoch, 1, at, uint32(len(rsp))), rsp...)
		l.write(wire.AppendSend(b, wire.Quiet, l.epoch, 2, entryOf(0x8001<<48|uint64(len(rsp)), be(iu[8:]))))
	}
	m.qmp(`{"execute": "query-status"}`)
}
