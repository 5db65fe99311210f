package scsi

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// FuzzPROut gives random parameter lists to a unit with some registrations. Each is
// answered, and whatever table comes of it makes sense, can be read back whole and
// persists.
func FuzzPROut(f *testing.F) {
	srp := "\x04\x00\x00\x00\x00\x00\x00\x000123456789abcdef"
	f.Add(byte(0), byte(0), prList(0, 5, 1))
	f.Add(byte(0), byte(0), prList(0, 5, 13, iqn(7), iscsiTransportID("iqn.z")))
	f.Add(byte(0), byte(0), prList(0, 5, 8, srp))
	f.Add(byte(7), byte(0), prMove(1, 2, 3, goldenPort.RelID, iqn(9)))
	f.Add(byte(7), byte(0), prMove(1, 2, 3, 70, srp))
	for sa := range byte(10) {
		f.Add(sa, byte(5), prList(1, 2, 0))
		f.Add(sa, byte(0x13), prList(0, 1, 0xff))
	}
	c := sharedConf()
	mem := &rigMemory{}
	c.Memory = mem
	r := newRig(f, c, newRigStore(64<<10))
	r.tg.NewPort(PortConfig{RelID: 70, Protocol: protocolSRP})
	n := r.nexus()
	f.Fuzz(func(t *testing.T, sa, scopeType byte, list []byte) {
		n.r.tb = t
		u := n.r.u
		me := n.ln.units[0].nu.id
		other := registrant{regID{goldenPort.RelID, iqn(99)}, 2}
		u.mu.Lock()
		u.pr = prState{table: &prTable{regs: []registrant{{me, 1}, other}, typ: WriteExclusiveRegistrantsOnly, holder: me}}
		if scopeType&0x80 != 0 {
			u.pr.table = noReservations
		}
		u.judgeConflicts()
		u.mu.Unlock()
		cdb := []byte{0x5f, sa & 0x1f, scopeType & 0x7f, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(cdb[5:], uint32(len(list)))
		given := bytes.Clone(list)
		x := n.run(LUN{}, cdb, [][]byte{list}, nil)
		if !bytes.Equal(given, list) {
			t.Error("wrote into the parameter list")
		}
		switch x.t.Status {
		case StatusGood, StatusCheckCondition, StatusReservationConflict:
		default:
			t.Errorf("%v", x.t.Status)
		}
		u.mu.Lock()
		p, changing := u.pr.table, u.pr.changing
		u.mu.Unlock()
		if changing || u.alone != classSimple || u.holds != 0 {
			t.Error("it has ended, but a change is under way")
		}
		for i, g := range p.regs {
			if g.key == 0 || canonicalTransportID([]byte(g.id.transport)) != g.id.transport || p.find(g.id) != i {
				t.Errorf("registrant %d: %+v", i, g)
			}
		}
		if len(p.regs) > maxRegistrations || p.typ != NoReservation && !p.typ.valid() ||
			(p.holder != regID{}) != (p.typ != NoReservation && !p.typ.all()) ||
			p.holder != (regID{}) && p.find(p.holder) < 0 || p.typ != NoReservation && len(p.regs) == 0 {
			t.Errorf("%+v", p)
		}
		if got, err := decodeReservations(encodeReservations(p)); err != nil || p.aptpl && !sameKept(got, p) {
			t.Errorf("%+v %v", got, err)
		}
		if p.aptpl {
			if got, err := decodeReservations(mem.saved(ReservationsRecord)); err != nil || !sameKept(got, p) {
				t.Errorf("saved %+v %v, in force %+v", got, err, p)
			}
		}
		b := n.do("5e 03 0000000000 ffff 00", nil, 65535).in()
		if n := int(binary.BigEndian.Uint32(b[4:])); n != len(b)-8 && len(b) != 65535 {
			t.Errorf("ADDITIONAL LENGTH %d of %d bytes", n, len(b))
		}
	})
}

// FuzzTransportID: the canonical form of a canonical form is itself, and is whole.
func FuzzTransportID(f *testing.F) {
	for _, s := range []string{iqn(1), iscsiTransportID("IQN.x"), "\x04\x00\x00\x00\x00\x00\x00\x000123456789abcdef", "\x00" + string(make([]byte, 23)),
		"\x46\x00" + string(make([]byte, 22)), "\x0a\x00\x12\x34" + string(make([]byte, 20))} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		given := bytes.Clone(b)
		c := canonicalTransportID(b)
		if !bytes.Equal(b, given) {
			t.Error("changed")
		}
		if c == "" {
			return
		}
		id, rest, ok := cutTransportID([]byte(c))
		if !ok || len(rest) != 0 || len(id) > maxTransportID || canonicalTransportID(id) != c {
			t.Errorf("% x of % x", c, b)
		}
		if TransportName(id) == "" {
			t.Error("no name")
		}
	})
}

