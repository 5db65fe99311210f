// Package sys is vtgt's edge to the Linux kernel: the system calls that the rest
// of the tree needs in a form the standard library does not give, with EINTR and
// errno handled once.
//
// A call here enters the kernel in one of two ways. Raw calls
// (unix.RawSyscall) keep the scheduler's processor and are used only for calls
// that cannot sleep: a garbage collection has to wait for their end. Everything
// that may sleep uses unix.Syscall.
package sys
