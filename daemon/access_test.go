package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

func (w *world) secret(name, text string) string {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// tryLogin logs in, and tells how the target refused.
func tryLogin(t *testing.T, d *Daemon, l iscsitest.Login) (*iscsitest.Conn, pdu.LoginStatus) {
	t.Helper()
	c, err := iscsitest.Dial(d.Status().Portals[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	err = c.Login(l)
	var le *iscsitest.LoginError
	if errors.As(err, &le) {
		return nil, le.Status
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, 0
}

func apply(d *Daemon, text []byte) (*Result, error) { return d.Apply("f.yaml", text, ApplyOptions{}) }

func TestCHAPSecrets(t *testing.T) {
	w := newWorld(t)
	one, two := w.secret("one", "first-secret-of-u\n"), w.secret("two", "the-target-itself\n")
	body := func(chap string) []byte {
		return w.config("disks: [{name: a, store: \"mem:\", size: 1MiB}]\ntargets:\n- name: one\n  luns: [{lun: 0, disk: a}]\n  iscsi:\n    iqn: " + iqn1 + "\n" + chap)
	}
	text := body(fmt.Sprintf("    chap: {user: u, secretFile: %s, mutual: {user: t, secretFile: %s}}\n", one, two))
	d := w.start(text)
	l := iscsitest.Login{InitiatorName: host, TargetName: iqn1, CHAP: &iscsitest.CHAP{User: "u", Secret: "first-secret-of-u", Target: "t", TargetSecret: "the-target-itself"}}
	c, st := tryLogin(t, d, l)
	if st != 0 {
		t.Fatal(st)
	}
	plain := l
	plain.CHAP = nil
	if _, st := tryLogin(t, d, plain); st != pdu.LoginAuthenticationFailure {
		t.Error("without CHAP:", st)
	}
	// The same text again reads the secrets again; who is in stays in.
	w.secret("one", "second-secret-of-u")
	if _, err := apply(d, text); err != nil {
		t.Fatal(err)
	}
	if err := c.NOP(nil, false); err != nil {
		t.Error("the session did not survive a new secret:", err)
	}
	if _, st := tryLogin(t, d, l); st != pdu.LoginAuthenticationFailure {
		t.Error("the old secret:", st)
	}
	l.CHAP.Secret = "second-secret-of-u"
	l.ISID = [6]byte{0x80, 2}
	if _, st := tryLogin(t, d, l); st != 0 {
		t.Error("the new secret:", st)
	}

	// What cannot be read is refused as a whole, and nothing changes.
	for _, bad := range []struct {
		do   func()
		want string
	}{
		{func() { os.Chmod(one, 0o644) }, "has mode 0644"},
		{func() { os.Chmod(one, 0o600); os.WriteFile(one, nil, 0o600) }, "is empty"},
		{func() { w.secret("one", "the-target-itself") }, "one CHAP secret serves both directions"},
		{func() { os.Remove(one) }, "no such file"},
	} {
		bad.do()
		_, err := apply(d, text)
		if err == nil || !strings.Contains(fmt.Sprint(err), bad.want) || !strings.Contains(fmt.Sprint(AsErrors(err)), "f.yaml:") {
			t.Errorf("%v, want %q", err, bad.want)
		}
		if err != nil && strings.Contains(err.Error(), "the-target-itself") {
			t.Error("a secret is in an error:", err)
		}
	}
	if _, st := tryLogin(t, d, l); st != 0 {
		t.Error("after refused configurations:", st)
	}
	// A short one is taken with a warning.
	w.secret("one", "short")
	r, err := apply(d, text)
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "has 5 bytes") || strings.Contains(r.Warnings[0], "short") {
		t.Error(r, err)
	}
	// Nothing that is told shows a secret.
	var all bytes.Buffer
	for _, v := range []any{d.Config(), d.Targets(), d.Sessions(), d.Exports(), d.Status(), r} {
		if err := json.NewEncoder(&all).Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []string{"short\"", "second-secret", "the-target-itself"} {
		if strings.Contains(all.String(), s) {
			t.Error("a secret is shown")
		}
	}
	// And away with it.
	r, err = apply(d, body(""))
	if err != nil || len(r.Changes) != 1 || r.Changes[0].String() != "~ target one: chap u/t -> none" {
		t.Error(r, err)
	}
	if _, st := tryLogin(t, d, plain); st != 0 {
		t.Error("without CHAP:", st)
	}
	if err := c.NOP(nil, false); err == nil {
		t.Error("the plain login has the first session's ISID: it should have ended that")
	}
}

func TestAccessKeys(t *testing.T) {
	w := newWorld(t)
	disc := w.secret("disc", "secret-of-discovery")
	body := func(one, more string) []byte {
		return []byte(strings.Replace(string(w.config("disks: [{name: a, store: \"mem:\", size: 1MiB}, {name: b, store: \"mem:\", size: 2MiB, shared: true}]\ntargets:\n"+
			"- name: one\n  luns: [{lun: 0, disk: a, readOnly: true}, {lun: 1, disk: b, "+one+"}]\n  iscsi: {iqn: "+iqn1+more+"}\n"+
			"- name: two\n  iscsi: {iqn: "+iqn2+", initiators: [\"iqn.*:nobody\"]}\n")), "\"]}\napi", "\"], discovery: {chap: {user: d, secretFile: "+disc+"}}}\napi", 1))
	}
	d := w.start(body("initiators: [\"*:test-host\"]", ""))
	find := iscsitest.Login{InitiatorName: host, Discovery: true}
	if _, st := tryLogin(t, d, find); st != pdu.LoginAuthenticationFailure {
		t.Error("discovery:", st)
	}
	find.CHAP = &iscsitest.CHAP{User: "d", Secret: "secret-of-discovery"}
	c, st := tryLogin(t, d, find)
	if st != 0 {
		t.Fatal(st)
	}
	if got, err := c.SendTargets("All"); err != nil || got[iqn1] == nil || got[iqn2] != nil {
		t.Error(got, err)
	}
	if _, st := tryLogin(t, d, iscsitest.Login{InitiatorName: host, TargetName: iqn2}); st != pdu.LoginAuthorizationFailure {
		t.Error("a target of others:", st)
	}

	luns := func(c *iscsitest.Conn) int {
		t.Helper()
		for range 8 { // past the unit attentions
			k, err := c.Run(&iscsitest.Command{CDB: []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, In: 256})
			if err != nil {
				t.Fatal(err)
			}
			if k.Status == 0 {
				return int(k.In[3]) / 8
			}
		}
		return -1
	}
	mine, _ := tryLogin(t, d, iscsitest.Login{InitiatorName: host, TargetName: iqn1})
	other, _ := tryLogin(t, d, iscsitest.Login{InitiatorName: host + "2", TargetName: iqn1})
	if a, b := luns(mine), luns(other); a != 2 || b != 1 {
		t.Errorf("the one sees %d LUNs, the other %d", a, b)
	}
	// A mask changes while both are there.
	if _, err := apply(d, body("initiators: [\"*:test-host2\"]", "")); err != nil {
		t.Fatal(err)
	}
	if a, b := luns(mine), luns(other); a != 1 || b != 2 {
		t.Errorf("after the change the one sees %d LUNs, the other %d", a, b)
	}
	// And goes.
	if _, err := apply(d, body("readOnly: true", "")); err != nil {
		t.Fatal(err)
	}
	if a, b := luns(mine), luns(other); a != 2 || b != 2 {
		t.Errorf("without a mask the one sees %d LUNs, the other %d", a, b)
	}
	// Lists and redirection change under sessions that go on.
	if _, err := apply(d, body("readOnly: true", ", addresses: [192.0.2.0/24]")); err != nil {
		t.Fatal(err)
	}
	fresh := iscsitest.Login{InitiatorName: host + "3", TargetName: iqn1}
	if _, st := tryLogin(t, d, fresh); st != pdu.LoginAuthorizationFailure {
		t.Error("from another address:", st)
	}
	if _, err := apply(d, body("readOnly: true", ", redirect: {address: \"192.0.2.1:3260\", permanent: true}")); err != nil {
		t.Fatal(err)
	}
	if _, st := tryLogin(t, d, fresh); st != pdu.LoginTargetMovedPermanently {
		t.Error("redirection:", st)
	}
	for _, c := range []*iscsitest.Conn{mine, other} {
		if err := c.NOP(nil, false); err != nil {
			t.Error(err)
		}
	}
	// More connections, and an identity by name.
	if _, err := apply(d, body("readOnly: true", ", maxConnections: 3, prIdentity: name")); err != nil {
		t.Fatal(err)
	}
	fresh.Keys = []pdu.KeyValue{{Key: "MaxConnections", Value: "8"}}
	c, st = tryLogin(t, d, fresh)
	if st != 0 || c.Keys["MaxConnections"] != "3" {
		t.Error(st, c)
	}
}
