package xenguest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

// Options describe a Bed.
type Options struct {
	Cache  *guest.Cache
	Kernel *guest.Kernel
	// Dir is a private folder.
	Dir string
	// Domain is what goes into every domain's initramfs beside its agent; First into the
	// first domain's. Their Kernel is set.
	Domain, First guest.Image
	// Domains is how many domains there are at once, 0: one.
	Domains int
}

const (
	kernelPath    = "/boot/kernel"
	initramfsPath = "/boot/initramfs"
	lineOf        = "/dev/vport0p%d" // from 1 on
)

// firstMB is the first domain's memory: it keeps the domains' kernel, 63 MB, in its
// initramfs, and the tests' disks.
const firstMB = 768

// DomainMB is a domain's memory.
const DomainMB = 160

// Bed is a running Xen host. What it embeds is the first domain's agent.
type Bed struct {
	*guest.VM
	xen  *Xen
	free []int // lines
}

// Start boots the host: hypervisor, first domain, xenstored and xenconsoled. The caller
// must Kill it.
func Start(o Options) (*Bed, error) {
	x, err := Find(o.Cache)
	if err != nil {
		return nil, err
	}
	im, err := o.image(x)
	if err != nil {
		return nil, err
	}
	n := max(o.Domains, 1)
	vm, err := guest.Boot(guest.Options{
		Image: im, Dir: o.Dir, MemMB: firstMB + n*(DomainMB+24) + 96, CPUs: 2, Lines: n,
		Hypervisor: x.Image,
		// The first domain has a processor of its own: what xentrace sees there is its.
		// Without xsave: two virtual processors that share one lose registers of AVX
		// under TCG, seen as modules whose signature is wrong.
		HypervisorParams: fmt.Sprintf("com1=115200,8n1 console=com1 loglvl=warning guest_loglvl=warning dom0_mem=%dM,max:%dM dom0_max_vcpus=1 dom0_vcpus_pin xsave=0", firstMB, firstMB),
		Params:           agent.PortParam + "=ttyS1",
	})
	if err != nil {
		return nil, err
	}
	b := &Bed{VM: vm, xen: x}
	for i := range n {
		b.free = append(b.free, i)
	}
	if err := b.daemons(); err != nil {
		err = fmt.Errorf("%w; console:\n%s", err, vm.Console())
		vm.Kill()
		return nil, err
	}
	return b, nil
}

