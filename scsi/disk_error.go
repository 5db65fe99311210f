package scsi

import (
	"errors"
	"io"
	"syscall"

	"github.com/vtgt/vtgt/backing"
)

// Additional sense codes of the disk device server.
const (
	ascInvalidFieldInCIU    ASC = 0x0e03 // in command information unit
	ascMediumMayHaveChanged ASC = 0x2800
)

// storeSense says in SCSI's words what a failed store operation of kind k means.
// lba is where it began; it goes into INFORMATION for errors of the medium
// (SBC-3 §4.18.1).
func storeSense(k backing.Kind, err error, lba uint64) Sense {
	write := k != backing.Read && k != backing.Extents
	switch {
	case errors.Is(err, backing.ErrRange):
		// The store shrank under the unit.
		return Sense{Key: IllegalRequest, ASC: ASCLBAOutOfRange}
	case errors.Is(err, backing.ErrReadOnly), errors.Is(err, syscall.EROFS):
		return Sense{Key: DataProtect, ASC: ASCWriteProtected}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return Sense{Key: DataProtect, ASC: ASCSpaceAllocationFailed}
	case errors.Is(err, backing.ErrCanceled):
		// Nobody asked for this task's end, else it would have ended already.
		return Sense{Key: AbortedCommand, ASC: ASCNone}
	case errors.Is(err, backing.ErrClosed):
		return Sense{Key: NotReady, ASC: ASCManualIntervention}
	case errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EAGAIN):
		return Sense{Key: AbortedCommand, ASC: ASCInsufficientResources}
	case errors.Is(err, syscall.EFAULT):
		return senseFault
	case errors.Is(err, backing.ErrNotSupported):
		return Sense{Key: HardwareError, ASC: ASCInternalTargetFailure}
	}
	if write {
		// EIO, ErrLatched and whatever else: what was written may be lost.
		s := Sense{Key: MediumError, ASC: ASCWriteError}
		if k != backing.Sync {
			s.Info, s.HasInfo = lba, true
		}
		return s
	}
	return Sense{Key: MediumError, ASC: ASCUnrecoveredReadError, Info: lba, HasInfo: true}
}

// stored looks at the outcome of t.op. It is true when everything was moved;
// else the task has ended.
func (t *Task) stored() bool {
	err := t.op.Err
	if err == nil {
		switch t.op.Kind {
		case backing.Read, backing.Write:
			if t.op.N == t.op.Len {
				return true
			}
			err = io.ErrUnexpectedEOF
		default:
			return true
		}
	}
	t.Want, t.InLen = 0, 0
	t.check(storeSense(t.op.Kind, err, uint64(t.op.Off/t.blockLen())))
	return false
}
