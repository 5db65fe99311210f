package config

import (
	"fmt"
	"strings"
	"testing"
)

const vioDisks = "version: 1\ndisks:\n- {name: a, store: \"file:/a\"}\n- {name: b, store: \"file:/b\"}\ntargets:\n"

func TestVIO(t *testing.T) {
	c, err := Parse("f.yaml", []byte(vioDisks+`- name: t
  luns: [{lun: 33, disk: a}, {lun: 1, disk: b, address: {vio: {id: 2, lun: 3}}}]
  vio: {socket: /run/vio, owner: libvirt-qemu, group: kvm, initiator: 6F1C0000-0000-4000-8000-000000000001, aix: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	x := c.Targets[0].VIO
	if x == nil || x.Socket != "/run/vio" || x.Owner != "libvirt-qemu" || x.Permission() != 0o660 || !x.AIX {
		t.Errorf("%+v", x)
	}
	for i, want := range [][2]uint8{{1, 1}, {2, 3}} {
		if id, lun, ok := c.Targets[0].LUNs[i].VIO(); !ok || [2]uint8{id, lun} != want {
			t.Errorf("LUN %d is at %d, %d, %v", i, id, lun, ok)
		}
	}
	for _, e := range []struct{ text, want string }{
		{"- {name: t, luns: [{lun: 0, disk: a}], vio: {}}", "vio names no socket"},
		{"- {name: t, luns: [{lun: 0, disk: a}], vio: {socket: x}}", "is relative"},
		{"- {name: t, luns: [{lun: 3000, disk: a}], vio: {socket: /x}}", "cannot have LUN 3000"},
		{"- {name: t, luns: [{lun: 0, disk: a}, {lun: 9, disk: b, address: {vio: {}}}], vio: {socket: /x}}", "two LUNs are at vio id 0, LUN 0"},
		{"- {name: t, luns: [{lun: 0, disk: a, address: {vio: {id: 64}}}], vio: {socket: /x}}", "64"},
		{"- {name: t, luns: [{lun: 0, disk: a}], vio: {socket: /x}}\n- {name: u, luns: [{lun: 0, disk: b}], vhost: {socket: /x}}", "in use already"},
		{"- {name: t, luns: [{lun: 0, disk: a}], vio: {socket: /x}, vhost: {socket: /y}}", "the virtual machines at /y and /x at once"},
		{"- {name: t, luns: [{lun: 0, disk: a}], vio: {socket: /x}}\n- {name: u, luns: [{lun: 0, disk: a}], vio: {socket: /y}}", "through the targets"},
		{"- {name: t, luns: [{lun: 0, disk: a}], vio: {socket: /x}, iscsi: {iqn: \"iqn.2026-11.org.vtgt:t\"}}\niscsi: {portals: [\"127.0.0.1:1\"]}", "by iSCSI initiators of target"},
	} {
		if _, err := Parse("f.yaml", []byte(vioDisks+e.text+"\n")); err == nil || !strings.Contains(fmt.Sprint(err), e.want) {
			t.Errorf("%s\n: %v, want %q", e.text, err, e.want)
		}
	}
	// One virtual machine by two sockets is one initiator.
	const same = ", initiator: 6f1c0000-0000-4000-8000-000000000001}"
	if _, err := Parse("f.yaml", []byte(vioDisks+"- {name: t, luns: [{lun: 0, disk: a}], vio: {socket: /x"+same+", vhost: {socket: /y"+same+"}\n")); err != nil {
		t.Error(err)
	}
}

func TestVIOChanges(t *testing.T) {
	parse := func(s string) *Config {
		t.Helper()
		c, err := Parse("f.yaml", []byte(vioDisks+s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := parse("- {name: t, luns: [{lun: 0, disk: a}], vio: {socket: /x}}\n")
	b := parse("- {name: t, luns: [{lun: 0, disk: a, address: {vio: {id: 3}}}], vio: {socket: /x, mode: \"0666\", aix: true}}\n")
	got := fmt.Sprint(Diff(a, b))
	for _, want := range []string{"vio.mode 0600 -> 0666", "vio.aix false -> true", "at vio id 3 LUN 0"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s: no %q", got, want)
		}
	}
}
