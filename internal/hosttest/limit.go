package hosttest

import (
	"syscall"
	"testing"
)

// Descriptors skips the test where the process may not have n files open. (What it
// may have is what the hard limit says: Go raises the soft one.)
func Descriptors(t testing.TB, n uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur < n {
		t.Skipf("needs up to %d open files, and the limit is %d: ulimit -Hn %d", n, l.Cur, n)
	}
}
