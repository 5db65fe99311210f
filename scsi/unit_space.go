package scsi

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/vtgt/vtgt/backing"
)

// Logical block provisioning thresholds (SBC-3 §4.7.3.7): a thin unit tells its
// initiators once when the room that its store may still take falls below a
// threshold. Whoever runs the unit looks at the room now and then and calls
// SetSpace; commands have nothing to do with it.
//
// There is one threshold, an armed decreasing one on the available LBA mapping
// resources, in mode page 1Ch/02h.

const (
	// thresholdSet is the size of a threshold set in bytes: 2^32 of them, what the
	// fields hold, are 4 EiB.
	thresholdSet = 1 << 20
	// thresholdOffset is where the threshold's descriptor is in the mode page.
	thresholdOffset = 16
	// mostUsual bounds the usual threshold in bytes: who has 25 GiB left of 250
	// has nothing to do yet, and a warning that is always there is not read.
	mostUsual = 10 << 30
	// resourceAvailable is the code of the available LBA mapping resources in
	// mode page 1Ch/02h and log page 0Ch.
	resourceAvailable = 0x01
)

// thresholdExponent is THRESHOLD EXPONENT of VPD page B2h: the size of a set in
// blocks is two to the power of it.
func thresholdExponent(blockSize int) byte {
	return byte(bits.TrailingZeros64(thresholdSet / uint64(blockSize)))
}

// thresholdSets is n bytes in whole threshold sets, as far as the fields go.
func thresholdSets(n int64) uint32 {
	return uint32(min(max(n, 0)/thresholdSet, math.MaxUint32))
}

// provisioning is what log page 0Ch tells: the room that the store may still take
// and that it takes, in threshold sets. ok is false where that is not known.
func (u *Unit) provisioning() (available, used uint32, ok bool) {
	s := u.disk.space.Load()
	if s == nil || !u.conf.Thin {
		return 0, 0, false
	}
	// What the store takes in part it takes.
	return thresholdSets(s.Available), thresholdSets(s.Used + thresholdSet - 1), true
}

// usualThreshold is the threshold where no initiator has set another: a tenth of
// the file system, at most mostUsual. 0: the unit has none.
func (u *Unit) usualThreshold() uint32 {
	s := u.disk.space.Load()
	if s == nil || !u.conf.Thin {
		return 0
	}
	return max(thresholdSets(min(s.Total/10, mostUsual)), 1)
}

// threshold is the threshold in force in sets, 0 where none is.
func (u *Unit) threshold() uint32 {
	if u.disk.quiet.Load() || u.disk.unlimited.Load() {
		return 0
	}
	usual := u.usualThreshold()
	if n := u.disk.limit.Load(); n != 0 && usual != 0 {
		return n
	}
	return usual
}

// SetSpace tells the unit how much room its store has. The first time that it is
// below the threshold every initiator has a unit attention, THIN PROVISIONING SOFT
// THRESHOLD REACHED, and it is logged; again only after there was more, by an eighth
// of the threshold, in between. crossed tells that this was such a time. Units that
// are not thin take no notice. Any goroutine.
func (u *Unit) SetSpace(s backing.Space) (crossed bool) {
	if !u.conf.Thin {
		return false
	}
	u.disk.space.Store(&s)
	limit := uint64(u.threshold())
	have := uint64(thresholdSets(s.Available))
	u.mu.Lock()
	switch {
	case limit == 0 || have > limit+limit/8:
		u.disk.low = false
	case have <= limit && !u.disk.low:
		u.disk.low = true
		crossed = true
		u.raiseUALocked(ASCThinThresholdReached, nil)
	}
	u.mu.Unlock()
	if crossed && u.conf.Log != nil {
		u.conf.Log.Warn("disk's file system runs out of room: when it is full, writes fail; make room, or set onError: enospc-stop to have them held",
			"disk", u.conf.Name, "available", s.Available, "threshold", limit*thresholdSet)
	}
	return crossed
}

// Space is what SetSpace was told last; ok is false where that never was.
func (u *Unit) Space() (s backing.Space, ok bool) {
	if p := u.disk.space.Load(); p != nil {
		return *p, true
	}
	return backing.Space{}, false
}

// putThresholds is the logical block provisioning page (SBC-3 §6.5.7). SITUA is zero:
// every nexus hears of it.
func putThresholds(b []byte, s *modeState, u *modeUnit) {
	d := b[thresholdOffset:]
	if !s.unlimited {
		d[0] = 0x80 // ENABLED; the type is soft (0), the arming decreasing (0)
	}
	d[1] = resourceAvailable
	n := s.limit
	if n == 0 {
		n = u.usual
	}
	binary.BigEndian.PutUint32(d[4:], n)
}

func maskThresholds(b []byte, _ *modeUnit) {
	d := b[thresholdOffset:]
	d[0] = 0x80
	binary.BigEndian.PutUint32(d[4:], math.MaxUint32)
}

// getThresholds: a count of zero is the usual one.
func getThresholds(b []byte, s *modeState) {
	d := b[thresholdOffset:]
	s.unlimited = d[0]&0x80 == 0
	s.limit = binary.BigEndian.Uint32(d[4:])
}
