package scsi

import (
	"github.com/vtgt/vtgt/backing"
)

// diskTask is what the disk device server keeps in a Task between the steps of a
// command. Each field is set by the handler that uses it.
type diskTask struct {
	// pos and end are the bytes of the medium that are still to be done.
	pos, end int64
	// data walks over DataOut or DataIn.
	data cursor
	// pattern is the block that each block is compared with or filled with, nil
	// where DataOut holds one for each.
	pattern bool
	// sync: a Sync has to follow the last write.
	sync bool
	// count and next index the descriptors of an UNMAP.
	count, next int
	// tmp is the buffer of commands with several steps (Task.buf).
	tmp []byte
	// medium is the operation that the command begins, immed whether it is
	// answered at once.
	medium *mediumRecord
	immed  bool
	// mode is what a MODE SELECT asks for.
	mode modeState
	// one and cutv are vectors for store operations.
	one  [1][]byte
	cutv [8][]byte
	// ext is what an Extents operation fills.
	ext [maxExtents]backing.Extent
}

// maxExtents is how many extents a GET LBA STATUS asks the store for at a time.
const maxExtents = 8

// stepBytes is the largest piece of a command that works in steps. Copying or
// comparing this much takes some 20 us, what a loop may spend on one task.
const stepBytes = 256 << 10

// store1 starts an operation on the medium with one buffer, the task's own.
func (t *Task) store1(k backing.Kind, fl backing.Flags, off int64, b []byte, next step) {
	t.disk.one[0] = b
	t.store(k, fl, off, int64(len(b)), t.disk.one[:], next)
}

// disk is the disk device server: the command set of SBC-3 direct access block
// devices. With a nil unit it answers for LUNs that have none.
type disk struct {
	unit *Unit
	// rows are this unit's rows in the order of operation code and service
	// action; never changed.
	rows []*command
	// first is the index in rows of an operation code's first row, plus one.
	first [256]uint8
}

var _ deviceServer = (*disk)(nil)

// newDisk makes the device server of u; nil stands for LUNs without a unit.
func newDisk(u *Unit) deviceServer {
	d := &disk{unit: u}
	var have feature
	if u != nil {
		have = featFull
		if u.conf.Thin {
			have = featThin
		}
		if u.conf.Memory != nil {
			have |= featSaves
		} else {
			have |= featForgets
		}
		if u.conf.SetAccess {
			have |= featSetAccess
		}
		if u.info().Rekeys {
			have |= featKey
		}
		if maxAtomic(int64(u.blockSize), u.info()) > 0 {
			have |= featAtomic
		}
	}
	for i := range diskTable {
		r := &diskTable[i]
		if u == nil && r.flags&cmdAnyLUN == 0 {
			continue
		}
		if r.need != 0 && r.need&have == 0 {
			continue
		}
		if u != nil && u.conf.Migratable && (r.op == opSanitize || r.op == opFormatUnit) {
			continue // what is under way would stay behind
		}
		d.rows = append(d.rows, &r.command)
		if d.first[r.op] == 0 {
			d.first[r.op] = uint8(len(d.rows))
		}
	}
	return d
}

// lookup finds the row of cdb.
func (d *disk) lookup(cdb []byte) *command {
	i := int(d.first[cdb[0]])
	if i == 0 {
		return nil
	}
	c := d.rows[i-1]
	if c.sa == noSA {
		return c
	}
	return d.find(cdb[0], int(cdb[1]&0x1f))
}

// find is lookup by numbers; sa is looked at only where op has service actions.
func (d *disk) find(op uint8, sa int) *command {
	i := int(d.first[op])
	if i == 0 {
		return nil
	}
	for _, c := range d.rows[i-1:] {
		if c.op != op {
			break
		}
		if c.sa == noSA || int(c.sa) == sa {
			return c
		}
	}
	return nil
}

// hasOp reports whether any row has operation code op.
func (d *disk) hasOp(op uint8) bool { return d.first[op] != 0 }
