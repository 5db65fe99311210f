package scsi

import (
	"bytes"
	"encoding/binary"

	"github.com/vtgt/vtgt/backing"
)

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
	if n > maxModeData {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return
	}
	u := t.unit
	state := u.modeCurrent()
	cached := state.wce
	s, ok := u.parseModeList(list[:copy(list[:], p)], header, &state)
	if !ok {
		t.check(s)
		return
	}
	t.disk.mode = state
	if cached && !state.wce {
		// From now on what was acknowledged counts as stable.
		t.store(backing.Sync, 0, 0, 0, nil, modeSynced)
		return
	}
	t.keepModes()
}

func modeSynced(t *Task) {
	if t.stored() {
		t.keepModes()
	}
}

// keepModes saves the new state where SP asks for that, and goes on.
func (t *Task) keepModes() {
	if t.CDB[1]&0x01 != 0 {
		t.save(modeRecord, t.disk.mode.encode(), modesKept)
		return
	}
	t.setModes()
}

func modesKept(t *Task) {
	if t.op.Err != nil {
		t.saveFailed(modeRecord)
		return
	}
	u := t.unit
	u.disk.saveErr.Store(false)
	s := t.disk.mode
	u.disk.saved.Store(&s)
	t.setModes()
}

func (t *Task) setModes() {
	if t.disk.mode != t.unit.modeCurrent() {
		t.unit.modeSet(t.disk.mode)
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
	short := Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}
	head, sub := 2, byte(0)
	if b[0]&modeSPF != 0 {
		head = 4
	}
	if len(b) < head {
		return 0, short, false
	}
	length := int(b[1])
	if head == 4 {
		sub, length = b[1], int(binary.BigEndian.Uint16(b[2:]))
	}
	mu := u.modeUnit()
	var p *modePage
	known := false
	for i := range modePages {
		if o := &modePages[i]; o.code == b[0]&0x3f {
			known = true
			// A page without subpage code has the short header.
			if o.has(&mu) && o.sub == sub && (sub != 0) == (head == 4) {
				p = o
			}
		}
	}
	switch {
	case !known:
		return 0, InvalidParamField(at, 5), false
	case p == nil && head == 2:
		return 0, InvalidParamField(at, 6), false
	case p == nil:
		return 0, InvalidParamField(at+1, 7), false
	case length != p.length-head:
		return 0, InvalidParamField(at+head/2, 7), false
	case len(b) < p.length:
		return 0, short, false
	}
	b = b[:p.length]
	var nowBuf, maskBuf [64]byte
	now := p.append(nowBuf[:0], pcCurrent, st, &mu)
	mask := p.append(maskBuf[:0], pcChangeable, st, &mu)
	for i := head; i < p.length; i++ {
		if bad := (b[i] ^ now[i]) &^ mask[i]; bad != 0 {
			f, bit := p.fieldOf(i, topBit(bad))
			return 0, InvalidParamField(at+f, bit), false
		}
	}
	if p.get != nil && !bytes.Equal(b[head:], now[head:]) {
		// Bits that may not change are equal, so get can look at all of them.
		p.get(b, st)
	}
	return p.length, Sense{}, true
}

// topBit is the number of the highest bit set in b, which is not zero.
func topBit(b byte) int {
	n := 0
	for b >>= 1; b != 0; b >>= 1 {
		n++
	}
	return n
}
