package main

import (
	be "encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// reserveOut runs a PERSISTENT RESERVE OUT (SPC-4 §6.16) and gives its status.
func reserveOut(t *testing.T, c *iscsitest.Conn, sa, typ byte, key, saKey uint64, aptpl byte) byte {
	t.Helper()
	list := make([]byte, 24)
	be.BigEndian.PutUint64(list, key)
	be.BigEndian.PutUint64(list[8:], saKey)
	list[20] = aptpl
	r, err := c.Run(&iscsitest.Command{CDB: []byte{0x5f, sa, typ, 0, 0, 0, 0, 0, 24, 0}, Out: list})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

// readable tells whether a READ is GOOD; else it must be RESERVATION CONFLICT.
func readable(t *testing.T, c *iscsitest.Conn) bool {
	t.Helper()
	r, err := c.Run(&iscsitest.Command{CDB: []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, In: 512})
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != 0 && r.Status != 0x18 {
		t.Fatalf("READ: status %#x, sense % x", r.Status, r.Sense)
	}
	return r.Status == 0
}

// What was acknowledged with APTPL holds after a kill -9, across targets; operators see
// it and can clear it.
func TestReservations(t *testing.T) {
	w := newWorld(t)
	w.replace("a.img\"}", "a.img\", shared: true}")
	w.replace("iscsi: {iqn: \""+testIQN+"\"}\n", "iscsi: {iqn: \""+testIQN+"\", prIdentity: name}\n  - name: t2\n    luns: [{lun: 0, disk: a}]\n    iscsi: {iqn: \""+testIQN+"2\"}\n")
	in := func(iqn, initiator string, isid byte) *iscsitest.Conn {
		t.Helper()
		c, err := iscsitest.Dial(w.portal)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Login(iscsitest.Login{InitiatorName: initiator, TargetName: iqn, ISID: [6]byte{0x80, 5: isid}}); err != nil {
			t.Fatal(err)
		}
		settle(t, c, 0)
		return c
	}
	const other = "iqn.2026-11.org.example:other"
	s := w.serve()
	if out := w.ok("get", "reservations"); strings.Count(out, "\n") != 1 {
		t.Errorf("%s", out)
	}
	a, b := in(testIQN, testHost, 1), in(testIQN+"2", other, 1)
	for _, step := range []struct {
		c     *iscsitest.Conn
		sa    byte
		saKey uint64
		key   uint64
	}{{a, 0, 0xabc, 0}, {b, 0, 0xdef, 0}, {a, 1, 0, 0xabc}} {
		if st := reserveOut(t, step.c, step.sa, 3, step.key, step.saKey, 1); st != 0 {
			t.Fatalf("PERSISTENT RESERVE OUT %d: status %#x", step.sa, st)
		}
	}
	check := func() {
		t.Helper()
		if !readable(t, a) || readable(t, b) {
			t.Error("the holder cannot read, or another can")
		}
		out := w.ok("get", "reservations")
		for _, want := range []string{"Exclusive Access", "0xabc", testHost, "t:1", "holder", "0xdef", other + ",i,0x800000000001", "t2:2", "registered", "yes"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if out := w.ok("get", "disks", "-o", "json"); !strings.Contains(out, `"reservations"`) || !strings.Contains(out, `"key": "0xabc"`) && !strings.Contains(out, `"key":"0xabc"`) {
			t.Errorf("%s", out)
		}
	}
	check()
	for range 2 {
		s.cmd.Process.Kill()
		<-s.done
		s = w.serve()
		// Another ISID, the same initiator at target t.
		a, b = in(testIQN, testHost, 9), in(testIQN+"2", other, 1)
		check()
	}

	w.fails([]string{"disk", "unreserve", "a"}, "disk a: initiators that are there rely on its reservations: "+testHost, "use --force")
	w.fails([]string{"disk", "unreserve", "x"}, "disk x: is not there")
	if out := w.ok("disk", "unreserve", "a", "--force"); out != "disk a: no reservations\n" {
		t.Errorf("%s", out)
	}
	if _, sense := command1(t, b, iscsitest.Command{CDB: make([]byte, 6)}); sense != 0x62a03 {
		t.Errorf("sense %06x, want RESERVATIONS PREEMPTED", sense)
	}
	if !readable(t, b) {
		t.Error("in conflict still")
	}
	if out := w.ok("get", "events"); !strings.Contains(out, "disk a: reservations cleared by an operator") {
		t.Errorf("%s", out)
	}

	// Damaged: refused until somebody decides.
	if st := reserveOut(t, b, 0, 0, 0, 0xdef, 1); st != 0 {
		t.Fatalf("status %#x", st)
	}
	s.stop()
	file := filepath.Join(w.dir, "state", "units", "a", "reservations.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "0000000000000def", "0000000000000dee", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.serve()
	c, err := iscsitest.Dial(w.portal)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(iscsitest.Login{InitiatorName: other, TargetName: testIQN + "2", ISID: [6]byte{0x80, 5: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0x62900, 0x74401, 0x74401} {
		if _, sense := command1(t, c, iscsitest.Command{CDB: make([]byte, 6)}); sense != want {
			t.Errorf("sense %06x, want %06x", sense, want)
		}
	}
	if out := w.ok("get", "disks"); !strings.Contains(out, "reservations-lost") {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "reservations"); !strings.Contains(out, "lost") {
		t.Errorf("%s", out)
	}
	w.ok("disk", "unreserve", "a")
	settle(t, c, 0)
	if !readable(t, c) {
		t.Error("not readable")
	}
}
