package xenstore_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/xen/xenstore"
	"github.com/vtgt/vtgt/xen/xenstore/wire"
	"github.com/vtgt/vtgt/xen/xenstore/xenstoretest"
)

func dial(t *testing.T) (*xenstoretest.Server, *xenstore.Conn) {
	t.Helper()
	s := xenstoretest.New()
	c := s.Dial(0)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s, c
}

func TestNodes(t *testing.T) {
	_, c := dial(t)
	if err := c.Write("/a/b", "1"); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Read("/a/b"); err != nil || v != "1" {
		t.Error(v, err)
	}
	if v, err := c.Read("/a"); err != nil || v != "" {
		t.Error(v, err)
	}
	if err := c.Mkdir("/a/c"); err != nil {
		t.Error(err)
	}
	if l, err := c.List("/a"); err != nil || !reflect.DeepEqual(l, []string{"b", "c"}) {
		t.Error(l, err)
	}
	if err := c.SetPerms("/a/b", xenstore.Perm{Access: wire.None}, xenstore.Perm{Access: wire.ReadOnly, Domain: 3}); err != nil {
		t.Error(err)
	}
	if p, err := c.Perms("/a/b"); err != nil || len(p) != 2 || p[1] != (xenstore.Perm{Access: wire.ReadOnly, Domain: 3}) {
		t.Error(p, err)
	}
	if err := c.Remove("/a"); err != nil {
		t.Error(err)
	}
	if _, err := c.Read("/a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := c.Write("/bad path", ""); err == nil {
		t.Error("a path with a space")
	}
	if err := c.Write("/big", strings.Repeat("x", wire.MaxPayload)); !errors.Is(err, wire.ErrLength) {
		t.Error(err)
	}
	if err := c.Write("/after", "ok"); err != nil {
		t.Error(err)
	}
	if p, err := c.DomainPath(3); err != nil || p != "/local/domain/3" {
		t.Error(p, err)
	}
}

func TestPermissions(t *testing.T) {
	s, c := dial(t)
	s.Introduce(3)
	g := s.Dial(3)
	defer g.Close()
	if err := g.Write("/local/domain/3/x", "1"); err != nil {
		t.Error(err)
	}
	if err := g.Write("/local/domain/0/x", "1"); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	if err := c.Write("/b/n", "1"); err != nil {
		t.Error(err)
	}
	if _, err := g.Read("/b/n"); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	for dom, want := range map[uint32]bool{3: true, 4: false} {
		if ok, err := c.Introduced(dom); ok != want || err != nil {
			t.Errorf("%d: %v %v", dom, ok, err)
		}
	}
}

func TestList(t *testing.T) {
	_, c := dial(t)
	var want []string
	for i := range 400 {
		n := fmt.Sprintf("child-%04d", i)
		want = append(want, n)
		if err := c.Write("/d/"+n, ""); err != nil {
			t.Fatal(err)
		}
	}
	if l, err := c.List("/d"); err != nil || !reflect.DeepEqual(l, want) {
		t.Errorf("%d of %d names, %v", len(l), len(want), err)
	}
}

func TestUpdate(t *testing.T) {
	s, c := dial(t)
	s.Conflicts(3)
	n := 0
	err := c.Update(func(tx *xenstore.Tx) error {
		n++
		if err := tx.Write("/x", "1"); err != nil {
			return err
		}
		if _, err := c.Read("/x"); !errors.Is(err, fs.ErrNotExist) {
			t.Error("seen before the end:", err)
		}
		return tx.Write("/y", "2")
	})
	if err != nil || n != 4 {
		t.Errorf("%d attempts, %v", n, err)
	}
	if v, _ := c.Read("/y"); v != "2" {
		t.Error(v)
	}
	bad := errors.New("no")
	if err := c.Update(func(tx *xenstore.Tx) error { _ = tx.Write("/z", ""); return bad }); err != bad {
		t.Error(err)
	}
	if _, err := c.Read("/z"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a discarded transaction has written:", err)
	}
	s.Conflicts(1 << 30)
	if err := c.Update(func(tx *xenstore.Tx) error { return tx.Write("/x", "") }); !errors.Is(err, xenstore.ErrBusy) {
		t.Error(err)
	}
	s.Conflicts(0)
}

