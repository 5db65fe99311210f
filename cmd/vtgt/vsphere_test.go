package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vtgt/vtgt/attach/vsphere/vspheretest"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// esx is a simulated ESXi host beside a daemon.
type esx struct {
	*world
	lab *vspheretest.Lab
	env []string
}

func newESX(t *testing.T, hosts int) *esx {
	t.Helper()
	w := newWorld(t)
	w.file("b.img", 64<<20)
	if err := os.WriteFile(filepath.Join(w.dir, "secret"), []byte("secret-of-the-target"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.write(w.text(fmt.Sprintf("disks:\n  - {name: a, store: \"file:%s/a.img\", shared: true}\ntargets:\n  - name: t\n    luns: [{lun: 0, disk: a}]\n    iscsi: {iqn: %q, chap: {user: esx, secretFile: %q}}\n", w.dir, testIQN, filepath.Join(w.dir, "secret"))))
	w.serve()
	lab, err := vspheretest.New(vspheretest.Config{Hosts: hosts, VMs: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lab.Close)
	return &esx{w, lab, append(os.Environ(), "VTGT_SOCKET="+w.socket, "VTGT_VSPHERE_USER="+vspheretest.User, "VTGT_VSPHERE_PASSWORD="+vspheretest.Password, "GOVC_URL=")}
}

func (e *esx) args(verb string, more ...string) []string {
	a := []string{verb, "vsphere", "t", "--url", e.lab.URL, "--thumbprint", e.lab.Thumbprint}
	if verb == "attach" {
		a = append(a, "--portal", e.portal)
	}
	return append(a, more...)
}

func (e *esx) vsphere(verb string, more ...string) string {
	e.t.Helper()
	out, errOut, code := command(e.t, e.env, client, e.args(verb, more...)...)
	if code != 0 {
		e.t.Fatalf("vtgt %s vsphere: %d\n%s%s", verb, code, out, errOut)
	}
	return out
}

func TestVSphere(t *testing.T) {
	e := newESX(t, 2)
	conf := e.config()
	cluster := []string{"--cluster", e.lab.Cluster}
	plan := e.vsphere("attach", append(cluster, "--datastore", "fast1", "--dry-run")...)
	if !strings.Contains(plan, "would turn software iSCSI on") || !strings.HasSuffix(plan, "nothing was done (dry run)\n") || e.config() != conf {
		t.Errorf("%s", plan)
	}
	out := e.vsphere("attach", append(cluster, "--datastore", "fast1")...)
	for _, h := range e.lab.HostNames {
		for _, l := range []string{"turn software iSCSI on", "add send target " + e.portal, "set CHAP user esx", "let iqn.1998-01.com.vmware:", "rescan for LUN 0, naa.", "VMW_PSP_RR", "VMFS datastore fast1"} {
			if !strings.Contains(out, h+": "+l) && !strings.Contains(out, l) {
				t.Errorf("%q is missing in\n%s", l, out)
			}
		}
	}
	if out := e.vsphere("attach", append(cluster, "--datastore", "fast1")...); out != "nothing to do: t is attached\n" {
		t.Errorf("%s", out)
	}
	if out := e.ok("get", "attachments"); strings.Count(out, "vsphere") != 2 || !strings.Contains(out, e.lab.HostNames[0]) {
		t.Errorf("%s", out)
	}
	if out := e.vsphere("detach", append(cluster, "--dry-run")...); !strings.Contains(out, "would take back: datastore fast1") {
		t.Errorf("%s", out)
	}
	e.vsphere("detach", cluster...)
	if out := e.vsphere("detach", cluster...); !strings.HasPrefix(out, "nothing to do") {
		t.Errorf("%s", out)
	}
	if e.config() != conf {
		t.Errorf("the configuration is not as before:\n%s", e.config())
	}

	out, errOut, code := command(t, e.env, client, e.args("attach", append(cluster, "--thumbprint", strings.Repeat("00", 32))...)...)
	if code != exitFailed || !strings.Contains(errOut, "certificate is not trusted") {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	out, errOut, code = command(t, append(e.env, "VTGT_VSPHERE_PASSWORD="), client, e.args("attach", cluster...)...)
	if code != exitFailed || !strings.Contains(errOut, "--credentials") {
		t.Errorf("%d %s%s", code, out, errOut)
	}
	for _, bad := range [][]string{{"--lun", "-3"}, {"--policy", "x"}, {"--host", "a", "--cluster", "b"}, {"--rdm", "a", "--datastore", "b"}, {"--wait", "0s"}} {
		if _, errOut, code := command(t, e.env, client, e.args("attach", bad...)...); code != exitUsage {
			t.Errorf("%v: %d %s", bad, code, errOut)
		}
	}
}

// The command is killed before and after each call that changes the host, of attach and
// of detach: a detach leaves nothing behind, and after a killed attach another one goes
// on.
func TestVSphereKilled(t *testing.T) {
	e := newESX(t, 0)
	c := e.client()
	begun := e.lab.State()
	conf := e.config()
	clean := func(point string) {
		t.Helper()
		e.vsphere("detach")
		tempotest.Wait(t, "the end of the sessions", func() bool {
			ss, err := c.Sessions(context.Background())
			return err == nil && len(ss) == 0
		})
		if e.config() != conf {
			t.Errorf("killed at %s: the configuration is left\n%s", point, e.config())
		}
		if s := e.lab.State(); s != begun {
			t.Errorf("killed at %s: the host is not as it was: %s", point, differs(begun, s))
		}
		if as, err := c.Attachments(context.Background()); err != nil || len(as) > 0 {
			t.Errorf("killed at %s: %v %v", point, as, err)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	step := 1
	if testing.Short() {
		step = 5
	}
	points := 0
	for _, verb := range []string{"attach", "detach"} {
		for n := 1; ; n += step {
			if verb == "detach" {
				e.vsphere("attach", "--datastore", "fast1")
			}
			point, killed := e.killAt(n, e.args(verb, map[string][]string{"attach": {"--datastore", "fast1"}}[verb]...))
			if !killed {
				clean("no point")
				break
			}
			points++
			where := fmt.Sprintf("%s, call %d: %s", verb, n, point)
			if verb == "attach" && n%2 == 0 {
				e.vsphere("attach", "--datastore", "fast1")
				if out := e.vsphere("attach", "--datastore", "fast1"); !strings.HasPrefix(out, "nothing to do") {
					t.Errorf("killed at %s: %s", where, out)
				}
			}
			clean(where)
		}
	}
	if points < 20/step {
		t.Errorf("only %d points", points)
	}
}

// differs shows where two texts begin to differ.
func differs(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d was\n%s\nis\n%s", i, x[i], strings.Join(y[max(0, i-3):min(len(y), i+3)], "\n"))
		}
	}
	return fmt.Sprintf("%d lines were there, %d are", len(x), len(y))
}

// killAt runs the command and kills it at the n'th call: before it has done anything,
// or when all is done and the answer is still to come.
func (e *esx) killAt(n int, args []string) (point string, killed bool) {
	e.t.Helper()
	cmd := exec.Command(client, args...)
	cmd.Env = e.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var count atomic.Int64
	dead, gone := make(chan string, 1), make(chan struct{})
	started := make(chan struct{})
	e.lab.OnCall(func(c vspheretest.Call) error {
		if c.Host == "" || strings.HasPrefix(c.Method, "Query") || count.Add(1) != int64(n) {
			return nil
		}
		<-started
		_ = cmd.Process.Kill()
		<-gone
		dead <- fmt.Sprintf("%s, after it: %v", c.Method, c.After)
		return errors.New("killed")
	})
	defer e.lab.OnCall(nil)
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	close(started)
	err := cmd.Wait()
	close(gone)
	if int64(n) <= count.Load() {
		point = tempotest.Recv(e.t, dead, "the call at which the command was killed")
		e.lab.State() // when the call has ended
		return point, true
	}
	if err != nil {
		e.t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
	return "", false
}
