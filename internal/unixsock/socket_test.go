package unixsock_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/unixsock"
)

var mine = unixsock.Access{Mode: 0o600, UID: -1, GID: -1}

func bind(t *testing.T, path string, a unixsock.Access) *unixsock.Socket {
	t.Helper()
	s, err := unixsock.Bind(path, a, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func publish(t *testing.T, s *unixsock.Socket) {
	t.Helper()
	if err := s.Publish(); err != nil {
		t.Fatal(err)
	}
}

func wantReason(t *testing.T, err error, r unixsock.Reason) {
	t.Helper()
	var e *unixsock.Error
	if !errors.As(err, &e) || e.Reason != r {
		t.Errorf("%v, want reason %d", err, r)
	}
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// TestSocket: nobody finds it before it is published, with its rights; nothing is left.
func TestSocket(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "sub", "s.sock")
	s := bind(t, p, unixsock.Access{Mode: 0o660, UID: os.Getuid(), GID: os.Getgid()})
	if _, err := os.Lstat(p); err == nil {
		t.Error("there before Publish")
	}
	publish(t, s)
	if fi, err := os.Lstat(p); err != nil || fi.Mode() != os.ModeSocket|0o660 {
		t.Error(fi.Mode(), err)
	}
	if err := s.SetAccess(unixsock.Access{Mode: 0o600, UID: -1, GID: -1}); err != nil {
		t.Error(err)
	}
	if fi, err := os.Lstat(p); err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Error(fi.Mode(), err)
	}
	c, err := net.Dial("unix", p)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	_, err = unixsock.Bind(p, mine, false)
	wantReason(t, err, unixsock.Answered)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error("Close again:", err)
	}
	if ns := names(t, filepath.Dir(p)); len(ns) != 0 {
		t.Errorf("left %v", ns)
	}

	// Not published: nothing is left either.
	if err := bind(t, p, mine).Close(); err != nil || len(names(t, filepath.Dir(p))) != 0 {
		t.Error(err, names(t, filepath.Dir(p)))
	}
}

// TestLong: as long as the kernel allows, although the temporary name is longer.
func TestLong(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := filepath.Join(dir, strings.Repeat("x", 107-len(dir)-1))
	s := bind(t, p, mine)
	publish(t, s)
	c, err := net.Dial("unix", p)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestInTheWay: only a socket on which nobody listens is replaced.
func TestInTheWay(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "s")
	if err := os.WriteFile(p, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := unixsock.Bind(p, mine, false)
	wantReason(t, err, unixsock.NotASocket)
	// Also where the caller believes that it is its own.
	s, err := unixsock.Bind(p, mine, true)
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, s.Publish(), unixsock.NotASocket)
	_ = s.Close()
	if b, err := os.ReadFile(p); err != nil || string(b) != "precious" {
		t.Fatal("the file is gone")
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	s = bind(t, p, mine)
	publish(t, s)
	if c, err := net.Dial("unix", p); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}

	// What another one has put there since is not removed.
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_ = s.Close()
	if _, err := os.Lstat(p); err != nil {
		t.Error("another program's socket was removed")
	}
}
