package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/sys/unix"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// server answers requests, one at a time.
type server struct {
	spawned map[int]*spawned // by PID
	work    *work
}

// spawned is a program that goes on by itself.
type spawned struct {
	done chan struct{} // closed at its end
	cmd  *exec.Cmd
}

// doOne does one request and gives the exit status.
func doOne(text string) int {
	var q agent.Request
	err := json.Unmarshal([]byte(text), &q)
	if err == nil {
		r := new(server).serve(&q)
		if r.Exit != 0 {
			fmt.Printf("init: do: status %d: %x\n", r.Exit, r.Out)
			return r.Exit
		}
		if r.Err != "" {
			err = errors.New(r.Err)
		}
	}
	if err != nil {
		fmt.Println("init: do:", err)
		return 1
	}
	return 0
}

func (sv *server) serve(q *agent.Request) *agent.Response {
	r := &agent.Response{}
	var err error
	switch q.Op {
	case agent.Ping, agent.Poweroff:
	case agent.Exec:
		r.Out, r.Exit, err = execute(q)
	case agent.Shell:
		err = shell(q.Args)
	case agent.Spawn:
		r.PID, err = sv.spawn(q)
	case agent.Signal:
		err = sv.signal(q)
	case agent.Put:
		err = put(q)
	case agent.Get:
		r.Out, err = os.ReadFile(q.Path)
	case agent.Glob:
		var names []string
		names, err = filepath.Glob(q.Path)
		r.Out = []byte(strings.Join(names, "\n"))
	case agent.Insmod:
		err = insmod(q.Args, string(q.Data))
	case agent.Rmmod:
		err = unix.DeleteModule(q.Path, unix.O_NONBLOCK)
	case agent.Mount:
		err = mount(q.Args)
	case agent.Umount:
		err = unix.Unmount(q.Path, 0)
	case agent.Fill:
		err = pattern(q, true)
	case agent.Check:
		err = pattern(q, false)
	case agent.Direct:
		err = direct(q.Path, q.Size)
	case agent.Reset:
		err = deviceReset(q.Path, q.Size)
	case agent.SGIO:
		r.Out, r.Exit, err = passThrough(q.Path, q.Data, q.Size, time.Duration(max(q.Seconds, 1))*time.Second)
	case agent.Expire:
		err = expire(q)
	case agent.Wait:
		r.Exit, err = sv.wait(q)
	case agent.Log:
		r.Out, err = kernelLog()
	case agent.Work:
		sv.work, err = startWork(q)
	case agent.Relay:
		err = relay(q)
	case agent.Worked:
		r.Out, err = sv.work.worked(q.Stop)
	default:
		err = fmt.Errorf("unknown operation %q", q.Op)
	}
	if err != nil {
		r.Err = err.Error()
	}
	return r
}

func mount(args []string) error {
	if len(args) < 3 {
		return errors.New("mount wants source, target, type and perhaps options")
	}
	_ = os.MkdirAll(args[1], 0o755)
	opt := ""
	if len(args) > 3 {
		opt = args[3]
	}
	return unix.Mount(args[0], args[1], args[2], 0, opt)
}

// put writes a file; with Sync it, and its name, are stable afterwards.
func put(q *agent.Request) error {
	dir := filepath.Dir(q.Path)
	_ = os.MkdirAll(dir, 0o755)
	if !q.Sync {
		return os.WriteFile(q.Path, q.Data, 0o600)
	}
	tmp := q.Path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(q.Data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, q.Path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func insmod(files []string, params string) error {
	for i, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		p := ""
		if i == len(files)-1 {
			p = params
		}
		err = kmodule.FileInit(f, p, 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	return nil
}

func kernelLog() ([]byte, error) {
	const sizeBuffer, readAll = 10, 3 // syslog(2)
	n, err := unix.Klogctl(sizeBuffer, nil)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	n, err = unix.Klogctl(readAll, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
