package scsi

import "encoding/binary"

// MODE SENSE(6) and (10): SPC-4 §6.11, §6.12.

// maxModeData is more than all pages with header and block descriptor need.
const maxModeData = 256

// Bits of the device-specific parameter (SBC-3 §6.5.1).
const (
	modeWP     = 0x80
	modeDPOFUA = 0x10
)

// Lengths of mode parameter headers and block descriptors (SPC-4 §7.5.4).
const (
	modeHeader6   = 4
	modeHeader10  = 8
	modeBlockDesc = 8
	modeLongDesc  = 16
)

func runModeSense6(t *Task)  { t.modeSense(modeHeader6, lenByte4(t)) }
func runModeSense10(t *Task) { t.modeSense(modeHeader10, lenBytes7(t)) }

func (t *Task) modeSense(header int, alloc int64) {
	c := &t.CDB
	dbd, llbaa := c[1]&0x08 != 0, header == modeHeader10 && c[1]&0x10 != 0
	pc, code, sub := c[2]>>6, c[2]&0x3f, c[3]
	u := t.unit
	mu := u.modeUnit()
	var state modeState
	switch pc {
	case pcSaved:
		if !mu.saves {
			t.check(Sense{Key: IllegalRequest, ASC: ASCSavingParametersNotSupported})
			return
		}
		state = u.modeSaved()
	case pcDefault:
		state = u.modeDefault()
	default:
		state = u.modeCurrent()
	}

	b := t.scratch(maxModeData)[:header]
	clear(b)
	dsp := byte(modeDPOFUA)
	if t.readOnly() {
		dsp |= modeWP
	}
	descLen := 0
	if !dbd {
		descLen = modeBlockDesc
		if llbaa {
			descLen = modeLongDesc
		}
		b = appendBlockDesc(b, t.unitBlocks(), u.blockSize, llbaa)
	}
	pages := len(b)
	known := false
	for i := range modePages {
		p := &modePages[i]
		if code != modeAllPages && code != p.code {
			continue
		}
		known = true
		if !p.has(&mu) {
			continue
		}
		if sub == p.sub || sub == modeAllSubpages {
			b = p.append(b, pc, &state, &mu)
		}
	}
	switch {
	case !known:
		t.check(InvalidCDBField(2, 5))
		return
	case len(b) == pages, code == modeAllPages && sub != 0 && sub != modeAllSubpages:
		t.check(InvalidCDBField(3, 7))
		return
	}
	if header == modeHeader6 {
		b[0] = byte(len(b) - 1)
		b[2], b[3] = dsp, byte(descLen)
	} else {
		binary.BigEndian.PutUint16(b, uint16(len(b)-2))
		b[3] = dsp
		if llbaa && !dbd {
			b[4] = 0x01 // LONGLBA
		}
		binary.BigEndian.PutUint16(b[6:], uint16(descLen))
	}
	t.reply(b, alloc)
}

// appendBlockDesc appends the mode parameter block descriptor (SBC-3 §6.5.2).
func appendBlockDesc(b []byte, blocks uint64, size int, long bool) []byte {
	if long {
		b = binary.BigEndian.AppendUint64(b, blocks)
		b = binary.BigEndian.AppendUint32(b, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, uint32(min(blocks, 0xffffffff)))
	}
	return binary.BigEndian.AppendUint32(b, uint32(size)) // at most 4096: byte 4 stays zero
}
