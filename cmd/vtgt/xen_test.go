package main

import (
	"os"
	"strings"
	"testing"
)

// TestXenCommands: what the flags say stands in the difference, and a host without Xen
// says so.
func TestXenCommands(t *testing.T) {
	w := newWorld(t)
	w.serve()
	w.ok("disk", "add", "xd", "--store", "mem:", "--size", "8MiB")
	out := w.ok("target", "add", "vm", "--xen-domain", "web1", "--xen-device", "3", "--xen-type", "vtgt-x", "--disk", "xd", "--dry-run")
	if !strings.Contains(out, "+ target vm: xen domain web1 device 3") {
		t.Error(out)
	}
	w.fails([]string{"target", "add", "vm", "--xen-domain", "web1", "--xen-type", "vif", "--dry-run"}, "cannot be the back end's type")
	w.ok("target", "add", "vm", "--disk", "xd")
	out = w.ok("lun", "set", "vm", "0", "--xen-address", "0:0:4:1", "--dry-run")
	if !strings.Contains(out, "at xen 0:0:4:1") {
		t.Error(out)
	}
	w.fails([]string{"lun", "set", "vm", "0", "--xen-address", "4:1", "--dry-run"}, "is not an address")
	w.fails([]string{"target", "set", "vm", "--no-xen", "--xen-device", "1"}, "--no-xen takes the whole export away")
	if _, err := os.Stat("/dev/xen/evtchn"); err == nil {
		t.Skip("this is a Xen domain")
	}
	w.fails([]string{"target", "set", "vm", "--xen-domain", "web1"}, "Xen cannot be reached", "modprobe")
	w.fails([]string{"attach", "xen", "web1", "vm"}, "xenstored cannot be reached", "run this in dom0")
}
