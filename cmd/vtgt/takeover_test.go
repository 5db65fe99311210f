package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// rounds is a test's number of rounds: n, or what the environment variable says.
func rounds(t *testing.T, name string, n int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return n
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, s, err)
	}
	return n
}

// guests is a world with two virtual machines under a verifying load.
type guests struct {
	*world
	machines []*vhosttest.Client
	loads    []*vhosttest.Load
}

func newGuests(t *testing.T) *guests {
	g := &guests{world: newWorld(t)}
	body := "disks:\n"
	for _, d := range []string{"a", "b"} {
		body += fmt.Sprintf("  - {name: %s, store: %q, thin: true}\n", d, "file:"+g.file(d+".img", 16<<20))
	}
	body += "targets:\n"
	for i, d := range []string{"a", "b"} {
		body += fmt.Sprintf("  - name: vm%d\n    luns: [{lun: 0, disk: %s}]\n    vhost: {socket: %q}\n", i, d, g.vm(i))
	}
	g.write(g.text(body))
	return g
}

func (g *guests) vm(i int) string { return filepath.Join(g.dir, fmt.Sprintf("vm%d.sock", i)) }

// run connects the machines and starts their loads.
func (g *guests) run() {
	g.t.Helper()
	for i, o := range []vhosttest.Options{
		{Style: vhosttest.QEMU72, Queues: 2, ProtocolFeatures: ^uint64(vhosttest.ProtocolInflight)},
		{Style: vhosttest.QEMU10, Queues: 1},
	} {
		o.Timeout = tempotest.Patience
		m, err := vhosttest.Dial(g.vm(i), o)
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { _ = m.Close() })
		if err := m.Start(); err != nil {
			g.t.Fatal(err)
		}
		// 29/00, once: a second one is an error of the load.
		if _, err := m.Request(0).Exec(vhosttest.LUN(0, 0), make([]byte, 6), nil, nil); err != nil {
			g.t.Fatal(err)
		}
		l := &vhosttest.Load{LUN: vhosttest.LUN(0, 0), Blocks: 4096, Depth: 8, Writes: 50, Verify: true, Indirect: true, Seed: uint64(i + 1)}
		if err := l.Start(m); err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { l.Stop(); _, _ = l.Wait() })
		g.machines, g.loads = append(g.machines, m), append(g.loads, l)
	}
}

// progress waits until every load has done some more.
func (g *guests) progress() {
	g.t.Helper()
	for i, l := range g.loads {
		n := l.Done()
		tempotest.Wait(g.t, fmt.Sprintf("progress of machine %d", i), func() bool { return l.Done() > n+50 })
	}
}

// end stops the loads: none has seen an error.
func (g *guests) end() {
	g.t.Helper()
	for i, l := range g.loads {
		l.Stop()
		r, err := l.Wait()
		if err != nil {
			g.t.Errorf("machine %d: %v", i, err)
		}
		g.t.Logf("machine %d: %d requests", i, r.Requests)
	}
}

// follow starts a vtgt that takes s's place, and waits for the end of that.
func (g *guests) follow(s *server) *server {
	g.t.Helper()
	n := g.serve("serve", "--config", g.conf, "--takeover")
	<-s.done
	if c := s.cmd.ProcessState.ExitCode(); c != 0 {
		g.t.Errorf("the old one ended with %d", c)
	}
	for l := range strings.Lines(n.text()) {
		if strings.Contains(l, "took over") {
			g.t.Log(strings.TrimSpace(l))
		}
	}
	return n
}

// TestTakeover: vtgt after vtgt takes the place of the one before; machines under load
// notice nothing, and what is asked of the API goes on too.
func TestTakeover(t *testing.T) {
	g := newGuests(t)
	s := g.serve()
	g.run()
	for range rounds(t, "VTGT_TAKEOVER_ROUNDS", 3) {
		g.progress()
		s = g.follow(s)
		g.progress()
		if out := g.ok("get", "exports"); strings.Count(out, "connected") != 2 {
			t.Error(out)
		}
	}
	g.end()
	// It is whole: the configuration can change, and nothing is left at the end.
	g.ok("disk", "add", "c", "--store", "file:"+g.file("c.img", 1<<20))
	g.ok("lun", "add", "vm0", "c")
	for _, m := range g.machines {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	}
	s.stop()
	for _, p := range []string{g.vm(0), g.vm(1), g.socket, filepath.Join(g.dir, "state", "takeover.sock")} {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s is left", p)
		}
	}
}

// TestTakeoverFails: a takeover that fails, at whichever step, harms nobody.
func TestTakeoverFails(t *testing.T) {
	g := newGuests(t)
	s := g.serve()
	g.run()
	dial := func() *handover.Conn {
		t.Helper()
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(g.dir, "state", "takeover.sock"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		return handover.NewConn(c)
	}
	const hello, refusal, legacy, ready = 1, 2, 3, 4
	send := func(c *handover.Conn, k handover.Kind, text string) {
		t.Helper()
		if err := c.Send(k, []byte(text), nil, tempotest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	recv := func(c *handover.Conn, want handover.Kind) (text string) {
		t.Helper()
		k, b, set, err := c.Recv(tempotest.Patience)
		if err != nil || k != want {
			t.Fatalf("frame %d: %v %s", k, err, b)
		}
		set.Close()
		return string(b)
	}
	for step, f := range map[string]func(c *handover.Conn){
		"connected":   func(*handover.Conn) {},
		"garbage":     func(c *handover.Conn) { send(c, hello, "no JSON") },
		"no hello":    func(c *handover.Conn) { send(c, ready, "{}") },
		"version":     func(c *handover.Conn) { send(c, hello, `{"version":99}`); recv(c, refusal) },
		"another one": func(c *handover.Conn) { send(c, hello, `{"version":1,"config":"/x.yaml"}`); recv(c, refusal) },
		"frozen": func(c *handover.Conn) {
			send(c, hello, `{"version":1}`)
			var l struct{ Rings map[string]any }
			if err := json.Unmarshal([]byte(recv(c, legacy)), &l); err != nil || len(l.Rings) != 2 {
				t.Error(l, err)
			}
		},
		"not ready": func(c *handover.Conn) {
			send(c, hello, `{"version":1}`)
			recv(c, legacy)
			send(c, refusal, "")
		},
		"not read": func(c *handover.Conn) { send(c, hello, `{"version":1}`) },
	} {
		c := dial()
		f(c)
		_ = c.Close()
		g.progress()
		if out := g.ok("get", "exports"); strings.Count(out, "connected") != 2 {
			t.Errorf("%s: %s", step, out)
		}
	}
	other := filepath.Join(g.dir, "other.yaml")
	b, err := os.ReadFile(g.conf)
	if err == nil {
		err = os.WriteFile(other, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	g.fails([]string{"serve", "--takeover", "--config", other}, "the vtgt that runs serves "+g.conf)
	g.ok("disk", "add", "m", "--store", "mem:", "--size", "1MiB")
	g.fails([]string{"serve", "--takeover", "--config", g.conf}, "disk m (mem:) lives in the memory of this process")
	g.ok("disk", "rm", "m")
	g.progress()
	s = g.follow(s) // which is possible still
	g.progress()
	g.end()
	for _, m := range g.machines {
		_ = m.Stop()
	}
	s.stop()
	g.fails([]string{"serve", "--takeover", "--config", g.conf}, "no vtgt runs that can be taken over")
}
