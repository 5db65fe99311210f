package libvirt

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
)

const tail = "iscsi: {portals: [\"127.0.0.1:3260\"]}\nstate: /x\n"

func mustConfig(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("f.yaml", []byte("version: 1\ndisks: [{name: a, store: \"mem:\", size: 1MiB, shared: true}, {name: b, store: \"mem:\", size: 1MiB}]\n"+text+tail))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func show(ops []api.EditOp) string {
	var out []string
	for _, o := range ops {
		v, _ := json.Marshal(o.Values)
		out = append(out, fmt.Sprintf("%s %s %s/%d %s", o.Action, o.Kind, o.Name, o.LUN, v))
	}
	return strings.Join(out, "\n")
}

// grants and revokes, one domain after the other, on one target.
func TestGrant(t *testing.T) {
	const iqn = "iscsi: {iqn: iqn.2026-11.org.vtgt:t"
	for _, c := range []struct{ name, lun, iscsi, grant, revoke string }{
		{"open", "", "}", `change lun t/0 {"initiators":["n"]}` + "\n" + `change target t/0 {"iscsi":{"prIdentity":"name"}}`,
			`change lun t/0 {"initiators":null}` + "\n" + `change target t/0 {"iscsi":{"prIdentity":null}}`},
		{"masked", ", initiators: [x]", ", prIdentity: name}", `change lun t/0 {"initiators":["x","n"]}`, `change lun t/0 {"initiators":["x"]}`},
		{"named", ", initiators: [x, n]", ", prIdentity: name}", "", ""},
		{"allowed", "", ", prIdentity: name, initiators: [\"?\"]}", `change lun t/0 {"initiators":["n"]}`, `change lun t/0 {"initiators":null}`},
		{"not allowed", "", ", prIdentity: name+isid, initiators: [\"x*\"]}",
			`change lun t/0 {"initiators":["n"]}` + "\n" + `change target t/0 {"iscsi":{"initiators":["x*","n"],"prIdentity":"name"}}`,
			`change lun t/0 {"initiators":null}` + "\n" + `change target t/0 {"iscsi":{"initiators":["x*"],"prIdentity":"name+isid"}}`},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			text := "targets: [{name: t, luns: [{lun: 0, disk: a" + c.lun + "}], " + iqn + c.iscsi + "}]\n"
			cfg := mustConfig(t, text)
			tg := &target{Target: cfg.Target("t"), cfg: cfg}
			g := tg.grant(&tg.LUNs[0], "n", "s", nil)
			if got := show(g.ops); got != c.grant {
				t.Errorf("grant:\n%s, want\n%s", got, c.grant)
			}
			// Before it was done there is nothing to take back.
			if got := show(revoke(cfg.Target("t"), 0, g.undo, "s", nil)); got != "" {
				t.Errorf("revoke of nothing: %s", got)
			}
			b := []byte("version: 1\ndisks: [{name: a, store: \"mem:\", size: 1MiB, shared: true}]\n" + text + tail)
			var ops []config.Op
			for _, o := range g.ops {
				ops = append(ops, config.Op{Action: o.Action, Kind: o.Kind, Name: o.Name, LUN: o.LUN, Values: o.Values})
			}
			b, err := config.Edit("f.yaml", b, ops...)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err = config.Parse("f.yaml", b)
			if err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
			if got := show(revoke(cfg.Target("t"), 0, g.undo, "s", nil)); got != c.revoke {
				t.Errorf("revoke:\n%s, want\n%s", got, c.revoke)
			}
			if got := revoke(cfg.Target("t"), 7, map[string]string{undoName: "n", undoMask: "set"}, "s", nil); len(got) != 0 {
				t.Errorf("of another LUN: %s", show(got))
			}
			// While another attachment stands on the target's identity, it stays; and it
			// knows what was there.
			other := []api.Attachment{{Subject: "s2", LUN: 0, Steps: []api.AttachmentStep{{Name: stepAccess, State: api.Done, Undo: g.undo}}}}
			if got := show(revoke(cfg.Target("t"), 0, g.undo, "s", other)); strings.Contains(got, "prIdentity") {
				t.Errorf("revoke beside another one: %s", got)
			}
			tg = &target{Target: cfg.Target("t"), cfg: cfg}
			h := tg.grant(&tg.LUNs[0], "m", "s3", other)
			if h.undo[undoIdentity] != g.undo[undoIdentity] || g.undo[undoMask] == "set" && h.undo[undoMask] != "set" {
				t.Errorf("%v beside %v", h.undo, g.undo)
			}
		})
	}
}

