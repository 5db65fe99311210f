package scsi

import (
	"fmt"
	"time"
)

// Reservations is what a unit knows of reservations, at one moment.
type Reservations struct {
	// Type is the type of the persistent reservation.
	Type ReservationType
	// Generation is PRGENERATION.
	Generation uint32
	// Persistent: it persists through power loss (APTPL).
	Persistent bool
	// Lost: what was to persist is damaged. Nearly all commands are refused until
	// an initiator replaces it (SPC-4 §5.13.11.3) or an operator clears it.
	Lost bool
	// Registrations are in the order in which they were made.
	Registrations []Registration
	// Reserved is who holds the unit by RESERVE (SPC-2); "": nobody does.
	Reserved InitiatorID
}

// Registration is a registered I_T nexus.
type Registration struct {
	// TransportID is the initiator port's (SPC-4 §7.6.4), Name the name in it.
	TransportID []byte
	Name        string
	// Port is the relative target port identifier, Target the name of the target
	// that has it; "": the unit cannot be reached by it at present.
	Port   uint16
	Target string
	Key    uint64
	// Holder: it is a holder of the reservation.
	Holder bool
	// Attached: it is there now.
	Attached bool
}

// Reservations tells who has registered and reserved. Any goroutine.
func (u *Unit) Reservations() Reservations {
	targets := make(map[uint16]string)
	for _, p := range u.ports() {
		targets[p.conf.RelID] = p.target.conf.Name
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.pr.table
	r := Reservations{Type: p.typ, Generation: p.generation, Persistent: p.aptpl, Lost: u.pr.lost}
	for i, g := range p.regs {
		e := Registration{TransportID: []byte(g.id.transport), Name: TransportName([]byte(g.id.transport)),
			Port: g.id.port, Target: targets[g.id.port], Key: g.key, Holder: p.holds(i)}
		for _, nu := range u.nexuses {
			e.Attached = e.Attached || nu.id == g.id
		}
		r.Registrations = append(r.Registrations, e)
	}
	if u.reserved != nil {
		r.Reserved = u.reserved.nexus.id
	}
	return r
}

// ClearReservations removes every registration and reservation, RESERVE's too, on
// behalf of an operator: registered nexuses get RESERVATIONS PREEMPTED, as by CLEAR. It
// waits, for deadline at most, for a change that an initiator has under way; it may
// sleep. On an error nothing has changed.
func (u *Unit) ClearReservations(deadline time.Duration) error {
	for end := time.Now().Add(deadline); ; time.Sleep(5 * time.Millisecond) {
		u.mu.Lock()
		if !u.pr.changing {
			break
		}
		u.mu.Unlock()
		if time.Now().After(end) {
			return fmt.Errorf("disk %s: a PERSISTENT RESERVE OUT command is still under way; try again when it has ended", u.conf.Name)
		}
	}
	u.pr.changing = true
	res := u.pr.table.clear(&prRequest{})
	same := !u.pr.unsure && !u.pr.lost && sameKept(u.pr.table, res.next)
	u.mu.Unlock()
	if !same && u.canPersist() {
		u.saving.Lock()
		err := u.conf.Memory.Save(ReservationsRecord, encodeReservations(res.next))
		u.saving.Unlock()
		if err != nil {
			u.mu.Lock()
			u.pr.unsure, u.pr.changing = true, false
			u.mu.Unlock()
			return fmt.Errorf("disk %s: its reservations are as they were: %w", u.conf.Name, err)
		}
	}
	u.mu.Lock()
	u.pr.unsure = false
	u.reserved = nil
	u.setTable(res.next, res.ua)
	u.mu.Unlock()
	u.logInfo("reservations cleared by an operator")
	return nil
}

// canPersist reports whether reservations can persist through power loss.
func (u *Unit) canPersist() bool { return u.conf.Memory != nil }

// loadReservations takes over what has persisted.
func (u *Unit) loadReservations() error {
	u.pr.table = noReservations
	if !u.canPersist() {
		return nil
	}
	b, err := u.conf.Memory.Load(ReservationsRecord)
	if err != nil {
		return fmt.Errorf("disk %s: its persistent reservations cannot be read: %w", u.conf.Name, err)
	}
	p, err := decodeReservations(b)
	if err != nil {
		// The record was there, so somebody wanted it kept. To serve the disk
		// as if nobody did would let a fenced host write.
		u.pr.lost = true
		u.logError("persistent reservations are damaged: the disk refuses nearly all commands until they are replaced or cleared", "err", err)
		return nil
	}
	u.pr.table = p
	return nil
}
