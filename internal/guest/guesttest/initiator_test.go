package guesttest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
)

// hostAddress is this host's 127.0.0.1 as the guest has it.
const hostAddress = "10.0.2.2"

const initiatorName = "iqn.2026-11.org.vtgt:guest"

// linux is a guest with open-iscsi.
type linux struct {
	t  *testing.T
	vm *guest.VM
	k  *guest.Kernel
}

// bootLinux boots it.
func bootLinux(t *testing.T) *linux {
	t.Helper()
	c := wantGuest(t)
	k, err := c.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := c.Packages("open-iscsi", "libopeniscsiusr", "libisns0", "libkmod2")
	if err != nil {
		t.Fatal(err)
	}
	im := &guest.Image{
		Kernel: k,
		Boot:   []string{"virtio_pci", "virtio_net", "crc32c_generic", "sd_mod", "sg", "ext4", "iscsi_tcp"},
		Links:  map[string]string{},
	}
	for _, p := range []string{"/sbin/iscsid", "/sbin/iscsiadm", "/sbin/iscsistart"} {
		im.Binaries = append(im.Binaries, guest.Binary{Root: roots[0], Path: p, Libs: roots[1:]})
	}
	for _, p := range []string{"/sbin/mkfs.ext4", "/sbin/e2fsck"} {
		im.Binaries = append(im.Binaries, guest.Binary{Path: p})
	}
	vm, err := guest.Boot(guest.Options{Dir: t.TempDir(), Net: true, Image: im, MemMB: 320})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guest's console:\n%s", vm.Console())
			if l, err := vm.Log(); err == nil {
				t.Logf("the guest's kernel log:\n%s", l)
			}
		}
		vm.Kill()
	})
	g := &linux{t: t, vm: vm, k: k}
	g.put("/etc/iscsi/initiatorname.iscsi", "InitiatorName="+initiatorName+"\n")
	g.put("/run/lock/iscsi/made", "")
	return g
}

func (g *linux) put(path, text string) {
	g.t.Helper()
	if err := g.vm.Put(path, text); err != nil {
		g.t.Fatal(err)
	}
}

// read is a file without the line's end.
func (g *linux) read(path string) string {
	g.t.Helper()
	s, err := g.vm.Read(path)
	if err != nil {
		g.t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func (g *linux) run(args ...string) string {
	g.t.Helper()
	out, err := g.vm.Run(args...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// settings are iscsid's names of parameters and their values, in order.
type settings [][2]string

// digests switches both on, and nothing else is acceptable.
var digests = settings{
	{"node.conn[0].iscsi.HeaderDigest", "CRC32C"},
	{"node.conn[0].iscsi.DataDigest", "CRC32C"},
}

// peerTime is how long initiator and target wait for each other, s: on a busy machine
// the other is late, not gone.
const peerTime = "120"

// iscsistart logs in without a daemon.
func (g *linux) iscsistart(iqn string, port int, s settings) (string, error) {
	var options [][2]string
	for _, kv := range s {
		options = append(options, [2]string{"-P", kv[0] + "=" + kv[1]})
	}
	return g.iscsistartAs(iqn, port, options)
}

// iscsistartAs is iscsistart with options of its own.
func (g *linux) iscsistartAs(iqn string, port int, options [][2]string) (string, error) {
	args := []string{"/sbin/iscsistart", "-i", initiatorName, "-t", iqn, "-g", "1", "-a", hostAddress, "-p", fmt.Sprint(port)}
	options = append(options, [2]string{"-P", "node.conn[0].timeo.login_timeout=" + peerTime}, [2]string{"-P", "node.conn[0].timeo.noop_out_timeout=" + peerTime})
	for _, o := range options {
		args = append(args, o[0], o[1])
	}
	return g.vm.Run(args...)
}

// node names a target for iscsiadm.
func node(iqn string, port int) []string {
	return []string{"/sbin/iscsiadm", "-m", "node", "-T", iqn, "-p", fmt.Sprintf("%s:%d,1", hostAddress, port)}
}

// login logs in through iscsid.
func (g *linux) login(iqn string, port int, s settings) error {
	n := node(iqn, port)
	if _, err := g.vm.Run(append(n, "-o", "new")...); err != nil {
		return err
	}
	for _, kv := range s {
		if _, err := g.vm.Run(append(n, "-o", "update", "-n", kv[0], "-v", kv[1])...); err != nil {
			return err
		}
	}
	_, err := g.vm.Run(append(n, "--login")...)
	return err
}

func (g *linux) logout(iqn string, port int) error {
	_, err := g.vm.Run(append(node(iqn, port), "--logout")...)
	return err
}

// session finds the session of a target in sysfs: its folder and its number.
func (g *linux) session(iqn string) (dir, number string) {
	g.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		for _, d := range g.glob("/sys/class/iscsi_session/session*") {
			if name, err := g.vm.Read(d + "/targetname"); err == nil && strings.TrimSpace(name) == iqn {
				return d, strings.TrimPrefix(d, "/sys/class/iscsi_session/session")
			}
		}
		if time.Now().After(end) {
			g.t.Fatalf("the guest has no session with %s", iqn)
		}
	}
}

func (g *linux) glob(pattern string) []string {
	g.t.Helper()
	names, err := g.vm.Glob(pattern)
	if err != nil {
		g.t.Fatal(err)
	}
	return names
}

// disk waits for the disk of a LUN and returns its kernel name.
func (g *linux) disk(session, lun string) string {
	g.t.Helper()
	p, err := g.vm.Await(session+"/device/target*/*:"+lun+"/block/*", patience)
	if err != nil {
		g.t.Fatal(err)
	}
	return p[strings.LastIndexByte(p, '/')+1:]
}

// logged waits for text in the kernel's log after mark bytes of it.
func (g *linux) logged(mark int, text string) {
	g.t.Helper()
	poll(g.t, "the kernel's log has "+text, func() error {
		l, err := g.vm.Log()
		if err != nil {
			return err
		}
		if !strings.Contains(l[min(mark, len(l)):], text) {
			return fmt.Errorf("it ends: %s", l[max(0, len(l)-500):])
		}
		return nil
	})
}

// mark is the length of the kernel's log.
func (g *linux) mark() int {
	g.t.Helper()
	l, err := g.vm.Log()
	if err != nil {
		g.t.Fatal(err)
	}
	return len(l)
}