// image is the first domain's, with the domains' in it.
func (o *Options) image(x *Xen) (*guest.Image, error) {
	dir := filepath.Join(o.Dir, "domain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	u := o.Domain
	u.Kernel = o.Kernel
	u.Boot = append([]string{"sd_mod", "sg", "crct10dif_generic", "xen_scsifront"}, u.Boot...)
	rd, err := u.Build(dir)
	if err != nil {
		return nil, err
	}
	im := o.First
	im.Kernel = o.Kernel
	im.Boot = append([]string{"virtio_pci", "virtio_console", "xen_privcmd", "xenfs", "xen_evtchn", "xen_gntdev", "xen_gntalloc"}, im.Boot...)
	im.Binaries = append(x.binaries(), im.Binaries...)
	im.Files = clone(im.Files, map[string]string{kernelPath: o.Kernel.Image, initramfsPath: rd, "/usr/lib/" + libDir + "/" + libgcc: x.libgcc})
	im.Links = clone(im.Links, map[string]string{"/var/run": "/run", "/var/lock": "/run/lock"})
	return &im, nil
}

func clone(a, b map[string]string) map[string]string {
	m := maps.Clone(b)
	maps.Copy(m, a)
	return m
}

// daemons starts what a first domain needs, in this order.
func (b *Bed) daemons() error {
	if err := b.Mount("xenfs", "/proc/xen", "xenfs", ""); err != nil {
		return err
	}
	for _, f := range []string{"/etc/xen/xl.conf", "/run/lock/x", "/run/xen/x", "/run/xenstored/x", "/var/lib/xen/x", "/var/lib/xenstored/x", "/var/log/xen/console/x"} {
		text := ""
		if strings.HasSuffix(f, ".conf") {
			text = "autoballoon=\"off\"\n"
		}
		if err := b.Put(f, text); err != nil {
			return err
		}
	}
	if err := b.Xenstored(); err != nil {
		return err
	}
	if err := b.WriteNode("/local/domain/0/domid", "0"); err != nil {
		return err
	}
	if _, err := b.Run(b.xen.bin("xen-init-dom0")); err != nil {
		return err
	}
	_, err := b.Run(b.xen.bin("xenconsoled"), "--pid-file=/run/xen/xenconsoled.pid", "--log=guest", "--log-dir=/var/log/xen/console")
	return err
}

// Xenstored starts xenstored.
func (b *Bed) Xenstored() error {
	_, err := b.Run(b.xen.bin("xenstored"), "--pid-file", "/run/xen/xenstored.pid")
	return err
}

// Tool is where one of Xen's programs is.
func (b *Bed) Tool(name string) string { return b.xen.bin(name) }

// XL runs xl.
func (b *Bed) XL(args ...string) (string, error) {
	return b.Run(append([]string{b.xen.bin("xl")}, args...)...)
}

// WriteNode and the following are the tools of xenstore.
func (b *Bed) WriteNode(path, value string) error {
	_, err := b.Run("/usr/bin/xenstore", "write", path, value)
	return err
}

// ReadNode is the value of a node.
func (b *Bed) ReadNode(path string) (string, error) {
	s, err := b.Run("/usr/bin/xenstore", "read", path)
	return strings.TrimSuffix(s, "\n"), err
}

// Tree is all below a node, with permissions.
func (b *Bed) Tree(path string) string {
	s, err := b.Run("/usr/bin/xenstore", "ls", "-p", "-f", path)
	if err != nil {
		return err.Error()
	}
	return s
}

// A Domain is a paravirtual domain. What it embeds is its agent, which answers after
// Unpause.
type Domain struct {
	*guest.Line
	Name string
	ID   int

	b     *Bed
	line  int
	relay int // process id
}

const domainConfig = `name="%s"
type="pv"
memory=%d
vcpus=2
cpus="1"
kernel="%s"
ramdisk="%s"
extra="console=hvc0 quiet loglevel=3 panic=-1 norandmaps mitigations=off %s=hvc0"
on_poweroff="destroy"
on_reboot="restart"
on_crash="destroy"
`

// Create makes a domain, paused.
func (b *Bed) Create(name string) (*Domain, error) {
	if len(b.free) == 0 {
		return nil, errors.New("xenguest: no line is free for one more domain")
	}
	conf := "/etc/xen/" + name + ".cfg"
	if err := b.Put(conf, fmt.Sprintf(domainConfig, name, DomainMB, kernelPath, initramfsPath, agent.PortParam)); err != nil {
		return nil, err
	}
	if out, err := b.XL("create", "-p", conf); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	d := &Domain{Name: name, b: b, line: b.free[0]}
	b.free = b.free[1:]
	d.Line = b.Lines()[d.line]
	return d, d.find()
}

// find looks the domain's number up.
func (d *Domain) find() error {
	s, err := d.b.XL("domid", d.Name)
	if err != nil {
		return err
	}
	_, err = fmt.Sscan(s, &d.ID)
	return err
}

// Unpause lets the domain run, and waits for its agent.
func (d *Domain) Unpause(limit time.Duration) error {
	if err := d.Connect(); err != nil {
		return err
	}
	if _, err := d.b.XL("unpause", d.Name); err != nil {
		return err
	}
	return d.Hear(limit)
}

// Connect joins the domain's console and its line.
func (d *Domain) Connect() error {
	tty, err := d.b.ReadNode(fmt.Sprintf("/local/domain/%d/console/tty", d.ID))
	if err != nil {
		return err
	}
	d.relay, err = d.b.SpawnDo(agent.Request{Op: agent.Relay, Path: fmt.Sprintf(lineOf, d.line+1), Args: []string{tty}})
	return err
}

// Destroy ends the domain as a power failure would.
func (d *Domain) Destroy() error {
	_, err := d.b.XL("destroy", d.Name)
	return errors.Join(err, d.release())
}

// release gives the line back.
func (d *Domain) release() error {
	d.b.free = append(d.b.free, d.line)
	if d.relay == 0 {
		return nil
	}
	return d.b.Signal(d.relay, 9, time.Minute)
}

// Save has the domain suspend into a file of the first domain, and ends it.
func (d *Domain) Save(path string) error {
	out, err := d.b.XL("save", d.Name, path)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if d.relay != 0 {
		return d.b.Signal(d.relay, 9, time.Minute)
	}
	return nil
}

// Restore makes the domain anew of what Save has saved, paused.
func (d *Domain) Restore(path string) error {
	out, err := d.b.XL("restore", "-p", path)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return d.find()
}

// Resume lets a restored domain go on: its agent is where it was.
func (d *Domain) Resume() error {
	if err := d.Connect(); err != nil {
		return err
	}
	_, err := d.b.XL("unpause", d.Name)
	return err
}
