package scsi

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/vtgt/vtgt/backing"
)

// A unit whose store is migratable (UnitConfig.Migratable) is served by two processes, of
// which one at a time holds it: the one in which its virtual machine runs. What its
// initiators know of it goes from one to the other in a record beside the disk.

// HandedRecord is the name of that record in the unit's Memory. It is a SavedUnit.
const HandedRecord = "handed"

// Hold takes the unit for this process, waiting up to wait for another to let go of it,
// and goes on from what that one has left. It may sleep. Of a unit that is not
// migratable, and of one that is held already, it only counts.
func (u *Unit) Hold(wait time.Duration) error {
	h, ok := u.holder()
	if !ok {
		return nil
	}
	u.holding.Lock()
	defer u.holding.Unlock()
	if u.holders > 0 {
		u.holders++
		return nil
	}
	if err := h.Hold(wait); err != nil {
		return err
	}
	if u.conf.Saved != nil && !u.resumed {
		// The process before this one was the same host's, and held it to its end.
		u.resumed = true
	} else if err := u.takeHanded(); err != nil {
		_ = h.LetGo()
		return err
	}
	u.holders++
	return nil
}

// LetGo is the inverse of Hold; the last one leaves everything to the other process. No
// command may be under way. It may sleep. The unit is let go of also where it fails.
func (u *Unit) LetGo() error {
	h, ok := u.holder()
	if !ok {
		return nil
	}
	u.holding.Lock()
	defer u.holding.Unlock()
	if u.holders--; u.holders > 0 {
		return nil
	}
	u.holders = 0
	err := u.leaveHanded()
	if e := h.LetGo(); e != nil {
		err = e
	}
	if err != nil {
		u.logError("letting go of a migratable disk", "err", err)
	}
	return err
}

func (u *Unit) holder() (backing.Holder, bool) {
	if !u.conf.Migratable {
		return nil, false
	}
	h, ok := u.backing.(backing.Holder)
	return h, ok
}

// leaveHanded writes the record.
func (u *Unit) leaveHanded() error {
	st, err := u.Save()
	if err != nil {
		return err
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := u.conf.Memory.Save(HandedRecord, b); err != nil {
		return fmt.Errorf("disk %s: what its initiators know cannot be handed on: %w", u.conf.Name, err)
	}
	return nil
}

// takeHanded reads the record and removes it. Where there is none, the process before
// this one has not let go but died: what is kept for ever is read again.
func (u *Unit) takeHanded() error {
	b, err := u.conf.Memory.Load(HandedRecord)
	if err != nil {
		return fmt.Errorf("disk %s: what was handed on of it: %w", u.conf.Name, err)
	}
	if b == nil {
		fresh := &Unit{conf: u.conf}
		if err := fresh.loadReservations(); err != nil {
			return err
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.pr.table, u.pr.lost = fresh.pr.table, fresh.pr.lost
		u.judgeConflicts()
		return nil
	}
	st := new(SavedUnit)
	if err := json.Unmarshal(b, st); err != nil {
		return fmt.Errorf("disk %s: what was handed on of it is damaged: %w; remove the file to begin anew", u.conf.Name, err)
	}
	u.mu.Lock()
	err = u.restore(st)
	for _, nu := range u.nexuses {
		u.goOn(nu)
	}
	u.judgeConflicts()
	u.mu.Unlock()
	if err != nil {
		return fmt.Errorf("disk %s: what was handed on of it: %w", u.conf.Name, err)
	}
	return u.conf.Memory.Save(HandedRecord, nil)
}
