package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestFull(t *testing.T) {
	c, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.src = nil
	want := &Config{
		Disks: []Disk{
			{Name: "root1", Store: "file:/var/lib/vtgt/root1.img", Size: 10 << 30, Create: true, BlockSize: 512, PhysicalBlockSize: 4096,
				Cache: Writeback, Thin: true, OnError: Report, Serial: "5f3c", SanitizeSpeed: 100 << 20, AtomicLog: 8 << 20, NAA: "3000000000000001"},
			{Name: "data", Store: "block:/dev/sdb", BlockSize: 4096, PhysicalBlockSize: 4096, Cache: Direct, Thin: true, Shared: true, OnError: Report, AtomicLog: DefaultAtomicLog},
			{Name: "scratch", Store: "mem:", Size: 64 << 20, BlockSize: 512, PhysicalBlockSize: 4096, Cache: Writeback, OnError: Report, AtomicLog: DefaultAtomicLog},
		},
		Targets: []Target{
			{Name: "vm1", LUNs: []LUN{{LUN: 0, Disk: "root1"}, {LUN: 1, Disk: "data"}}, ISCSI: &TargetISCSI{IQN: "iqn.2026-11.org.vtgt:vm1", Alias: "first"}},
			{Name: "vm2", LUNs: []LUN{{LUN: 0, Disk: "data", ReadOnly: true}, {LUN: 16383, Disk: "scratch"}}, ISCSI: &TargetISCSI{IQN: "iqn.2026-11.org.vtgt:vm2"}},
		},
		ISCSI:  ISCSI{Portals: []string{"127.0.0.1:3260", "[::1]:3260"}},
		API:    API{Socket: "/run/vtgt/vtgt.sock", Mode: 0o660, Group: "kvm"},
		State:  "/var/lib/vtgt",
		Loops:  2,
		Memory: 256 << 20,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestDefaults(t *testing.T) {
	c, err := Parse("x", []byte("version: 1\ndisks:\ntargets:\n"))
	if err != nil {
		t.Fatal(err)
	}
	c.src = nil
	if want := Default(); !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

// head makes line 1 of the texts below.
const head = "version: 1\n"

func disk(kv string) string { return head + "disks:\n  - {name: a, " + kv + "}\n" }

// migratable is a configuration with a migratable disk, another one, and a target.
func migratable(target string) string {
	return head + "disks:\n- {name: a, store: \"file:/a\", serial: x, reservations: /a.pr, migratable: true}\n- {name: b, store: \"file:/b\"}\n" +
		"targets:\n- {name: t, " + target + "}\n"
}

func TestErrors(t *testing.T) {
	const two = head + "disks:\n  - {name: a, store: \"null:\", size: 1GiB}\n  - {name: b, store: \"null:\", size: 1GiB}\niscsi: {portals: [\"127.0.0.1:3260\"]}\n"
	for _, tc := range []struct {
		name, text string
		want       []string // each is a piece of one line of the error; all lines are named
	}{
		{"empty", "", []string{`f.yaml:1:1: the configuration is empty; begin with "version: 1"`}},
		{"no version", "state: /x\n", []string{`f.yaml:1:1: the key "version" is missing`}},
		{"version 2", "version: 2\n", []string{"f.yaml:1:10: version 2 is not known"}},
		{"version text", "version: \"1\"\n", []string{`f.yaml:1:10: version must be a whole number, not the text "1"`}},
		{"list", "- a\n", []string{"f.yaml:1:1: the configuration must be a mapping (key: value), not a list"}},
		{"tab", "version: 1\ndisks:\n\t- a\n", []string{"f.yaml:3:1: not YAML: found character that cannot start any token"}},
		{"two documents", "version: 1\n---\nversion: 1\n", []string{"f.yaml:2:1: the file holds more than one YAML document"}},
		{"unknown key", head + "diks: []\n", []string{`f.yaml:2:1: unknown key "diks" in the configuration; did you mean "disks"?`}},
		{"unknown deep key", disk(`store: "null:", size: 1GiB, blocksize: 512`), []string{`f.yaml:3:43: unknown key "blocksize" in disks[0]; did you mean "blockSize"?`}},
		{"duplicate key", head + "state: /a\nstate: /b\n", []string{`f.yaml:3:1: key "state" stands twice here, first in line 2`}},
		{"alias", head + "disks: &x []\ntargets: *x\n", []string{"f.yaml:2:8: disks has a YAML anchor (&x)", "f.yaml:3:10: targets is a YAML alias (*x)"}},
		{"merge", head + "iscsi: {<<: {portals: []}}\n", []string{"f.yaml:2:9: iscsi has the merge key << as a key"}},
		{"wrong types", head + "disks: {a: b}\nstate: 5\nloops: many\niscsi: [x]\n", []string{
			"f.yaml:2:8: disks must be a list, not a mapping", `f.yaml:3:8: state must be text, not the number 5; put it in quotes: "5"`,
			`f.yaml:4:8: loops must be a whole number, not the text "many"`, "f.yaml:5:8: iscsi must be a mapping (key: value), not a list"}},
		{"durations", head + "iscsi: {pingInterval: 5, pingTimeout: 2h, loginTimeout: [1s], maxSessions: 0}\n", []string{
			"f.yaml:2:23: iscsi.pingInterval: 5 is not such a time; write a time with its unit, from 1s to 1h0m0s, such as 15s",
			"f.yaml:2:39: iscsi.pingTimeout: 2h is not such a time", "f.yaml:2:57: iscsi.loginTimeout must be a time, not a list",
			"f.yaml:2:76: iscsi.maxSessions: 0 is out of range"}},
		{"bool", disk(`store: "null:", size: 1GiB, thin: yes`), []string{`f.yaml:3:49: disks[0].thin must be true or false, not the text "yes"`}},
		{"size unit", disk(`store: "null:", size: 10G`), []string{`f.yaml:3:37: disks[0].size: "10G" leaves open which unit is meant: write 10GiB (powers of 1024) or 10GB (powers of 1000)`}},
		{"size multiple", disk(`store: "null:", size: 1000`), []string{"f.yaml:3:37: disk \"a\": the size of 1000 bytes is not a multiple of the block size 512; write 512B or 1024B"}},
		{"null without size", disk(`store: "null:"`), []string{`f.yaml:3:22: disk "a": a null: store needs a size`}},
		{"create without size", disk(`store: "file:/a", create: true`), []string{`f.yaml:3:41: disk "a": create: true needs a size`}},
		{"relative", disk(`store: "file:a.img"`), []string{`f.yaml:3:22: disk "a": the path "a.img" is relative`}},
		{"no scheme", disk(`store: /a.img`), []string{`f.yaml:3:22: disk "a": the store "/a.img" has no scheme; write file:/a.img`}},
		{"no store", head + "disks:\n- name: a\n", []string{`f.yaml:3:3: disk "a" has no store; write file:/PATH`}},
		{"later scheme", disk(`store: "rbd:pool/a"`), []string{`f.yaml:3:22: disk "a": rbd: stores are not in this version`}},
		{"cache", disk(`store: "file:/a", cache: none`), []string{`f.yaml:3:40: disk "a": "none" is not a cache mode; write writeback, writethrough or direct`}},
		{"block size", disk(`store: "file:/a", blockSize: 520`), []string{`f.yaml:3:44: disk "a": a block size of 520 is not possible; write 512 or 4096`}},
		{"physical", disk(`store: "file:/a", physicalBlockSize: 1000`), []string{`f.yaml:3:52: disk "a": a physical block size of 1000 is not a power of two`}},
		{"migratable, no serial", disk(`store: "file:/a", migratable: true`), []string{`f.yaml:3:45: disk "a": a migratable disk needs a serial: number`}},
		{"migratable, no reservations", disk(`store: "file:/a", serial: x, migratable: true`), []string{`f.yaml:3:56: disk "a": a migratable disk needs reservations:`}},
		{"migratable memory", disk(`store: "mem:", size: 1MiB, migratable: true`), []string{`f.yaml:3:54: disk "a": a migratable disk cannot have a mem: store`}},
		{"migratable, log", disk(`store: "file:/a", atomicLog: 1MiB, migratable: true`), []string{`disk "a": a migratable disk cannot have an atomicLog:`}},
		{"migratable by vio", migratable("luns: [{lun: 0, disk: a}], vio: {socket: /s}"), []string{`target "t": disk "a" is migratable, which goes by vhost: alone; give the target vhost: and nothing else`}},
		{"migratable, no initiator", migratable("luns: [{lun: 0, disk: a}], vhost: {socket: /s}"), []string{`target "t": its disks are migratable, so reservations need an initiator:`}},
		{"migratable and not", migratable("luns: [{lun: 0, disk: a}, {lun: 1, disk: b}], vhost: {socket: /s}"), []string{`target "t": disk "a" is migratable, disk "b" is not`}},
		{"error policy", disk(`store: "file:/a", onError: panic`), []string{`f.yaml:3:42: disk "a": "panic" is not an error policy; write report, stop or enospc-stop`}},
		{"disk twice", two + "disks: []\n", []string{`f.yaml:6:1: key "disks" stands twice here, first in line 2`}},
		{"name twice", head + "disks:\n  - {name: a, store: \"file:/a\"}\n  - {name: a, store: \"file:/b\"}\n", []string{`f.yaml:4:12: the name "a" is used by two disks, first in line 3`}},
		{"one file", head + "disks:\n  - {name: a, store: \"file:/x/a\"}\n  - {name: b, store: \"file:/x/../x//a\"}\n", []string{`f.yaml:4:22: disk "b" has the same file as another disk: /x/a, first in line 3`}},
		{"serial twice", head + "disks:\n  - {name: a, store: \"file:/a\", serial: x}\n  - {name: b, store: \"file:/b\", serial: x}\n", []string{`f.yaml:4:41: disk "b" has the serial number of another disk, first in line 3`}},
		{"naa", disk(`store: "file:/a", naa: "5000000000000000"`), []string{`f.yaml:3:38: disk "a": "5000000000000000" is not a locally assigned NAA designator`}},
		{"reservations", disk(`store: "file:/a", reservations: b.json`), []string{`f.yaml:3:47: disk "a": the path "b.json" is relative; write it from the root on`}},
		{"reservations in the store", disk(`store: "file:/a", reservations: /x/../a`), []string{`f.yaml:3:47: disk "a": /a is the store of a disk, see line 3; name a file of its own`}},
		{"reservations twice", head + "disks:\n  - {name: a, store: \"file:/a\", reservations: /r}\n  - {name: b, store: \"file:/b\", reservations: /r}\n", []string{`f.yaml:4:47: disk "b": /r is that of another disk, first in line 3; name a file of its own`}},
		{"bad name", head + "disks:\n  - {name: \"a b\", store: \"file:/a\"}\n", []string{`f.yaml:3:12: "a b" cannot be the name of a disk`}},
		{"lun twice", two + "targets:\n- name: t\n  luns:\n  - {lun: 1, disk: a}\n  - {lun: 1, disk: b}\n", []string{`f.yaml:10:11: target "t" has LUN 1 twice, first in line 9; give each its own number`}},
		{"lun missing", two + "targets:\n- {name: t, luns: [{disk: a}]}\n", []string{`f.yaml:7:20: targets[0].luns[0] has no key "lun"`}},
		{"lun range", two + "targets:\n- {name: t, luns: [{lun: 16384, disk: a}]}\n", []string{"f.yaml:7:26: targets[0].luns[0].lun: 16384 is out of range; write a number from 0 to 16383"}},
		{"unknown disk", two + "targets:\n- {name: t, luns: [{lun: 0, disk: c}]}\n", []string{`f.yaml:7:35: target "t": LUN 0 is the unknown disk "c"; add it under disks:, or use one of a, b`}},
		{"disk at two LUNs", two + "targets:\n- {name: t, luns: [{lun: 0, disk: a}, {lun: 1, disk: a}]}\n", []string{`f.yaml:7:54: target "t" maps disk "a" twice`}},
		{"not shared", two + "targets:\n- {name: t, luns: [{lun: 0, disk: a}]}\n- {name: u, luns: [{lun: 0, disk: a}]}\n", []string{`f.yaml:8:35: disk "a" could be written through the targets "t" and "u" at once (line 7); write shared: true`}},
		{"iqn", two + "targets:\n- {name: t, iscsi: {iqn: \"vm1\"}}\n", []string{`f.yaml:7:26: target "t": "vm1" is not an iSCSI name; write iqn.`}},
		{"iqn capitals", two + "targets:\n- {name: t, iscsi: {iqn: \"iqn.2026-11.org.vtgt:VM1\"}}\n", []string{`has capital letters, which iSCSI names have not; write iqn.2026-11.org.vtgt:vm1`}},
		{"no iqn", two + "targets:\n- {name: t, iscsi: {}}\n", []string{`f.yaml:7:20: target "t": the iSCSI name is empty`}},
		{"iqn twice", two + "targets:\n- {name: t, iscsi: {iqn: iqn.2026-11.org.vtgt}}\n- {name: u, iscsi: {iqn: iqn.2026-11.org.vtgt}}\n", []string{`f.yaml:8:26: target "u" has the iSCSI name of another target, first in line 7`}},
		{"chap", two + "targets:\n- {name: t, iscsi: {iqn: iqn.2026-11.org.vtgt, chap: {user: u}}}\n", []string{`f.yaml:7:54: target "t": CHAP user "u" has no secret; add secretFile: and the path of a file of mode 0600`}},
		{"no portal", head + "targets:\n- {name: t, iscsi: {iqn: iqn.2026-11.org.vtgt}}\n", []string{`f.yaml:3:20: target "t" is exported by iSCSI, but there is no portal`}},
		{"portal", head + "iscsi: {portals: [\"127.0.0.1\", \":3260\", \"host:1\", \"::1\"]}\n", []string{
			`f.yaml:2:19: the portal "127.0.0.1" is not an IP address with a port; write 127.0.0.1:3260`,
			`f.yaml:2:32: the portal ":3260" is not an IP address with a port; write 0.0.0.0:3260 or [::]:3260`,
			`f.yaml:2:41: the portal "host:1" is not an IP address`, `f.yaml:2:51: the portal "::1" is not an IP address with a port; write [::1]:3260`}},
		{"portal twice", head + "iscsi: {portals: [\"127.0.0.1:1\", \"127.0.0.1:1\", \"0.0.0.0:1\"]}\n", []string{"f.yaml:2:34: the portal 127.0.0.1:1 stands twice", "f.yaml:2:49: the portals 127.0.0.1:1 and 0.0.0.0:1 overlap"}},
		{"api", head + "api: {socket: x, mode: \"0666\"}\n", []string{`f.yaml:2:15: the API socket "x" is not an absolute path`, "f.yaml:2:24: api.mode: 0666 is neither 0600 nor 0660"}},
		{"api group", head + "api: {group: kvm}\n", []string{"f.yaml:2:14: the API socket's group has no access with mode 0600"}},
		{"long socket", head + "api: {socket: /" + strings.Repeat("x", 100) + "}\n", []string{"f.yaml:2:15: the API socket's path has 101 bytes, the limit is 90"}},
		{"state", head + "state: here\n", []string{`f.yaml:2:8: the state folder "here" is not an absolute path`}},
		{"memory", head + "memory: 1MiB\n", []string{"f.yaml:2:9: 1MiB are too little memory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tc.text))
			// A disk error comes after all syntax and type errors: what a test
			// names is all there is.
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			// "api" has its two errors in two stages.
			if tc.name == "api" {
				_, err2 := Parse("f.yaml", []byte(strings.ReplaceAll(tc.text, "0666", "0600")))
				lines = append(strings.Split(err2.Error(), "\n"), lines...)
			}
			if len(lines) != len(tc.want) {
				t.Fatalf("%d errors, want %d:\n%v", len(lines), len(tc.want), strings.Join(lines, "\n"))
			}
			for i, w := range tc.want {
				if !strings.Contains(lines[i], w) {
					t.Errorf("got  %s\nwant …%s…", lines[i], w)
				}
			}
			var es Errors
			if !errors.As(err, &es) {
				t.Fatalf("%T is not Errors", err)
			}
			for _, e := range es {
				if e.Line < 1 || e.Col < 1 || e.File != "f.yaml" {
					t.Errorf("no place: %v", e)
				}
			}
		})
	}
}

func TestLoadMissing(t *testing.T) {
	p := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(p)
	if err == nil || !strings.Contains(err.Error(), p+": cannot read the configuration: no such file or directory") {
		t.Errorf("%v", err)
	}
	if _, err = Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("%v", err)
	}
}

func TestValidateByHand(t *testing.T) {
	c := Default()
	c.Disks = []Disk{DefaultDisk()}
	c.Disks[0].Name = "a"
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), `disks[0].store: disk "a" has no store`) {
		t.Errorf("%v", err)
	}
}

