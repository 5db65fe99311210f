package scsi

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Saved mode pages (SPC-4 §5.10): the record "mode" of the unit's Memory.

const modeRecord = "mode"

// modeRecordVersion is the version of the record's format.
const modeRecordVersion = 1

// savedModes is the record. Names are the standard's fields.
type savedModes struct {
	Version int  `json:"version"`
	WCE     bool `json:"WCE"`
	DSense  bool `json:"D_SENSE"`
	SWP     bool `json:"SWP"`
	TAS     bool `json:"TAS"`
	LBPERE  bool `json:"LBPERE"`
	// Of the threshold descriptor.
	Count    uint32 `json:"THRESHOLD_COUNT,omitempty"`
	Disabled bool   `json:"disabled,omitempty"`
}

// encode makes the record of s.
func (s modeState) encode() []byte {
	b, _ := json.Marshal(savedModes{modeRecordVersion, s.wce, s.dSense, s.swp, s.tas, s.lbpere, s.limit, s.unlimited}) // cannot fail
	return b
}

// decodeModes is the inverse of encode.
func decodeModes(b []byte) (modeState, error) {
	var r savedModes
	if err := decodeRecord(b, &r); err != nil {
		return modeState{}, err
	}
	if r.Version != modeRecordVersion {
		return modeState{}, fmt.Errorf("version %d is not known", r.Version)
	}
	return modeState{wce: r.WCE, dSense: r.DSense, swp: r.SWP, tas: r.TAS, lbpere: r.LBPERE, limit: r.Count, unlimited: r.Disabled}, nil
}

// decodeRecord decodes JSON strictly: what this version does not know it must not
// drop unseen.
func decodeRecord(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("something follows its end")
	}
	return nil
}

// recall loads record name; nil where there is none or no Memory.
func (u *Unit) recall(name string) ([]byte, error) {
	if u.conf.Memory == nil {
		return nil, nil
	}
	b, err := u.conf.Memory.Load(name)
	if err != nil {
		return nil, fmt.Errorf("disk %s: what was saved (%s) cannot be read: %w", u.conf.Name, name, err)
	}
	return b, nil
}

// damaged is the error for a record that does not decode.
func (u *Unit) damaged(name string, err error) error {
	return fmt.Errorf("disk %s: what was saved (%s) is damaged: %w; restore it from a backup, or remove it to begin with default values", u.conf.Name, name, err)
}

// loadModes makes the saved values the present ones.
func (u *Unit) loadModes() error {
	s := u.modeDefault()
	b, err := u.recall(modeRecord)
	if err != nil {
		return err
	}
	if b != nil {
		saved, err := decodeModes(b)
		if err != nil {
			return u.damaged(modeRecord, err)
		}
		u.disk.saved.Store(&saved)
		s = u.modeSaved()
	}
	u.modeSet(s)
	return nil
}

// saveFailed ends t, of which what is to be kept could not be. Logged once until it
// works again: peers decide how often it is tried.
func (t *Task) saveFailed(name string) {
	u := t.unit
	if !u.disk.saveErr.Swap(true) && u.conf.Log != nil {
		u.conf.Log.Error("disk cannot save what an initiator asked it to keep: look at the state folder", "disk", u.conf.Name, "record", name, "err", t.op.Err)
	}
	t.check(Sense{Key: HardwareError, ASC: ASCInternalTargetFailure})
}
