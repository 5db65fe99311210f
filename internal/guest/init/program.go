package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

func execute(q *agent.Request) (out []byte, code int, err error) {
	if len(q.Args) == 0 {
		return nil, 0, errors.New("no program is named")
	}
	d := time.Duration(q.Seconds) * time.Second
	if d == 0 {
		d = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	c := exec.CommandContext(ctx, q.Args[0], q.Args[1:]...)
	c.WaitDelay = 5 * time.Second // a daemon it left may hold the pipe
	c.Stdin = bytes.NewReader(q.Data)
	out, err = c.CombinedOutput()
	var ee *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return out, 0, fmt.Errorf("killed after %v: %s", d, out)
	case errors.As(err, &ee):
		return out, ee.ExitCode(), nil
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil
	}
	return out, 0, err
}

// shell runs a program on the console, which is its controlling terminal.
func shell(args []string) error {
	if len(args) == 0 {
		return errors.New("no program is named")
	}
	tty, err := os.OpenFile("/dev/ttyS0", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	c := exec.Command(args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = tty, tty, tty
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = c.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return nil // however the user has ended it
	}
	return err
}

// spawn starts a program that goes on by itself; what it prints goes to the console.
func (sv *server) spawn(q *agent.Request) (int, error) {
	args := q.Args
	if len(args) == 0 {
		return 0, errors.New("no program is named")
	}
	if q.NoSync {
		args = append([]string{"/proc/self/exe", "nosync"}, args...)
	}
	c := exec.Command(args[0], args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stdout
	if err := c.Start(); err != nil {
		return 0, err
	}
	p := &spawned{done: make(chan struct{}), cmd: c}
	go func() {
		_ = c.Wait()
		fmt.Println("init:", q.Args[0], "ended:", c.ProcessState)
		close(p.done)
	}()
	sv.spawned[c.Process.Pid] = p
	return c.Process.Pid, nil
}

// wait waits for the end of a spawned program.
func (sv *server) wait(q *agent.Request) (int, error) {
	p, ok := sv.spawned[q.PID]
	if !ok {
		return 0, fmt.Errorf("process %d was not spawned", q.PID)
	}
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(time.Duration(q.Seconds) * time.Second):
		return 0, fmt.Errorf("process %d has not ended within %d s", q.PID, q.Seconds)
	}
}

// signal sends a signal to a spawned program and waits, if asked to, for its end.
func (sv *server) signal(q *agent.Request) error {
	p, ok := sv.spawned[q.PID]
	if !ok {
		return fmt.Errorf("process %d was not spawned", q.PID)
	}
	if q.Signal != 0 {
		if err := syscall.Kill(q.PID, syscall.Signal(q.Signal)); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	if q.Seconds == 0 {
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(time.Duration(q.Seconds) * time.Second):
		return fmt.Errorf("process %d has not ended within %d s", q.PID, q.Seconds)
	}
}
