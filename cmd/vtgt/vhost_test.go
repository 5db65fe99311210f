package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// plug connects a machine without QEMU.
func plug(t *testing.T, socket string) *vhosttest.Client {
	t.Helper()
	c, err := vhosttest.Dial(socket, vhosttest.Options{Timeout: tempotest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// vendor is what INQUIRY says at a place of the bus, "" where nothing is.
func vendor(t *testing.T, c *vhosttest.Client, target uint8, lun uint16) string {
	t.Helper()
	in := make([]byte, 36)
	r, err := c.Request(0).Exec(vhosttest.LUN(target, lun), []byte{0x12, 0, 0, 0, 36, 0}, nil, in)
	if err != nil {
		t.Fatal(err)
	}
	if r.Response != vhosttest.RespOK || in[0] != 0 {
		return ""
	}
	return strings.TrimSpace(string(in[8:16]))
}

// TestVHostCommands drives exports to virtual machines by the commands.
func TestVHostCommands(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	sock := filepath.Join(w.dir, "vm.sock")
	w.ok("disk", "add", "b", "--store", "mem:", "--size", "8MiB")
	w.ok("disk", "add", "c", "--store", "mem:", "--size", "8MiB")
	w.fails([]string{"target", "add", "vm", "--vhost-socket", "vm.sock"}, "target vm", "relative")
	w.fails([]string{"target", "add", "vm", "--vhost-socket", sock, "--vhost-group", "no-such-group"}, "there is no group no-such-group")
	out := w.ok("target", "add", "vm", "--vhost-socket", sock, "--vhost-mode", "0600", "--disk", "b")
	for _, want := range []string{"+ target vm: vhost " + sock, "memory-backend-memfd,id=mem,size=1G,share=on", "-chardev socket,id=vm,path=" + sock, "vhost-user-scsi-pci,chardev=vm"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	c := plug(t, sock)
	if v := vendor(t, c, 0, 0); v != "VTGT" {
		t.Errorf("LUN 0 is of %q", v)
	}
	if out := w.ok("lun", "add", "vm", "c", "--vhost-target", "3"); !strings.Contains(out, "+ lun vm/1: c at virtio target 3") {
		t.Error(out)
	}
	if v := vendor(t, c, 3, 1); v != "VTGT" {
		t.Errorf("LUN 1 of target 3 is of %q", v)
	}
	w.fails([]string{"lun", "set", "vm", "1", "--vhost-target", "4"}, "the virtual machine at "+sock)
	w.ok("lun", "set", "vm", "1", "--vhost-target", "4", "--force")
	if vendor(t, c, 3, 1) != "" || vendor(t, c, 4, 1) != "VTGT" {
		t.Error("it is not at target 4")
	}
	if out := w.ok("get", "exports"); !strings.Contains(out, "connected") || !strings.Contains(out, sock) || !strings.Contains(out, "EVENT_IDX") {
		t.Error(out)
	}
	if out := w.ok("get", "sessions"); !strings.Contains(out, "vm (virtio target 4)") || !strings.Contains(out, "srp.") {
		t.Error(out)
	}
	if out := w.ok("get", "targets"); !strings.Contains(out, sock) {
		t.Error(out)
	}
	if out := w.ok("get", "events"); !strings.Contains(out, "vm/vhost") {
		t.Error(out)
	}
	// The owner may change while it is there, the socket may not.
	w.ok("target", "set", "vm", "--vhost-mode", "0660")
	if fi, err := os.Lstat(sock); err != nil || fi.Mode() != fs.ModeSocket|0o660 {
		t.Error(fi, err)
	}
	w.fails([]string{"target", "set", "vm", "--vhost-socket", sock + "2"}, "its vhost-user export cannot change")
	w.fails([]string{"target", "set", "vm", "--no-vhost", "--vhost-mode", "0600"}, "leave the other flags out")
	w.ok("target", "set", "vm", "--no-vhost", "--force")
	if err := c.WaitClosed(); err != nil {
		t.Error(err)
	}
	w.ok("target", "set", "vm", "--vhost-socket", sock)
	if text := w.ok("get", "config"); !strings.Contains(text, "vhost: {socket: "+sock+"}") {
		t.Error(text)
	}
	plug(t, sock)
	w.ok("check", "-f", w.conf)
	s.stop()
	if _, err := os.Lstat(sock); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket is left:", err)
	}

	// What SIGKILL leaves is in nobody's way.
	s = w.serve()
	s.cmd.Process.Kill()
	<-s.done
	if _, err := os.Lstat(sock); err != nil {
		t.Error(err)
	}
	w.serve()
	plug(t, sock)
}

func TestRunVHost(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "demo")
	s := start(t, nil, "run", "--vhost", "--dir", dir, "--size", "8MiB")
	w.socket = filepath.Join(dir, "vtgt.sock")
	var es []api.Export
	if err := json.Unmarshal([]byte(w.ok("get", "exports", "-o", "json")), &es); err != nil || len(es) != 1 || es[0].Kind != "vhost" || es[0].State != "listening" {
		t.Fatalf("%v %v", es, err)
	}
	if v := vendor(t, plug(t, es[0].Addresses[0]), 0, 0); v != "VTGT" {
		t.Error(v)
	}
	out := s.cmd.Stdout.(*bytes.Buffer)
	s.stop()
	if want := "-chardev socket,id=vtgt,path=" + es[0].Addresses[0] + " -device vhost-user-scsi-pci,chardev=vtgt"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out)
	}
}

// TestVHostActivation: a socket that systemd has bound is used, and stays.
func TestVHostActivation(t *testing.T) {
	w := newWorld(t)
	sock := filepath.Join(w.dir, "vm.sock")
	w.replace("  - name: t\n", "  - {name: vm, vhost: {socket: "+sock+"}}\n  - name: t\n")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ln.Close()
	s := &server{t: t, done: make(chan struct{})}
	s.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --config "$1"`, binary, w.conf)
	s.cmd.ExtraFiles = []*os.File{f}
	r, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = pw
	ready := s.follow(r, "msg=ready")
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); <-s.done; r.Close() })
	select {
	case <-ready:
	case <-s.done:
		t.Fatalf("ended\n%s", s.text())
	case <-time.After(tempotest.Patience):
		t.Fatalf("not ready\n%s", s.text())
	}
	plug(t, sock)
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.done
	if strings.Contains(s.text(), "is not used") {
		t.Errorf("it warns:\n%s", s.text())
	}
	if _, err := os.Lstat(sock); err != nil {
		t.Error("the socket is systemd's:", err)
	}
}
