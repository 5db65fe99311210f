package scsi

import (
	"encoding/binary"
	"math/bits"
)

// cdbMask holds the bits of a CDB that must be zero for a row, as two little-
// endian words for each half of MaxCDB.
type cdbMask struct {
	ready  bool
	long   bool // hi holds something
	lo, hi [2]uint64
}

// prepare computes what fits needs. It is called once for each row, before the
// first lookup.
func (c *command) prepare() {
	var m [MaxCDB]byte
	for i := 1; i < len(c.usage) && i < MaxCDB; i++ {
		m[i] = ^c.usage[i]
	}
	// The service action field of the usage data holds the service action
	// (SPC-4 §6.34.3), not a mask.
	if c.sa != noSA {
		if c.op == 0x7f {
			m[8], m[9] = 0, 0
		} else {
			m[1] &^= 0x1f
		}
	}
	// An initiator that has not met the target yet may take it for one of SCSI-2
	// and put the LUN there (Linux does, for a LUN above 0 that comes first, as
	// when it is plugged in): INQUIRY is how it learns better.
	if c.op == 0x12 {
		m[1] &^= 0xe0
	}
	c.mask.lo[0] = binary.LittleEndian.Uint64(m[0:])
	c.mask.lo[1] = binary.LittleEndian.Uint64(m[8:])
	c.mask.hi[0] = binary.LittleEndian.Uint64(m[16:])
	c.mask.hi[1] = binary.LittleEndian.Uint64(m[24:])
	c.mask.long = len(c.usage) > 16
	c.mask.ready = true
}

// fits reports whether the CDB of t is long enough for the row and sets no bit
// that the row does not know. Bytes behind the command's length are not looked
// at: transports pad with what they like.
func (c *command) fits(t *Task) bool {
	if int(t.CDBLen) < len(c.usage) {
		return false
	}
	m := &c.mask
	if binary.LittleEndian.Uint64(t.CDB[0:])&m.lo[0]|binary.LittleEndian.Uint64(t.CDB[8:])&m.lo[1] != 0 {
		return false
	}
	return !m.long ||
		binary.LittleEndian.Uint64(t.CDB[16:])&m.hi[0]|binary.LittleEndian.Uint64(t.CDB[24:])&m.hi[1] == 0
}

// misfit is the sense data for a CDB that does not fit: a pointer to the first
// byte and the highest bit in it that offend.
func (c *command) misfit(t *Task) Sense {
	if n := int(t.CDBLen); n < len(c.usage) {
		return InvalidCDBField(n, -1)
	}
	var m [MaxCDB]byte
	binary.LittleEndian.PutUint64(m[0:], c.mask.lo[0])
	binary.LittleEndian.PutUint64(m[8:], c.mask.lo[1])
	binary.LittleEndian.PutUint64(m[16:], c.mask.hi[0])
	binary.LittleEndian.PutUint64(m[24:], c.mask.hi[1])
	for i, b := range t.CDB {
		if b &= m[i]; b != 0 {
			return InvalidCDBField(i, bits.Len8(b)-1)
		}
	}
	return InvalidCDBField(0, -1)
}
