package scsi

import "encoding/binary"

// SANITIZE (SBC-3 §5.30, §4.11). What it begins is in unit_medium.go.

// Service actions.
const (
	sanitizeOverwrite   = 0x01
	sanitizeBlockErase  = 0x02
	sanitizeCryptoErase = 0x03
	sanitizeExit        = 0x1f
)

// Bits of byte 1 of the CDB.
const (
	sanitizeIMMED = 1 << 7
	sanitizeAUSE  = 1 << 5
)

// overwriteHeadLen is the part of the parameter list before the pattern.
const overwriteHeadLen = 4

func runSanitize(t *Task) {
	u := t.unit
	ause := t.CDB[1]&sanitizeAUSE != 0
	u.mu.Lock()
	failed := u.medium.failed
	u.mu.Unlock()
	if failed != nil && failed.Kind != mediumFormat && !failed.AUSE && ause {
		// Once completion is restricted a later command cannot unrestrict it.
		t.check(InvalidCDBField(1, 5))
		return
	}
	r := mediumRecord{AUSE: ause, Thin: u.conf.Thin}
	switch t.CDB[1] & 0x1f {
	case sanitizeOverwrite:
		n := int(binary.BigEndian.Uint16(t.CDB[7:]))
		if n <= overwriteHeadLen || n > overwriteHeadLen+u.blockSize {
			t.check(InvalidCDBField(7, 7))
			return
		}
		p, ok := t.param(n)
		if !ok {
			return
		}
		s, ok := r.overwrite(p)
		if !ok {
			t.check(s)
			return
		}
	case sanitizeBlockErase:
		r.Kind = mediumBlockErase
	case sanitizeCryptoErase:
		r.Kind = mediumCryptoErase
	}
	if r.Kind != mediumOverwrite && !t.noParam() {
		return
	}
	t.startMedium(&r, t.CDB[1]&sanitizeIMMED != 0)
}

// overwrite reads the parameter list p of OVERWRITE, which is longer than its head and
// no longer than that and a block; false: s says what is wrong with it.
func (r *mediumRecord) overwrite(p []byte) (s Sense, ok bool) {
	count, n := int(p[0]&0x1f), int(binary.BigEndian.Uint16(p[2:]))
	switch {
	case count == 0:
		return InvalidParamField(0, 4), false
	case p[0]&0x60 != 0: // TEST: there is nothing to test
		return InvalidParamField(0, 6), false
	case p[1] != 0:
		return InvalidParamField(1, 7), false
	case n == 0 || n != len(p)-overwriteHeadLen:
		return InvalidParamField(2, 7), false
	}
	r.Kind, r.Count, r.Invert = mediumOverwrite, count, p[0]&0x80 != 0
	r.Pattern = append([]byte(nil), p[overwriteHeadLen:]...)
	return Sense{}, true
}

// noParam reports that the PARAMETER LIST LENGTH is zero; else t has ended.
func (t *Task) noParam() bool {
	if binary.BigEndian.Uint16(t.CDB[7:]) != 0 {
		t.check(InvalidCDBField(7, 7))
		return false
	}
	return true
}

// runSanitizeExit ends the state after a failed SANITIZE.
func runSanitizeExit(t *Task) {
	if !t.noParam() {
		return
	}
	u := t.unit
	u.mu.Lock()
	failed := u.medium.failed
	u.mu.Unlock()
	switch {
	case failed == nil || failed.Kind == mediumFormat:
		t.good()
		return
	case !failed.AUSE:
		t.check(Sense{Key: MediumError, ASC: ASCSanitizeCommandFailed})
		return
	case u.conf.Memory == nil:
		leftFailure(t)
		return
	}
	t.save(mediumRecordName, nil, leftFailure)
}

// leftFailure lets commands in again. t runs alone.
func leftFailure(t *Task) {
	u := t.unit
	if u.conf.Memory != nil && t.op.Err != nil {
		t.saveFailed(mediumRecordName)
		return
	}
	u.mu.Lock()
	u.medium.failed, u.medium.verdict = nil, 0
	u.judgeMedium()
	u.mu.Unlock()
	t.good()
}

// startMedium begins r when it is kept for the next process. t runs alone.
func (t *Task) startMedium(r *mediumRecord, immed bool) {
	t.disk.medium, t.disk.immed = r, immed
	if t.unit.conf.Memory == nil {
		t.beginMedium(*r, immed)
		return
	}
	t.save(mediumRecordName, r.encode(), mediumKept)
}

func mediumKept(t *Task) {
	r := t.disk.medium
	t.disk.medium = nil
	if t.op.Err != nil {
		t.saveFailed(mediumRecordName)
		return
	}
	t.beginMedium(*r, t.disk.immed)
}
