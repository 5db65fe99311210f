package scsi

import "encoding/binary"

// FORMAT UNIT (SBC-3 §5.3). The medium reads zero afterwards, or the initialization
// pattern; there are no defects and no protection information.

// Bits of byte 1 of the CDB.
const (
	formatLONGLIST = 1 << 5
	formatFMTDATA  = 1 << 4
)

// Bits of byte 1 of the parameter list header.
const (
	formatFOV   = 1 << 7
	formatSTPF  = 1 << 4
	formatIP    = 1 << 3
	formatIMMED = 1 << 1
)

// Lengths of the headers and of the initialization pattern descriptor's head.
const (
	formatShortHead = 4
	formatLongHead  = 8
	formatIPHead    = 4
)

// lenFormat is what a list can have at most: the CDB does not say.
func lenFormat(t *Task) int64 {
	if t.CDB[1]&formatFMTDATA == 0 {
		return 0
	}
	return formatLongHead + formatIPHead + t.blockLen()
}

func runFormatUnit(t *Task) {
	u := t.unit
	if t.CDB[1]&formatFMTDATA == 0 {
		if b := t.CDB[1]; b != 0 {
			// LONGLIST, CMPLST and DEFECT LIST FORMAT go with a list.
			t.check(InvalidCDBField(1, topBit(b)))
			return
		}
		t.startMedium(&mediumRecord{Kind: mediumFormat, Thin: u.conf.Thin}, false)
		return
	}
	n := int(min(bufsLen(t.DataOut), lenFormat(t)))
	p, ok := t.param(n)
	if !ok {
		return
	}
	r := mediumRecord{Kind: mediumFormat, Thin: u.conf.Thin}
	immed, used, s, ok := r.format(p, t.CDB[1]&formatLONGLIST != 0, u.blockSize)
	if !ok {
		t.check(s)
		return
	}
	t.Want = int64(used)
	t.startMedium(&r, immed)
}

// format reads the parameter list p; used is how much of it there is. false: s says
// what is wrong with it.
func (r *mediumRecord) format(p []byte, long bool, blockSize int) (immed bool, used int, s Sense, ok bool) {
	short := Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}
	head := formatShortHead
	if long {
		head = formatLongHead
	}
	if len(p) < head {
		return false, 0, short, false
	}
	if p[0] != 0 { // PROTECTION FIELD USAGE
		return false, 0, InvalidParamField(0, topBit(p[0])), false
	}
	f := p[1]
	options := f &^ (formatFOV | formatIMMED)
	switch {
	case f&0x05 != 0:
		return false, 0, InvalidParamField(1, topBit(f&0x05)), false
	case f&formatFOV == 0 && options != 0:
		// DPRY, DCRT, STPF and IP count only with FOV, and must be zero without.
		return false, 0, InvalidParamField(1, topBit(options)), false
	case f&formatSTPF != 0:
		// No defect list is ever missing, so nothing could stop the format: as
		// without the bit.
	}
	defects, at := uint32(binary.BigEndian.Uint16(p[2:])), 2
	if long {
		if p[2] != 0 {
			return false, 0, InvalidParamField(2, 7), false
		}
		if p[3] != 0 { // P_I_INFORMATION, PROTECTION INTERVAL EXPONENT
			return false, 0, InvalidParamField(3, 7), false
		}
		defects, at = binary.BigEndian.Uint32(p[4:]), 4
	}
	if defects != 0 {
		return false, 0, InvalidParamField(at, 7), false
	}
	used = head
	if f&formatIP != 0 {
		d := p[head:]
		if len(d) < formatIPHead {
			return false, 0, short, false
		}
		n := int(binary.BigEndian.Uint16(d[2:]))
		switch {
		case d[0]&^0x20 != 0: // SI is heeded by every format: nothing is spared
			return false, 0, InvalidParamField(head, topBit(d[0]&^0x20)), false
		case d[1] > 1: // the default pattern, or one that repeats
			return false, 0, InvalidParamField(head+1, 7), false
		case d[1] == 0 && n != 0, d[1] == 1 && (n == 0 || n > blockSize):
			return false, 0, InvalidParamField(head+2, 7), false
		case len(d) < formatIPHead+n:
			return false, 0, short, false
		}
		used += formatIPHead + n
		if n > 0 {
			r.Pattern = append([]byte(nil), d[formatIPHead:formatIPHead+n]...)
			if allZero(r.Pattern) {
				r.Pattern = nil
			}
		}
	}
	return f&formatIMMED != 0, used, Sense{}, true
}
