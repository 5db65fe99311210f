package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vtgt/vtgt/config"
)

// A device with a volume manager's signature is refused when it is served for the
// first time: later the signature is its guest's.
func TestClaim(t *testing.T) {
	w := newWorld(t)
	img := w.file("dev.img", 8<<20)
	out, err := exec.Command("losetup", "--find", "--show", img).CombinedOutput()
	if err != nil {
		t.Skipf("cannot make a loop device (root and losetup are needed): %v %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", dev).Run()
	label := func(text string) {
		t.Helper()
		f, err := os.OpenFile(dev, os.O_WRONLY|os.O_SYNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 512)
		copy(b, text)
		if text != "" {
			copy(b[24:], "LVM2 001")
		}
		if _, err := f.WriteAt(b, 512); err != nil {
			t.Fatal(err)
		}
	}
	label("LABELONE")
	text := w.config(fmt.Sprintf("disks:\n- {name: d, store: \"block:%s\"}\n", dev))
	es := w.refused(text)
	if es[0].Code != CodeInUse || !strings.Contains(es.Error(), "disk d: block:"+dev+": the device has the label of an LVM physical volume") || !strings.Contains(es.Error(), "claim: true") {
		t.Errorf("%v", es)
	}
	cfg, err := config.Parse("f.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckHost(cfg); err != nil {
		t.Errorf("a signature alone may be a guest's: %v", err)
	}

	// Claimed; then without, because it is known.
	claimed := strings.Replace(string(text), "name: d,", "name: d, claim: true,", 1)
	for _, text := range []string{claimed, string(text)} {
		d, err := New("f.yaml", []byte(text), Options{LockWait: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}

	// Swap is refused in any case, and by its name.
	label("")
	if out, err := exec.Command("mkswap", dev).CombinedOutput(); err != nil {
		t.Skipf("no mkswap: %v %s", err, out)
	}
	if out, err := exec.Command("swapon", dev).CombinedOutput(); err != nil {
		t.Skipf("no swap here: %v %s", err, out)
	}
	defer exec.Command("swapoff", dev).Run()
	if es := w.refused([]byte(claimed)); es[0].Code != CodeInUse || !strings.Contains(es.Error(), "is swap space ("+dev+"); take it out first: swapoff "+dev) {
		t.Errorf("%v", es)
	}
	if err := CheckHost(cfg); err == nil || !strings.Contains(err.Error(), "swapoff") {
		t.Errorf("%v", err)
	}
}

// So is what is mounted.
func TestMounted(t *testing.T) {
	w := newWorld(t)
	img := w.file("dev.img", 16<<20)
	if out, err := exec.Command("mkfs.ext4", "-q", img).CombinedOutput(); err != nil {
		t.Skipf("no mkfs.ext4: %v %s", err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", img).CombinedOutput()
	if err != nil {
		t.Skipf("cannot make a loop device (root and losetup are needed): %v %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", dev).Run()
	dir, err := filepath.EvalSymlinks(w.dir) // the kernel tells where things are mounted
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "a mount")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(dev, at, "ext4", 0, ""); err != nil {
		t.Skip("cannot mount:", err)
	}
	defer syscall.Unmount(at, 0)
	for _, ro := range []string{"", ", readOnly: true"} {
		es := w.refused(w.config(fmt.Sprintf("disks:\n- {name: d, claim: true, store: \"block:%s\"%s}\n", dev, ro)))
		if es[0].Code != CodeInUse || !strings.Contains(es.Error(), "the device is mounted at "+at+"; unmount it first: umount "+at) {
			t.Errorf("%v", es)
		}
	}
}