// TestCounter has clients add to one node at the same time: no addition is lost.
func TestCounter(t *testing.T) {
	s, c := dial(t)
	if err := c.Write("/n", ""); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := s.Dial(0)
			defer c.Close()
			for range 20 {
				if err := c.Update(func(tx *xenstore.Tx) error {
					v, err := tx.Read("/n")
					if err != nil {
						return err
					}
					return tx.Write("/n", v+"x")
				}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if v, _ := c.Read("/n"); len(v) != 80 {
		t.Errorf("%d additions, want 80", len(v))
	}
}

func next(t *testing.T, c *xenstore.Conn) xenstore.Event {
	t.Helper()
	ch := make(chan xenstore.Event, 1)
	go func() {
		e, err := c.Next()
		if err != nil {
			t.Error(err)
		}
		ch <- e
	}()
	return tempotest.Recv(t, ch, "an event")
}

func TestWatch(t *testing.T) {
	s, c := dial(t)
	if err := c.Watch("/w", "tok"); err != nil {
		t.Fatal(err)
	}
	if e := next(t, c); e != (xenstore.Event{Path: "/w", Token: "tok"}) {
		t.Error(e)
	}
	d := s.Dial(0)
	defer d.Close()
	for range 1000 { // while nobody takes them: one is kept
		if err := d.Write("/w/a", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Write("/w/b", "1"); err != nil {
		t.Fatal(err)
	}
	// Whatever was asked before is answered after the events of before.
	if _, err := c.Read("/w/b"); err != nil {
		t.Fatal(err)
	}
	a, b := next(t, c), next(t, c)
	if a.Path != "/w/a" || b.Path != "/w/b" {
		t.Error(a, b)
	}
	if err := d.Remove("/w"); err != nil {
		t.Fatal(err)
	}
	if e := next(t, c); e.Path != "/w" {
		t.Error(e)
	}
	if err := c.Unwatch("/w", "tok"); err != nil {
		t.Error(err)
	}
	if n := s.Watches(); n != 0 {
		t.Errorf("%d watches", n)
	}
	if err := c.Unwatch("/w", "tok"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestLoss(t *testing.T) {
	s, c := dial(t)
	done := make(chan error, 1)
	go func() { _, err := c.Next(); done <- err }()
	s.Disconnect()
	if err := tempotest.Recv(t, done, "the end of Next"); err == nil {
		t.Error("no error")
	}
	if _, err := c.Read("/"); err == nil {
		t.Error("a request after the loss")
	}
}

func TestClose(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := xenstore.New(a)
	done := make(chan error, 1)
	go func() { _, err := c.Read("/x"); done <- err }()
	buf := make([]byte, 64)
	if _, err := b.Read(buf); err != nil { // the request, which nobody answers
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := tempotest.Recv(t, done, "the end of Read"); !errors.Is(err, xenstore.ErrClosed) {
		t.Error(err)
	}
	if _, err := c.Next(); !errors.Is(err, xenstore.ErrClosed) {
		t.Error(err)
	}
}

// TestSilence: a xenstored that does not answer is one that is lost.
func TestSilence(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := xenstore.New(a)
	defer c.Close()
	c.Timeout = time.Millisecond
	go func() { _, _ = io.Copy(io.Discard, b) }()
	if _, err := c.Read("/x"); !errors.Is(err, xenstore.ErrLost) {
		t.Error(err)
	}
	if _, err := c.Next(); !errors.Is(err, xenstore.ErrLost) {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	p := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := xenstore.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if _, err := xenstore.Open(p + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// FuzzServer has xenstored say anything: the client ends in an error at worst.
func FuzzServer(f *testing.F) {
	m, _ := wire.Message(wire.Read, 1, 0, []byte("v"))
	f.Add(m)
	m, _ = wire.Message(wire.WatchEvent, 0, 0, wire.Strings("/a", "t"))
	f.Add(m)
	m, _ = wire.Message(wire.Error, 1, 0, nil)
	f.Add(m)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := net.Pipe()
		c := xenstore.New(x)
		go func() {
			_, _ = y.Read(make([]byte, 64))
			_, _ = y.Write(b)
			_ = y.Close()
		}()
		if v, err := c.Read("/a"); err == nil && len(v) > wire.MaxPayload {
			t.Fatal(len(v))
		}
		_ = c.Close()
	})
}
