package hosttest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
)

// Stop stops process pid and waits until none of its threads runs. SIGSTOP alone
// returns before: the thread that takes it tells the others only when it gets a
// processor, some milliseconds later on a busy machine.
func Stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tempotest.Wait(t, fmt.Sprintf("process %d to stop", pid), func() bool { return stopped(pid) })
}

// stopped reads the states of the threads (proc_pid_stat(5)).
func stopped(pid int) bool {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(list) == 0 {
		return false
	}
	for _, p := range list {
		b, err := os.ReadFile(p)
		if err != nil {
			return false
		}
		// The name before it may have any characters.
		if !bytes.HasPrefix(b[bytes.LastIndexByte(b, ')')+1:], []byte(" T ")) {
			return false
		}
	}
	return true
}
