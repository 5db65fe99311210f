package scsi

import "github.com/vtgt/vtgt/backing"

// MaxCDB is the room for a CDB in a Task, bytes.
const MaxCDB = 32

// Task is one SCSI command on its way through the core. A front end embeds it in
// its own request and reuses it; the core allocates nothing for it.
type Task struct {
	// Set by the front end before Submit and left alone until Done.

	LUN  LUN
	Tag  uint64 // unique in the nexus while the task lives
	Attr TaskAttr
	// CDB is a private copy of the CDB, zero-padded.
	CDB [MaxCDB]byte
	// CDBLen is how many bytes the initiator gave, at most MaxCDB (transports
	// that always give a fixed number give that).
	CDBLen uint8
	// DataOut is what the initiator sent, DataIn the room for what it is to
	// get. The buffers are the front end's; the core and the store use them
	// only between Submit and Done.
	DataOut, DataIn [][]byte
	// Offered is how many bytes the initiator has to send, where that may be
	// more than the front end fetched into DataOut (what Lane.Lengths said is
	// enough); less than DataOut holds: DataOut is all. For commands that have
	// to refuse too much data.
	Offered int64
	// Mapped: DataOut and DataIn are memory that its owner, a guest, can take away
	// at any moment.
	Mapped bool
	// Replayed: an earlier process took the command, and may have run it before it
	// ended. It had come past the unit attention conditions of then; those of now
	// wait for the next command.
	Replayed bool
	// Ref is the front end's own: its request, as a rule. The core never looks.
	Ref any

	// The outcome, valid from Done until the next Submit.

	Status Status
	// Aborted: ended by task management or loss of the nexus; no response may
	// be sent (where TAS asks for one, Aborted is false and Status is
	// TASK ABORTED).
	Aborted  bool
	SenseLen uint8 // 0: no sense data
	Sense    [MaxSense]byte
	// InLen is the number of bytes put into DataIn.
	InLen int64
	// Want is the number of bytes that the command asked to move in its
	// direction, whatever room or data there was; 0 for a command that ended
	// before it moved any. Carriers make their residuals of it.
	Want int64

	task // the core's, private
}

// task is what the core keeps in a Task.
type task struct {
	lane *Lane
	lu   *laneUnit // the (lane, unit) pair; nil for LUNs that are not mapped
	unit *Unit     // lu.unit; nil with lu
	cmd  *command
	// announced: Announce was called, in this epoch of that pair.
	announced *nexusUnit
	epoch     uint32
	op        backing.Op
	// next is what happens when op has ended; see Task.store.
	next step
	// sched is the scheduler's part (gate, lists), see gate.go.
	sched taskSched
	// pr is the PERSISTENT RESERVE OUT that is being made stable.
	pr *prCommand
	// copy is what the task waits for in stCopy.
	copy *copyOp
	// disk is the disk device server's part, see disk.go.
	disk diskTask
}

// step is a stage of a command that continues when a store operation has ended.
// A step is a package-level function: nothing is captured, nothing allocated.
type step func(t *Task)
