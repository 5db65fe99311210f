package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// Options describe a guest.
type Options struct {
	// Image is what the guest boots; nil: what its firmware finds. Then it has no
	// agent, and Boot returns at once.
	Image *Image
	// PSeries has a machine without Image be a pSeries one, with its firmware.
	PSeries bool
	// QEMU is the program and its first arguments; empty: the host's.
	QEMU []string
	// Initramfs is an archive that Image.Build made; empty: Boot makes it.
	Initramfs string
	// Dir is a private folder for its files (initramfs, console.log).
	Dir string
	// MemMB and CPUs: 0 means 256 and 1.
	MemMB, CPUs int
	// Net gives it QEMU's user network: the host's 127.0.0.1 is 10.0.2.2.
	Net bool
	// MemFile is a file that is the guest's memory, made or extended; empty: a memfd.
	MemFile string
	// Forward are TCP ports of the host's 127.0.0.1 and what they are in the
	// guest; they want Net.
	Forward map[int]int
	// Args are further arguments for QEMU.
	Args []string
	// Params are further parameters of the kernel, without a comma under a Hypervisor.
	Params string
	// Hypervisor is a Xen (multiboot, not compressed) that starts the kernel as its
	// first domain; HypervisorParams are its parameters.
	Hypervisor, HypervisorParams string
	// Lines is how many further lines there are beside the agent's, see VM.Lines. The
	// image must load virtio_pci and virtio_console.
	Lines int
	// Incoming has QEMU wait for another's guest at this address ("unix:PATH"): Boot
	// returns at once, and the agent's line is good when the guest has come. All else
	// must be as the other's.
	Incoming string
	// Terminal gives the guest's console to this process's terminal instead of to
	// VM.Console and console.log; C-a x ends QEMU.
	Terminal bool
	// Boot bounds the time to the agent's first word; 0 means 10 minutes (TCG
	// on a busy machine; some 5 s on an idle one).
	Boot time.Duration
	// Life bounds the life of the whole guest; 0 means 40 minutes.
	Life time.Duration
}

// VM is a running guest. Its methods may be called from any goroutine.
type VM struct {
	*Line   // the agent's
	cmd     *exec.Cmd
	lines   []*Line
	life    *time.Timer
	done    chan struct{} // closed when QEMU has ended
	console console
}

// Boot starts a guest and waits for its agent. The caller must Kill it.
func Boot(o Options) (*VM, error) {
	qemu := o.QEMU
	if len(qemu) == 0 {
		name := "qemu-system-x86_64"
		if o.pseries() {
			name = "qemu-system-ppc64"
		}
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, errNoQEMU(name)
		}
		qemu = []string{path}
	}
	var err error
	rd := o.Initramfs
	if rd == "" && o.Image != nil {
		if rd, err = o.Image.Build(o.Dir); err != nil {
			return nil, err
		}
	}
	life, boot := orDefault(o.Life, 40*time.Minute), orDefault(o.Boot, 10*time.Minute)
	vm := &VM{cmd: exec.Command(qemu[0], append(qemu[1:len(qemu):len(qemu)], o.arguments(rd, life)...)...), done: make(chan struct{})}
	vm.cmd.Stdin, vm.cmd.Stdout, vm.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if !o.Terminal {
		log, err := os.Create(filepath.Join(o.Dir, "console.log"))
		if err != nil {
			return nil, err
		}
		vm.console.log = log
		vm.cmd.Stdin, vm.cmd.Stdout, vm.cmd.Stderr = nil, &vm.console, &vm.console
	}
	for range 1 + o.Lines {
		l, theirs, lerr := newLine()
		if lerr != nil {
			err = lerr
			break
		}
		vm.lines = append(vm.lines, l)
		vm.cmd.ExtraFiles = append(vm.cmd.ExtraFiles, theirs) // from agentFD on
	}
	if err == nil {
		err = vm.start()
	} else {
		vm.console.close()
	}
	for _, f := range vm.cmd.ExtraFiles {
		_ = f.Close()
	}
	if err != nil {
		vm.hangUp()
		return nil, err
	}
	vm.Line, vm.lines = vm.lines[0], vm.lines[1:]
	vm.life = time.AfterFunc(life, func() { _ = vm.cmd.Process.Kill() })
	if o.Image == nil || o.Incoming != "" {
		return vm, nil
	}
	if err := vm.Hear(boot); err != nil {
		vm.Kill()
		return nil, fmt.Errorf("%w; console:\n%s", err, vm.Console())
	}
	return vm, nil
}

