package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const editBase = `# The house's disks.
version: 1

disks:
  # The root disk of vm1.
  - name: root1
    store: file:/var/lib/vtgt/root1.img   # on the fast array
    size: 10GiB

  # Scratch space: may be lost.
  - name: 'tmp'
    store: "mem:"
    size: 1GiB
targets:
  - name: vm1   # the first
    luns: [{lun: 0, disk: root1}]
    iscsi: {iqn: "iqn.2026-11.org.vtgt:vm1"}   # for QEMU
  - {name: vm2, luns: [], iscsi: {iqn: "iqn.2026-11.org.vtgt:vm2"}}

iscsi: {portals: ["127.0.0.1:3260"]}   # loopback only
api: {socket: /run/vtgt/vtgt.sock}
# The end.
`

// Edits change what they name and nothing else, to the byte.
func TestEdit(t *testing.T) {
	for _, tc := range []struct {
		name     string
		op       Op
		old, new string // what is replaced in editBase
	}{
		{"change a scalar", Op{Modify, "disk", "root1", 0, map[string]any{"size": "20GiB"}},
			"    size: 10GiB\n", "    size: 20GiB\n"},
		{"the style of quotes", Op{Modify, "disk", "tmp", 0, map[string]any{"store": "null:"}},
			`store: "mem:"`, `store: "null:"`},
		{"a key more", Op{Modify, "disk", "root1", 0, map[string]any{"readOnly": true}},
			"    size: 10GiB\n", "    size: 10GiB\n    readOnly: true\n"},
		{"several keys", Op{Modify, "disk", "root1", 0, map[string]any{"size": nil, "cache": "direct", "shared": true, "store": "file:/srv/a b.img"}},
			"store: file:/var/lib/vtgt/root1.img   # on the fast array\n    size: 10GiB\n", "store: \"file:/srv/a b.img\"   # on the fast array\n    cache: direct\n    shared: true\n"},
		{"a key less", Op{Modify, "disk", "root1", 0, map[string]any{"size": nil}},
			"    size: 10GiB\n", ""},
		{"a key less that is not there", Op{Modify, "disk", "root1", 0, map[string]any{"serial": nil}}, "", ""},
		{"a disk more", Op{Add, "disk", "data", 0, map[string]any{"store": "file:/d.img", "size": "1GiB", "create": true}},
			"    size: 1GiB\n", "    size: 1GiB\n  - name: data\n    store: file:/d.img\n    size: 1GiB\n    create: true\n"},
		{"a disk less", Op{Remove, "disk", "tmp", 0, nil},
			"  # Scratch space: may be lost.\n  - name: 'tmp'\n    store: \"mem:\"\n    size: 1GiB\n", ""},
		{"the first disk less", Op{Remove, "disk", "root1", 0, nil},
			"  - name: root1\n    store: file:/var/lib/vtgt/root1.img   # on the fast array\n    size: 10GiB\n", ""},
		{"a LUN more", Op{Add, "lun", "vm1", 7, map[string]any{"disk": "tmp", "readOnly": true}},
			"[{lun: 0, disk: root1}]", "[{lun: 0, disk: root1}, {lun: 7, disk: tmp, readOnly: true}]"},
		{"the first LUN", Op{Add, "lun", "vm2", 0, map[string]any{"disk": "tmp"}},
			"luns: []", "luns: [{lun: 0, disk: tmp}]"},
		{"the last LUN less", Op{Remove, "lun", "vm1", 0, nil},
			"[{lun: 0, disk: root1}]", "[]"},
		{"a LUN changed", Op{Modify, "lun", "vm1", 0, map[string]any{"readOnly": true}},
			"{lun: 0, disk: root1}", "{lun: 0, disk: root1, readOnly: true}"},
		{"a target more, like the last", Op{Add, "target", "vm3", 0, map[string]any{"iscsi": map[string]any{"iqn": "iqn.2026-11.org.vtgt:vm3", "alias": nil}}},
			"vtgt:vm2\"}}\n", "vtgt:vm2\"}}\n  - {name: vm3, iscsi: {iqn: \"iqn.2026-11.org.vtgt:vm3\"}}\n"},
		{"a target less", Op{Remove, "target", "vm1", 0, nil},
			"  - name: vm1   # the first\n    luns: [{lun: 0, disk: root1}]\n    iscsi: {iqn: \"iqn.2026-11.org.vtgt:vm1\"}   # for QEMU\n", ""},
		{"inside an export", Op{Modify, "target", "vm1", 0, map[string]any{"iscsi": map[string]any{"alias": "The first"}}},
			`{iqn: "iqn.2026-11.org.vtgt:vm1"}`, `{iqn: "iqn.2026-11.org.vtgt:vm1", alias: "The first"}`},
		{"an export less", Op{Modify, "target", "vm1", 0, map[string]any{"iscsi": nil}},
			"    iscsi: {iqn: \"iqn.2026-11.org.vtgt:vm1\"}   # for QEMU\n", ""},
		{"a portal more", Op{Add, "portal", "[::1]:3260", 0, nil},
			`["127.0.0.1:3260"]`, `["127.0.0.1:3260", "[::1]:3260"]`},
		{"the portal less", Op{Remove, "portal", "127.0.0.1:3260", 0, nil},
			`["127.0.0.1:3260"]`, `[]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, crlf := range []bool{false, true} {
				base, want := editBase, strings.Replace(editBase, tc.old, tc.new, 1)
				if tc.old != "" && want == base {
					t.Fatal("nothing to replace")
				}
				if crlf {
					base, want = strings.ReplaceAll(base, "\n", "\r\n"), strings.ReplaceAll(want, "\n", "\r\n")
				}
				got, err := Edit("f", []byte(base), tc.op)
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != want {
					t.Errorf("crlf %v:\n%s", crlf, diffText(want, string(got)))
				}
			}
		})
	}
}

// diffText shows the lines that differ.
func diffText(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var b strings.Builder
	for i := range max(len(w), len(g)) {
		var x, y string
		if i < len(w) {
			x = w[i]
		}
		if i < len(g) {
			y = g[i]
		}
		if x != y {
			fmt.Fprintf(&b, "%d want %q\n%d  got %q\n", i+1, x, i+1, y)
		}
	}
	return b.String()
}

// Layouts that are rarer.
func TestEditLayouts(t *testing.T) {
	for _, tc := range []struct {
		name, base string
		op         Op
		want       string
	}{
		{"nothing yet", "version: 1\n", Op{Add, "disk", "a", 0, map[string]any{"store": "mem:", "size": "1MiB"}},
			"version: 1\ndisks:\n  - name: a\n    store: \"mem:\"\n    size: 1MiB\n"},
		{"no line feed", "version: 1", Op{Add, "portal", "127.0.0.1:1", 0, nil},
			"version: 1\niscsi: {portals: [\"127.0.0.1:1\"]}\n"},
		{"commented out", "version: 1\ndisks: # none\n#- name: x\nstate: /s\n", Op{Add, "disk", "a", 0, map[string]any{"store": "mem:"}},
			"version: 1\ndisks: # none\n  - name: a\n    store: \"mem:\"\n#- name: x\nstate: /s\n"},
		{"empty list", "version: 1\ndisks: []\nstate: /s\n", Op{Add, "disk", "a", 0, map[string]any{"store": "mem:"}},
			"version: 1\ndisks:\n  - name: a\n    store: \"mem:\"\nstate: /s\n"},
		{"no indentation", "version: 1\ntargets:\n- name: t\n  luns:\n  - lun: 0\n    disk: a\n  iscsi:\n    iqn: x\nstate: /s\n", Op{Add, "lun", "t", 1, map[string]any{"disk": "b"}},
			"version: 1\ntargets:\n- name: t\n  luns:\n  - lun: 0\n    disk: a\n  - lun: 1\n    disk: b\n  iscsi:\n    iqn: x\nstate: /s\n"},
		{"a block's LUN less", "version: 1\ntargets:\n- name: t\n  luns:\n  - lun: 0\n    disk: a\n  - {lun: 1, disk: b}\n", Op{Remove, "lun", "t", 0, nil},
			"version: 1\ntargets:\n- name: t\n  luns:\n  - {lun: 1, disk: b}\n"},
		{"one a line", "version: 1\ntargets:\n- name: t\n  luns: [\n    {lun: 0, disk: a},  # boot\n    {lun: 1, disk: b}  # data\n  ]\n", Op{Add, "lun", "t", 2, map[string]any{"disk": "c"}},
			"version: 1\ntargets:\n- name: t\n  luns: [\n    {lun: 0, disk: a},  # boot\n    {lun: 1, disk: b},  # data\n    {lun: 2, disk: c}\n  ]\n"},
		{"one a line, less", "version: 1\ntargets:\n- name: t\n  luns: [\n    {lun: 0, disk: a},  # boot\n    {lun: 1, disk: b}  # data\n  ]\n", Op{Remove, "lun", "t", 1, nil},
			"version: 1\ntargets:\n- name: t\n  luns: [\n    {lun: 0, disk: a},  # boot\n  ]\n"},
		{"portals one a line", "version: 1\niscsi:\n  portals:\n    - 127.0.0.1:1 # a\n    - 127.0.0.1:2\n", Op{Remove, "portal", "127.0.0.1:1", 0, nil},
			"version: 1\niscsi:\n  portals:\n    - 127.0.0.1:2\n"},
		{"wide characters", "version: 1\ntargets: [{name: t, iscsi: {alias: \"Größe 磁碟\", iqn: i}}]\n", Op{Modify, "target", "t", 0, map[string]any{"iscsi": map[string]any{"iqn": "j"}}},
			"version: 1\ntargets: [{name: t, iscsi: {alias: \"Größe 磁碟\", iqn: j}}]\n"},
		{"a value that stands over lines is written anew", "version: 1\nstate: /s # here\ntargets:\n- name: t\n  iscsi:\n    alias: a long\n      text\n    iqn: i # it\n", Op{Modify, "target", "t", 0, map[string]any{"iscsi": map[string]any{"alias": "b"}}},
			"version: 1\nstate: /s # here\ntargets:\n  - name: t\n    iscsi:\n      alias: b\n      iqn: i # it\n"},
		{"a block replaced", "version: 1\ntargets:\n- name: t\n  luns:\n  - {lun: 0, disk: a}\n  iscsi: {iqn: i}\n", Op{Modify, "target", "t", 0, map[string]any{"luns": []any{map[string]any{"lun": 3.0, "disk": "b"}}}},
			"version: 1\ntargets:\n- name: t\n  luns: [{lun: 3, disk: b}]\n  iscsi: {iqn: i}\n"},
		{"JSON", "{\"version\": 1, \"disks\": [{\"name\": \"a\", \"store\": \"mem:\"}]}", Op{Modify, "disk", "a", 0, map[string]any{"size": "1MiB"}},
			"{\"version\": 1, \"disks\": [{\"name\": \"a\", \"store\": \"mem:\", size: 1MiB}]}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Edit("f", []byte(tc.base), tc.op)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestEditRefuses(t *testing.T) {
	for _, tc := range []struct {
		op   Op
		want string
	}{
		{Op{Add, "disk", "root1", 0, map[string]any{"store": "mem:"}}, "disk root1: is there already"},
		{Op{Remove, "disk", "x", 0, nil}, "disk x: is not there"},
		{Op{Modify, "lun", "vm1", 9, map[string]any{"readOnly": true}}, "lun vm1/9: is not there"},
		{Op{Add, "lun", "x", 9, map[string]any{"disk": "a"}}, "there is no target x"},
		{Op{Add, "disk", "d", 0, map[string]any{"stroe": "mem:"}}, `did you mean "store"?`},
		{Op{Modify, "disk", "tmp", 0, map[string]any{"size": true}}, "must be a size"},
		{Op{Modify, "disk", "tmp", 0, map[string]any{"blockSize": 512.5}}, "not a whole number"},
		{Op{Add, "cow", "tmp", 0, nil}, "cannot be changed"},
	} {
		if _, err := Edit("f", []byte(editBase), tc.op); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %s", tc.op, err, tc.want)
		}
	}
}

// With a thousand objects one more is cheap.
func TestEditMany(t *testing.T) {
	text := many(1000)
	begin := time.Now()
	got, err := Edit("f", text, Op{Add, "disk", "one-more", 0, map[string]any{"store": "mem:", "size": "1MiB"}})
	if err != nil || !bytes.Contains(got, []byte("one-more")) {
		t.Fatal(err)
	}
	t.Logf("%d bytes, %v", len(text), time.Since(begin))
	if took := time.Since(begin); took > time.Minute { // 20 ms on an idle machine
		t.Errorf("%v", took)
	}
}

func many(n int) []byte {
	var b strings.Builder
	b.WriteString("version: 1\ndisks:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: d%d, store: \"mem:\", size: 1MiB}\n", i)
	}
	b.WriteString("targets:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - name: t%d\n    luns: [{lun: 0, disk: d%d}]\n    iscsi: {iqn: \"iqn.2026-11.org.vtgt:t%d\"}\n", i, i, i)
	}
	b.WriteString("iscsi: {portals: [\"127.0.0.1:0\"]}\n")
	return []byte(b.String())
}

func BenchmarkEdit(b *testing.B) {
	text := many(1000)
	for b.Loop() {
		if _, err := Edit("f", text, Op{Add, "disk", "one-more", 0, map[string]any{"store": "mem:", "size": "1MiB"}}); err != nil {
			b.Fatal(err)
		}
	}
}

// Several objects at once leave the text that one after another leaves, whether they
// go in by one splice or not.
func TestEditTogether(t *testing.T) {
	disk := func(name string) Op { return Op{Add, "disk", name, 0, map[string]any{"store": "mem:", "size": "1MiB"}} }
	target := func(name string) Op {
		return Op{Add, "target", name, 0, map[string]any{"luns": []any{map[string]any{"lun": 0, "disk": name}}, "iscsi": map[string]any{"iqn": "iqn.2026-11.org.vtgt:" + name}}}
	}
	for _, text := range []string{
		string(many(3)), editBase, "version: 1\n", "version: 1\ndisks: []\ntargets: # none\n",
		"version: 1\ndisks: [{name: a, store: \"null:\", size: 1MiB}]\ntargets: []\n",
		"version: 1\ndisks:\n  - {name: a, store: \"null:\", size: 1MiB} # last\n  # end\ntargets:\n- name: b",
	} {
		for _, ops := range [][]Op{
			{disk("x"), target("x")}, {target("x"), disk("x")}, {disk("x"), disk("y")}, {disk("x"), disk("x")},
			{disk("x"), target("x"), disk("y"), target("y")},
		} {
			want, werr := []byte(text), error(nil)
			for i := range ops {
				if want, werr = Edit("f", want, ops[i]); werr != nil {
					break
				}
			}
			got, err := Edit("f", []byte(text), ops...)
			if (err == nil) != (werr == nil) || err == nil && string(got) != string(want) || err != nil && err.Error() != werr.Error() {
				t.Errorf("%v in\n%s\ntogether: %v\n%s\none after another: %v\n%s", ops, text, err, got, werr, want)
			}
		}
	}
	d, err := parseDocument("f", many(3))
	if err != nil {
		t.Fatal(err)
	}
	if d.editTogether([]Op{disk("x"), target("x")}) == nil {
		t.Error("a disk and a target do not go in by one splice")
	}
}

func BenchmarkEditConfig(b *testing.B) {
	text := many(1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := EditConfig("f", text,
			Op{Add, "disk", "one-more", 0, map[string]any{"store": "mem:", "size": "1MiB"}},
			Op{Add, "target", "one-more", 0, map[string]any{"luns": []any{map[string]any{"lun": 0, "disk": "one-more"}}, "iscsi": map[string]any{"iqn": "iqn.2026-11.org.vtgt:more"}}}); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever the text is: an edit that succeeds means what it was to mean, and
// comments are not lost with what is added or changed.
func FuzzEdit(f *testing.F) {
	f.Add([]byte(editBase), "root1", "vm1", uint8(0))
	f.Add([]byte("version: 1\ntargets:\n- name: t\n  luns: [\n    {lun: 0, disk: a},  # boot\n    {lun: 1, disk: b}  # data\n  ]\n"), "a", "t", uint8(3))
	f.Add([]byte("version: 1\ndisks: # none\n#- name: x\nstate: /s\n"), "x: y # z", "t", uint8(1))
	f.Add([]byte("version: 1\niscsi:\n  portals:\n    - 127.0.0.1:1 # a\n"), "127.0.0.1:1", "t", uint8(4))
	f.Fuzz(func(t *testing.T, text []byte, name, target string, kind uint8) {
		if len(text) > 4096 {
			return
		}
		before, err := decode("f", text)
		if err != nil {
			return
		}
		var op Op
		switch kind % 6 {
		case 0:
			op = Op{Modify, "disk", name, 0, map[string]any{"size": "7MiB", "serial": target}}
		case 1:
			op = Op{Add, "disk", name, 0, map[string]any{"store": target}}
		case 2:
			op = Op{Remove, "disk", name, 0, nil}
		case 3:
			op = Op{Add, "lun", target, 99, map[string]any{"disk": name}}
		case 4:
			op = Op{Remove, "portal", name, 0, nil}
		case 5:
			op = Op{Modify, "target", target, 0, map[string]any{"iscsi": map[string]any{"alias": name}}}
		}
		got, err := Edit("f", text, op)
		if err != nil {
			return
		}
		after, err := decode("f", got)
		if err != nil {
			t.Fatalf("%v\n%q\n%q", err, text, got)
		}
		switch kind % 6 {
		case 0:
			if d := after.Disk(name); d == nil || d.Size != 7<<20 || d.Serial != target {
				t.Fatalf("%q\n%q", text, got)
			}
		case 1:
			if d := after.Disk(name); d == nil || d.Store != target || len(after.Disks) != len(before.Disks)+1 {
				t.Fatalf("%q\n%q", text, got)
			}
		case 2:
			if len(after.Disks) != len(before.Disks)-1 {
				t.Fatalf("%q\n%q", text, got)
			}
		case 3:
			if tg := after.Target(target); tg == nil || tg.lun(99) == nil || tg.lun(99).Disk != name {
				t.Fatalf("%q\n%q", text, got)
			}
		}
	})
}

// An Editor that has made changes gives what a new one gives, also after a text that
// somebody else has changed, a change that was refused, and one that nobody took.
func TestEditor(t *testing.T) {
	var e Editor
	text := []byte("version: 1 # kept\ndisks:\n- {name: a, store: \"null:\", size: 1MiB}\n# the end\n")
	add := func(name string) Op {
		return Op{Action: Add, Kind: "disk", Name: name, Values: map[string]any{"store": "null:", "size": "1MiB"}}
	}
	step := func(text []byte, ops ...Op) []byte {
		t.Helper()
		want, wantC, wantErr := EditConfig("f", text, ops...)
		got, c, err := e.EditConfig("f", text, ops...)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("%v, want %v", err, wantErr)
		}
		if string(got) != string(want) {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
		if err == nil {
			c.src, wantC.src = nil, nil
			if !reflect.DeepEqual(c, wantC) {
				t.Fatalf("got %+v, want %+v", c, wantC)
			}
		}
		return got
	}
	text = step(text, add("b"))
	text = step(text, add("c"))
	step(text, add("c")) // refused
	text = step(text, add("d"), add("e"))
	step(text, add("f")) // not taken
	step(text, Op{Action: Modify, Kind: "disk", Name: "a", Values: map[string]any{"size": "nothing"}})
	text = step(text, Op{Action: Modify, Kind: "disk", Name: "a", Values: map[string]any{"size": "2MiB"}})
	text = step(text, Op{Action: Modify, Kind: "disk", Name: "a"}) // nothing
	text = step(text, Op{Action: Remove, Kind: "disk", Name: "b"})
	text = append(text, "# by hand\n"...)
	text = step(text, add("g"))
	text = append(text, "# a whole text\n"...)
	if _, err := e.Parse("other", text); err != nil || e.last == nil {
		t.Fatalf("nothing is kept of what was parsed: %v", err)
	}
	step(text, Op{Action: Modify, Kind: "disk", Name: "a", Values: map[string]any{"size": "nothing"}}) // names f
	if _, err := e.Parse("f", text); err != nil {
		t.Fatal(err)
	}
	text = step(text, add("h"))
	if _, err := e.Parse("f", []byte("version: 2\n")); err == nil || e.last != nil {
		t.Errorf("what is refused is kept: %v", err)
	}
	text = step(text, add("i"))
	if last := e.last; last == nil || string(last.text) != string(text) {
		t.Error("nothing is kept")
	}
	for _, s := range []string{"# kept", "# the end", "# by hand", "# a whole text"} {
		if !strings.Contains(string(text), s) {
			t.Errorf("%s is lost:\n%s", s, text)
		}
	}
}
