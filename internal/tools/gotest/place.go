package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// dirMax is how long a TMPDIR may be: the socket with the longest name that a test
// makes in its folder has 60 bytes more, and 90 are the program's limit for one.
const dirMax = 28

// prepare looks for what nearly every test takes for granted, so that one message
// stands for a thousand failures, and gives tests a TMPDIR that they can use. What it
// made goes with done.
func prepare() (done func(), err error) {
	if err := loopback(); err != nil {
		return nil, fmt.Errorf("127.0.0.1 cannot be reached (%w): bring the loopback interface up: ip link set lo up", err)
	}
	dir, err := filepath.Abs(os.TempDir())
	if err != nil {
		return nil, err
	}
	probe, err := os.CreateTemp(dir, "vtgt-")
	if err == nil {
		_, err = probe.Write(make([]byte, 1<<20))
		probe.Close()
		os.Remove(probe.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("tests cannot write to their folder (%w): set TMPDIR to one on a file system with some GiB free", err)
	}
	if plain(dir) {
		return func() {}, nil
	}
	link, err := nickname(dir)
	if err != nil {
		return nil, fmt.Errorf("TMPDIR %q is too long for the names of sockets, or has characters that QEMU and YAML read as more than a name, and can be given no other name (%w): set TMPDIR to another folder, of at most %d letters and digits", dir, err, dirMax)
	}
	fmt.Fprintf(os.Stderr, "gotest: TMPDIR is %s, by the name %s\n", dir, link)
	os.Setenv("TMPDIR", link)
	return func() { os.RemoveAll(filepath.Dir(link)) }, nil
}

// plain tells a path that fits everywhere.
func plain(dir string) bool {
	return len(dir) <= dirMax && strings.IndexFunc(dir, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-+", r))
	}) < 0
}

// nickname makes a symbolic link to dir that has a plain path.
func nickname(dir string) (string, error) {
	var last error
	for _, base := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		d, err := os.MkdirTemp(base, "vt-")
		if err == nil {
			link := filepath.Join(d, "t")
			if err = os.Symlink(dir, link); err == nil {
				err = os.Chmod(d, 0o755) // some tests run programs as other users
			}
			if err == nil {
				return link, nil
			}
			os.RemoveAll(d)
		}
		last = err
	}
	return "", last
}

func loopback() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	c, err := net.DialTimeout("tcp", ln.Addr().String(), time.Minute)
	if err != nil {
		return err
	}
	return c.Close()
}
