package guesttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/hosttest"
)

// nobody is who QEMU and libvirtd run as where the tests run as root.
const nobody = 65534

// libvirtd is one of the session's kind, in a folder of its own.
type libvirtd struct {
	t    *testing.T
	dir  string
	uri  string
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// newLibvirtd makes the folder and starts it. Domains that are left are ended.
func newLibvirtd(t *testing.T) *libvirtd {
	t.Helper()
	if _, err := exec.LookPath("virsh"); err != nil {
		t.Fatal("virsh is not installed: run make deps")
	}
	if d := os.TempDir(); os.Getuid() == 0 && !hosttest.Enters(d) {
		t.Fatalf("libvirtd runs as user %d here, who may not enter %s: set TMPDIR to a folder that everybody may enter", nobody, d)
	}
	dir, err := os.MkdirTemp("", "vtgt-lv-")
	if err != nil {
		t.Fatal(err)
	}
	l := &libvirtd{t: t, dir: dir, log: filepath.Join(dir, "log")}
	l.uri = "qemu+unix:///session?socket=" + filepath.Join(dir, "run/libvirt/libvirt-sock")
	t.Cleanup(func() {
		if l.cmd != nil {
			for _, d := range strings.Fields(l.virsh("list", "--name")) {
				_, _ = l.try("destroy", d)
			}
			l.kill()
		}
		if t.Failed() {
			b, _ := os.ReadFile(l.log)
			t.Logf("the log of libvirtd:\n%s", b)
			logs, _ := filepath.Glob(filepath.Join(dir, "cache/libvirt/qemu/log/*.log"))
			for _, f := range logs {
				b, _ := os.ReadFile(f)
				t.Logf("%s:\n%s", f, b)
			}
		}
		os.RemoveAll(dir)
	})
	for _, d := range []string{"run/libvirt", "cfg/libvirt", "cache", "vm"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := fmt.Sprintf("unix_sock_dir = %q\nauth_unix_rw = \"none\"\nlog_outputs = \"2:file:%s\"\n", filepath.Join(dir, "run/libvirt"), l.log)
	for name, text := range map[string]string{"libvirtd.conf": conf, "cfg/libvirt/qemu.conf": "security_driver = \"none\"\nstdio_handler = \"file\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.give(dir)
	l.start()
	return l
}

// give makes what is below dir that of libvirtd's user.
func (l *libvirtd) give(dir string) {
	l.t.Helper()
	if os.Getuid() != 0 {
		return
	}
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, nobody, nobody)
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// command runs a program as libvirtd's user, with its folders.
func (l *libvirtd) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + l.dir, "LC_ALL=C", "XDG_RUNTIME_DIR=" + filepath.Join(l.dir, "run"),
		"XDG_CONFIG_HOME=" + filepath.Join(l.dir, "cfg"), "XDG_CACHE_HOME=" + filepath.Join(l.dir, "cache"), "XDG_DATA_HOME=" + filepath.Join(l.dir, "data")}
	cmd.Dir = l.dir
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// start runs it and waits until it answers.
func (l *libvirtd) start() {
	l.t.Helper()
	bin := "/usr/sbin/libvirtd"
	if _, err := os.Stat(bin); err != nil {
		l.t.Fatal("libvirtd is not installed: run make deps")
	}
	cmd := l.command(context.Background(), bin, "-f", filepath.Join(l.dir, "libvirtd.conf"), "-p", filepath.Join(l.dir, "run/libvirtd.pid"))
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	l.cmd, l.done = cmd, done
	poll(l.t, "libvirtd answers", func() error {
		select {
		case <-done:
			b, _ := os.ReadFile(l.log)
			l.t.Fatalf("libvirtd has ended: %v\n%s", cmd.ProcessState, b)
		default:
		}
		_, err := l.try("list")
		return err
	})
}

// kill is SIGKILL: its domains go on.
func (l *libvirtd) kill() {
	_ = l.cmd.Process.Kill()
	<-l.done
	l.cmd = nil
}

// try runs virsh.
func (l *libvirtd) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := l.command(ctx, "virsh", append([]string{"-q", "-c", l.uri}, args...)...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("virsh %v: %w: %s", args, err, errOut.String())
	}
	return out.String(), nil
}

func (l *libvirtd) virsh(args ...string) string {
	l.t.Helper()
	out, err := l.try(args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// define defines a domain from XML.
func (l *libvirtd) define(text string) {
	l.t.Helper()
	p := filepath.Join(l.dir, "domain.xml")
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.virsh("define", p)
}

// domainXML is a domain. os is what stands in <os> after its type, more what stands below
// <devices>. Memory is shared where shared says so, in both ways there are: libvirt 9.0
// forgets the first one when it is restarted.
func domainXML(name, machine, os string, memMB, ports int, shared bool, more string) string {
	memory, numa := "", ""
	if shared {
		memory = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
		numa = fmt.Sprintf("<numa><cell id='0' cpus='0' memory='%d' unit='MiB' memAccess='shared'/></numa>", memMB)
	}
	pci := ""
	if machine == "q35" {
		pci = "<controller type='pci' index='0' model='pcie-root'/>"
		for i := range ports {
			pci += fmt.Sprintf("<controller type='pci' index='%d' model='pcie-root-port'/>", i+1)
		}
	}
	return fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>%d</memory>
  %s
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='%s'>hvm</type>%s</os>
  <features><acpi/></features>
  <cpu mode='maximum'>%s</cpu>
  <on_reboot>destroy</on_reboot>
  <devices>
    %s
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    %s
  </devices>
</domain>
`, name, memMB, memory, machine, os, numa, pci, more)
}

// libvirtGuest is a domain with the agent of package guest.
type libvirtGuest struct {
	*guest.Line
	l        *libvirtd
	name     string
	listener *net.UnixListener
}

// newGuest defines a domain that boots the agent.
func (l *libvirtd) newGuest(name string, k *guest.Kernel) *libvirtGuest {
	l.t.Helper()
	dir := filepath.Join(l.dir, "vm")
	im := &guest.Image{Kernel: k, Boot: []string{"virtio_pci", "virtio_scsi", "sd_mod", "sg"}}
	rd, err := im.Build(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	kernel := filepath.Join(dir, "vmlinux") // the cache may be where QEMU's user may not look
	if err := copyFile(kernel, k.Image); err != nil {
		l.t.Fatal(err)
	}
	g := &libvirtGuest{l: l, name: name}
	sock := filepath.Join(dir, name+".agent")
	if g.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: sock}); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { g.listener.Close() })
	l.give(dir)
	l.define(domainXML(name, "q35", fmt.Sprintf("<kernel>%s</kernel><initrd>%s</initrd><cmdline>console=ttyS0 quiet panic=-1 no_timer_check mitigations=off norandmaps net.ifnames=0 vtgt.life=1800</cmdline>", kernel, rd),
		256, 6, true, fmt.Sprintf(`<serial type='file'><source path='%s'/><target port='0'/></serial>
    <serial type='unix'><source mode='connect' path='%s'/><target port='1'/></serial>`, filepath.Join(dir, name+".console"), sock)))
	return g
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}

// start starts the domain and waits for its agent.
func (g *libvirtGuest) start() {
	g.l.t.Helper()
	g.l.virsh("start", g.name)
	_ = g.listener.SetDeadline(time.Now().Add(patience))
	c, err := g.listener.Accept()
	if err != nil {
		g.l.t.Fatal(err)
	}
	if g.Line != nil {
		g.Line.Close()
	}
	g.Line = guest.Answer(c)
	if err := g.Hear(2 * patience); err != nil {
		b, _ := os.ReadFile(filepath.Join(g.l.dir, "vm", g.name+".console"))
		g.l.t.Fatalf("%v\n%s", err, b)
	}
}
