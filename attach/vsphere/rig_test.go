package vsphere

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/mo"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach/vsphere/vspheretest"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/tempotest"
)

const testIQN = "iqn.2026-11.org.vtgt:esx"

// rig is a daemon with a target "t" on a shared disk "d", and a simulated vCenter.
type rig struct {
	t      *testing.T
	ctx    context.Context
	dir    string
	d      *daemon.Daemon
	socket string
	c      *api.Client
	lab    *vspheretest.Lab
	portal string
	naa    string
	s      *Session

	mu  sync.Mutex
	log []string
}

type rigOptions struct {
	hosts, vms int
	// iscsi are keys of the target's iscsi: mapping, top further lines of the file's
	// iscsi:, disks and targets lines.
	iscsi, top, disks, targets string
	notShared                  bool
	twoPortals                 bool
}

func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*tempotest.Patience)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "vtgt-vs-") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, ctx: ctx, dir: dir, socket: filepath.Join(dir, "api.sock")}
	if o.iscsi != "" {
		o.iscsi = ", " + strings.ReplaceAll(o.iscsi, "DIR", dir)
	}
	for name, text := range map[string]string{"right": "secret-of-the-target", "wrong": "another-secret-than-that", "mutual": "secret-of-the-other-way"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	portals := `"127.0.0.1:0"`
	if o.twoPortals {
		portals += `, "127.0.0.2:0"`
	}
	text := fmt.Sprintf("version: 1\ndisks:\n  - {name: d, store: \"mem:\", size: 64MiB, shared: %v}\n%stargets:\n  - {name: t, luns: [{lun: 0, disk: d}], iscsi: {iqn: %q%s}}\n%siscsi: {portals: [%s]%s}\napi: {socket: %q}\nstate: %q\nloops: 2\n",
		!o.notShared, o.disks, testIQN, o.iscsi, o.targets, portals, strings.ReplaceAll(o.top, "DIR", dir), r.socket, filepath.Join(dir, "state"))
	conf := filepath.Join(dir, "vtgt.yaml")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.d, err = daemon.New(conf, []byte(text), daemon.Options{LockWait: -1, CloseTime: tempotest.Patience, DrainTime: tempotest.Patience}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.d.Close(); err != nil {
			t.Error(err)
		}
	})
	ln, err := api.Listen(r.socket, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	srv := api.Serve(ln, r.d, api.ServerConfig{Version: "test"})
	t.Cleanup(func() { _ = srv.Close(ctx) })
	r.c = api.NewClient(r.socket)
	t.Cleanup(r.c.Close)
	r.portal = r.d.Exports()[0].Addresses[0]
	r.naa = "naa." + r.d.Disks()[0].NAA
	if r.lab, err = vspheretest.New(vspheretest.Config{Hosts: o.hosts, VMs: o.vms}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.lab.Close)
	return r
}

func (r *rig) login() Login {
	return Login{URL: r.lab.URL, User: vspheretest.User, Password: vspheretest.Password, Thumbprint: r.lab.Thumbprint}
}

// session is logged in, once for a test.
func (r *rig) session() *Session {
	r.t.Helper()
	if r.s == nil {
		var err error
		if r.s, err = Connect(r.ctx, r.login()); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { r.s.Close(context.Background()) })
	}
	return r.s
}

func (r *rig) options() Options {
	return Options{Target: "t", LUN: api.AllLUNs, Portals: []string{r.portal}, Policy: "rr", RDMMode: "physical", Wait: tempotest.Patience,
		Say: func(host, text string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.log = append(r.log, host+": "+text)
		}}
}

// said are the lines since the last time.
func (r *rig) said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.log
	r.log = nil
	return l
}

func (r *rig) attach(w Where, o Options) (int, error) {
	r.t.Helper()
	return Attach(r.ctx, r.session(), r.c, w, o)
}

func (r *rig) mustAttach(w Where, o Options) int {
	r.t.Helper()
	n, err := r.attach(w, o)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, strings.Join(r.said(), "\n"))
	}
	return n
}

func (r *rig) detach(w Where) (int, error) {
	r.t.Helper()
	return Detach(r.ctx, r.session(), r.c, w, r.options())
}

func (r *rig) mustDetach(w Where) int {
	r.t.Helper()
	n, err := r.detach(w)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, strings.Join(r.said(), "\n"))
	}
	return n
}

// snapshot is everything that can be told of hosts, virtual machines and datastores,
// and of our side: to compare before and after.
func (r *rig) snapshot() string {
	r.t.Helper()
	s := r.session()
	var out []any
	ds, err := list[mo.Datastore](r.ctx, s, "Datastore", "name", "host", "vm")
	if err != nil {
		r.t.Fatal(err)
	}
	vms, err := list[mo.VirtualMachine](r.ctx, s, "VirtualMachine", "name", "config.hardware.device", "datastore", "layoutEx.disk")
	if err != nil {
		r.t.Fatal(err)
	}
	sortByName(ds, func(d mo.Datastore) string { return d.Name })
	sortByName(vms, func(m mo.VirtualMachine) string { return m.Name })
	cfg := r.d.Config()
	as, err := r.c.Attachments(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	out = append(out, ds, vms, cfg.Text, as, strings.Split(r.lab.State(), "\n"))
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func sortByName[T any](s []T, name func(T) string) {
	slices.SortFunc(s, func(a, b T) int { return strings.Compare(name(a), name(b)) })
}

// same compares snapshots and shows the first line that differs.
func (r *rig) same(before string) {
	r.t.Helper()
	// Sessions end when the host says so; the daemon may hear of it a moment later.
	tempotest.Wait(r.t, "the hosts' sessions to end", func() bool { return len(r.d.Sessions()) == 0 })
	after := r.snapshot()
	if after == before {
		return
	}
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			r.t.Fatalf("not as before: line %d\n before: %s\n after:  %s", i, strings.Join(a[max(0, i-6):min(len(a), i+4)], "\n "), strings.Join(b[max(0, i-6):min(len(b), i+4)], "\n "))
		}
	}
	r.t.Fatalf("not as before: %d lines, now %d", len(a), len(b))
}

func (r *rig) sessions() (out []string) {
	for _, s := range r.d.Sessions() {
		if !s.Discovery {
			out = append(out, s.Initiator)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// short is a wait for what never comes.
const short = time.Millisecond

// mustFail wants an error that says all of words.
func (r *rig) mustFail(err error, words ...string) {
	r.t.Helper()
	if err == nil {
		r.t.Fatalf("no error; want one with %q\n%s", words, strings.Join(r.said(), "\n"))
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			r.t.Errorf("error %q does not say %q", err, w)
		}
	}
}
