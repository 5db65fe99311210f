package libvirt

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/hosttest"
)

func TestParseStatus(t *testing.T) {
	a, ok := parseStatus("Name:\tqemu\nUid:\t1\t64055\t64055\t64055\nGid:\t2\t108\t108\t108\nGroups:\t104 109 \n")
	if !ok || a.uid != 64055 || len(a.groups) != 3 || a.groups[0] != 108 || a.groups[2] != 109 {
		t.Errorf("%v %v", a, ok)
	}
	for _, bad := range []string{"", "Uid:", "Uid:\t1\tx\n", "Gid:\t1\t2\n"} {
		if a, ok := parseStatus(bad); ok {
			t.Errorf("%q: %v", bad, a)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		text string
		want capabilities
	}{
		{`<capabilities><host><secmodel><model>apparmor</model><doi>0</doi></secmodel><secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+108</baselabel><baselabel type='qemu'>+64056:+109</baselabel></secmodel></host></capabilities>`,
			capabilities{uid: 64055, gid: 108, apparmor: true}},
		{`<capabilities><host><secmodel><model>selinux</model><baselabel type='kvm'>system_u:system_r:svirt_t:s0</baselabel></secmodel></host></capabilities>`, capabilities{uid: -1, gid: -1, selinux: true}},
		{`<capabilities><host><secmodel><model>none</model></secmodel></host></capabilities>`, capabilities{uid: -1, gid: -1}},
		{`<capabilities/>`, capabilities{uid: -1, gid: -1}},
	} {
		if got, err := parseCapabilities(c.text); err != nil || *got != c.want {
			t.Errorf("%s: %+v %v", c.text, got, err)
		}
	}
	if _, err := parseCapabilities("<"); err == nil {
		t.Error("no error")
	}
}

func TestReach(t *testing.T) {
	sub := filepath.Join(hosttest.Public(t), "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(sub, "s")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	owner, group, other := account{uid: uid, groups: []int{gid}}, account{uid: 12345, groups: []int{12345, gid}}, account{uid: 12345, groups: []int{12345}}
	for _, c := range []struct {
		file, folder os.FileMode
		who          account
		why          string
	}{
		{0o600, 0o755, owner, ""}, {0o600, 0o755, other, "may not write to " + path}, {0o606, 0o755, other, ""},
		{0o660, 0o755, group, ""}, {0o640, 0o755, group, "may not write"}, {0o606, 0o755, group, "may not write"}, // the group's bits count for the group
		{0o666, 0o750, other, "may not enter the folder " + sub}, {0o666, 0o710, group, ""}, {0o666, 0o700, group, "may not enter"},
	} {
		if err := os.Chmod(path, c.file); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(sub, c.folder); err != nil {
			t.Fatal(err)
		}
		why, err := c.who.reach(path)
		if err != nil || (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%o in %o for %v: %q %v, want %q", c.file, c.folder, c.who, why, err, c.why)
		}
	}
	if why, err := (account{}).reach(path); err != nil || why != "" { // root
		t.Errorf("%q %v", why, err)
	}
	if _, err := owner.reach(path + "x"); err == nil {
		t.Error("no error")
	}
}

func TestProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	answers := make(chan []byte, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			var q [12]byte
			_, _ = c.Read(q[:])
			_, _ = c.Write(<-answers)
			c.Close()
		}
	}()
	for _, x := range []struct {
		answer []byte
		err    string
	}{
		{append([]byte{1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0}, make([]byte, 8)...), ""},
		{nil, "does not answer"}, {[]byte("HTTP/1.1 400 Bad Request\r\n"), "is not vhost-user"},
	} {
		answers <- x.answer
		if err := probe(context.Background(), path); (err == nil) != (x.err == "") || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%q: %v", x.answer, err)
		}
	}
	if err := probe(context.Background(), path+"x"); err == nil {
		t.Error("no error")
	}
}
