package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/tools/peer"
)

// A helper is this program once more, as the serving side of a bare exchange: a process
// of its own, as the target is, with a processor clock of its own.
type helper struct {
	cmd  *exec.Cmd
	in   io.Closer // its end is the helper's end
	addr string    // what it said first
}

// startHelper starts the exchange of that kind; files are its descriptors from 3 on.
func startHelper(kind string, bytes int64, files ...*os.File) (*helper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &helper{cmd: exec.Command(self, "-helper", kind, "-size", fmt.Sprint(bytes>>20))}
	h.cmd.Stderr = os.Stderr
	h.cmd.ExtraFiles = files
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		h.close()
		return nil, fmt.Errorf("the %s exchange did not start: %w", kind, err)
	}
	h.addr = strings.TrimSpace(line)
	return h, nil
}

func (h *helper) cpu() (time.Duration, error) { return peer.ProcessCPU(h.cmd.Process.Pid) }

func (h *helper) close() {
	h.in.Close()
	end := time.AfterFunc(10*time.Second, func() { h.cmd.Process.Kill() })
	_ = h.cmd.Wait()
	end.Stop()
}

// serveHelper is the helper's side.
func serveHelper(kind string, bytes int64) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	runtime.LockOSThread()
	switch kind {
	case "tcp":
		return serveTCP(bytes)
	case "eventfd":
		return serveEvents(3, 4)
	}
	return errors.New("no exchange is called " + kind)
}