func TestDiff(t *testing.T) {
	b, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parse := func(s string) *Config {
		t.Helper()
		c, err := Parse("f", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := parse(string(b))
	if d := Diff(old, parse("# moved\n\n"+string(b))); len(d) != 0 {
		t.Errorf("a comment is a difference: %v", d)
	}
	r := strings.NewReplacer(
		"cache: writeback", "cache: direct",
		"- {name: scratch, store: \"mem:\", size: 64MiB, thin: false}", "- {name: fresh, store: \"null:\", size: 1TiB}",
		"disk: scratch", "disk: fresh",
		"{lun: 1, disk: data}", "{lun: 2, disk: data}",
		"alias: first", "alias: second",
		`"[::1]:3260"`, `"127.0.0.2:3260"`,
		"loops: 2", "loops: 4",
		"iscsi: {portals:", "iscsi: {pingInterval: 5s, portals:",
	)
	var got []string
	for _, c := range Diff(old, parse(r.Replace(string(b)))) {
		got = append(got, c.String())
	}
	want := []string{
		"- disk scratch: mem:",
		"~ disk root1: cache writeback -> direct",
		"+ disk fresh: null:, 1TiB",
		`~ target vm1: iqn.2026-11.org.vtgt:vm1 ("first") -> iqn.2026-11.org.vtgt:vm1 ("second")`,
		"- lun vm1/1: data",
		"+ lun vm1/2: data",
		"~ lun vm2/16383: scratch -> fresh",
		"- portal [::1]:3260",
		"+ portal 127.0.0.2:3260",
		"~ setting iscsi.pingInterval: 0s -> 5s",
		"~ setting loops: 2 -> 4",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if d := Diff(Default(), old); len(d) != 3+2+4+2+4 {
		t.Errorf("from nothing: %d changes: %v", len(d), d)
	}
}

func TestSize(t *testing.T) {
	for s, want := range map[string]Size{
		"0": 0, "512": 512, "512B": 512, "1KiB": 1024, "10GiB": 10 << 30, "10 GiB": 10 << 30, "1TB": 1e12, "1kB": 1000, "8191PiB": 8191 << 50,
	} {
		got, err := ParseSize(s)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
		if back, err := ParseSize(got.String()); err != nil || back != want {
			t.Errorf("%s -> %s -> %d, %v", s, got, back, err)
		}
	}
	for _, s := range []string{"", "GiB", "-1GiB", "1.5GiB", "10G", "1XB", "9000PiB", "99999999999999999999", "1e3"} {
		if z, err := ParseSize(s); err == nil {
			t.Errorf("%q is %d", s, z)
		}
	}
}

func TestISCSIName(t *testing.T) {
	for _, s := range []string{"iqn.2026-11.org.vtgt", "iqn.2026-11.org.vtgt:a.b-c:d", "eui.02004567A425678D", "naa.52004567BA64678D", "naa.62004567BA64678D0123456789ABCDEF"} {
		if err := CheckISCSIName(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "iqn", "iqn.2026-13.org.x:a", "iqn.2026-11.org.x:", "iqn.2026-11.org.x:a b", "iqn.2026-11.-x", "eui.12", "IQN.2026-11.org.x", "iqn.2026-11.org.x:" + strings.Repeat("a", 223)} {
		if CheckISCSIName(s) == nil {
			t.Errorf("%q passes", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("version: 1\ndisks: [&a {name: x}, *a]\n"))
	f.Add([]byte("version: !!int \"1\"\n? [a]\n: {}\n"))
	f.Add([]byte("version: 1\ntargets: [{name: t, luns: [{lun: 0x10, disk: a}]}]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f.yaml", text)
		if err == nil {
			// What parses is valid and equals itself.
			if err := c.Validate(); err != nil {
				t.Fatalf("not valid the second time: %v", err)
			}
			if d := Diff(c, c); len(d) != 0 {
				t.Fatalf("differs from itself: %v", d)
			}
			Diff(Default(), c)
			return
		}
		var es Errors
		if !errors.As(err, &es) || len(es) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		for _, e := range es {
			if e.Line < 1 || e.Col < 1 || e.Msg == "" {
				t.Fatalf("no place or message: %+v", e)
			}
		}
	})
}