func TestWays(t *testing.T) {
	cfg := mustConfig(t, `targets:
- {name: both, luns: [{lun: 0, disk: a}], iscsi: {iqn: iqn.2026-11.org.vtgt:t}, vhost: {socket: /s}}
- {name: i, luns: [{lun: 3, disk: a}], iscsi: {iqn: iqn.2026-11.org.vtgt:u, chap: [{user: one, secretFile: /1}, {user: two, secretFile: /2}]}}
- {name: v, luns: [], vhost: {socket: /v}}
- {name: none, luns: [{lun: 0, disk: a}, {lun: 2, disk: b}]}
`)
	for _, c := range []struct{ name, want, via, err string }{
		{"both", "", "", "--via iscsi or --via vhost"}, {"both", "vhost", "vhost", ""}, {"both", "iscsi", "iscsi", ""}, {"both", "fc", "", "iscsi or vhost"},
		{"i", "", "iscsi", ""}, {"i", "vhost", "", "--vhost-socket"}, {"v", "", "vhost", ""}, {"v", "iscsi", "", "--iqn"}, {"none", "", "", "--iqn"},
	} {
		tg := &target{Target: cfg.Target(c.name), cfg: cfg}
		via, err := tg.via(c.want)
		if via != c.via || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s %q: %q %v", c.name, c.want, via, err)
		}
	}
	for _, c := range []struct {
		name   string
		number int
		lun    int
		err    string
	}{{"i", -1, 3, ""}, {"i", 3, 3, ""}, {"i", 0, 0, "there are 3"}, {"v", -1, 0, "vtgt lun add v"}, {"none", -1, 0, "0, 2"}, {"none", 2, 2, ""}} {
		tg := &target{Target: cfg.Target(c.name), cfg: cfg}
		l, err := tg.lun(c.number)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || l != nil && int(l.LUN) != c.lun {
			t.Errorf("%s %d: %v %v", c.name, c.number, l, err)
		}
	}
	for _, c := range []struct {
		portals []string
		want    string
		local   bool
		at, err string
	}{
		{[]string{"127.0.0.1:3260"}, "", true, "127.0.0.1 3260", ""},
		{[]string{"127.0.0.1:3260"}, "", false, "", "--portal"},
		{[]string{"0.0.0.0:3260"}, "", true, "127.0.0.1 3260", ""},
		{[]string{"[::]:3260"}, "", true, "::1 3260", ""},
		{[]string{"0.0.0.0:3260"}, "", false, "", "--portal"},
		{[]string{"127.0.0.1:3260", "192.0.2.1:3261"}, "", false, "192.0.2.1 3261", ""},
		{nil, "", true, "", "vtgt portal add"},
		{nil, "host:1", false, "host 1", ""},
		{nil, "host", false, "", "HOST:PORT"},
	} {
		tg := &target{Target: cfg.Target("i"), cfg: cfg, portals: c.portals}
		h, p, err := tg.portal(c.want, c.local)
		if at := strings.TrimSpace(h + " " + p); at != c.at || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%v %q %v: %q %v", c.portals, c.want, c.local, at, err)
		}
	}
	tg := &target{Target: cfg.Target("i"), cfg: cfg}
	for want, file := range map[string]string{"": "/1", "one": "/1", "two": "/2"} {
		if u, err := tg.user(want); err != nil || u.SecretFile != file {
			t.Errorf("%q: %v %v", want, u, err)
		}
	}
	if _, err := tg.user("three"); err == nil || !strings.Contains(err.Error(), "one, two") {
		t.Errorf("%v", err)
	}
	tg = &target{Target: cfg.Target("both"), cfg: cfg}
	if u, err := tg.user(""); u != nil || err != nil {
		t.Errorf("%v %v", u, err)
	}
	if _, err := tg.user("one"); err == nil || !strings.Contains(err.Error(), "wants no CHAP") {
		t.Errorf("%v", err)
	}
}

func TestDiskXML(t *testing.T) {
	k := disk{source: "iqn.2026-11.org.vtgt:t/3", host: "192.0.2.1", port: "3260", initiator: initiator("u"), alias: "ua-vtgt-1", name: "sdb", controller: 1, unit: 2, user: "web", secret: "s", readOnly: true, shared: true}
	got, err := k.xml()
	const want = `<disk type="network" device="lun">
  <driver name="qemu" type="raw"></driver>
  <source protocol="iscsi" name="iqn.2026-11.org.vtgt:t/3">
    <host name="192.0.2.1" port="3260"></host>
    <initiator>
      <iqn name="iqn.2008-11.org.linux-kvm:u"></iqn>
    </initiator>
    <auth username="web">
      <secret type="iscsi" uuid="s"></secret>
    </auth>
  </source>
  <target dev="sdb" bus="scsi"></target>
  <readonly></readonly>
  <shareable></shareable>
  <alias name="ua-vtgt-1"></alias>
  <address type="drive" controller="1" bus="0" target="0" unit="2"></address>
</disk>`
	if err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
}
