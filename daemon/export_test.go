package daemon

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestExports: each export comes and goes by itself; what stays is not touched, and a
// step that fails leaves what was there.
func TestExports(t *testing.T) {
	dir := t.TempDir()
	text := func(target string) []byte {
		return []byte(fmt.Sprintf("version: 1\ndisks:\n- {name: a, store: \"file:/a\", shared: true}\n- {name: b, store: \"file:/b\", shared: true}\ntargets:\n- {name: t, %s}\niscsi: {portals: [\"127.0.0.1:1\"]}\nstate: %q\n", target, filepath.Join(dir, "state")))
	}
	const (
		iqn = "iscsi: {iqn: iqn.2026-11.org.vtgt:t}"
		one = "vhost: {socket: /one}"
	)
	luns := "luns: [{lun: 0, disk: a}], "
	for _, c := range []struct {
		name, before, after string
		want                []string // exports afterwards
		calls               []string // of exports and LUNs
	}{
		{"add", luns + iqn, luns + iqn + ", " + one, []string{"t /one false", "t iqn.2026-11.org.vtgt:t"}, []string{"export t /one false"}},
		{"remove", luns + iqn + ", " + one, luns + iqn, []string{"t iqn.2026-11.org.vtgt:t"}, nil},
		{"other iSCSI name", luns + iqn + ", " + one, luns + "iscsi: {iqn: iqn.2026-11.org.vtgt:u}, " + one, []string{"t /one false", "t iqn.2026-11.org.vtgt:u"},
			[]string{"export t iqn.2026-11.org.vtgt:u", "adjust /one 0600 1"}},
		{"other socket", luns + one, luns + "vhost: {socket: /two}", []string{"t /two false"}, []string{"export t /two false"}},
		{"other initiator", luns + one, luns + "vhost: {socket: /one, initiator: 6f1c0000-0000-4000-8000-000000000001}", []string{"t /one true"}, []string{"export t /one true"}},
		{"other mode", luns + one, luns + "vhost: {socket: /one, mode: \"0666\"}", []string{"t /one false"}, []string{"adjust /one 0666 1"}},
		{"other virtio target", luns + one, "luns: [{lun: 0, disk: a, address: {vhost: {target: 9}}}], " + one, []string{"t /one false"}, []string{"adjust /one 0600 2"}},
		{"nothing", luns + one, luns + one, []string{"t /one false"}, []string{"adjust /one 0600 1"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			for _, fail := range append([]string{""}, c.calls...) {
				if strings.HasPrefix(fail, "adjust") {
					continue // publish tells of it and goes on
				}
				e := &fakeEngine{open: map[string]bool{}}
				d, err := fakeStart(t, e, text(c.before))
				if err != nil {
					t.Fatal(err)
				}
				before := e.things()
				e.mu.Lock()
				e.calls, e.fail = nil, fail
				e.mu.Unlock()
				_, err = d.Apply("f.yaml", text(c.after), ApplyOptions{})
				if (err == nil) != (fail == "") {
					t.Errorf("fail %q: %v", fail, err)
				}
				var got []string
				for _, n := range e.things() {
					if n, ok := strings.CutPrefix(n, "export "); ok {
						got = append(got, n)
					}
				}
				if fail != "" {
					if now := e.things(); !slices.Equal(now, before) {
						t.Errorf("fail %q: is\n%s\nwas\n%s", fail, strings.Join(now, "\n"), strings.Join(before, "\n"))
					}
				} else if calls := slices.DeleteFunc(slices.Clone(e.calls), func(s string) bool { return !strings.HasPrefix(s, "export") && !strings.HasPrefix(s, "adjust") }); !slices.Equal(got, c.want) || !slices.Equal(calls, c.calls) {
					t.Errorf("got %q by %q", got, e.calls)
				}
				if err := d.Close(); err != nil || len(e.things()) != 0 {
					t.Errorf("after Close: %v\n%v", err, e.things())
				}
			}
		})
	}
}

// A virtual machine that is connected is a user of what it sees.
func TestVHostUsers(t *testing.T) {
	dir := t.TempDir()
	e := &fakeEngine{open: map[string]bool{}}
	text := func(luns, export string) []byte {
		return []byte(fmt.Sprintf("version: 1\ndisks:\n- {name: a, store: \"file:/a\"}\n- {name: b, store: \"file:/b\"}\ntargets:\n- {name: t, luns: [%s], %s}\nstate: %q\n", luns, export, filepath.Join(dir, "state")))
	}
	const both = "{lun: 0, disk: a}, {lun: 1, disk: b, address: {vhost: {target: 7}}}"
	const export = "vhost: {socket: /s}"
	d, err := fakeStart(t, e, text(both, export))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	e.connected = []Session{
		{Kind: kindVHost, Target: "t", Initiator: "srp.1", Since: time.Now(), Connections: []Connection{{Local: "/s", Remote: "process 42"}}},
	}
	const who = "the virtual machine at /s (process 42)"
	busy := func(what string, text []byte, words ...string) {
		t.Helper()
		_, err := d.Apply("f.yaml", text, ApplyOptions{})
		for _, w := range append(words, who) {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", what, err, w)
			}
		}
	}
	busy("LUN", text("{lun: 1, disk: b, address: {vhost: {target: 7}}}", export), "lun t/0")
	busy("address", text("{lun: 0, disk: a, address: {vhost: {target: 1}}}, {lun: 1, disk: b, address: {vhost: {target: 7}}}", export), "lun t/0")
	busy("socket", text(both, "vhost: {socket: /r}"), "its vhost-user export cannot change")
	busy("export", []byte(strings.Replace(string(text(both, export)), ", "+export, "", 1)), "its vhost-user export cannot change")
	busy("target", []byte(fmt.Sprintf("version: 1\nstate: %q\n", filepath.Join(dir, "state"))), "target t")
	// LUN 1 is at a virtio target that this nexus is not of.
	if _, err := d.Apply("f.yaml", text("{lun: 0, disk: a}", export), ApplyOptions{}); err != nil {
		t.Error(err)
	}
	if r, err := d.Apply("f.yaml", text("{lun: 0, disk: a}", "vhost: {socket: /r}"), ApplyOptions{Force: true}); err != nil || !strings.Contains(strings.Join(r.Warnings, "\n"), who) {
		t.Error(r, err)
	}
	if ss := d.Sessions(); len(ss) != 1 || ss[0].Kind != kindVHost {
		t.Errorf("%+v", ss)
	}
}
