package hosttest

import (
	"os/exec"
	"syscall"
	"testing"
)

func TestStop(t *testing.T) {
	c := exec.Command("sleep", "600")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	if stopped(c.Process.Pid) {
		t.Error("it has stopped of itself")
	}
	Stop(t, c.Process.Pid)
	if !stopped(c.Process.Pid) {
		t.Error("it runs")
	}
	if err := c.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}
