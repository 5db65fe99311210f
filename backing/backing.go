package backing

import (
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/prefetch"
)

// Kind says what an Op does.
type Kind uint8

// The kinds of operation. A store that lacks one says so in Info and completes
// it with ErrNotSupported.
const (
	// Read fills Bufs from [Off, Off+Len).
	Read Kind = iota
	// Write writes Bufs to [Off, Off+Len).
	Write
	// Sync makes every write that was acknowledged before it was submitted
	// stable. The first Sync that fails latches the store: see ErrLatched.
	Sync
	// Discard gives the range back to the store. Afterwards the whole of it
	// reads zero where Info.DiscardZeroes, whatever its alignment.
	Discard
	// Zero makes the range read zero; with NoUnmap the blocks stay allocated.
	Zero
	// Extents reports allocation from Off on into Ext, at most len(Ext) entries
	// and Len bytes; N is the number of entries set.
	Extents
	// Rekey replaces the data key by a new one, for good when it ends: whatever
	// was written is lost, and what Read gives until it is written again is of no
	// use to anybody. Killed at any moment it leaves the old key or the new one.
	// No other operation may be in flight. Stores with Info.Rekeys have it.
	Rekey
	// Purge destroys copies of what was written that the store keeps outside of
	// [0, Size). ErrNotSupported: there never are any.
	Purge
	// Copy makes [Off, Off+Len) what [SrcOff, SrcOff+Len) of Src is, without Bufs;
	// ErrNotSupported where this store has no better way from there than reading and
	// writing: the caller may do that, also when some has been copied already. With
	// NoUnmap the blocks must not be shared with anybody.
	Copy
)

// Flags modify an Op.
type Flags uint8

const (
	// FUA: the written data are stable before the Op ends.
	FUA Flags = 1 << iota
	// NoUnmap: Zero must keep the blocks allocated.
	NoUnmap
	// Atomic: after a crash of the process or the host the range of a Write holds
	// all of the new data or none, and when the Write has ended they are stable.
	// At most Info.AtomicMax bytes. Others that read or write the range meanwhile
	// are the owner's to keep away.
	Atomic
	// NoCache: the data will not be needed again soon (DPO), a hint.
	NoCache
)

// Extent is one piece of the answer to an Extents Op, in bytes.
type Extent struct {
	Off, Len  int64
	Allocated bool // false: a hole, reads zero
}

// Op is one operation. It is embedded in its owner's own request and reused; the
// store allocates nothing for it. It and its buffers belong to the store from
// Submit until it ended.
type Op struct {
	Kind  Kind
	Flags Flags
	// Off and Len are in bytes, multiples of Info.BlockAlign (1 for files) and
	// inside [0, Info.Size]; for Read and Write Len is the sum of len(Bufs).
	Off, Len int64
	Bufs     [][]byte
	Ext      []Extent
	// Src and SrcOff are where a Copy copies from. Src stays open until the end.
	Src    Store
	SrcOff int64
	// N is the number of bytes moved (Read, Write) or of entries (Extents).
	N int64
	// Err is the outcome: nil, or an error for which errors.Is knows
	// ErrCanceled, ErrLatched, ErrNotSupported, ErrReadOnly, ErrRange,
	// syscall.ENOSPC, syscall.EIO and so on.
	Err error
	// Owner hears of the end of every Op that did not end inside Submit. Set
	// it once when the request is made.
	Owner OpOwner

	op // what the engines need, private
}

// OpOwner hears of ended operations, on the loop of the queue they were given to.
type OpOwner interface {
	OpDone(op *Op)
}

// Info describes a store at one moment. It is immutable: a change makes a new one.
type Info struct {
	// Size in bytes.
	Size int64
	// BlockAlign: Off and Len of every Op must be multiples of it (a power of
	// two; 1 where the store does not mind).
	BlockAlign int
	// PhysicalBlock and OptimalIO in bytes, 0 when unknown.
	PhysicalBlock, OptimalIO int
	// DiscardGranularity in bytes, 0 when Discard is not supported.
	DiscardGranularity int
	// DiscardZeroes: a discarded range reads zero.
	DiscardZeroes bool
	// ReadOnly: writes of any kind end with ErrReadOnly.
	ReadOnly bool
	// Volatile: an acknowledged write may be lost with the power until a Sync
	// (write cache on). False for writethrough.
	Volatile bool
	// Cached: what was read stays in the host's memory for a while.
	Cached bool
	// Rotational: a spinning medium.
	Rotational bool
	// Extents is supported.
	Extents bool
	// AtomicMax is the longest Write with Atomic, bytes; 0: there is none.
	AtomicMax int
	// Rekeys: the store has a data key, which Rekey replaces.
	Rekeys bool
	// Latched: writes and syncs end with ErrLatched until Store.Reopen.
	Latched bool
	// Stable is false for stores that forget everything at Close (mem, null).
	Stable bool
	// Pins: operations hold the pages of Bufs themselves (direct I/O). One that
	// ends late reaches them although they are mapped no more.
	Pins bool
}

// Store is an opened backing store: one open file description, any number of
// queues.
type Store interface {
	// Info is the present description; never nil, never changed in place.
	Info() *Info
	// Watch calls f, from any goroutine, after every change of Info (a file
	// that grew, say) until stop is called. f must not block.
	Watch(f func(*Info)) (stop func())
	// Queue makes a submission queue of loop l. Called on any goroutine.
	Queue(l *loop.Loop) (Queue, error)
	// Resize changes the size in bytes (truncate of a file); ErrNotSupported
	// where the store has no say in it.
	Resize(size int64) error
	// Reopen clears the latch of a failed Sync after the operator has seen to
	// the cause.
	Reopen() error
	// Close waits until the last operation has left the kernel, then lets go
	// of descriptors and locks. All queues must have been closed.
	Close() error
}

// Queue is one loop's way into a store. Every method is called on that loop
// only. It borrows the loop's io_uring and workers; it owns no descriptor and
// no thread.
type Queue interface {
	// Submit starts op. done reports that it ended inside the call: N and Err
	// are set and Owner.OpDone is not called. Otherwise Owner.OpDone(op)
	// comes later, exactly once, never inside Submit.
	Submit(op *Op) (done bool)
	// Kick passes what Submit has gathered to the kernel: the end of a batch.
	// (A queue also defers a kick of its own to the end of the round.)
	Kick()
	// Cancel asks for an early end of op with ErrCanceled where that is still
	// possible. OpDone comes in any case, when the kernel is done with the
	// buffers.
	Cancel(op *Op)
	// Close refuses further operations and calls done, on the loop, when the
	// last one has ended.
	Close(done func())
}

// A Nearer is a Queue of a store that keeps its data in memory. Near is where the n
// bytes from off on lie, so that a caller with something else to do first can have the
// processor bring them nearer; empty outside the store. It is a hint: nothing is read,
// and the data may be others, or elsewhere, when an Op comes.
type Nearer interface {
	Near(off, n int64) prefetch.Span
}
