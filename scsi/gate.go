package scsi

import (
	"math"

	"github.com/vtgt/vtgt/internal/slab"
)

// The gate: how lanes on several loops agree about the tasks of one unit.
//
// Every pair of a lane and a unit (laneUnit) counts its tasks in flight in a
// counter of its own, and every unit has one gate word. The two sides are
//
//	submit:  inflight.Add(1)      whoever needs order:  gate.Store(bits)
//	         if gate.Load() == 0 { run }                read every inflight
//
//	end:     inflight.Add(-1)     whoever needs order:  gate.Store(bits)
//	         if gate.Load() != 0 { poke }               read every inflight
//
// Go's atomics are sequentially consistent, so all four operations of a pair lie
// in one total order, in program order within each side (Dekker's argument):
//
//   - submit: if the submitter reads gate 0, its Load comes before the Store in
//     that order, hence its Add comes before the other side's read of the
//     counter: the task is seen. Otherwise the submitter sees the gate and goes
//     by the slow path. It cannot be that neither sees the other.
//   - end: if the other side reads the counter before the Add(-1), then its
//     Store came before that too, so the ender's Load sees the gate and pokes.
//     No wake-up is lost.
//
// Neither holds when bump and load change places; gate_model_test.go tries every
// interleaving of both orders.
//
// A submitter that finds the gate set takes its bump back, then locks unit.mu and
// asks the scheduler (gate_sched.go). Somebody may have read the counter with the
// bump in it and be waiting for it to go: the locked part therefore always ends
// with unit.schedule, as a poke does. While the gate is set, everything is
// decided under unit.mu, so that the order of arrival there is the order of the
// task set. Counters stay the truth for tasks that started either way.
//
// Sequence numbers (taskSched.seq) tell barriers (gate_barrier.go) which tasks
// were there before them: tasks that passed an open gate have 0, the others get
// the next number under unit.mu, as the barriers do. A lane's list of tasks in
// flight is read only on its own loop: who wants to look at another lane's asks
// it by laneUnit.post.

// The bits of Unit.gate, written under Unit.mu.
const (
	// gateOrder: tasks wait, or one runs that holds back others.
	gateOrder = 1 << iota
	// gateRange: the range table is not empty.
	gateRange
	// gateBarrier: a barrier operation (task management, resize, removal) is
	// under way.
	gateBarrier
	// gateStop: the unit has stopped, see unit_stop.go.
	gateStop
)

// taskState is where a task is between Submit and Done.
type taskState uint8

const (
	// stRunning: a handler or step runs, or the task is not in the core.
	stRunning taskState = iota
	// stWaiting: not enabled; in Unit.waiting. Not counted.
	stWaiting
	// stMailed: counted; in laneUnit.mail, on its way to its loop.
	stMailed
	// stReady: counted, in the lane's list and in laneUnit.ready.
	stReady
	// stRangeWait: counted, in the lane's list; waits in the range table.
	stRangeWait
	// stStore: counted, in the lane's list; Task.op is the store's.
	stStore
	// stHeld: counted, in the lane's list; Task.op failed, and the unit stopped
	// instead of ending the task.
	stHeld
	// stParked: counted, in the lane's list; waits for an operation of the unit,
	// see unit_park.go.
	stParked
	// stCopy: counted, in the lane's list; Task.copy goes on without it.
	stCopy
)

// taskClass is a task's weight for the scheduler.
type taskClass uint8

const (
	classSimple taskClass = iota
	classHead             // HEAD OF QUEUE
	classOrdered
	classExclusive // cmdExclusive, whatever its attribute
	classPreempt   // cmdPreempt, whatever its attribute
	classInner     // the core's own, for a command in flight
)

// abortKind says how an aborted task ends.
type abortKind uint8

const (
	notAborted abortKind = iota
	// abortSilent: Task.Aborted, no response.
	abortSilent
	// abortTAS: status TASK ABORTED.
	abortTAS
	// abortGone: the unit was taken away under the task, and no task
	// management tells the initiator so: LOGICAL UNIT NOT SUPPORTED.
	abortGone
)

// notPlaced is the rseq of a task that has not looked at the range table yet.
const notPlaced = math.MaxUint64

// taskSched is the scheduler's part of a Task. All of it is zero while the task is
// not in the core; the fast path touches only the list links and start.
type taskSched struct {
	prev, next *Task // laneUnit.tasks
	start      int64 // loop clock at Submit, ns
	state      taskState
	class      taskClass
	aborted    abortKind
	// slow: the end of the task concerns others: look at everything below.
	slow   bool
	listed bool // in laneUnit.tasks
	cancel bool // its store operation is to be cancelled
	again  bool // was held, or has yielded: goes on by laneUnit.again
	ended  bool // again goes on with the next step, it does not repeat the operation
	head   bool // placed in Unit.heads
	alone  bool // is Unit.alone
	holds  bool // counted in Unit.holds
	// through: of classInner, starts although the unit is held.
	through bool
	slot    int8 // its entry in the range table + 1

	nbuf uint8
	bufs [maxTaskBufs]*slab.Buf

	// The rest is guarded by Unit.mu.

	qprev, qnext *Task      // the queue that the task waits in
	inq          *taskQueue // that queue, for stRangeWait
	called       bool       // may take a slot of the range table before those that wait
	seq          uint64     // arrival; 0: by the open gate
	rseq         uint64     // place in the order of the range table
	lba, blocks  uint64     // its range, once placed
	ranges       uint64     // the table's slots that wait for its end
	watch        *taskWatch // the barriers that wait for its end
}
