package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestXen(t *testing.T) {
	const head = vioDisks
	c, err := Parse("f.yaml", []byte(head+`- name: t
  luns: [{lun: 3, disk: a}, {lun: 1, disk: b, address: {xen: "0:0:1:7"}}]
  xen: {domain: vm1, device: 2, type: vtgt-fast, initiator: 6F1C0000-0000-4000-8000-000000000001}
- {name: u, xen: {domain: 17, toolstack: true}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if x := c.Targets[0].Xen; x == nil || x.Domain != "vm1" || x.Device != 2 || x.BackendType() != "vtgt-fast" || x.Toolstack {
		t.Errorf("%+v", x)
	}
	if x := c.Targets[1].Xen; x == nil || x.Domain != "17" || x.BackendType() != DefaultXenType || !x.Toolstack {
		t.Errorf("%+v", x)
	}
	for i, want := range []string{"0:0:0:3", "0:0:1:7"} {
		if a, ok := c.Targets[0].LUNs[i].Xen(); !ok || a.String() != want {
			t.Errorf("LUN %d is at %v, %v", i, a, ok)
		}
	}
	target := func(xen, luns string) string { return "- {name: t, luns: [" + luns + "], xen: {" + xen + "}}\n" }
	for _, e := range []struct{ text, want string }{
		{target("", ""), "xen names no domain"},
		{target("domain: \"\"", ""), "xen names no domain"},
		{target("domain: [1]", ""), "targets[0].xen.domain must be a domain"},
		{target("domain: a/b", ""), "cannot be a domain"},
		{target("domain: "+strings.Repeat("x", 256), ""), "cannot be a domain"},
		{target("domain: vm1, device: -1", ""), "-1 is out of range"},
		{target("domain: vm1, devcie: 1", ""), "did you mean \"device\"?"},
		{target("domain: vm1, type: vbd", ""), "\"vbd\" cannot be the back end's type"},
		{target("domain: vm1, type: vtgt/x", ""), "cannot be the back end's type"},
		{target("domain: vm1, toolstack: maybe", ""), "must be true or false"},
		{target("domain: vm1, initiator: 6f1c", ""), "cannot be the initiator's UUID"},
		{target("domain: vm1", "") + "- {name: u, xen: {domain: vm1, type: vscsi}}\n", "device 0 of domain vm1 is in use already, first in line 6"},
		{target("domain: 6F1C0000-0000-4000-8000-000000000001", "") + "- {name: u, xen: {domain: 6f1c0000-0000-4000-8000-000000000001}}\n", "is in use already"},
		{target("domain: vm1", "{lun: 255, disk: a}"), "a Xen domain cannot have LUN 255"},
		{target("domain: vm1", "{lun: 7, disk: a}, {lun: 1, disk: b, address: {xen: \"2:0:0:7\"}}"), "two LUNs are at xen 0:0:0:7"},
		{target("domain: vm1", "{lun: 1, disk: b, address: {xen: \"0:1:0:7\"}}"), "is not an address; write HOST:CHANNEL:TARGET:LUN"},
		{target("domain: vm1", "{lun: 1, disk: b, address: {xen: \"0:0:64:7\"}}"), "is not an address"},
		{target("domain: vm1", "{lun: 1, disk: b, address: {xen: \"0:0:0:255\"}}"), "is not an address"},
		{target("domain: vm1", "{lun: 1, disk: b, address: {xen: \"0:0:0\"}}"), "is not an address"},
		{target("domain: vm1", "{lun: 1, disk: b, address: {xen: {lun: 1}}}"), "must be an address in quotes"},
		// Who writes.
		{target("domain: vm1", "{lun: 0, disk: a}") + "- {name: u, luns: [{lun: 0, disk: a}], xen: {domain: vm2}}\n", "through the targets"},
		{"- {name: t, luns: [{lun: 0, disk: a}], xen: {domain: vm1}, vhost: {socket: /y}}\n", "the virtual machines at /y and Xen domain vm1 device 0 at once"},
		{"- {name: t, luns: [{lun: 0, disk: a}], xen: {domain: vm1}, iscsi: {iqn: \"iqn.2026-11.org.vtgt:t\"}}\niscsi: {portals: [\"127.0.0.1:1\"]}\n", "by the virtual machine at Xen domain vm1 device 0 and by iSCSI initiators"},
	} {
		if _, err := Parse("f.yaml", []byte(head+e.text)); err == nil || !strings.Contains(fmt.Sprint(err), e.want) {
			t.Errorf("%s\n: %v, want %q", e.text, err, e.want)
		}
	}
	// One domain by two devices is one initiator.
	const same = ", initiator: 6f1c0000-0000-4000-8000-000000000001"
	if _, err := Parse("f.yaml", []byte(head+target("domain: vm1"+same, "{lun: 0, disk: a}")+"- {name: u, luns: [{lun: 0, disk: a}], xen: {domain: vm1, device: 1"+same+"}}\n")); err != nil {
		t.Error(err)
	}
}

func TestXenChanges(t *testing.T) {
	parse := func(s string) *Config {
		t.Helper()
		c, err := Parse("f.yaml", []byte(vioDisks+s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := parse("- {name: t, luns: [{lun: 0, disk: a}], xen: {domain: vm1}}\n")
	b := parse("- {name: t, luns: [{lun: 0, disk: a, address: {xen: \"0:0:3:0\"}}], xen: {domain: vm2, type: vscsi, toolstack: true}}\n")
	got := fmt.Sprint(Diff(a, b))
	for _, want := range []string{"domain vm1 device 0 -> domain vm2 device 0", "xen.type vtgt -> vscsi", "xen.toolstack false -> true", "at xen 0:0:3:0"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s: no %q", got, want)
		}
	}
	if got := fmt.Sprint(Diff(&Config{}, b)); !strings.Contains(got, "xen domain vm2 device 0") {
		t.Error(got)
	}
}

// FuzzXenAddress: an address that is taken is one that a domain can have.
func FuzzXenAddress(f *testing.F) {
	for _, s := range []string{"0:0:0:0", "9:0:63:254", "0:0:0:0:0", "::::", "0:0:0:65536", "-0:0:0:0", "00000000000000000000000000:0:0:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, ok := parseXenAddress(s)
		if !ok {
			return
		}
		if b, ok := parseXenAddress(a.String()); !ok || a != b || a.Channel != 0 || a.Target > maxXenTarget || a.LUN > maxXenLUN || !a.Stated {
			t.Fatalf("%q is %v, that is %v", s, a, b)
		}
	})
}
