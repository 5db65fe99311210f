package scsi

import "encoding/binary"

// PERSISTENT RESERVE IN: SPC-4 §6.15.

const (
	prHeaderLen     = 8
	prCapsLen       = 8
	prFullStatusLen = 24 // of a full status descriptor without its TransportID
)

// Bits of the REPORT CAPABILITIES data (SPC-4 table 207).
const (
	capRLR  = 1 << 7
	capCRH  = 1 << 4
	capSIP  = 1 << 3
	capATP  = 1 << 2
	capPTPL = 1 << 0
	capTMV  = 1 << 7
	// capAllow is ALLOW COMMANDS 011b: what table 65 allows, RECEIVE COPY RESULTS
	// not among it.
	capAllow = 3 << 4
	// capTypes is the mask of all six types (SPC-4 table 209).
	capTypes = 0xea01
)

// reservations is the table in force. reserved: the unit is held by RESERVE instead,
// and no PERSISTENT RESERVE command is allowed to anybody (SPC-2 §5.5.1).
func (u *Unit) reservations() (p *prTable, reserved bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.pr.table, u.reserved != nil
}

// prTable is the table in force, for a command of which nil says that it has ended
// with RESERVATION CONFLICT.
func (t *Task) prTable() *prTable {
	p, reserved := t.unit.reservations()
	if reserved {
		t.conflict()
		return nil
	}
	return p
}

// prHeader begins parameter data with n bytes behind the header; the length says so
// however short the allocation length is.
func prHeader(b []byte, p *prTable, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, p.generation)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func runPRReadKeys(t *Task) {
	p := t.prTable()
	if p == nil {
		return
	}
	alloc := int(lenBytes7(t))
	b := prHeader(t.scratch(prHeaderLen + 8*len(p.regs))[:0], p, 8*len(p.regs))
	for i := range p.regs {
		b = binary.BigEndian.AppendUint64(b, p.regs[i].key)
	}
	t.reply(b, int64(alloc))
}

func runPRReadReservation(t *Task) {
	p := t.prTable()
	if p == nil {
		return
	}
	b := t.scratch(prHeaderLen + 16)[:0]
	if p.typ == NoReservation {
		b = prHeader(b, p, 0)
	} else {
		b = prHeader(b, p, 16)
		b = binary.BigEndian.AppendUint64(b, p.holderKey())
		b = append(b, 0, 0, 0, 0, 0, byte(p.typ), 0, 0)
	}
	t.reply(b, lenBytes7(t))
}

func runPRReportCapabilities(t *Task) {
	p := t.prTable()
	if p == nil {
		return
	}
	b := t.scratch(prCapsLen)
	clear(b)
	binary.BigEndian.PutUint16(b, prCapsLen)
	b[2] = capCRH | capSIP | capATP
	if t.unit.canPersist() {
		b[2] |= capPTPL | capRLR
	}
	b[3] = capTMV | capAllow
	if p.aptpl {
		b[3] |= 1 // PTPL_A
	}
	binary.BigEndian.PutUint16(b[4:], capTypes)
	t.reply(b, lenBytes7(t))
}

func runPRReadFullStatus(t *Task) {
	p := t.prTable()
	if p == nil {
		return
	}
	alloc, n := int(lenBytes7(t)), 0
	for i := range p.regs {
		n += prFullStatusLen + len(p.regs[i].id.transport)
	}
	b := prHeader(t.scratch(prHeaderLen + min(n, alloc+prFullStatusLen+maxTransportID))[:0], p, n)
	for i := range p.regs {
		if len(b) >= alloc {
			break
		}
		r := &p.regs[i]
		b = binary.BigEndian.AppendUint64(b, r.key)
		var holder, typ byte
		if p.holds(i) {
			holder, typ = 0x01, byte(p.typ)
		}
		b = append(b, 0, 0, 0, 0, holder, typ, 0, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, r.id.port)
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.id.transport)))
		b = append(b, r.id.transport...)
	}
	t.reply(b, int64(alloc))
}
