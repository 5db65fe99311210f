package daemon

import (
	"sync"
	"time"

	"github.com/vtgt/vtgt/scsi"
)

// holdWait bounds the wait for another vtgt, in which the virtual machine ran until now,
// to let go of a disk: its rings have stopped before ours start, so what is left is a
// sync and a record.
const holdWait = 30 * time.Second

// holding is how a target's migratable disks go from one vtgt to another: its virtual
// machine's export holds them while its rings run.
type holding struct {
	mu    sync.Mutex
	on    bool
	units []*scsi.Unit // held
}

// hold takes every disk, or none.
func (o *targetUnit) hold() error {
	h := &o.holding
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range o.tg.LUNs() {
		if err := h.take(m.Unit); err != nil {
			h.release()
			return err
		}
	}
	h.on = true
	o.c.tell(kindExport, o.name+"/"+kindVHost, "its migratable disks are held")
	return nil
}

func (h *holding) take(u *scsi.Unit) error {
	if err := u.Hold(holdWait); err != nil {
		return err
	}
	h.units = append(h.units, u)
	return nil
}

// release lets go of all.
func (h *holding) release() {
	for _, u := range h.units {
		_ = u.LetGo() // logged there
	}
	h.units, h.on = nil, false
}

func (o *targetUnit) letGo() {
	o.holding.mu.Lock()
	defer o.holding.mu.Unlock()
	o.holding.release()
	o.c.tell(kindExport, o.name+"/"+kindVHost, "its migratable disks are let go of")
}

// mapped is told of a disk that the target has from now on.
func (o *targetUnit) mapped(u *scsi.Unit) error {
	h := &o.holding
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return nil
	}
	return h.take(u)
}

// unmapped is told of one that it has no longer.
func (o *targetUnit) unmapped() {
	h := &o.holding
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return
	}
	is := map[*scsi.Unit]bool{}
	for _, m := range o.tg.LUNs() {
		is[m.Unit] = true
	}
	kept := h.units[:0]
	for _, u := range h.units {
		if is[u] {
			kept = append(kept, u)
		} else {
			_ = u.LetGo()
		}
	}
	clear(h.units[len(kept):])
	h.units = kept
}
