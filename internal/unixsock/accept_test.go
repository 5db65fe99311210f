package unixsock_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/internal/unixsock"
)

func TestAccept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	taken, over := make(chan *net.UnixConn, 3), make(chan error, 1)
	begin := func() { go func() { over <- unixsock.Accept(l, func(c *net.UnixConn) { taken <- c }, nil) }() }
	begin()
	for range cap(taken) {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		tempotest.Recv(t, taken, "a connection").Close()
		c.Close()
	}
	_ = l.SetDeadline(time.Unix(1, 0))
	if err := tempotest.Recv(t, over, "the deadline"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at the deadline: %v", err)
	}
	_ = l.SetDeadline(time.Time{})
	begin()
	l.Close()
	if err := tempotest.Recv(t, over, "the end"); err != nil {
		t.Errorf("after Close: %v", err)
	}
}