// Every row of the command table has the column that the standards say: SPC-4 table 65
// and 66, SBC-3 table 13, written down anew here. A row that comes has to be entered.
func TestConflictColumns(t *testing.T) {
	type key struct {
		op uint8
		sa int16
	}
	const n = noSA
	columns := map[conflictClass][]key{
		conflictNone: {
			{0x03, n}, {0x12, n}, {0xa0, n}, {0x25, n}, {0x9e, 0x10}, // REQUEST SENSE, INQUIRY, REPORT LUNS, READ CAPACITY
			{0xa3, 0x05}, {0xa3, 0x0a}, {0xa3, 0x0e}, {0xa3, 0x0f}, {0xa3, 0x0b}, // REPORT IDENTIFYING INFORMATION, TARGET PORT GROUPS, PRIORITY, TIMESTAMP, ALIASES
			{0x84, 0x05}, {0x84, 0x06}, {0x84, 0x07}, {0x9e, 0x13}, // RECEIVE COPY …(LID4), RECEIVE ROD TOKEN INFORMATION, REPORT REFERRALS
		},
		conflictReserve: {{0x00, n}, {0x4d, n}}, // TEST UNIT READY, LOG SENSE
		conflictRead: {
			{0x08, n}, {0x28, n}, {0xa8, n}, {0x88, n}, {0x1a, n}, {0x5a, n}, {0x1c, n}, {0x3c, n}, {0x9b, n}, // READ, MODE SENSE, RECEIVE DIAGNOSTIC RESULTS, READ BUFFER
			{0xa3, 0x0c}, {0xa3, 0x0d}, {0x2f, n}, {0xaf, n}, {0x8f, n}, {0x34, n}, {0x90, n}, {0x37, n}, {0xb7, n}, // REPORT SUPPORTED …, VERIFY, PRE-FETCH, READ DEFECT DATA
			{0x9e, 0x12}, {0xa2, n}, // GET LBA STATUS, SECURITY PROTOCOL IN
		},
		conflictWrite: {
			{0x0a, n}, {0x2a, n}, {0xaa, n}, {0x8a, n}, {0x2e, n}, {0xae, n}, {0x8e, n}, {0x41, n}, {0x93, n}, {0x42, n}, // WRITE, WRITE AND VERIFY, WRITE SAME, UNMAP
			{0x89, n}, {0x8b, n}, {0x9c, n}, {0x35, n}, {0x91, n}, {0x15, n}, {0x55, n}, {0x4c, n}, // COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, SYNCHRONIZE CACHE, MODE SELECT, LOG SELECT
			{0xa4, 0x06}, {0xa4, 0x0a}, {0xa4, 0x0e}, {0xa4, 0x0f}, {0x04, n}, {0x07, n}, {0x1d, n}, {0x3b, n}, // SET …, FORMAT UNIT, REASSIGN BLOCKS, SEND DIAGNOSTIC, WRITE BUFFER
			{0x48, 0x01}, {0x48, 0x02}, {0x48, 0x03}, {0x48, 0x1f}, {0xb5, n}, // SANITIZE, SECURITY PROTOCOL OUT
			{0x84, 0x00}, {0x84, 0x01}, {0x84, 0x03}, {0x84, 0x04}, // RECEIVE COPY STATUS, DATA, OPERATING PARAMETERS, FAILURE DETAILS (LID1)
			{0x83, 0x00}, {0x83, 0x01}, {0x83, 0x10}, {0x83, 0x11}, {0x83, 0x1c}, // EXTENDED COPY, POPULATE TOKEN, WRITE USING TOKEN, COPY OPERATION ABORT
		},
		conflictOwn: {
			{0x16, n}, {0x56, n}, {0x17, n}, {0x57, n}, {0x1b, n}, {0x1e, n}, // RESERVE, RELEASE, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL
			{0x5e, 0}, {0x5e, 1}, {0x5e, 2}, {0x5e, 3}, // allowed, but not under RESERVE
			{0x5f, 0}, {0x5f, 1}, {0x5f, 2}, {0x5f, 3}, {0x5f, 4}, {0x5f, 5}, {0x5f, 6}, {0x5f, 7}, {0x5f, 8},
		},
	}
	for i := range diskTable {
		r := &diskTable[i]
		if !slices.Contains(columns[r.conflict], key{r.op, r.sa}) {
			t.Errorf("%s (%02x, service action %d): conflict class %d is not its column", r.name, r.op, r.sa, r.conflict)
		}
	}
}