func orDefault[T int | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

// agentFD is the descriptor of the agent's line in QEMU: the first of ExtraFiles. The
// further lines follow.
const agentFD = 3

// pseries tells whether the guest is a pSeries machine.
func (o *Options) pseries() bool {
	return o.PSeries || o.Image != nil && o.Image.Kernel.arch == ppc64
}

// arguments is QEMU's command line.
func (o *Options) arguments(initramfs string, life time.Duration) []string {
	accel := os.Getenv("VTGT_GUEST_ACCEL")
	if accel == "" {
		accel = "tcg,thread=multi"
	}
	console := "stdio"
	if o.Terminal {
		console = "mon:stdio"
	}
	mem := orDefault(o.MemMB, 256)
	backend := "memory-backend-memfd"
	if o.MemFile != "" {
		backend = "memory-backend-file,mem-path=" + o.MemFile
	}
	tty, machine := "ttyS0", []string{"-cpu", "max"}
	if o.Hypervisor != "" { // its own has the serial line; and no first domain lives with SMAP under TCG
		tty, machine = "hvc0", []string{"-cpu", "max,-smap"}
	}
	if o.pseries() {
		tty, machine = "hvc0", o.pseriesArguments()
	} else {
		machine = append(machine, "-object", fmt.Sprintf("%s,id=m,size=%dM,share=on", backend, mem), "-numa", "node,memdev=m")
	}
	args := append(machine, "-accel", accel, "-smp", strconv.Itoa(orDefault(o.CPUs, 1)), "-nodefaults", "-display", "none", "-no-reboot",
		"-m", strconv.Itoa(mem)+"M",
		"-serial", console, "-chardev", fmt.Sprintf("socket,id=agent,fd=%d", agentFD), "-serial", "chardev:agent")
	for i := range o.Lines {
		if i == 0 {
			args = append(args, "-device", "virtio-serial-pci,id=vs0")
		}
		args = append(args, "-chardev", fmt.Sprintf("socket,id=line%d,fd=%d", i, agentFD+1+i),
			"-device", fmt.Sprintf("virtserialport,bus=vs0.0,nr=%d,chardev=line%d", i+1, i))
	}
	if o.Image != nil {
		// TCG keeps code by its virtual address: where that is random, every program
		// is translated anew, 110 ms instead of 55 on a busy machine. The end of life
		// is ten seconds after the host's own limit, which says more.
		params := fmt.Sprintf("console=%s quiet panic=-1 no_timer_check mitigations=off norandmaps net.ifnames=0 %s=%d", tty, agent.LifeParam, int(life.Seconds())+10)
		if o.Params != "" {
			params += " " + o.Params
		}
		if o.Hypervisor != "" {
			args = append(args, "-kernel", o.Hypervisor, "-append", o.HypervisorParams, "-initrd", o.Image.Kernel.Image+" "+params+","+initramfs)
		} else {
			args = append(args, "-kernel", o.Image.Kernel.Image, "-initrd", initramfs, "-append", params)
		}
	}
	if o.Net {
		dev := "user,id=n0"
		for host, guest := range o.Forward {
			dev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", host, guest)
		}
		args = append(args, "-netdev", dev, "-device", "virtio-net-pci,netdev=n0,romfile=")
	}
	if o.Incoming != "" {
		args = append(args, "-incoming", o.Incoming)
	}
	return append(args, o.Args...)
}

// start starts QEMU, so that it dies with this process.
func (vm *VM) start() error {
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that started QEMU: keep it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := vm.cmd.Start()
		started <- err
		if err == nil {
			_ = vm.cmd.Wait()
		}
		vm.console.close()
		close(vm.done)
	}()
	return <-started
}

// Console is the end of what the guest has printed so far; all of it is in
// console.log.
func (vm *VM) Console() string { return vm.console.text() }

// Done is closed when QEMU has ended.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// PID is QEMU's process id.
func (vm *VM) PID() int { return vm.cmd.Process.Pid }

// Poweroff shuts the guest down and waits for QEMU to end.
func (vm *VM) Poweroff() error {
	defer vm.Kill()
	if _, err := vm.Do(agent.Request{Op: agent.Poweroff}, answerTime); err != nil {
		return err
	}
	select {
	case <-vm.done:
		return nil
	case <-time.After(answerTime):
		return errors.New("guest: QEMU did not end after power-off")
	}
}

// Kill ends QEMU with SIGKILL: power loss, as far as the guest can tell. It is
// idempotent.
func (vm *VM) Kill() {
	vm.life.Stop()
	_ = vm.cmd.Process.Kill()
	<-vm.done
	_ = vm.conn.Close()
	vm.hangUp()
}

// Lines are the further lines: in the guest, the virtio ports /dev/vport0p1 and so on,
// which whoever serves an agent's requests is behind.
func (vm *VM) Lines() []*Line { return vm.lines }

func (vm *VM) hangUp() {
	for _, l := range vm.lines {
		_ = l.conn.Close()
	}
}
