package config

import (
	"strings"
	"testing"
)

const vhostHead = `version: 1
disks:
- {name: a, store: "mem:", size: 1MiB}
- {name: s, store: "mem:", size: 1MiB, shared: true}
iscsi: {portals: ["127.0.0.1:3260"]}
targets:
`

func TestVHost(t *testing.T) {
	c, err := Parse("f.yaml", []byte(vhostHead+`- name: vm1
  luns:
  - {lun: 0, disk: a}
  - {lun: 7, disk: s, address: {vhost: {target: 253}}}
  vhost: {socket: /run/vtgt/vm1.sock, owner: libvirt-qemu, group: 107, mode: "0660", initiator: 6F1C0000-0000-4000-8000-000000000001}
- {name: vm2, vhost: {socket: /run/vtgt/vm2.sock}}
- {name: vm3, vhost: {socket: /run/vtgt/vm3.sock, group: kvm}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := TargetVHost{Socket: "/run/vtgt/vm1.sock", Owner: "libvirt-qemu", Group: "107", Mode: 0o660, Initiator: "6F1C0000-0000-4000-8000-000000000001"}
	if x := c.Targets[0].VHost; *x != want {
		t.Errorf("%+v", x)
	}
	if l := c.Targets[0].LUNs; l[0].Address.VHostTarget != 0 || l[1].Address.VHostTarget != 253 {
		t.Errorf("%+v", l)
	}
	for i, m := range []uint32{0o660, 0o600, 0o660} {
		if got := c.Targets[i].VHost.Permission(); got != m {
			t.Errorf("mode %04o", got)
		}
	}
	id, ok := ParseUUID(want.Initiator)
	if !ok || FormatUUID(id) != strings.ToLower(want.Initiator) {
		t.Error(id)
	}
}

func TestVHostErrors(t *testing.T) {
	target := func(s string) string { return "- {name: t, " + s + "}\n" }
	const iscsi = "iscsi: {iqn: \"iqn.2026-11.org.vtgt:t\"}"
	for _, c := range []struct{ text, want string }{
		{target("vhost: {}"), "vhost names no socket"},
		{target("vhost: {socket: run/x}"), "the socket's path \"run/x\" is relative; write it from the root on"},
		{target("vhost: {socket: /run//x}"), "not the plain path of a socket"},
		{target("vhost: {socket: /run/x/}"), "not the plain path of a socket"},
		{target("vhost: {socket: \"/run/a,b\"}"), "has a comma"},
		{target("vhost: {socket: /" + strings.Repeat("x", 107) + "}"), "has 108 bytes"},
		{target("vhost: {socket: /run/vtgt/vtgt.sock}"), "is in use already"},
		{target("vhost: {socket: /x}") + "- {name: u, vhost: {socket: /x}}\n", "is in use already, first in line 7"},
		{target("vhost: {socket: /x, mode: rw}"), "is not a permission"},
		{target("vhost: {socket: /x, mode: \"0888\"}"), "is not a permission"},
		{target("vhost: {socket: /x, mode: \"0060\"}"), "not even the owner may connect"},
		{target("vhost: {socket: /x, mode: \"0600\", group: kvm}"), "the group kvm may not connect"},
		{target("vhost: {socket: /x, owner: \"a:b\"}"), "cannot be the socket's owner"},
		{target("vhost: {socket: /x, initiator: 6f1c}"), "cannot be the initiator's UUID"},
		{target("vhost: {socket: /x, initiator: 00000000-0000-0000-0000-000000000000}"), "cannot be the initiator's UUID"},
		{target("vhost: {socket: /x, sockte: /y}"), "did you mean \"socket\"?"},
		{target("luns: [{lun: 16383, disk: a}], vhost: {socket: /x}"), "LUN 16383 is beyond what virtio-scsi drivers look at"},
		{target("luns: [{lun: 1, disk: a, address: {vhost: {target: 254}}}], vhost: {socket: /x}"), "254 is out of range"},
		// Who writes.
		{target("luns: [{lun: 0, disk: a}], vhost: {socket: /x}, " + iscsi), "disk \"a\" could be written by the virtual machine at /x and by iSCSI initiators of target \"t\" at once; write shared: true"},
		{target("luns: [{lun: 0, disk: a}], vhost: {socket: /x}") + "- {name: u, luns: [{lun: 0, disk: a}], vhost: {socket: /y}}\n", "could be written through the targets \"t\" and \"u\""},
		{target("luns: [{lun: 0, disk: a}], vhost: {socket: /x, initiator: 6f1c0000-0000-4000-8000-000000000001}") + "- {name: u, luns: [{lun: 0, disk: a}], vhost: {socket: /y, initiator: 6f1c0000-0000-4000-8000-000000000002}}\n", "could be written through"},
		{target("luns: [{lun: 0, disk: s}], vhost: {socket: /x}, " + iscsi), ""},
		{target("luns: [{lun: 0, disk: a, readOnly: true}], vhost: {socket: /x}, " + iscsi), ""},
		{target("luns: [{lun: 0, disk: a, initiators: [\"iqn.*\"]}], vhost: {socket: /x}, " + iscsi), ""},
		{target("luns: [{lun: 16383, disk: a}], " + iscsi), ""},
		// Two sockets of one machine are two paths of one initiator.
		{target("luns: [{lun: 0, disk: a}], vhost: {socket: /x, initiator: 6f1c0000-0000-4000-8000-000000000001}") + "- {name: u, luns: [{lun: 0, disk: a}], vhost: {socket: /y, initiator: 6F1C0000-0000-4000-8000-000000000001}}\n", ""},
	} {
		_, err := Parse("f.yaml", []byte(vhostHead+c.text))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.text, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestVHostDiff(t *testing.T) {
	parse := func(s string) *Config {
		t.Helper()
		c, err := Parse("f.yaml", []byte(vhostHead+s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	none := parse("- {name: t}\n")
	one := parse("- {name: t, luns: [{lun: 1, disk: a}], vhost: {socket: /x}}\n")
	two := parse("- {name: t, luns: [{lun: 1, disk: a, address: {vhost: {target: 3}}}], vhost: {socket: /y, group: kvm}}\n")
	for _, c := range []struct {
		a, b *Config
		want []string
	}{
		{none, one, []string{"~ target t: vhost no vhost -> /x", "+ lun t/1: a"}},
		{one, two, []string{"~ target t: vhost /x -> /y, vhost.group (the daemon's) -> kvm, vhost.mode 0600 -> 0660", "~ lun t/1: a -> a at virtio target 3"}},
		{parse(""), one, []string{"+ target t: vhost /x", "+ lun t/1: a"}},
		{two, two, nil},
	} {
		var got []string
		for _, ch := range Diff(c.a, c.b) {
			got = append(got, ch.String())
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

func TestVHostEdit(t *testing.T) {
	text := []byte(vhostHead + "- name: t # the first\n  luns: []\n")
	text, err := Edit("f.yaml", text, Op{Action: Modify, Kind: "target", Name: "t", Values: map[string]any{"vhost": map[string]any{"mode": "0660", "group": "kvm", "socket": "/x"}}},
		Op{Action: Add, Kind: "lun", Name: "t", LUN: 4, Values: map[string]any{"disk": "a", "address": map[string]any{"vhost": map[string]any{"target": 1}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`vhost: {socket: /x, group: kvm, mode: "0660"}`, "{lun: 4, disk: a, address: {vhost: {target: 1}}}", "# the first"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if _, err := Parse("f.yaml", text); err != nil {
		t.Error(err)
	}
}
