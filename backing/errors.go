package backing

import "errors"

// The errors of this package; errno values come wrapped beside them.
var (
	// ErrCanceled: ended early by Queue.Cancel.
	ErrCanceled = errors.New("operation canceled")
	// ErrLatched: an earlier Sync failed, so what the store acknowledged may be
	// lost. Every write and Sync fails until the operator re-opens the disk.
	ErrLatched = errors.New("an earlier sync failed: writes are refused until the disk is re-opened")
	// ErrNotSupported: this store cannot do that.
	ErrNotSupported = errors.New("not supported by this store")
	// ErrReadOnly: the store was opened read-only.
	ErrReadOnly = errors.New("store is read-only")
	// ErrRange: outside the store, or not a multiple of BlockAlign.
	ErrRange = errors.New("range outside the store")
	// ErrInUse: another process holds the store's lock.
	ErrInUse = errors.New("store is in use")
	// ErrClosed: the queue or the store was closed.
	ErrClosed = errors.New("store is closed")
)
