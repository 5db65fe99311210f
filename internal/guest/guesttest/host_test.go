package guesttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/handover/handovertest"
	"github.com/vtgt/vtgt/internal/hosttest"
)

// host is vtgt on this host, in a folder of its own.
type host struct {
	t            *testing.T
	bin          string
	dir          string
	conf, socket string
	port         int

	// parent keeps descriptors as systemd does; nil: nobody does.
	parent *handovertest.Parent

	cmd  *exec.Cmd
	done chan struct{}
	// in and out are of a holdvtgt, see order.
	in     io.WriteCloser
	out    *bufio.Reader
	orders bool
	mu     sync.Mutex
	log    bytes.Buffer
}

// newHost makes the folder; nothing runs yet.
func newHost(t *testing.T) *host {
	t.Helper()
	return newHostOf(t, vtgtBinary(t))
}

// newHostOf is newHost for another program.
func newHostOf(t *testing.T, bin string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "vtgt-h-") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, bin: bin, dir: dir, conf: filepath.Join(dir, "vtgt.yaml"), socket: filepath.Join(dir, "s"), port: int(hosttest.Port(t).Port())}
	t.Cleanup(func() {
		h.kill()
		if t.Failed() {
			t.Logf("the log of vtgt:\n%s", h.text())
		}
		os.RemoveAll(dir)
	})
	return h
}

// portal is the address that vtgt listens on.
func (h *host) portal() string { return fmt.Sprintf("127.0.0.1:%d", h.port) }

// config completes a configuration; DIR in body is the host's folder.
func (h *host) config(body string) string {
	return fmt.Sprintf("version: 1\n%s\niscsi: {portals: [%q], loginTimeout: 2m, pingTimeout: 2m}\napi: {socket: %q}\nstate: %q\n",
		strings.ReplaceAll(body, "DIR", h.dir), h.portal(), h.socket, filepath.Join(h.dir, "state"))
}

func (h *host) write(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.conf, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// start runs vtgt serve and waits until it is ready.
func (h *host) start() {
	h.t.Helper()
	h.startWith()
}

// startWith is start with more flags.
func (h *host) startWith(more ...string) {
	h.t.Helper()
	cmd := exec.Command(h.bin, append([]string{"serve", "--config", h.conf}, more...)...)
	stderr, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if h.parent != nil {
		h.parent.Prepare(cmd, filepath.Join(h.dir, "notify"))
	}
	cmd.Stderr = w
	if h.orders {
		var out io.Reader
		if h.in, err = cmd.StdinPipe(); err == nil {
			out, err = cmd.StdoutPipe()
		}
		if err != nil {
			h.t.Fatal(err)
		}
		h.out = bufio.NewReader(out)
	}
	ready := make(chan struct{})
	go h.follow(stderr, ready)
	err = cmd.Start()
	w.Close()
	if err != nil {
		h.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	h.cmd, h.done = cmd, done
	select {
	case <-ready:
	case <-done:
		time.Sleep(50 * time.Millisecond) // the rest of its log
		h.t.Fatalf("vtgt ended: %v\n%s", cmd.ProcessState, h.text())
	case <-time.After(patience):
		h.t.Fatalf("vtgt is not ready\n%s", h.text())
	}
}

func (h *host) follow(r io.ReadCloser, ready chan<- struct{}) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	for told := false; sc.Scan(); {
		h.mu.Lock()
		h.log.WriteString(sc.Text() + "\n")
		h.mu.Unlock()
		if !told && strings.Contains(sc.Text(), "msg=ready") {
			told = true
			close(ready)
		}
	}
}

// order has a holdvtgt do something and returns the number of operations that it holds.
func (h *host) order(verb, disk string) int {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.in, verb, disk); err != nil {
		h.t.Fatal(err)
	}
	line, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || n < 0 {
		h.t.Fatalf("holdvtgt says %q", line)
	}
	return n
}

func (h *host) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// kill is SIGKILL and the wait for the end.
func (h *host) kill() {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Kill()
	<-h.done
	h.cmd = nil
}

// stop is SIGTERM and wants an orderly end.
func (h *host) stop() {
	h.t.Helper()
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.done:
	case <-time.After(patience):
		h.t.Fatal("vtgt does not end after SIGTERM")
	}
	if c := h.cmd.ProcessState.ExitCode(); c != 0 {
		h.t.Errorf("vtgt ended with %d", c)
	}
	h.cmd = nil
}

// try runs a client command.
func (h *host) try(args ...string) (out, errOut string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.bin, args...)
	cmd.Env = append(os.Environ(), "VTGT_SOCKET="+h.socket)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("vtgt %v: %w: %s", args, err, e.String())
	}
	return o.String(), e.String(), err
}

func (h *host) vtgt(args ...string) string {
	h.t.Helper()
	out, _, err := h.try(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// apply gives the daemon a configuration, in the file that it was started with.
func (h *host) apply(body string) {
	h.t.Helper()
	h.write(h.config(body))
	h.vtgt("apply", "-f", h.conf)
}

func (h *host) sessions() []api.Session {
	h.t.Helper()
	var ss []api.Session
	if err := json.Unmarshal([]byte(h.vtgt("get", "sessions", "-o", "json")), &ss); err != nil {
		h.t.Fatal(err)
	}
	return ss
}

func (h *host) disks() map[string]api.Disk {
	h.t.Helper()
	return parseDisks(h.t, h.vtgt("get", "disks", "-o", "json"))
}

func parseDisks(t *testing.T, text string) map[string]api.Disk {
	t.Helper()
	var ds []api.Disk
	if err := json.Unmarshal([]byte(text), &ds); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	m := map[string]api.Disk{}
	for _, d := range ds {
		m[d.Name] = d
	}
	return m
}
