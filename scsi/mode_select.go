package scsi

import "encoding/binary"

// MODE SELECT(6) and (10): SPC-4 §6.9, §6.10.

func runModeSelect6(t *Task)  { t.modeSelect(modeHeader6, int(t.CDB[4])) }
func runModeSelect10(t *Task) { t.modeSelect(modeHeader10, int(lenBytes7(t))) }

func (t *Task) modeSelect(header, n int) {
	if n == 0 {
		t.good()
		return
	}
	if t.CDB[1]&0x10 == 0 { // PF: only pages of the standard's format exist
		t.check(InvalidCDBField(1, 4))
		return
	}
	p, ok := t.param(min(n, maxModeData))
	if !ok {
		return
	}
	// The initiator may go on writing to the list: what is checked is a copy.
	var list [maxModeData]byte
	state := t.unit.modeCurrent()
	old := state
	if n > maxModeData {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return
	}
	s, ok := t.unit.parseModeList(list[:copy(list[:], p)], header, &state)
	if !ok {
		t.check(s)
		return
	}
	if state != old {
		t.unit.modeSet(state)
		t.unit.raiseUA(ASCModeParametersChanged, t.nu())
	}
	t.good()
}

// parseModeList takes the mode parameter list b over into st. ok is false, and s
// says why, when anything in it may not be changed; st is then of no use.
func (u *Unit) parseModeList(b []byte, header int, st *modeState) (s Sense, ok bool) {
	short := Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}
	if len(b) < header {
		return short, false
	}
	// MODE DATA LENGTH is reserved here, the device-specific parameter's bits
	// are ignored or reserved (SBC-3 §6.5.1).
	var medium, desc int
	long := false
	if header == modeHeader6 {
		medium, desc = 1, int(b[3])
	} else {
		medium, desc = 2, int(binary.BigEndian.Uint16(b[6:]))
		long = b[4]&0x01 != 0
	}
	if b[medium] != 0 {
		return InvalidParamField(medium, 7), false
	}
	at := header
	if desc != 0 {
		want := modeBlockDesc
		if long {
			want = modeLongDesc
		}
		if desc != want {
			if header == modeHeader6 {
				return InvalidParamField(3, 7), false
			}
			return InvalidParamField(6, 7), false
		}
		if len(b) < at+desc {
			return short, false
		}
		if s, ok := u.checkBlockDesc(b[at:at+desc], at, long); !ok {
			return s, false
		}
		at += desc
	}
	for at < len(b) {
		n, s, ok := u.parseModePage(b[at:], at, st)
		if !ok {
			return s, false
		}
		at += n
	}
	return Sense{}, true
}

// checkBlockDesc refuses a block descriptor (at byte at of the list) that would
// change the format of the medium.
func (u *Unit) checkBlockDesc(d []byte, at int, long bool) (Sense, bool) {
	blocks, size := uint64(u.blocks()), at+4
	var n uint64
	if long {
		n, size = binary.BigEndian.Uint64(d), at+12
	} else {
		n = uint64(binary.BigEndian.Uint32(d))
		if n == 0xffffffff { // more than the field holds, or "the most there is"
			n = blocks
		}
	}
	if n != 0 && n != blocks && n != ^uint64(0) {
		return InvalidParamField(at, 7), false
	}
	if l := binary.BigEndian.Uint32(d[size-at:]) & 0xffffff; l != uint32(u.blockSize) {
		return InvalidParamField(size+1, 7), false
	}
	return Sense{}, true
}

// parseModePage takes the page at the start of b (byte at of the list) over into
// st and returns its length.
func (u *Unit) parseModePage(b []byte, at int, st *modeState) (n int, s Sense, ok bool) {
	if b[0]&0x40 != 0 { // SPF: no page has subpages
		return 0, InvalidParamField(at, 6), false
	}
	var p *modePage
	for i := range modePages {
		if modePages[i].code == b[0]&0x3f {
			p = &modePages[i]
		}
	}
	if p == nil {
		return 0, InvalidParamField(at, 5), false
	}
	if len(b) < 2 {
		return 0, Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}, false
	}
	if int(b[1]) != p.length-2 {
		return 0, InvalidParamField(at+1, 7), false
	}
	if len(b) < p.length {
		return 0, Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}, false
	}
	b = b[:p.length]
	var nowBuf, maskBuf [32]byte
	now := p.append(nowBuf[:0], pcCurrent, st, u.info())
	mask := p.append(maskBuf[:0], pcChangeable, st, u.info())
	for i := 2; i < p.length; i++ {
		if bad := (b[i] ^ now[i]) &^ mask[i]; bad != 0 {
			return 0, InvalidParamField(at+i, topBit(bad)), false
		}
	}
	if p.get != nil {
		// Bits that may not change are equal, so get can look at all of them.
		p.get(b, st)
	}
	return p.length, Sense{}, true
}

// topBit is the number of the highest bit set in b, which is not zero: a field
// pointer's BIT POINTER names a field by its most significant bit.
func topBit(b byte) int {
	n := 0
	for b >>= 1; b != 0; b >>= 1 {
		n++
	}
	return n
}
