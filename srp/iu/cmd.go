package iu

import (
	"encoding/binary"

	"github.com/vtgt/vtgt/scsi"
)

// Lengths of the fixed parts, bytes.
const (
	CmdLen     = 48
	TskMgmtLen = 48
)

// Format is the format of a data buffer descriptor (SRP r16a §5.6.2).
type Format uint8

// The formats.
const (
	NoData   Format = 0
	Direct   Format = 1
	Indirect Format = 2
)

// Cmd is the fixed part of SRP_CMD (SRP r16a §6.8): the additional CDB bytes and the
// descriptors come behind it.
type Cmd [CmdLen]byte

// AsCmd looks at b, which Check has found whole, as one.
func AsCmd(b []byte) *Cmd { return (*Cmd)(b[:CmdLen]) }

// Reset makes an empty one.
func (u *Cmd) Reset() {
	clear(u[:])
	u[0] = byte(TypeCmd)
}

// SolNot are the notification bits.
func (u *Cmd) SolNot() SolNot { return SolNot(u[1]) }

// SetSolNot sets them.
func (u *Cmd) SetSolNot(s SolNot) { u[1] = byte(s) }

// OutFormat is the format of the data-out descriptor.
func (u *Cmd) OutFormat() Format { return Format(u[5] >> 4) }

// InFormat is the format of the data-in descriptor.
func (u *Cmd) InFormat() Format { return Format(u[5] & 15) }

// SetFormats sets both.
func (u *Cmd) SetFormats(out, in Format) { u[5] = byte(out)<<4 | byte(in)&15 }

// OutCount is the number of descriptors of an indirect data-out list that are in the
// unit itself.
func (u *Cmd) OutCount() int { return int(u[6]) }

// InCount is the same for data-in.
func (u *Cmd) InCount() int { return int(u[7]) }

// SetCounts sets both.
func (u *Cmd) SetCounts(out, in uint8) { u[6], u[7] = out, in }

// Tag is the tag.
func (u *Cmd) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *Cmd) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }

// LUN is the logical unit number.
func (u *Cmd) LUN() scsi.LUN { return scsi.LUN(u[20:28]) }

// SetLUN sets it.
func (u *Cmd) SetLUN(l scsi.LUN) { copy(u[20:28], l[:]) }

// Attr is the task attribute; SRP's numbers are SAM's.
func (u *Cmd) Attr() scsi.TaskAttr { return scsi.TaskAttr(u[29] & 7) }

// SetAttr sets it.
func (u *Cmd) SetAttr(a scsi.TaskAttr) { u[29] = byte(a) & 7 }

// AddCDBLen is the number of additional CDB bytes; ErrField: the two reserved bits
// below the length are not zero.
func (u *Cmd) AddCDBLen() (int, error) {
	if u[31]&3 != 0 {
		return 0, ErrField
	}
	return int(u[31]), nil
}

// SetAddCDBLen sets it: a multiple of 4 up to 252.
func (u *Cmd) SetAddCDBLen(n int) { u[31] = byte(n) &^ 3 }

// CDB are the first 16 bytes of the CDB.
func (u *Cmd) CDB() *[16]byte { return (*[16]byte)(u[32:48]) }

// Command is an SRP_CMD with its variable parts found. The slices point into the unit.
type Command struct {
	*Cmd
	AddCDB  []byte
	Out, In Data
}

// ParseCmd takes the unit b apart. An indirect list may have max descriptors in each
// direction, wherever they are.
func ParseCmd(b []byte, max int) (c Command, err error) {
	switch t, err := Check(b); {
	case err != nil:
		return c, err
	case t != TypeCmd:
		return c, ErrType
	}
	c.Cmd = AsCmd(b)
	rest := b[CmdLen:]
	n, err := c.AddCDBLen()
	if err != nil {
		return c, err
	}
	if n > len(rest) {
		return c, ErrShort
	}
	c.AddCDB, rest = rest[:n:n], rest[n:]
	if rest, err = c.Out.parse(rest, c.OutFormat(), c.OutCount(), max); err != nil {
		return c, err
	}
	_, err = c.In.parse(rest, c.InFormat(), c.InCount(), max)
	return c, err
}

// Fill puts LUN, tag, attribute and CDB into t. A CDB longer than scsi.MaxCDB is cut:
// no command is that long, so that the core finds none; ok is false then.
func (c *Command) Fill(t *scsi.Task) (ok bool) {
	t.LUN, t.Tag, t.Attr = c.LUN(), c.Tag(), c.Attr()
	clear(t.CDB[:])
	copy(t.CDB[:16], c.CDB()[:])
	n := copy(t.CDB[16:], c.AddCDB)
	t.CDBLen = uint8(16 + n)
	return n == len(c.AddCDB)
}

// TMFunc is a TASK MANAGEMENT FUNCTION code (SRP r16a §6.7).
type TMFunc uint8

// The functions.
const (
	TMAbortTask    TMFunc = 0x01
	TMAbortTaskSet TMFunc = 0x02
	TMClearTaskSet TMFunc = 0x04
	TMLUNReset     TMFunc = 0x08
	TMClearACA     TMFunc = 0x40
)

// SCSI is the function of the core; ok is false for codes that SRP does not have.
func (f TMFunc) SCSI() (fn scsi.TMFunc, ok bool) {
	switch f {
	case TMAbortTask:
		return scsi.AbortTask, true
	case TMAbortTaskSet:
		return scsi.AbortTaskSet, true
	case TMClearTaskSet:
		return scsi.ClearTaskSet, true
	case TMLUNReset:
		return scsi.LUNReset, true
	case TMClearACA:
		return scsi.ClearACA, true
	}
	return 0, false
}

// TskMgmt is SRP_TSK_MGMT (SRP r16a §6.7).
type TskMgmt [TskMgmtLen]byte

// AsTskMgmt looks at b, which Check has found whole, as one.
func AsTskMgmt(b []byte) *TskMgmt { return (*TskMgmt)(b) }

// Reset makes an empty one.
func (u *TskMgmt) Reset() {
	clear(u[:])
	u[0] = byte(TypeTskMgmt)
}

// SolNot are the notification bits.
func (u *TskMgmt) SolNot() SolNot { return SolNot(u[1]) }

// SetSolNot sets them.
func (u *TskMgmt) SetSolNot(s SolNot) { u[1] = byte(s) }

// Tag is the tag.
func (u *TskMgmt) Tag() uint64 { return binary.BigEndian.Uint64(u[8:]) }

// SetTag sets it.
func (u *TskMgmt) SetTag(t uint64) { binary.BigEndian.PutUint64(u[8:], t) }

// LUN is the logical unit number.
func (u *TskMgmt) LUN() scsi.LUN { return scsi.LUN(u[20:28]) }

// SetLUN sets it.
func (u *TskMgmt) SetLUN(l scsi.LUN) { copy(u[20:28], l[:]) }

// Func is the function.
func (u *TskMgmt) Func() TMFunc { return TMFunc(u[30]) }

// SetFunc sets it.
func (u *TskMgmt) SetFunc(f TMFunc) { u[30] = byte(f) }

// TaskTag is the tag of the task to be managed.
func (u *TskMgmt) TaskTag() uint64 { return binary.BigEndian.Uint64(u[32:]) }

// SetTaskTag sets it.
func (u *TskMgmt) SetTaskTag(t uint64) { binary.BigEndian.PutUint64(u[32:], t) }
