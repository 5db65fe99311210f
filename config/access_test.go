package config

import (
	"reflect"
	"strings"
	"testing"
)

const accessHead = "version: 1\niscsi: {portals: [\"127.0.0.1:3260\"]}\ndisks: [{name: a, store: \"mem:\", size: 1MiB}]\ntargets:\n- name: t\n  luns: [{lun: 0, disk: a}]\n  iscsi:\n    iqn: iqn.2026-11.org.vtgt:t\n"

func TestAccess(t *testing.T) {
	c, err := Parse("f.yaml", []byte(strings.Replace(accessHead, "disk: a}]", "disk: a, initiators: [\"iqn.*:a\"]}]", 1)+`    chap:
    - {user: u, secretFile: /s/u}
    - {user: v, secretFile: /s/v, mutual: {user: t, secretFile: /s/t}}
    initiators: ["iqn.1993-08.org.debian:*", "iqn.x"]
    addresses: ["192.0.2.0/24", "2001:db8::1", "::ffff:192.0.2.9"]
    redirect: {address: "[2001:db8::7]:3260", permanent: true}
    prIdentity: name
    maxConnections: 4
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &TargetISCSI{
		IQN: "iqn.2026-11.org.vtgt:t",
		CHAP: []CHAP{{Credential: Credential{"u", "/s/u"}},
			{Credential: Credential{"v", "/s/v"}, Mutual: Credential{"t", "/s/t"}}},
		Initiators: MakeList("iqn.1993-08.org.debian:*", "iqn.x"),
		Addresses:  MakeList("192.0.2.0/24", "2001:db8::1", "::ffff:192.0.2.9"),
		Redirect:   Redirect{"[2001:db8::7]:3260", true}, PRIdentity: "name", MaxConnections: 4,
	}
	if got := c.Targets[0].ISCSI; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if l := c.Targets[0].LUNs[0]; l.Initiators != MakeList("iqn.*:a") {
		t.Errorf("%+v", l)
	}
	// A single user and a single word need no list.
	d, err := Parse("f.yaml", []byte(accessHead+"    chap: {user: u, secretFile: /s/u}\n    initiators: iqn.x\n    addresses: 192.0.2.1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if x := d.Targets[0].ISCSI; len(x.CHAP) != 1 || x.Initiators != MakeList("iqn.x") || x.Addresses != MakeList("192.0.2.1") {
		t.Errorf("%+v", x)
	}
	e, err := Parse("f.yaml", []byte(strings.Replace(accessHead, "3260\"]}", "3260\"], discovery: {chap: {user: d, secretFile: /s/d}}}", 1)))
	if err != nil || len(e.ISCSI.Discovery) != 1 || e.ISCSI.Discovery[0].User != "d" {
		t.Error(err, e)
	}

	var lines []string
	for _, ch := range append(Diff(d, c), Diff(c, e)...) {
		lines = append(lines, ch.String())
	}
	for _, w := range []string{"~ target t: chap u -> u v/t, ", "initiators [iqn.x] -> [iqn.1993-08.org.debian:*, iqn.x]", "prIdentity name+isid -> name",
		"maxConnections 1 -> 4", "redirect none -> [2001:db8::7]:3260 for good", "~ lun t/0: a -> a for [iqn.*:a]", "~ setting iscsi.discovery: none -> d"} {
		if !strings.Contains(strings.Join(lines, "\n"), w) {
			t.Errorf("no %q in\n%s", w, strings.Join(lines, "\n"))
		}
	}
	if ch := Diff(c, c); len(ch) != 0 {
		t.Error(ch)
	}
}

func TestAccessErrors(t *testing.T) {
	user := "{user: u, secretFile: /s}"
	for _, tc := range []struct{ text, want string }{
		// What is empty must not mean that everybody may come.
		{"chap:", "targets[0].iscsi.chap has no value"},
		{"chap: []", "targets[0].iscsi.chap is empty, which lets nobody in"},
		{"chap: {}", "CHAP names no user"},
		{"initiators: []", "is empty, which lets nobody in"},
		{"initiators:", "is empty, which lets nobody in"},
		{"addresses:\n    # - 192.0.2.1", "is empty, which lets nobody in"},
		{"redirect:", "has no value"},
		{"redirect: {permanent: true}", "has no address"},

		{"chap: {user: u, secret: hunter2hunter2}", "a secret does not belong in this file"},
		{"chap: {user: u, password: hunter2hunter2}", "a secret does not belong in this file"},
		{"chap: {user: u, secretFile: s}", `the path "s" is relative`},
		{"chap: {secretFile: /s}", "CHAP names no user"},
		{"chap: {user: \"a\\tb\", secretFile: /s}", "the CHAP user name is not possible"},
		{"chap: [" + user + ", " + user + "]", `the CHAP user "u" stands twice`},
		{"chap: {user: u, secretFile: /s, mutual: {user: t}}", `CHAP user "t" has no secret`},
		{"chap: {user: u, secretFile: /s, mutual: }", "has no value"},
		{"chap: {user: u, secretFile: /s, mutual: {}}", "mutual names no user"},
		{"chap: {user: u, secretFile: /s, mutual: {user: t, secretFile: /s}}", "one secret would serve both directions"},
		{"chap: {user: u, secretFile: /s, usr: t}", `unknown key "usr"`},
		{"initiators: [\"iqn.A*\"]", "has capital letters"},
		{"initiators: [\"iqn.a, iqn.b\"]", "cannot be the pattern of a name"},
		{"initiators: [\"\"]", "a pattern has 0 bytes"},
		{"initiators: [\"a\\nb\"]", "has more than one line"},
		{"addresses: [\"192.0.2.1/24\"]", "write 192.0.2.0/24 for the network, or 192.0.2.1 for one host"},
		{"addresses: [\"host\"]", "neither an address nor a network"},
		{"addresses: [\"fe80::1%eth0\"]", "leave out the zone"},
		{"addresses: [\"::ffff:192.0.2.0/120\"]", "in the form of IPv4"},
		{"redirect: {address: host}", "is not an address with a port"},
		{"redirect: {address: \"host:3260,1\"}", "is not an address with a port"},
		{"redirect: {address: \"0.0.0.0:3260\"}", "cannot reach"},
		{"redirect: {address: \"127.0.0.1:3260\"}", "round in circles"},
		{"prIdentity: isid", "cannot be an initiator's identity"},
		{"maxConnections: 0", "out of range"},
		{"maxConnections: 17", "out of range"},
	} {
		_, err := Parse("f.yaml", []byte(accessHead+"    "+tc.text+"\n"))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v\nwant %q", tc.text, err, tc.want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is in an error: %v", err)
		}
	}
	if _, err := Parse("f.yaml", []byte(strings.Replace(accessHead, "3260\"]}", "3260\"], discovery: }", 1))); err == nil || !strings.Contains(err.Error(), "has no value") {
		t.Error(err)
	}
}
