package scsi

import "encoding/binary"

// REPORT SUPPORTED OPERATION CODES (SPC-4 §6.34): all of it comes from the command
// table.

const (
	opcodeDescLen  = 8
	timeoutDescLen = 12
)

// Values of the SUPPORT field.
const (
	supportNone     = 1
	supportStandard = 3
)

// appendTimeouts appends a command timeouts descriptor that names no timeout
// (SPC-4 §6.34.4).
func appendTimeouts(b []byte) []byte {
	return append(b, 0, timeoutDescLen-2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

func runReportOpcodes(t *Task) {
	d, ok := t.unit.server.(*disk)
	if !ok {
		t.check(Sense{Key: HardwareError, ASC: ASCInternalTargetFailure})
		return
	}
	c := &t.CDB
	alloc := lenBytes6x4(t)
	rctd, op, sa := c[2]&0x80 != 0, c[3], int(binary.BigEndian.Uint16(c[4:]))
	hasSA := d.hasSA(op)
	switch c[2] & 7 {
	case 0:
		b := t.scratch(4 + len(d.rows)*(opcodeDescLen+timeoutDescLen))[:0]
		t.reply(d.appendOpcodes(b, rctd), alloc)
		return
	case 1:
		if hasSA {
			t.check(InvalidCDBField(2, 2))
			return
		}
	case 2:
		if d.hasOp(op) && !hasSA {
			t.check(InvalidCDBField(2, 2))
			return
		}
	case 3:
		if d.hasOp(op) && !hasSA && sa != 0 {
			op = opNone
		}
	default:
		t.check(InvalidCDBField(2, 2))
		return
	}
	var row *command
	if op != opNone {
		row = d.find(op, sa)
	}
	t.reply(appendOneOpcode(t.scratch(64)[:0], row, rctd), alloc)
}

// opNone is an operation code that no row has (vendor specific).
const opNone = 0xff

// hasSA reports whether op has service actions.
func (d *disk) hasSA(op uint8) bool {
	i := d.first[op]
	return i != 0 && d.rows[i-1].sa != noSA
}

// appendOpcodes appends the all_commands parameter data.
func (d *disk) appendOpcodes(b []byte, rctd bool) []byte {
	b = append(b, 0, 0, 0, 0)
	for _, r := range d.rows {
		var sa uint16
		var flags byte
		if r.sa != noSA {
			sa, flags = uint16(r.sa), 0x01 // SERVACTV
		}
		if rctd {
			flags |= 0x02 // CTDP
		}
		b = append(b, r.op, 0, byte(sa>>8), byte(sa), 0, flags, 0, byte(len(r.usage)))
		if rctd {
			b = appendTimeouts(b)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// appendOneOpcode appends the one_command parameter data for row r, nil where the
// command is not supported.
func appendOneOpcode(b []byte, r *command, rctd bool) []byte {
	if r == nil {
		return append(b, 0, supportNone, 0, 0)
	}
	support := byte(supportStandard)
	if rctd {
		support |= 0x80 // CTDP
	}
	b = append(b, 0, support, 0, byte(len(r.usage)))
	b = append(b, r.usage...)
	if rctd {
		b = appendTimeouts(b)
	}
	return b
}
