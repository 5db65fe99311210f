package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
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

// guests is a world with two virtual machines and two iSCSI hosts under verifying loads.
type guests struct {
	*world
	machines []*vhosttest.Client
	loads    []*vhosttest.Load
	hosts    []*hostLoad
}

// hostLoad is an iSCSI initiator that writes and reads back, eight commands at a time.
type hostLoad struct {
	c    *iscsitest.Conn
	seed uint64
	n    atomic.Uint64
	stop atomic.Bool
	err  chan error
}

func (h *hostLoad) run() error {
	const depth, area = 8, 2048 // blocks
	rnd := rand.New(rand.NewPCG(h.seed, 1))
	for !h.stop.Load() {
		var data [depth][]byte
		for _, write := range []bool{true, false} {
			var tasks [depth]*iscsitest.Task
			for i := range depth {
				lba := uint32(i * area)
				cmd := &iscsitest.Command{CDB: rw10(0x28, lba, len(data[i])/512), In: len(data[i])}
				if write {
					data[i] = make([]byte, (1+rnd.IntN(800))*512) // beyond what is not asked for
					for k := 0; k < len(data[i]); k += 64 {
						data[i][k] = byte(rnd.Uint32())
					}
					cmd = &iscsitest.Command{CDB: rw10(0x2a, lba, len(data[i])/512), Out: data[i]}
				}
				t, err := h.c.Start(cmd)
				if err != nil {
					return err
				}
				tasks[i] = t
			}
			for i, t := range tasks {
				if err := h.c.Wait(t); err != nil {
					return err
				}
				if t.Status != 0 || !write && !bytes.Equal(t.In, data[i]) {
					return fmt.Errorf("write %v: status %#02x, sense % x, data equal %v", write, t.Status, t.Sense, bytes.Equal(t.In, data[i]))
				}
				h.n.Add(1)
			}
		}
	}
	return nil
}

func newGuests(t *testing.T) *guests {
	g := &guests{world: newWorld(t)}
	body := "disks:\n"
	for _, d := range []string{"a", "b", "c", "d"} {
		body += fmt.Sprintf("  - {name: %s, store: %q, thin: true}\n", d, "file:"+g.file(d+".img", 16<<20))
	}
	body += "targets:\n"
	for i, d := range []string{"a", "b"} {
		body += fmt.Sprintf("  - name: vm%d\n    luns: [{lun: 0, disk: %s}]\n    vhost: {socket: %q}\n", i, d, g.vm(i))
	}
	for _, d := range []string{"c", "d"} {
		body += fmt.Sprintf("  - name: h%s\n    luns: [{lun: 0, disk: %s}]\n    iscsi: {iqn: \"%s-%s\"}\n", d, d, testIQN, d)
	}
	g.write(g.text(body))
	g.replace("iscsi: {portals", "iscsi: {loginTimeout: 5m, pingTimeout: 5m, portals")
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
	for i, d := range []string{"c", "d"} {
		c, err := iscsitest.Dial(g.portal)
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { _ = c.Close() })
		l := iscsitest.Login{InitiatorName: testHost, TargetName: testIQN + "-" + d, HeaderDigest: i == 1, DataDigest: i == 1}
		if err := c.Login(l); err != nil {
			g.t.Fatal(err)
		}
		if _, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)}); err != nil { // 29/00
			g.t.Fatal(err)
		}
		h := &hostLoad{c: c, seed: uint64(i), err: make(chan error, 1)}
		go func() { h.err <- h.run() }()
		g.t.Cleanup(func() { h.stop.Store(true); <-h.err })
		g.hosts = append(g.hosts, h)
	}
}

// progress waits until every load has done some more.
func (g *guests) progress() {
	g.t.Helper()
	for i, l := range g.loads {
		n := l.Done()
		tempotest.Wait(g.t, fmt.Sprintf("progress of machine %d", i), func() bool { return l.Done() > n+50 })
	}
	for i, h := range g.hosts {
		n := h.n.Load()
		tempotest.Wait(g.t, fmt.Sprintf("progress of host %d", i), func() bool {
			select {
			case err := <-h.err:
				h.err <- err
				g.t.Fatalf("host %d: %v", i, err)
			default:
			}
			return h.n.Load() > n+8
		})
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
	for i, h := range g.hosts {
		h.stop.Store(true)
		err := <-h.err
		if h.err <- err; err != nil {
			g.t.Errorf("host %d: %v", i, err)
		}
		g.t.Logf("host %d: %d commands", i, h.n.Load())
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
	g.ok("disk", "add", "x", "--store", "file:"+g.file("x.img", 1<<20))
	g.ok("lun", "add", "vm0", "x")
	if out := g.ok("get", "sessions"); strings.Count(out, testHost) != 2 {
		t.Error(out)
	}
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
