package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// pattern writes or checks the pattern of q.Seed, as often as it is to be.
func pattern(q *agent.Request, write bool) error {
	if q.CPU > 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var set unix.CPUSet
		set.Set(q.CPU - 1)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
	}
	for range max(q.Repeat, 1) {
		if err := patternOnce(q, write); err != nil {
			return err
		}
	}
	return nil
}

func patternOnce(q *agent.Request, write bool) error {
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
		if q.Create {
			flags |= unix.O_CREAT
		}
	}
	if q.Direct {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(q.Path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), q.Path)
	defer f.Close()
	size := q.Size
	if size <= 0 {
		size = 1 << 20
	}
	// Mapped, so that it is aligned for direct I/O.
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
			if i := differ(buf[:n], want[:n]); i >= 0 {
				return fmt.Errorf("%s: byte %d is %#02x, not %#02x", q.Path, off+int64(i), buf[i], want[i])
			}
		}
		done += n
	}
	if write && q.Sync {
		return f.Sync()
	}
	return nil
}

// differ is the first place where a and b, equally long, differ; -1: nowhere.
func differ(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// direct reads the first n bytes past the page cache.
func direct(path string, n int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(buf) }()
	_, err = unix.Pread(fd, buf, 0)
	return err
}
