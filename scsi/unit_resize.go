package scsi

import (
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/backing"
)

// Resize changes the size of the store, in bytes, a multiple of the block size. A
// smaller size is refused unless force: what lies behind it is lost. It sleeps.
func (u *Unit) Resize(size int64, force bool) error {
	name := u.Name()
	if size <= 0 || size%int64(u.blockSize) != 0 {
		return fmt.Errorf("disk %s: a size of %d bytes: it must be a multiple of the block size, %d", name, size, u.blockSize)
	}
	have := u.backing.Info().Size
	if size < have && !force {
		return fmt.Errorf("disk %s has %d bytes: to cut it to %d would lose what lies behind them; do it by force if that is meant", name, have, size)
	}
	if size == have {
		return nil
	}
	switch err := u.backing.Resize(size); {
	case errors.Is(err, backing.ErrNotSupported):
		return fmt.Errorf("disk %s: its store cannot change its size; change the device below, vtgt notices: %w", name, err)
	case err != nil:
		return fmt.Errorf("disk %s: %w", name, err)
	}
	// The store has told by Watch; this is for stores that tell late.
	u.resized()
	return nil
}

// resized looks at the store's size and takes it over: a larger one at once, a
// smaller one when no task is left that might count on the old one. Any goroutine.
func (u *Unit) resized() {
	u.mu.Lock()
	n := uint64(u.backing.Info().Size) / uint64(u.blockSize)
	have := u.capacity.Load()
	switch {
	case n == have || u.resizing || u.closed:
		u.mu.Unlock()
		return
	case n > have:
		u.setCapacity(n)
		u.mu.Unlock()
		u.event(LUNResized)
		return
	}
	u.resizing = true
	u.mu.Unlock()
	u.startBarrier(&barrier{
		hold: true,
		apply: func(b *barrier) {
			u.resizing = false
			u.setCapacity(uint64(u.backing.Info().Size) / uint64(u.blockSize))
		},
		done: func(b *barrier) { go u.event(LUNResized) },
	}, 0)
}

// setCapacity takes a new size over. u.mu is held.
func (u *Unit) setCapacity(blocks uint64) {
	u.capacity.Store(blocks)
	u.raiseUALocked(ASCCapacityDataHasChanged, nil)
	u.logInfo("disk changed its size", "blocks", blocks, "blockSize", u.blockSize)
}
