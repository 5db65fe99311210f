package ibmvio

import (
	"errors"

	"github.com/vtgt/vtgt/ibmvio/crq"
)

// OpKind is what a hypervisor is asked to do.
type OpKind uint8

// The kinds.
const (
	OpRead  OpKind = iota // copy Buf from the client's memory at Addr (H_COPY_RDMA)
	OpWrite               // copy Buf to it
	OpSend                // put Entry into the client's queue (H_SEND_CRQ)
)

// What an operation can end with beside nil.
var (
	ErrClosed  = errors.New("the client has no queue")
	ErrFull    = errors.New("the client's queue is full")
	ErrAddress = errors.New("not mapped at the client's I/O bus address")
	// ErrStale: the client has begun anew since.
	ErrStale = errors.New("the client has begun anew")
	// ErrSkipped: an operation that this one was linked to has failed.
	ErrSkipped = errors.New("an operation before has failed")
	// ErrRefused: the hypervisor does not do such a thing.
	ErrRefused = errors.New("the hypervisor refuses the operation")
	// ErrLost: there is no hypervisor any more.
	ErrLost = errors.New("the virtual machine is gone")
)

// OpOwner hears of the end of an operation.
type OpOwner interface {
	// Ended comes once for each operation, on the adapter's loop, never inside
	// Hypervisor.Do. op.Err says how it ended.
	Ended(op *Op)
}

// Op is an operation. It is embedded in its owner and used again after its end; from Do
// to Ended it, and the bytes of Buf, are the hypervisor's.
type Op struct {
	Kind OpKind
	// Epoch is that of the entry which the operation is about. It does nothing
	// when the client is in another one.
	Epoch uint32
	// Link has the next operation end with ErrSkipped if this one fails.
	Link bool
	// Quiet: nobody waits for the end alone; it may come as late as that of the
	// next operation that is not quiet.
	Quiet bool
	Addr  uint64
	Buf   []byte
	Entry crq.Entry
	Owner OpOwner
	Err   error

	next *Op
	id   uint64
}

// Hypervisor carries the entries and data of one client. Its methods are called on the
// adapter's loop.
type Hypervisor interface {
	// Do begins op. Operations are done in the order of the calls.
	Do(op *Op)
	// Kick ends a batch: what was begun is passed on.
	Kick()
	// Close ends the service, as from the client's side: the adapter's Lost is
	// called. why is for the log.
	Close(why error)
}

// Notice is news of the client's queue.
type Notice uint8

// The news.
const (
	Registered Notice = iota + 1 // H_REG_CRQ
	Freed                        // H_FREE_CRQ
	Reset                        // of the machine: the queue is gone
	Paused                       // the virtual machine stands still
	Running
)

func (n Notice) String() string {
	return [...]string{"", "registered", "freed", "machine reset", "paused", "running"}[n]
}

// Greeting is what is known of a virtual machine that has connected.
type Greeting struct {
	Name string   // of the virtual machine; may be empty
	UUID [16]byte // of it; may be zero
	Unit uint32   // the adapter's unit address
	// Epoch counts the client's beginnings.
	Epoch uint32
	// Registered: the client has a queue; Served: and a server before us has
	// served it.
	Registered, Served bool
	Paused             bool
}

// opList is a list of operations, first in first out.
type opList struct{ first, last *Op }

func (l *opList) push(op *Op) {
	op.next = nil
	if l.last == nil {
		l.first = op
	} else {
		l.last.next = op
	}
	l.last = op
}

func (l *opList) pop() *Op {
	op := l.first
	if op == nil {
		return nil
	}
	if l.first = op.next; l.first == nil {
		l.last = nil
	}
	op.next = nil
	return op
}
