package scsi

import "slices"

// Persistent reservations: SPC-4 (r37) §5.13. What a unit knows of them is a prTable,
// which never changes: a PERSISTENT RESERVE OUT makes another one (pr_apply.go), which
// takes the place of the old when it is stable where it has to be (pr_out.go). What a
// table means to a nexus is in its verdict word (unit_verdict.go).

// Additional sense codes of reservations.
const (
	ascCommandTimeout             ASC = 0x2e02 // during processing
	ascInvalidRelease             ASC = 0x2604
	ascReservationInfoLost        ASC = 0x4401
	ascInsufficientRegistrationRs ASC = 0x5504
)

// maxRegistrations bounds a table. 64 hosts with 16 paths each have room.
const maxRegistrations = 1024

// ReservationType is the type of a persistent reservation (SPC-4 §6.15.3.4).
type ReservationType uint8

// The types.
const (
	NoReservation                  ReservationType = 0
	WriteExclusive                 ReservationType = 1
	ExclusiveAccess                ReservationType = 3
	WriteExclusiveRegistrantsOnly  ReservationType = 5
	ExclusiveAccessRegistrantsOnly ReservationType = 6
	WriteExclusiveAllRegistrants   ReservationType = 7
	ExclusiveAccessAllRegistrants  ReservationType = 8
)

func (t ReservationType) String() string {
	switch t {
	case NoReservation:
		return "none"
	case WriteExclusive:
		return "Write Exclusive"
	case ExclusiveAccess:
		return "Exclusive Access"
	case WriteExclusiveRegistrantsOnly:
		return "Write Exclusive - Registrants Only"
	case ExclusiveAccessRegistrantsOnly:
		return "Exclusive Access - Registrants Only"
	case WriteExclusiveAllRegistrants:
		return "Write Exclusive - All Registrants"
	case ExclusiveAccessAllRegistrants:
		return "Exclusive Access - All Registrants"
	}
	return "reservation type " + string(hexDigit(uint8(t)>>4)) + string(hexDigit(uint8(t)))
}

func hexDigit(b uint8) byte { return "0123456789abcdef"[b&15] }

// valid reports whether a reservation can be of type t.
func (t ReservationType) valid() bool {
	switch t {
	case WriteExclusive, ExclusiveAccess, WriteExclusiveRegistrantsOnly, ExclusiveAccessRegistrantsOnly,
		WriteExclusiveAllRegistrants, ExclusiveAccessAllRegistrants:
		return true
	}
	return false
}

// exclusive reports whether others may not even read.
func (t ReservationType) exclusive() bool {
	return t == ExclusiveAccess || t == ExclusiveAccessRegistrantsOnly || t == ExclusiveAccessAllRegistrants
}

// registrants reports whether every registered nexus has access.
func (t ReservationType) registrants() bool { return t >= WriteExclusiveRegistrantsOnly }

// all reports whether every registered nexus is a holder.
func (t ReservationType) all() bool {
	return t == WriteExclusiveAllRegistrants || t == ExclusiveAccessAllRegistrants
}

// regID names an I_T nexus: what a registration is kept under, whether the initiator
// is there or not.
type regID struct {
	// port is the relative target port identifier.
	port uint16
	// transport is the initiator port's TransportID in its canonical form, see
	// canonicalTransportID.
	transport string
}

// registrant is a registered I_T nexus.
type registrant struct {
	id  regID
	key uint64 // not 0
}

// prTable is what a unit knows of persistent reservations. It never changes.
type prTable struct {
	generation uint32 // PRGENERATION
	// aptpl: it persists through power loss.
	aptpl bool
	regs  []registrant // in the order of their registration
	typ   ReservationType
	// holder is registered and holds the reservation; the zero value without one
	// and with the all registrants types.
	holder regID
}

// noReservations is the table of a new unit.
var noReservations = &prTable{}

// find is the index of id in regs, or -1.
func (p *prTable) find(id regID) int {
	return slices.IndexFunc(p.regs, func(r registrant) bool { return r.id == id })
}

// holds reports whether the nexus at index i of regs is a holder.
func (p *prTable) holds(i int) bool {
	return i >= 0 && p.typ != NoReservation && (p.typ.all() || p.regs[i].id == p.holder)
}

// holderKey is the key that the reservation is held under, 0 for the all registrants
// types.
func (p *prTable) holderKey() uint64 {
	if i := p.find(p.holder); p.typ != NoReservation && !p.typ.all() && i >= 0 {
		return p.regs[i].key
	}
	return 0
}

// forbids is what the nexus id may not do (verdictRead, verdictWrite): SPC-4 table 65,
// SBC-3 table 13.
func (p *prTable) forbids(id regID) uint32 {
	if p.typ == NoReservation {
		return 0
	}
	if i := p.find(id); i >= 0 && (p.typ.registrants() || p.holds(i)) {
		return 0
	}
	if p.typ.exclusive() {
		return verdictRead | verdictWrite
	}
	return verdictWrite
}

// clone is a copy that may be changed.
func (p *prTable) clone() *prTable {
	n := *p
	n.regs = slices.Clone(p.regs)
	return &n
}

// kept is what p has to leave on stable storage; nil: nothing.
func (p *prTable) kept() *prTable {
	if !p.aptpl || len(p.regs) == 0 {
		return nil
	}
	return p
}

// sameKept reports whether a and b leave the same on stable storage.
func sameKept(a, b *prTable) bool {
	a, b = a.kept(), b.kept()
	if a == nil || b == nil {
		return a == b
	}
	return a.typ == b.typ && a.holder == b.holder && slices.Equal(a.regs, b.regs)
}
