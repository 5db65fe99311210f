package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/handover/handovertest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// startUnder starts vtgt as the child of a parent that keeps descriptors.
func (w *world) startUnder(p *handovertest.Parent, addr string) *server {
	w.t.Helper()
	s := &server{t: w.t, done: make(chan struct{})}
	s.cmd = exec.Command(binary, "serve", "--config", w.conf)
	p.Prepare(s.cmd, addr)
	r, pw, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	s.cmd.Stderr = pw
	s.cmd.Stdout = &bytes.Buffer{}
	ready := s.follow(r, "msg=ready")
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	pw.Close()
	p.Started()
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	w.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.done
		r.Close()
		if w.t.Failed() {
			w.t.Logf("the daemon's log:\n%s", s.text())
		}
	})
	select {
	case <-ready:
	case <-s.done:
		w.t.Fatalf("ended\n%s", s.text())
	case <-time.After(tempotest.Patience):
		w.t.Fatalf("not ready\n%s", s.text())
	}
	return s
}

// TestParked kills vtgt under two machines that cannot connect anew: what it has parked
// with its parent has the next one go on with both. With VTGT_PARK_ROUNDS, that often.
func TestParked(t *testing.T) {
	w := newWorld(t)
	body := "disks:\n"
	for _, d := range []string{"a", "b"} {
		body += fmt.Sprintf("  - {name: %s, store: %q, thin: true}\n", d, "file:"+w.file(d+".img", 16<<20))
	}
	body += "targets:\n"
	vm := func(i int) string { return filepath.Join(w.dir, fmt.Sprintf("vm%d.sock", i)) }
	for i, d := range []string{"a", "b"} {
		body += fmt.Sprintf("  - name: vm%d\n    luns: [{lun: 0, disk: %s}]\n    vhost: {socket: %q}\n", i, d, vm(i))
	}
	w.write(w.text(body))
	addr := filepath.Join(w.dir, "notify")
	p := handovertest.New(t, addr)
	s := w.startUnder(p, addr)
	var ms []*vhosttest.Client
	var ls []*vhosttest.Load
	for i, o := range []vhosttest.Options{{Queues: 2}, {Style: vhosttest.QEMU10}} {
		o.Timeout = tempotest.Patience
		m, err := vhosttest.Dial(vm(i), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
		l := &vhosttest.Load{LUN: vhosttest.LUN(0, 0), Blocks: 4096, Depth: 8, Writes: 50, Verify: true, Indirect: true, Seed: uint64(i + 1), Retry: true}
		if err := l.Start(m); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Stop(); _, _ = l.Wait() })
		ms, ls = append(ms, m), append(ls, l)
	}
	progress := func() {
		t.Helper()
		for i, l := range ls {
			n := l.Done()
			tempotest.Wait(t, fmt.Sprintf("progress of machine %d", i), func() bool { return l.Done() > n+100 })
		}
	}
	n := rounds(t, "VTGT_PARK_ROUNDS", 3)
	for range n {
		progress()
		_ = s.cmd.Process.Kill()
		<-s.done
		s = w.startUnder(p, addr)
	}
	progress()
	for i, l := range ls {
		l.Stop()
		r, err := l.Wait()
		if err != nil {
			t.Errorf("machine %d: %v", i, err)
		}
		t.Logf("machine %d: %d requests", i, r.Requests)
	}
	// Of a machine that ends, and of a target that there is no more, nothing stays.
	if names, _ := p.Names(); len(names) != 2 {
		t.Errorf("the parent keeps %q", names)
	}
	_ = ms[0].Close()
	tempotest.Wait(t, "one machine is forgotten", func() bool { names, _ := p.Names(); return len(names) == 1 })
	_ = s.cmd.Process.Kill()
	<-s.done
	w.write(strings.Replace(w.text(body), "name: vm1", "name: other", 1))
	s = w.startUnder(p, addr)
	tempotest.Wait(t, "the other one is forgotten", func() bool { names, _ := p.Names(); return len(names) == 0 })
	if err := ms[1].WaitClosed(); err != nil {
		t.Error(err)
	}
	s.stop()
}
