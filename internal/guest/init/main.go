package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// ports are where the agent's serial line is, unless the kernel's command line says so: the
// machine's second one, of a PC or of a pSeries machine, where its number is that of its
// place on the bus.
func ports() []string {
	if p, ok := param(agent.PortParam); ok {
		return []string{"/dev/" + p}
	}
	return []string{"/dev/hvc1", "/dev/ttyS1"}
}

// param is a parameter of the kernel's command line.
func param(name string) (value string, ok bool) {
	b, _ := os.ReadFile("/proc/cmdline")
	for _, f := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v, true
		}
	}
	return "", false
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "nosync" {
		fmt.Println("init: nosync:", execNoSync(os.Args[2:]))
		os.Exit(127)
	}
	if len(os.Args) == 3 && os.Args[1] == agent.DoArg {
		os.Exit(doOne(os.Args[2]))
	}
	if err := run(); err != nil {
		fmt.Println("init:", err)
	}
	powerOff()
}

func powerOff() { _ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF) }

func run() error {
	mounts()
	limitLife()
	if err := modules("/modules.boot"); err != nil {
		fmt.Println("init:", err)
	}
	network()
	var f *os.File
	var err error
	var port string
	for _, port = range ports() {
		if f, err = os.OpenFile(port, os.O_RDWR|syscall.O_NOCTTY, 0); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := rawTTY(int(f.Fd())); err != nil {
		return fmt.Errorf("%s: %w", port, err)
	}
	fmt.Fprintln(f, agent.Ready)
	in := bufio.NewReaderSize(f, 1<<20)
	sv := server{spawned: map[int]*spawned{}}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return err
		}
		var q agent.Request
		if err := json.Unmarshal(line, &q); err != nil {
			continue // noise on the line
		}
		r := sv.serve(&q)
		r.ID = q.ID
		b, _ := json.Marshal(r)
		if _, err := f.Write(append(b, '\n')); err != nil {
			return err
		}
		if q.Op == agent.Poweroff {
			syscall.Sync()
			return nil
		}
	}
}

// limitLife ends the guest when its time is over even if nobody is left on the
// host to do so: the kernel's command line has it in seconds.
func limitLife() {
	v, _ := param(agent.LifeParam)
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		time.AfterFunc(time.Duration(s)*time.Second, powerOff)
	}
}

func mounts() {
	for _, m := range []struct{ src, dst, typ, opt string }{
		{"proc", "/proc", "proc", ""},
		{"sys", "/sys", "sysfs", ""},
		{"dev", "/dev", "devtmpfs", ""},
		{"pts", "/dev/pts", "devpts", ""},
		{"run", "/run", "tmpfs", ""},
		{"tmp", "/tmp", "tmpfs", ""},
		{"config", "/sys/kernel/config", "configfs", ""},
	} {
		_ = os.MkdirAll(m.dst, 0o755)
		_ = unix.Mount(m.src, m.dst, m.typ, 0, m.opt)
	}
	_ = os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	_ = os.Setenv("HOME", "/root")
}

// modules loads the module files named in list, one a line, in order.
func modules(list string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return nil // none wanted
	}
	return insmod(strings.Fields(string(b)), "")
}

// rawTTY makes the line transparent: no echo, no translation.
func rawTTY(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
