package scsi

// command is one row of a device server's command table, from which everything
// else derives: dispatch, CDB checks, data lengths, reservation conflicts, write
// protection, and what REPORT SUPPORTED OPERATION CODES says.
type command struct {
	op   uint8
	sa   int16 // service action; -1: the operation code has none
	name string
	// usage is the CDB usage data of SPC-4 §6.34.3 (a set bit is evaluated);
	// its first byte is the operation code, its length the CDB's. A CDB that
	// sets any other bit is refused with a pointer to it.
	usage []byte
	// mask is made of usage by prepare.
	mask cdbMask
	dir  direction
	// length is the number of bytes that the CDB asks to move in direction
	// dir; nil for dirNone. It must cope with any CDB.
	length   func(t *Task) int64
	conflict conflictClass
	flags    cmdFlags
	// run is the handler: on the lane's loop, the task is enabled. It ends the
	// task (Task.good, Task.check, …) or goes on by Task.store.
	run func(t *Task)
}

// noSA marks a command without a service action.
const noSA = -1

type direction uint8

const (
	dirNone direction = iota
	dirIn
	dirOut
)

// conflictClass says what another nexus's reservation does to a command
// (SPC-4 table 65, SBC-3 §4.17 table 13; for RESERVE SPC-2 table 9).
type conflictClass uint8

const (
	conflictRead    conflictClass = iota // conflicts with exclusive access
	conflictWrite                        // conflicts with every reservation of another
	conflictNone                         // always allowed
	conflictReserve                      // conflicts with RESERVE alone (TEST UNIT READY, …)
	conflictOwn                          // decides for itself (PERSISTENT RESERVE OUT, RESERVE, RELEASE)
)

type cmdFlags uint16

const (
	// cmdMedium: needs a medium that is there and spinning.
	cmdMedium cmdFlags = 1 << iota
	// cmdWrite: changes the medium; refused when it is write-protected.
	cmdWrite
	// cmdFast: READ and WRITE of any length, the lane's fast path.
	cmdFast
	// cmdKeepUA: runs although a unit attention is pending and leaves it
	// (INQUIRY, REPORT LUNS, REQUEST SENSE look at it themselves).
	cmdKeepUA
	// cmdAnyLUN: answered for LUNs that are not mapped too; t.unit may be nil.
	cmdAnyLUN
	// cmdImmediate: enabled at once, whatever is in the task set; no store I/O
	// that others could race with (INQUIRY, REPORT LUNS, REQUEST SENSE, …).
	cmdImmediate
	// cmdExclusive: runs alone: when it starts every older task of the unit has
	// ended, and no later one starts before it ends (reservations, MODE
	// SELECT, …: what changes how other commands are judged).
	cmdExclusive
	// cmdBlocks: reads or writes the range that Task.lbaRange says and nothing
	// else.
	cmdBlocks
	// cmdRange: reads, then writes as one action (COMPARE AND WRITE, ORWRITE):
	// no overlapping READ or WRITE runs meanwhile, see gate.go. Its range is
	// what Task.lbaRange says.
	cmdRange
	// cmdPreempt: starts although other tasks run, wait, or are held by a unit
	// that has stopped, and no other task starts before it ends (PREEMPT AND
	// ABORT, which ends some of them).
	cmdPreempt
	// cmdStandby: runs in the access state standby too, cmdAnyAccess in each (SPC-4
	// §5.15.2.4).
	cmdStandby
	cmdAnyAccess
)
