//go:build amd64

package main

import (
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h): the call's number, its
// architecture, and the low half of its sixth argument.
const (
	dataNr   = 0
	dataArch = 4
	dataArg5 = 16 + 5*8
)

const auditArchX8664 = 0xc000003e

// execNoSync becomes the program args with a seccomp filter that makes fsync,
// fdatasync, sync_file_range, msync and syncfs succeed without doing anything
// (SECCOMP_RET_ERRNO with errno 0), and takes away the two other ways to stable
// data: RWF_DSYNC and RWF_SYNC of pwritev2 (EOPNOTSUPP, as of a kernel that lacks
// them) and io_uring (EPERM, as where it is forbidden). So the program under test
// needs no fault of its own to be shown to lose data.
func execNoSync(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		anySet = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret    = unix.BPF_RET | unix.BPF_K
	)
	f := []unix.SockFilter{
		{Code: load, K: dataArch},
		{Code: equal, Jf: 11, K: auditArchX8664},
		{Code: load, K: dataNr},
		{Code: equal, Jt: 8, K: unix.SYS_FSYNC},
		{Code: equal, Jt: 7, K: unix.SYS_FDATASYNC},
		{Code: equal, Jt: 6, K: unix.SYS_SYNC_FILE_RANGE},
		{Code: equal, Jt: 5, K: unix.SYS_MSYNC},
		{Code: equal, Jt: 4, K: unix.SYS_SYNCFS},
		{Code: equal, Jt: 5, K: unix.SYS_IO_URING_SETUP},
		{Code: equal, Jf: 3, K: unix.SYS_PWRITEV2},
		{Code: load, K: dataArg5},
		{Code: anySet, Jt: 3, Jf: 1, K: unix.RWF_DSYNC | unix.RWF_SYNC},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)},
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	runtime.LockOSThread() // the filter is the thread's, and exec keeps it
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}
