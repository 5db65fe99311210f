package sys

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The operations of futex(2) on memory that other processes do not share.
const (
	futexWaitPrivate = 0 | 128
	futexWakePrivate = 1 | 128
)

// Futex is a word on which one thread sleeps until another changes it. It lives
// on the heap.
type Futex struct {
	atomic.Uint32
	ts unix.Timespec // the architecture's own: SYS_FUTEX takes no other
}

// Wait sleeps while the word is v, at most ns nanoseconds (ns < 0: no limit). It
// may return early; the caller looks at the word. One waiter only.
func (f *Futex) Wait(v uint32, ns int64) {
	var ts unsafe.Pointer
	if ns >= 0 {
		f.ts = unix.NsecToTimespec(ns)
		ts = unsafe.Pointer(&f.ts)
	}
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(f)), futexWaitPrivate, uintptr(v), uintptr(ts), 0, 0)
}

// Wake ends the sleep of the waiter, after the word was changed. It does not
// sleep.
func (f *Futex) Wake() {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(f)), futexWakePrivate, 1, 0, 0, 0)
}
