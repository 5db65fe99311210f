package scsi

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// The record of persistent reservations in a unit's Memory: JSON, so that people can
// read it, with a version and a checksum, because to take a damaged one for whole is to
// let the wrong host write. PRGENERATION is not in it: it is zero after power on
// (SPC-4 §6.15.2).

// ReservationsRecord is the name of the record in Memory that has the persistent
// reservations.
const ReservationsRecord = "reservations"

const reservationsVersion = 1

type reservationsFile struct {
	Version int `json:"version"`
	// CRC is the CRC32C of Table without white space, 8 hexadecimal digits.
	CRC   string          `json:"crc32c"`
	Table json.RawMessage `json:"table"`
}

type reservationsTable struct {
	Type          ReservationType    `json:"type"`
	Holder        *int               `json:"holder,omitempty"` // index in Registrations
	Registrations []registrationItem `json:"registrations"`
}

type registrationItem struct {
	Name        string `json:"name"` // for people
	Port        uint16 `json:"port"`
	TransportID string `json:"transportID"` // hexadecimal
	Key         string `json:"key"`         // 16 hexadecimal digits
}

func tableSum(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// encodeReservations is the record of p; nil where there is nothing to keep.
func encodeReservations(p *prTable) []byte {
	if p = p.kept(); p == nil {
		return nil
	}
	table, err := json.Marshal(p.record())
	if err != nil {
		panic(err) // no field can fail
	}
	b, err := json.MarshalIndent(reservationsFile{reservationsVersion, tableSum(table), table}, "", " ")
	if err != nil {
		panic(err)
	}
	return b
}

// record is p without what power on sets anew.
func (p *prTable) record() reservationsTable {
	t := reservationsTable{Type: p.typ, Registrations: []registrationItem{}}
	for i, r := range p.regs {
		if p.typ != NoReservation && !p.typ.all() && r.id == p.holder {
			t.Holder = &i
		}
		t.Registrations = append(t.Registrations, registrationItem{
			Name: TransportName([]byte(r.id.transport)), Port: r.id.port,
			TransportID: hex.EncodeToString([]byte(r.id.transport)), Key: fmt.Sprintf("%016x", r.key),
		})
	}
	return t
}

// decodeReservations is the table of a record; nil without one.
func decodeReservations(b []byte) (*prTable, error) {
	if b == nil {
		return noReservations, nil
	}
	var f reservationsFile
	if err := strictJSON(b, &f); err != nil {
		return nil, err
	}
	if f.Version != reservationsVersion {
		return nil, fmt.Errorf("version %d is not known", f.Version)
	}
	var c bytes.Buffer
	if err := json.Compact(&c, f.Table); err != nil {
		return nil, err
	}
	if s := tableSum(c.Bytes()); s != f.CRC {
		return nil, fmt.Errorf("its checksum is %s, not %s", s, f.CRC)
	}
	var t reservationsTable
	if err := strictJSON(f.Table, &t); err != nil {
		return nil, err
	}
	p, err := t.table()
	if err != nil {
		return nil, err
	}
	if len(p.regs) == 0 {
		return nil, errors.New("no registrations")
	}
	p.aptpl = true
	return p, nil
}

// table is the inverse of prTable.record.
func (t *reservationsTable) table() (*prTable, error) {
	if n := len(t.Registrations); n > maxRegistrations {
		return nil, fmt.Errorf("%d registrations: the most is %d", n, maxRegistrations)
	}
	p := &prTable{typ: t.Type}
	for _, r := range t.Registrations {
		id, err := hex.DecodeString(r.TransportID)
		if err != nil {
			return nil, err
		}
		key, err := strconv.ParseUint(r.Key, 16, 64)
		if err != nil {
			return nil, err
		}
		g := registrant{regID{r.Port, canonicalTransportID(id)}, key}
		if key == 0 || g.id.transport == "" || p.find(g.id) >= 0 {
			return nil, fmt.Errorf("registration of %q at port %d: not a proper one", r.Name, r.Port)
		}
		p.regs = append(p.regs, g)
	}
	switch {
	case t.Type != NoReservation && !t.Type.valid():
		return nil, fmt.Errorf("reservation type %d is not known", t.Type)
	case t.Holder == nil != (t.Type == NoReservation || t.Type.all()):
		return nil, errors.New("holder and type do not agree")
	case t.Holder != nil:
		if i := *t.Holder; i < 0 || i >= len(p.regs) {
			return nil, fmt.Errorf("holder %d is not registered", i)
		}
		p.holder = p.regs[*t.Holder].id
	}
	return p, nil
}

// strictJSON decodes one value, which is all of b.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is more behind it")
	}
	return nil
}
