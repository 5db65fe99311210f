package guest

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

func TestPatternTellsBlocksApart(t *testing.T) {
	a, b := make([]byte, 512), make([]byte, 512)
	agent.Pattern(a, 1, 0)
	agent.Pattern(b, 1, 512)
	if string(a) == string(b) {
		t.Fatal("two blocks of one pattern are alike")
	}
	agent.Pattern(b, 1, 0)
	if string(a) != string(b) {
		t.Fatal("a pattern is not repeatable")
	}
}

func TestBoot(t *testing.T) {
	if os.Getenv("VTGT_GUEST") == "" {
		t.Skip("boots a guest: set VTGT_GUEST=1 (make test-guest does)")
	}
	c, err := DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	vm, err := Boot(Options{Dir: t.TempDir(), Net: true, Image: &Image{Kernel: k, Boot: []string{"virtio_pci", "virtio_net", "ext4", "crc32c_generic"},
		Binaries: []Binary{{Path: "/sbin/mkfs.ext4"}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	t.Log("agent answers after", time.Since(start))
	v, err := vm.Read("/proc/version")
	if err != nil || !strings.Contains(v, k.Release) {
		t.Fatalf("/proc/version: %q, %v", v, err)
	}
	if out, err := vm.Run("/sbin/mkfs.ext4", "-V"); err != nil {
		t.Fatal(out, err)
	}
	if r, err := vm.Read("/proc/net/route"); err != nil || !strings.Contains(r, "eth0") {
		t.Fatal(r, err)
	}
	if err := vm.Poweroff(); err != nil {
		t.Fatal(err)
	}
}

// TestBootQEMU10: the other release's QEMU runs beside the host's, by its own libraries.
func TestBootQEMU10(t *testing.T) {
	if os.Getenv("VTGT_GUEST") == "" {
		t.Skip("boots a guest: set VTGT_GUEST=1 (make test-guest does)")
	}
	c, err := DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	qemu, err := c.QEMU10()
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := Boot(Options{Dir: t.TempDir(), QEMU: qemu, Image: &Image{Kernel: k}})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	exe, err := os.ReadFile("/proc/" + strconv.Itoa(vm.PID()) + "/cmdline")
	if err != nil || !strings.Contains(string(exe), "trixie-qemu-system-x86") {
		t.Fatalf("what runs is %q, %v", exe, err)
	}
	if err := vm.Poweroff(); err != nil {
		t.Fatal(err)
	}
}
