package scsi

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// REPORT IDENTIFYING INFORMATION (SPC-4 §6.32) and SET IDENTIFYING INFORMATION
// (§6.43): what users call the disk. It is the record "identification" of the unit's
// Memory; without one there are no such commands, because the information has to
// persist.

const (
	identRecord        = "identification"
	identRecordVersion = 1
)

// Identifying information types.
const (
	identPeripheral = 0x00
	identText       = 0x02
	identSupported  = 0x7f
)

// Maximum lengths, bytes.
const (
	maxIdentPeripheral = 512
	maxIdentText       = 256
)

// identity is what is known. Its slices are never changed.
type identity struct{ peripheral, text []byte }

// savedIdentity is the record.
type savedIdentity struct {
	Version    int    `json:"version"`
	Peripheral []byte `json:"peripheral,omitempty"`
	Text       []byte `json:"text,omitempty"`
}

func (d *identity) encode() []byte {
	b, _ := json.Marshal(savedIdentity{identRecordVersion, d.peripheral, d.text}) // cannot fail
	return b
}

func decodeIdentity(b []byte) (identity, error) {
	var r savedIdentity
	if err := decodeRecord(b, &r); err != nil {
		return identity{}, err
	}
	switch {
	case r.Version != identRecordVersion:
		return identity{}, fmt.Errorf("version %d is not known", r.Version)
	case len(r.Peripheral) > maxIdentPeripheral || len(r.Text) > maxIdentText:
		return identity{}, fmt.Errorf("it is too long")
	}
	return identity{r.Peripheral, r.Text}, nil
}

// loadIdentity reads the record.
func (u *Unit) loadIdentity() error {
	b, err := u.recall(identRecord)
	if err != nil || b == nil {
		return err
	}
	d, err := decodeIdentity(b)
	if err != nil {
		return u.damaged(identRecord, err)
	}
	u.disk.ident.Store(&d)
	return nil
}

func (u *Unit) identity() identity {
	if p := u.disk.ident.Load(); p != nil {
		return *p
	}
	return identity{}
}

func runReportIdentity(t *Task) {
	d := t.unit.identity()
	b := t.scratch(4 + maxIdentPeripheral)[:4]
	clear(b)
	switch t.CDB[10] >> 1 {
	case identPeripheral:
		b = append(b, d.peripheral...)
	case identText:
		b = append(b, d.text...)
	case identSupported:
		b = append(b, identPeripheral<<1, 0, maxIdentPeripheral>>8, maxIdentPeripheral&0xff)
		b = append(b, identText<<1, 0, maxIdentText>>8, maxIdentText&0xff)
	default:
		t.check(InvalidCDBField(10, 7))
		return
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	t.reply(b, lenBytes6x4(t))
}

func runSetIdentity(t *Task) {
	n, kind := lenBytes6x4(t), t.CDB[10]>>1
	limit := int64(maxIdentPeripheral)
	switch kind {
	case identPeripheral:
	case identText:
		limit = maxIdentText
	default:
		t.check(InvalidCDBField(10, 7))
		return
	}
	if n > limit {
		t.check(InvalidCDBField(6, 7))
		return
	}
	p, ok := t.param(int(n))
	if !ok {
		return
	}
	// The initiator may go on writing to the list: what is checked is a copy.
	b := append([]byte(nil), p...)
	d := t.unit.identity()
	if kind == identText {
		if at, ok := checkText(b); !ok {
			t.check(InvalidParamField(at, 7))
			return
		}
		d.text = b
	} else {
		d.peripheral = b
	}
	t.unit.disk.newIdent = &d // the command runs alone
	t.save(identRecord, d.encode(), identityKept)
}

func identityKept(t *Task) {
	u := t.unit
	d := u.disk.newIdent
	u.disk.newIdent = nil
	if t.op.Err != nil {
		t.saveFailed(identRecord)
		return
	}
	u.disk.saveErr.Store(false)
	u.disk.ident.Store(d)
	u.raiseUA(ASCDeviceIdentifierChanged, t.nu())
	t.good()
}

// checkText reports whether b is UTF-8 that ends with its only NUL, or empty; else
// which byte is wrong.
func checkText(b []byte) (at int, ok bool) {
	for at < len(b) {
		r, n := utf8.DecodeRune(b[at:])
		switch {
		case r == utf8.RuneError && n <= 1:
			return at, false
		case r == 0:
			return min(at+1, len(b)-1), at == len(b)-1
		}
		at += n
	}
	return max(len(b)-1, 0), len(b) == 0
}
