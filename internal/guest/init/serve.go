package main

import (
	"bytes"
	"context"
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

func serve(q *agent.Request) *agent.Response {
	r := &agent.Response{}
	var err error
	switch q.Op {
	case agent.Ping, agent.Poweroff:
	case agent.Exec:
		r.Out, r.Exit, err = execute(q)
	case agent.Spawn:
		c := exec.Command(q.Args[0], q.Args[1:]...)
		c.Stdout, c.Stderr = os.Stdout, os.Stdout
		if err = c.Start(); err == nil {
			go func() { _ = c.Wait() }()
		}
	case agent.Put:
		_ = os.MkdirAll(filepath.Dir(q.Path), 0o755)
		err = os.WriteFile(q.Path, q.Data, 0o600)
	case agent.Get:
		r.Out, err = os.ReadFile(q.Path)
	case agent.Glob:
		var names []string
		names, err = filepath.Glob(q.Path)
		r.Out = []byte(strings.Join(names, "\n"))
	case agent.Insmod:
		err = insmod(q.Args, string(q.Data))
	case agent.Mount:
		_ = os.MkdirAll(q.Args[1], 0o755)
		opt := ""
		if len(q.Args) > 3 {
			opt = q.Args[3]
		}
		err = unix.Mount(q.Args[0], q.Args[1], q.Args[2], 0, opt)
	case agent.Umount:
		err = unix.Unmount(q.Path, 0)
	case agent.Fill:
		err = pattern(q, true)
	case agent.Check:
		err = pattern(q, false)
	default:
		err = fmt.Errorf("unknown operation %q", q.Op)
	}
	if err != nil {
		r.Err = err.Error()
	}
	return r
}

func execute(q *agent.Request) (out []byte, code int, err error) {
	d := time.Duration(q.Seconds) * time.Second
	if d == 0 {
		d = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	c := exec.CommandContext(ctx, q.Args[0], q.Args[1:]...)
	c.WaitDelay = time.Second // a daemon it left may hold the pipe
	c.Stdin = bytes.NewReader(q.Data)
	out, err = c.CombinedOutput()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return out, ee.ExitCode(), nil
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return out, 0, err
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

// pattern writes or checks the pattern of q.Seed.
func pattern(q *agent.Request, write bool) error {
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	if q.Direct {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(q.Path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), q.Path)
	defer f.Close()
	size := q.Size
	if size == 0 {
		size = 1 << 20
	}
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(buf) }()
	want := make([]byte, size)
	for done := int64(0); done < q.Len; {
		n := min(int64(size), q.Len-done)
		off := q.Off + done
		agent.Pattern(want[:n], q.Seed, off)
		if write {
			copy(buf, want[:n])
			if _, err := f.WriteAt(buf[:n], off); err != nil {
				return err
			}
		} else {
			if _, err := f.ReadAt(buf[:n], off); err != nil {
				return err
			}
			if !bytes.Equal(buf[:n], want[:n]) {
				for i := range n {
					if buf[i] != want[i] {
						return fmt.Errorf("%s: byte %d is %#02x, not %#02x", q.Path, off+i, buf[i], want[i])
					}
				}
			}
		}
		done += n
	}
	if write && q.Sync {
		return f.Sync()
	}
	return nil
}
