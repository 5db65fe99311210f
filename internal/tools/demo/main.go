package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

// life bounds the demonstration; a console has a day.
const life = 170 * time.Second

func main() {
	vtgt := flag.String("vtgt", "bin/vtgt", "the program under demonstration")
	shell := flag.Bool("shell", false, "leave a console")
	flag.Parse()
	// What is started ends when the thread ends that started it (Pdeathsig).
	runtime.LockOSThread()
	start := time.Now()
	if err := demo(*vtgt, *shell); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nAll of it worked, in %v. Now: bin/vtgt run --vhost, and the README.\n", time.Since(start).Round(time.Second))
}

// say heads a step.
func say(format string, args ...any) { fmt.Printf("\n==> "+format+"\n", args...) }

func demo(program string, shell bool) (err error) {
	dir, err := os.MkdirTemp("", "vtgt-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cache, err := guest.DefaultCache()
	if err != nil {
		return err
	}
	say("A kernel for the guest (Debian's; downloaded once into .cache/guest)")
	k, err := cache.Kernel()
	if err != nil {
		return err
	}
	fmt.Println("linux", k.Release)
	im := &guest.Image{Kernel: k, Boot: []string{"virtio_pci", "virtio_scsi", "sd_mod", "sg"}}
	if shell {
		box, err := cache.Package("busybox-static")
		if err != nil {
			return err
		}
		im.Binaries = []guest.Binary{{Root: box, Path: "/bin/busybox"}}
		im.Boot = append(im.Boot, "crc32c_generic", "ext4")
	}

	d, err := startDaemon(program, dir)
	if err != nil {
		return err
	}
	defer d.stop()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nthe log of vtgt:\n%s", err, d.text())
		}
	}()

	say("A guest under QEMU (TCG: no KVM needed) on %s", d.vhost)
	o := guest.Options{Image: im, Dir: dir, Life: life, Terminal: shell,
		Args: []string{"-chardev", "socket,id=vtgt,path=" + d.vhost, "-device", "vhost-user-scsi-pci,chardev=vtgt"}}
	if shell {
		o.Life = 24 * time.Hour
		fmt.Println("C-a x ends QEMU; exit or C-d in the shell powers the guest off.")
	}
	vm, err := guest.Boot(o)
	if err != nil {
		return err
	}
	defer vm.Kill()
	name, err := show(vm)
	if err != nil {
		return fmt.Errorf("%w; what the guest's kernel says:\n%s", err, vm.Console())
	}
	say("The same, from vtgt (vtgt get exports)")
	if err := d.show("get", "exports"); err != nil {
		return err
	}
	if shell {
		return console(vm, name)
	}
	if err := writeAndRead(vm, name, d.image); err != nil {
		return err
	}
	say("Power off")
	return vm.Poweroff()
}

// show prints what the guest sees of the disk, and returns its kernel name.
func show(vm *guest.VM) (string, error) {
	path, err := vm.Await("/sys/class/scsi_disk/*/device/block/*", time.Minute)
	if err != nil {
		return "", err
	}
	name := filepath.Base(path)
	dev := "/sys/block/" + name
	read := func(file string) string {
		s, _ := vm.Read(dev + file)
		return strings.TrimSpace(s)
	}
	sectors, err := strconv.ParseInt(read("/size"), 10, 64)
	if err != nil {
		return "", fmt.Errorf("the guest's disk has no size: %w", err)
	}
	serial := ""
	if s := read("/device/vpd_pg80"); len(s) > 4 {
		serial = s[4:]
	}
	hctl := strings.Split(path, "/")[4]
	say("What the guest sees")
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tHCTL\tSIZE\tVENDOR\tMODEL\tSERIAL\tWWN")
	fmt.Fprintf(w, "%s\t%s\t%dM\t%s\t%s\t%s\t%s\n", name, hctl, sectors>>11, read("/device/vendor"), read("/device/model"), serial, strings.TrimRight(read("/device/wwid"), "\x00"))
	return name, w.Flush()
}

// writeAndRead writes in the guest, past its page cache, and reads the same back there
// and in the host's file.
func writeAndRead(vm *guest.VM, name, image string) error {
	const off, length, seed = 1 << 20, 4 << 20, 2026
	q := agent.Request{Op: agent.Fill, Path: "/dev/" + name, Off: off, Len: length, Seed: seed, Direct: true, Sync: true}
	say("The guest writes %d MiB to /dev/%s, and syncs", length>>20, name)
	start := time.Now()
	if _, err := vm.Do(q, time.Minute); err != nil {
		return err
	}
	fmt.Printf("written in %v\n", time.Since(start).Round(time.Millisecond))
	say("It reads them back")
	q.Op, q.Sync = agent.Check, false
	if _, err := vm.Do(q, time.Minute); err != nil {
		return err
	}
	fmt.Println("they are the same")
	say("The host finds them in %s", image)
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	got, want := make([]byte, length), make([]byte, length)
	if _, err := f.ReadAt(got, off); err != nil {
		return err
	}
	if agent.Pattern(want, seed, off); !bytes.Equal(got, want) {
		return fmt.Errorf("%s does not hold what the guest wrote", image)
	}
	fmt.Println("they are the same there")
	return nil
}

// console leaves a shell to the user.
func console(vm *guest.VM, name string) error {
	if _, err := vm.Run("/bin/busybox", "--install", "-s", "/bin"); err != nil {
		return err
	}
	say("A shell in the guest; the disk is /dev/%s", name)
	err := vm.Shell("/bin/busybox", "sh", "-l")
	select {
	case <-vm.Done():
		return nil // C-a x
	default:
	}
	if err != nil {
		return err
	}
	return vm.Poweroff()
}
