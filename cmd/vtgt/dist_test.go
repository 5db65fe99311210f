package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/config"
)

const dist = "../../dist"

// unit reads a systemd unit: "Section.Key" to its values.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dist, "systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]string{}
	section := ""
	sc := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		switch k, v, ok := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
		case !ok || section == "" || k != strings.TrimSpace(k):
			t.Errorf("%s:%d: %q is not KEY=VALUE", name, n, line)
		default:
			m[section+"."+k] = append(m[section+"."+k], strings.Fields(v)...)
		}
	}
	return m
}

func TestUnits(t *testing.T) {
	s, k := unit(t, "vtgt.service"), unit(t, "vtgt.socket")
	// What is started before is stopped after: guests end first.
	for _, u := range []string{"libvirtd.service", "virtqemud.service", "libvirt-guests.service", "xendomains.service", "remote-fs-pre.target"} {
		if !slices.Contains(s["Unit.Before"], u) {
			t.Errorf("vtgt.service is not before %s", u)
		}
	}
	for key, want := range map[string]string{"Service.Type": "notify", "Service.NoNewPrivileges": "yes", "Service.ProtectSystem": "full", "Service.WatchdogSec": "30s"} {
		if got := strings.Join(s[key], " "); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(dist, "etc/vtgt.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("vtgt.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if got := k["Socket.ListenStream"]; !slices.Equal(got, []string{c.API.Socket}) || c.API.Mode != 0o660 || k["Socket.SocketMode"][0] != "0660" || k["Socket.SocketGroup"][0] != c.API.Group {
		t.Errorf("the socket unit has %v, the configuration %+v", k, c.API)
	}
	// The first disk and target make proper text of it.
	text, err = config.Edit("vtgt.yaml", text,
		config.Op{Action: config.Add, Kind: "disk", Name: "a", Values: map[string]any{"store": "mem:", "size": "1MiB"}},
		config.Op{Action: config.Add, Kind: "target", Name: "t", Values: map[string]any{"iscsi": map[string]any{"iqn": testIQN}}})
	if err != nil || !strings.Contains(string(text), "disks:\n  - name: a\n    store: \"mem:\"\n    size: 1MiB\n#  - name: root1\n") {
		t.Errorf("%v\n%s", err, text)
	}

	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not here: the units were only parsed")
		return
	}
	dir := t.TempDir()
	for _, name := range []string{"vtgt.service", "vtgt.socket", "vtgt-watch.service"} {
		b, err := os.ReadFile(filepath.Join(dist, "systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(strings.ReplaceAll(string(b), "@BINDIR@/vtgt", "/bin/true"), "@SYSCONFDIR@", "/etc")
		text = strings.ReplaceAll(text, "Documentation=", "#")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, errOut, code := command(t, append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning"), tool, "verify", filepath.Join(dir, "vtgt.service"), filepath.Join(dir, "vtgt.socket"), filepath.Join(dir, "vtgt-watch.service"))
	for line := range strings.Lines(out + errOut) {
		if strings.Contains(line, "vtgt") {
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	t.Logf("systemd-analyze verify: exit %d", code)
}

// make install, and again over a configuration that is somebody's.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program again")
	}
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("needs make")
	}
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	install := func() {
		t.Helper()
		out, errOut, code := command(t, os.Environ(), "make", "-C", root, "install", "DESTDIR="+dir, "PREFIX=/usr")
		if code != 0 {
			t.Fatalf("%s%s", out, errOut)
		}
	}
	install()
	for _, f := range []string{"usr/bin/vtgt", "usr/lib/systemd/system/vtgt.service", "usr/lib/systemd/system/vtgt.socket", "usr/lib/systemd/system/vtgt-watch.service",
		"usr/share/vtgt/apparmor/libvirt-qemu", "usr/share/vtgt/selinux/vtgt-libvirt.te", "usr/lib/sysusers.d/vtgt.conf", "usr/lib/tmpfiles.d/vtgt.conf", "etc/vtgt/vtgt.yaml", "usr/share/man/man1/vtgt-disk-resume.1"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
			t.Error(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "usr/lib/systemd/system/vtgt.service"))
	if err != nil || !strings.Contains(string(b), "ExecStart=/usr/bin/vtgt serve --config /etc/vtgt/vtgt.yaml\n") || strings.Contains(string(b), "@") && strings.Contains(string(b), "@BINDIR@") {
		t.Errorf("%v\n%s", err, b)
	}
	mine := filepath.Join(dir, "etc/vtgt/vtgt.yaml")
	if err := os.WriteFile(mine, []byte("version: 1 # mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	install()
	if b, err := os.ReadFile(mine); err != nil || string(b) != "version: 1 # mine\n" {
		t.Errorf("%q %v", b, err)
	}
}
