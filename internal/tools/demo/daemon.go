package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// server is vtgt with one disk, in a folder of its own.
type server struct {
	program              string
	vhost, socket, image string
	cmd                  *exec.Cmd
	done                 chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

// startDaemon runs vtgt serve and waits until it is ready.
func startDaemon(program, dir string) (*server, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	s := &server{program: program, vhost: filepath.Join(dir, "vm.sock"), socket: filepath.Join(dir, "vtgt.sock"), image: filepath.Join(dir, "disk.img"), done: make(chan struct{})}
	text := fmt.Sprintf(`version: 1
disks:
  - {name: demo, store: "file:%s", size: 64MiB, create: true, serial: MADE-BY-VTGT}
targets:
  - name: vm1
    luns: [{lun: 0, disk: demo}]
    vhost: {socket: "%s"}
api: {socket: "%s"}
state: "%s/state"
`, s.image, s.vhost, s.socket, dir)
	file := filepath.Join(dir, "vtgt.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	say("vtgt serve --config %s", file)
	fmt.Print(text)
	s.cmd = exec.Command(program, "serve", "--config", file)
	// C-c in the console is the guest's; and it does not outlive this process.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; run: make build", err)
	}
	ready := make(chan struct{})
	go func() {
		sc := bufio.NewScanner(stderr)
		for told := false; sc.Scan(); {
			s.mu.Lock()
			s.log.WriteString(sc.Text() + "\n")
			s.mu.Unlock()
			if !told && strings.Contains(sc.Text(), "msg=ready") {
				told = true
				close(ready)
			}
		}
		_ = s.cmd.Wait()
		close(s.done)
	}()
	select {
	case <-ready:
		return s, nil
	case <-s.done:
		err = errors.New("vtgt has ended")
	case <-time.After(30 * time.Second):
		err = errors.New("vtgt is not ready after 30 s")
		s.stop()
	}
	return nil, fmt.Errorf("%w:\n%s", err, s.text())
}

func (s *server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// show runs a client command and prints what it says.
func (s *server) show(args ...string) error {
	cmd := exec.Command(s.program, args...)
	cmd.Env = append(os.Environ(), "VTGT_SOCKET="+s.socket)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// stop ends it: SIGTERM, then SIGKILL.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}
