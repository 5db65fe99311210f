package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// Options describe a guest.
type Options struct {
	Image *Image
	// Dir is a private folder for its files (initramfs, sockets, console.log).
	Dir string
	// MemMB and CPUs: 0 means 256 and 1.
	MemMB, CPUs int
	// Net gives it QEMU's user network: the host's 127.0.0.1 is 10.0.2.2.
	Net bool
	// Args are further arguments for QEMU.
	Args []string
	// Boot bounds the time to the agent's first word; 0 means 120 s (TCG on a
	// busy machine).
	Boot time.Duration
	// Life bounds the life of the whole guest; 0 means 10 minutes.
	Life time.Duration
}

// VM is a running guest.
type VM struct {
	cmd  *exec.Cmd
	conn net.Conn
	rd   *bufio.Reader
	life *time.Timer
	done chan struct{} // closed when QEMU has ended

	mu      sync.Mutex
	console bytes.Buffer
}

// Boot starts a guest and waits for its agent.
func Boot(o Options) (*VM, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, errNoQEMU
	}
	initBin, err := buildInit(o.Dir)
	if err != nil {
		return nil, err
	}
	rd := filepath.Join(o.Dir, "initramfs.cpio")
	if err := o.Image.Write(rd, initBin); err != nil {
		return nil, err
	}
	accel := os.Getenv("VTGT_GUEST_ACCEL")
	if accel == "" {
		accel = "tcg,thread=multi"
	}
	sock := filepath.Join(o.Dir, "agent.sock")
	ln, err := net.Listen("unix", sock)
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	mem, cpus := def(o.MemMB, 256), def(o.CPUs, 1)
	args := []string{"-accel", accel, "-cpu", "max", "-smp", strconv.Itoa(cpus), "-nodefaults", "-display", "none", "-no-reboot",
		"-m", strconv.Itoa(mem) + "M", "-object", fmt.Sprintf("memory-backend-memfd,id=m,size=%dM,share=on", mem), "-numa", "node,memdev=m",
		"-serial", "stdio", "-chardev", "socket,id=agent,path=" + sock, "-serial", "chardev:agent",
		"-kernel", o.Image.Kernel.Image, "-initrd", rd,
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off net.ifnames=0"}
	if o.Net {
		args = append(args, "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=")
	}
	vm := &VM{cmd: exec.Command(qemu, append(args, o.Args...)...), done: make(chan struct{})}
	log, err := os.Create(filepath.Join(o.Dir, "console.log"))
	if err != nil {
		return nil, err
	}
	vm.cmd.Stdout = consoleWriter{vm, log}
	vm.cmd.Stderr = vm.cmd.Stdout
	if err := vm.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = vm.cmd.Wait()
		_ = log.Close()
		close(vm.done)
	}()
	life := o.Life
	if life == 0 {
		life = 10 * time.Minute
	}
	vm.life = time.AfterFunc(life, vm.Kill)
	boot := o.Boot
	if boot == 0 {
		boot = 120 * time.Second
	}
	if err := vm.await(ln, time.Now().Add(boot)); err != nil {
		vm.Kill()
		return nil, fmt.Errorf("%w; console:\n%s", err, vm.Console())
	}
	return vm, nil
}

func def(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}

// await accepts QEMU's connection and the agent's first line.
func (vm *VM) await(ln net.Listener, by time.Time) error {
	_ = ln.(*net.UnixListener).SetDeadline(by)
	c, err := ln.Accept()
	if err != nil {
		return fmt.Errorf("guest: QEMU did not connect: %w", err)
	}
	vm.conn, vm.rd = c, bufio.NewReaderSize(c, 1<<20)
	_ = c.SetReadDeadline(by)
	for {
		line, err := vm.rd.ReadString('\n')
		if err != nil {
			return fmt.Errorf("guest: did not come up: %w", err)
		}
		if strings.TrimSpace(line) == agent.Ready {
			return nil
		}
	}
}

