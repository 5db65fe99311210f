package daemon

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/scsi"
)

// Reservations are those of one disk (SPC-4 §5.13; RESERVE: SPC-2).
type Reservations struct {
	// Type is that of the persistent reservation, "none" without one.
	Type string `json:"type"`
	// Generation is PRGENERATION: it counts changes since the disk was opened.
	Generation uint32 `json:"generation"`
	// Persistent: they persist through power loss (APTPL).
	Persistent bool `json:"persistent"`
	// Lost: what was to persist is damaged; the disk refuses nearly all commands.
	Lost bool `json:"lost,omitempty"`
	// ReservedBy holds the disk by RESERVE.
	ReservedBy    string         `json:"reservedBy,omitempty"`
	Registrations []Registration `json:"registrations"`
}

// Registration is an initiator port that has registered a key at a target port.
type Registration struct {
	Initiator   string `json:"initiator"`
	TransportID string `json:"transportID"` // hexadecimal
	// Target has the port; empty: the disk is in none at present that has it.
	Target string `json:"target,omitempty"`
	// RelativePort is the relative target port identifier.
	RelativePort uint16 `json:"relativePort"`
	// Key in hexadecimal digits, as sg_persist takes and shows it.
	Key string `json:"key"`
	// Holder: it holds the reservation. Attached: it is logged in and has used the
	// disk.
	Holder   bool `json:"holder"`
	Attached bool `json:"attached"`
}

// DiskReservations are the reservations of a disk that has any.
type DiskReservations struct {
	Disk string `json:"disk"`
	Reservations
}

// describeReservations is nil for a disk without.
func describeReservations(k diskObject) *Reservations {
	s := k.reservations()
	if len(s.Registrations) == 0 && s.Reserved == "" && !s.Lost {
		return nil
	}
	r := &Reservations{Type: s.Type.String(), Generation: s.Generation, Persistent: s.Persistent, Lost: s.Lost,
		ReservedBy: string(s.Reserved), Registrations: []Registration{}}
	for _, g := range s.Registrations {
		r.Registrations = append(r.Registrations, Registration{
			Initiator: g.Name, TransportID: hex.EncodeToString(g.TransportID), Target: g.Target, RelativePort: g.Port,
			Key: fmt.Sprintf("0x%x", g.Key), Holder: g.Holder, Attached: g.Attached,
		})
	}
	return r
}

// Reservations describes the disks that have registrations or are reserved, in the
// order of the configuration.
func (d *Daemon) Reservations() []DiskReservations {
	g := d.cur.Load()
	out := []DiskReservations{}
	for i := range g.cfg.Disks {
		name := g.cfg.Disks[i].Name
		if k := g.disks[name]; k != nil {
			if r := describeReservations(k.obj); r != nil {
				out = append(out, DiskReservations{name, *r})
			}
		}
	}
	return out
}

// ClearReservations removes all registrations and reservations of a disk, as an
// initiator's CLEAR does, for when none is left that could. Without force it is refused
// where initiators that are there would lose theirs.
func (d *Daemon) ClearReservations(name string, force bool) error {
	if d.closing.Load() {
		return errClosing()
	}
	k := d.cur.Load().disks[name]
	if k == nil {
		return notThere("disk "+name, "vtgt get disks lists those there are")
	}
	if r := describeReservations(k.obj); r != nil && !force {
		var who []string
		for _, g := range r.Registrations {
			if g.Attached && !slices.Contains(who, g.Initiator) {
				who = append(who, g.Initiator)
			}
		}
		if r.ReservedBy != "" {
			who = append(who, r.ReservedBy)
		}
		if len(who) > 0 {
			return Errors{{Code: CodeBusy, Object: "disk " + name,
				Message: "initiators that are there rely on its reservations: " + enumerate(who),
				Hint:    "have them let go, or use --force: whoever they keep out can write then"}}
		}
	}
	return k.obj.clearReservations(5 * time.Second)
}

// movedReservations is a Memory of which the reservations lie in a file of their own.
type movedReservations struct {
	scsi.Memory
	file state.File
}

func (m movedReservations) Load(record string) ([]byte, error) {
	switch record {
	case scsi.ReservationsRecord:
		return m.file.Load()
	case scsi.HandedRecord:
		return m.handed().Load()
	}
	return m.Memory.Load(record)
}

func (m movedReservations) Save(record string, b []byte) error {
	switch record {
	case scsi.ReservationsRecord:
		return m.file.Save(b)
	case scsi.HandedRecord:
		return m.handed().Save(b)
	}
	return m.Memory.Save(record, b)
}

// handed is where one vtgt leaves what the next one needs of a migratable disk.
func (m movedReservations) handed() state.File { return m.file + ".handed" }

// memoryOf is the memory of disk d.
func (c *core) memoryOf(d *config.Disk) scsi.Memory {
	m := c.memory(d.Name)
	if d.Reservations != "" {
		m = movedReservations{m, state.File(d.Reservations)}
	}
	return m
}

func (k *unit) reservations() scsi.Reservations { return k.u.Reservations() }

func (k *unit) clearReservations(deadline time.Duration) error {
	if err := k.u.ClearReservations(deadline); err != nil {
		return &Error{Code: CodeInternal, Object: "disk " + k.name, Message: trimDisk(k.name, err), Hint: "look at the state folder's file system, then try again", Err: err}
	}
	k.c.tell("disk", k.name, "reservations cleared by an operator")
	return nil
}
