package handovertest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
)

// barrier is this package's own message, sent to itself.
const barrier = "BARRIER"

// Parent has the store.
type Parent struct {
	tb   testing.TB
	c    *net.UnixConn
	done chan struct{}
	here chan struct{} // a barrier has been read

	mu     sync.Mutex
	stored []*os.File // Name is FDNAME
	stores int
	given  []*os.File // the last child's
}

// New makes one that listens at path (NOTIFY_SOCKET) until the end of the test.
func New(tb testing.TB, path string) *Parent {
	tb.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		tb.Fatal(err)
	}
	p := &Parent{tb: tb, c: c, done: make(chan struct{}), here: make(chan struct{}, 1)}
	go p.read()
	tb.Cleanup(func() {
		_ = c.Close()
		<-p.done
		p.remove("")
		p.take(nil)
	})
	return p
}

func (p *Parent) read() {
	defer close(p.done)
	b, oob := make([]byte, 4096), make([]byte, sys.RightsSpace(sys.MaxParcel))
	for {
		n, k, flags, _, err := p.c.ReadMsgUnix(b, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return
		}
		fds, err := sys.ParseRights(nil, oob[:k], flags)
		if err != nil {
			p.tb.Errorf("a notification's descriptors: %v", err)
		}
		if string(b[:n]) == barrier {
			p.here <- struct{}{}
			continue
		}
		p.handle(string(b[:n]), fds)
	}
}

func (p *Parent) handle(text string, fds []int) {
	name, store, remove := "stored", false, false
	for l := range strings.Lines(text) {
		switch k, v, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "="); {
		case k == "FDNAME":
			name = v
		case k == "FDSTORE" && v == "1":
			store = true
		case k == "FDSTOREREMOVE" && v == "1":
			remove = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if remove {
		p.removeLocked(name)
	}
	for _, fd := range fds {
		if !store {
			_ = sys.Close(fd)
			continue
		}
		p.stores++
		p.stored = append(p.stored, os.NewFile(uintptr(fd), name))
	}
}

func (p *Parent) remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removeLocked(name)
}

// removeLocked removes what has that name; "": everything.
func (p *Parent) removeLocked(name string) {
	var stay []*os.File
	for _, f := range p.stored {
		if name != "" && f.Name() != name {
			stay = append(stay, f)
			continue
		}
		_ = f.Close()
	}
	p.stored = stay
}

// settle waits until what was sent by now has been read: the child may be dead.
func (p *Parent) settle() {
	c, err := net.DialUnix("unixgram", nil, p.c.LocalAddr().(*net.UnixAddr))
	if err != nil {
		p.tb.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(barrier)); err != nil {
		p.tb.Fatal(err)
	}
	select {
	case <-p.here:
	case <-p.done:
		p.tb.Fatal("notifications are not read")
	}
}

// Names are those of what is stored, and the number of descriptors that ever were.
func (p *Parent) Names() (names []string, stores int) {
	p.settle()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.stored {
		names = append(names, f.Name())
	}
	return names, p.stores
}

// Prepare has c, which is not started, get all that is stored. It is to run by a shell:
// only that knows LISTEN_PID.
func (p *Parent) Prepare(c *exec.Cmd, addr string) {
	// Copies: the child has things removed while it starts.
	p.take(p.Copies())
	if c.Env == nil {
		c.Env = os.Environ()
	}
	c.Env = append(c.Env, "NOTIFY_SOCKET="+addr, "FDSTORE=64")
	c.ExtraFiles = nil
	var names []string
	for _, f := range p.given {
		c.ExtraFiles = append(c.ExtraFiles, f)
		names = append(names, f.Name())
	}
	if len(names) == 0 {
		return
	}
	c.Env = append(c.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
}

// take closes what the child before got.
func (p *Parent) take(fs []*os.File) {
	for _, f := range p.given {
		_ = f.Close()
	}
	p.given = fs
}

// Copies are what is stored, as a child in this process gets it.
func (p *Parent) Copies() (out []*os.File) {
	p.settle()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.stored {
		fd, err := sys.Dup(int(f.Fd()))
		if err != nil {
			p.tb.Fatal(err)
		}
		out = append(out, os.NewFile(uintptr(fd), f.Name()))
	}
	return out
}

// Started closes what a child got from Prepare, when it has started: it has its own.
func (p *Parent) Started() { p.take(nil) }
