package daemon

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// Two targets with one disk: the access state of one changes while initiators are
// logged in, who are told; the identifiers of groups stay over a restart.
func TestALUA(t *testing.T) {
	w := newWorld(t)
	p := w.file("a.img", 1<<20)
	const iqn2 = "iqn.2026-11.org.vtgt:alua2"
	text := func(state string) []byte {
		return w.config(fmt.Sprintf("disks: [{name: a, store: \"file:%s\", shared: true}]\ntargets:\n- {name: one, luns: [{lun: 0, disk: a}], iscsi: {iqn: %s}}\n- {name: two, %sluns: [{lun: 3, disk: a}], iscsi: {iqn: %s}}\n", p, iqn1, state, iqn2))
	}
	d := w.start(text(""))
	one, two := dial(t, d, iqn1, host), dial(t, d, iqn2, host)
	run := func(c *iscsitest.Conn, lun uint16, cdb []byte, in int) (int, string) {
		t.Helper()
		cmd := iscsitest.Command{LUN: lun, CDB: cdb, In: in}
		if cdb[0] == 0x2a {
			cmd.Out = make([]byte, 512)
		}
		k, err := c.Run(&cmd)
		if err != nil {
			t.Fatal(err)
		}
		return sense(k), fmt.Sprintf("%x", k.In)
	}
	want := func(what string, c *iscsitest.Conn, lun uint16, cdb []byte, want int) {
		t.Helper()
		if s, _ := run(c, lun, cdb, 0); s != want {
			t.Errorf("%s: %06x, want %06x", what, s, want)
		}
	}
	tur, write := make([]byte, 6), []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	rtpg := []byte{0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0}
	groups := func(c *iscsitest.Conn, lun uint16, state2, status2 string) {
		t.Helper()
		_, got := run(c, lun, rtpg, 255)
		if want := "0000001800" + "4f000100000001" + "00000001" + state2 + "4f000200" + status2 + "0001" + "00000002"; got != want {
			t.Errorf("groups %s, want %s", got, want)
		}
	}
	want("first", one, 0, tur, 0x062900)
	want("first", two, 3, tur, 0x062900)
	groups(one, 0, "00", "00")
	if _, err := d.Apply("f.yaml", text("alua: standby, "), ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	want("told", one, 0, tur, 0x062a06)
	want("told", two, 3, write, 0x062a06)
	want("standby", two, 3, write, 0x02040b)
	want("the other path", one, 0, write, 0)
	groups(two, 3, "02", "02")
	if s := d.Targets(); s[1].ALUA != "standby" || s[0].ALUA != "optimized" || s[0].PortGroup != 1 || s[1].PortGroup != 2 {
		t.Errorf("%+v", s)
	}
	if _, err := d.Apply("f.yaml", text("alua: active, "), ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "not an access state") {
		t.Errorf("%v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = w.start(text("alua: unavailable, "))
	two = dial(t, d, iqn2, host)
	want("after the restart", two, 3, tur, 0x062900)
	want("after the restart", two, 3, tur, 0x02040c)
	groups(two, 3, "03", "00")
}