type consoleWriter struct {
	vm  *VM
	log *os.File
}

func (w consoleWriter) Write(b []byte) (int, error) {
	w.vm.mu.Lock()
	w.vm.console.Write(b)
	w.vm.mu.Unlock()
	return w.log.Write(b)
}

// Console is what the guest has printed so far.
func (vm *VM) Console() string {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return vm.console.String()
}

// PID is QEMU's process id.
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Do sends one request and waits for its answer. An answer with Err set is an error.
func (vm *VM) Do(q agent.Request, limit time.Duration) (*agent.Response, error) {
	b, err := json.Marshal(&q)
	if err != nil {
		return nil, err
	}
	_ = vm.conn.SetDeadline(time.Now().Add(limit))
	if _, err := vm.conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("guest: %s: %w", q.Op, err)
	}
	line, err := vm.rd.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("guest: %s %v: no answer: %w", q.Op, q.Args, err)
	}
	var r agent.Response
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("guest: %s: bad answer %q: %w", q.Op, line, err)
	}
	if r.Err != "" {
		return &r, fmt.Errorf("guest: %s %s%v: %s", q.Op, q.Path, q.Args, r.Err)
	}
	return &r, nil
}

// ErrExit is a program in the guest that did not exit with 0.
var ErrExit = errors.New("exit status is not 0")

// Run runs a program in the guest to its end and returns what it printed.
func (vm *VM) Run(args ...string) (string, error) {
	r, err := vm.Do(agent.Request{Op: agent.Exec, Args: args}, 90*time.Second)
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return string(r.Out), fmt.Errorf("guest: %v: %w but %d: %s", args, ErrExit, r.Exit, r.Out)
	}
	return string(r.Out), nil
}

// Insmod loads modules that the image has, with all they depend on.
func (vm *VM) Insmod(k *Kernel, params string, names ...string) error {
	files, err := k.Modules(names...)
	if err != nil {
		return err
	}
	for i, f := range files {
		files[i] = moduleDir + filepath.Base(f)
	}
	_, err = vm.Do(agent.Request{Op: agent.Insmod, Args: files, Data: []byte(params)}, time.Minute)
	return err
}

// Read returns a file of the guest.
func (vm *VM) Read(path string) (string, error) {
	r, err := vm.Do(agent.Request{Op: agent.Get, Path: path}, time.Minute)
	if err != nil {
		return "", err
	}
	return string(r.Out), nil
}

// Put writes a file in the guest.
func (vm *VM) Put(path, text string) error {
	_, err := vm.Do(agent.Request{Op: agent.Put, Path: path, Data: []byte(text)}, time.Minute)
	return err
}

// Await polls until a path that matches pattern is there, and returns the first.
func (vm *VM) Await(pattern string, limit time.Duration) (string, error) {
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		r, err := vm.Do(agent.Request{Op: agent.Glob, Path: pattern}, time.Minute)
		if err != nil {
			return "", err
		}
		if len(r.Out) > 0 {
			return strings.Split(string(r.Out), "\n")[0], nil
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("guest: no %s within %v", pattern, limit)
		}
	}
}

// Poweroff shuts the guest down and waits for QEMU to end.
func (vm *VM) Poweroff() error {
	_, err := vm.Do(agent.Request{Op: agent.Poweroff}, time.Minute)
	if err != nil {
		vm.Kill()
		return err
	}
	select {
	case <-vm.done:
		vm.life.Stop()
		return nil
	case <-time.After(time.Minute):
		vm.Kill()
		return errors.New("guest: QEMU did not end after power-off")
	}
}

// Kill ends QEMU with SIGKILL: power loss, as far as the guest can tell.
func (vm *VM) Kill() {
	vm.life.Stop()
	_ = vm.cmd.Process.Kill()
	<-vm.done
	if vm.conn != nil {
		_ = vm.conn.Close()
	}
}
