package vsphere

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
	"github.com/vtgt/vtgt/attach/vsphere/vspheretest"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// One of three hosts fails midway and is left as it was; the next attach goes on with it.
func TestCluster(t *testing.T) {
	r := newRig(t, rigOptions{hosts: 3})
	before := r.snapshot()
	w := Where{Cluster: r.lab.Cluster}
	ill := r.lab.HostNames[1]
	r.lab.OnCall(func(c vspheretest.Call) error {
		if c.Host == ill && c.Method == "SetMultipathLunPolicy" {
			return errors.New("the plug-in is being loaded")
		}
		return nil
	})
	n, err := r.attach(w, r.options())
	r.mustFail(err, "host "+ill, "the plug-in is being loaded", "--policy keep", "2 of 3 hosts are attached")
	if n != 15 {
		t.Errorf("%d things done", n)
	}
	if said := r.said(); !slices.Contains(said, ill+": is as it was before") {
		t.Errorf("%s", strings.Join(said, "\n"))
	}
	if s := r.sessions(); len(s) != 2 {
		t.Errorf("sessions: %v", s)
	}
	as, _ := r.c.Attachments(r.ctx)
	if len(as) != 2 {
		t.Errorf("%+v", as)
	}

	r.lab.OnCall(nil)
	if n := r.mustAttach(w, r.options()); n != 5 {
		t.Errorf("%d things done", n)
	}
	for _, l := range r.said() {
		if !strings.HasPrefix(l, ill+": ") {
			t.Errorf("another host was touched: %s", l)
		}
	}
	if s := r.sessions(); len(s) != 3 {
		t.Errorf("sessions: %v", s)
	}
	if n := r.mustAttach(w, r.options()); n != 0 {
		t.Errorf("%d things done by an attach with nothing to do", n)
	}
	// One host alone, then the rest.
	if n := r.mustDetach(Where{Host: r.lab.HostNames[0]}); n != 1 {
		t.Errorf("%d", n)
	}
	if s := r.sessions(); len(s) != 2 {
		t.Errorf("sessions: %v", s)
	}
	if n := r.mustDetach(w); n != 2 {
		t.Errorf("%d", n)
	}
	r.same(before)
}

// CHAP is set at the send target; a wrong secret is found out and nothing is left.
func TestCHAP(t *testing.T) {
	r := newRig(t, rigOptions{iscsi: "chap: {user: esx, secretFile: DIR/right}"})
	before := r.snapshot()
	o := r.options()
	o.CHAPSecretFile, o.Wait = filepath.Join(r.dir, "wrong"), short
	_, err := r.attach(Where{}, o)
	r.mustFail(err, r.naa, "CHAP failed", "--chap-secret-file")
	r.same(before)
	if out := strings.Join(r.said(), "\n") + err.Error(); strings.Contains(out, "secret-of") || strings.Contains(out, "another-secret") {
		t.Errorf("a secret is told: %s", out)
	}

	if n := r.mustAttach(Where{}, r.options()); n != 6 {
		t.Errorf("%d: %s", n, strings.Join(r.said(), "\n"))
	}
	if b, err := os.ReadFile(filepath.Join(r.dir, "state", "attachments")); err == nil && strings.Contains(string(b), "secret-of") {
		t.Error("a secret is in the journal")
	}
	if s := r.snapshot(); strings.Contains(s, "secret-of") || !strings.Contains(s, `\"chapName\": \"esx\"`) {
		t.Error("CHAP is not as it should be")
	}
	if n := r.mustAttach(Where{}, r.options()); n != 0 {
		t.Errorf("%d", n)
	}
	r.mustDetach(Where{})
	r.same(before)

	o = r.options()
	o.CHAPUser = "nobody"
	_, err = r.attach(Where{}, o)
	r.mustFail(err, "no CHAP user nobody", "esx")
}

// Where discovery wants the same user, the host asks for the target's proof as well.
func TestMutualCHAP(t *testing.T) {
	r := newRig(t, rigOptions{iscsi: "chap: {user: esx, secretFile: DIR/right, mutual: {user: vtgt, secretFile: DIR/mutual}}",
		top: ", discovery: {chap: {user: esx, secretFile: DIR/right, mutual: {user: vtgt, secretFile: DIR/mutual}}}"})
	before := r.snapshot()
	r.mustAttach(Where{}, r.options())
	if s := r.snapshot(); !strings.Contains(s, `\"mutualChapName\": \"vtgt\"`) || !strings.Contains(s, `\"chapAuthenticationType\": \"chapRequired\"`) {
		t.Error("CHAP is not mutual")
	}
	r.mustDetach(Where{})
	r.same(before)
}

// A datastore is made by the first host and mounted by the others; detach unmounts it
// and leaves it on the disk, and the next attach finds it there.
func TestDatastore(t *testing.T) {
	r := newRig(t, rigOptions{hosts: 2, vms: 1})
	before := r.snapshot()
	w := Where{Cluster: r.lab.Cluster}
	o := r.options()
	o.Datastore = "vtgt-1"
	r.mustAttach(w, o)
	made := 0
	for _, c := range r.lab.Changes() {
		if c.Method == "CreateVmfsDatastore" {
			made++
		}
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
	ds := r.datastore("vtgt-1")
	if ds == nil || len(ds.Host) != 2 {
		t.Fatalf("%+v", ds)
	}
	uuid := ds.Info.(*types.VmfsDatastoreInfo).Vmfs.Uuid
	if n := r.mustAttach(w, o); n != 0 {
		t.Errorf("%d", n)
	}
	other := o
	other.Datastore = "vtgt-2"
	_, err := r.attach(w, other)
	r.mustFail(err, "holds datastore vtgt-1", "--datastore vtgt-1")

	// In use: refused before anything is touched, and the virtual machine is named.
	taken := r.snapshot()
	r.lab.Occupy("vtgt-1", r.lab.VMs[0])
	_, err = r.detach(w)
	r.mustFail(err, "datastore vtgt-1", "is in use", r.lab.VMs[0], "then detach again")
	r.lab.Occupy("vtgt-1", "")
	if r.snapshot() != taken {
		t.Error("the refused detach has changed something")
	}

	r.mustDetach(w)
	r.same(before)

	r.mustAttach(w, o)
	if ds := r.datastore("vtgt-1"); ds == nil || len(ds.Host) != 2 || ds.Info.(*types.VmfsDatastoreInfo).Vmfs.Uuid != uuid {
		t.Errorf("%+v", ds)
	}
	for _, c := range r.lab.Changes() {
		if c.Method == "CreateVmfsDatastore" {
			t.Error("the datastore was made again")
		}
	}
	r.mustDetach(w)
	r.same(before)

	o.Datastore = "LocalDS_0"
	_, err = r.attach(w, o)
	r.mustFail(err, "datastore LocalDS_0", "choose another name")
	r.same(before)
}

func (r *rig) datastore(name string) *mo.Datastore {
	r.t.Helper()
	all, err := list[mo.Datastore](r.ctx, r.session(), "Datastore", "name", "info", "host")
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

func TestRDM(t *testing.T) {
	r := newRig(t, rigOptions{hosts: 2, vms: 1})
	before := r.snapshot()
	w := Where{Cluster: r.lab.Cluster}
	o := r.options()
	o.RDM = "no-such-machine"
	_, err := r.attach(w, o)
	r.mustFail(err, "virtual machine no-such-machine", "is not there", r.lab.VMs[0])
	r.same(before)

	o.RDM = r.lab.VMs[0]
	r.mustAttach(w, o)
	if s := r.snapshot(); !strings.Contains(s, `"compatibilityMode": "physicalMode"`) || !strings.Contains(s, `"deviceName": "/vmfs/devices/disks/`+r.naa) {
		t.Error("the virtual machine has not got the disk")
	}
	if n := r.mustAttach(w, o); n != 0 {
		t.Errorf("%d: %s", n, strings.Join(r.said(), "\n"))
	}
	r.mustDetach(w)
	r.same(before)

	// The virtual machine refuses the disk: all hosts that failed are as they were.
	r.lab.OnCall(func(c vspheretest.Call) error {
		if c.Method == "ReconfigVM_Task" {
			return errors.New("a snapshot is being made")
		}
		return nil
	})
	_, err = r.attach(w, o)
	r.mustFail(err, "virtual machine "+o.RDM, "a snapshot is being made", "1 of 2 hosts")
	r.lab.OnCall(nil)
	r.mustDetach(w)
	r.same(before)
}

const otherTarget = "  - {name: u, luns: [{lun: 0, disk: e}], iscsi: {iqn: \"iqn.2026-11.org.vtgt:u\", initiators: [\"iqn.*:backup\"]}}\n"
const otherDisk = "  - {name: e, store: \"mem:\", size: 64MiB}\n"

func (r *rig) detachOf(target string) {
	r.t.Helper()
	o := r.options()
	o.Target = target
	if n, err := Detach(r.ctx, r.session(), r.c, Where{}, o); err != nil || n != 1 {
		r.t.Fatal(n, err)
	}
}

// Two targets of one host stand on one send target and one adapter, which stay until
// the last one goes, in either order.
func TestTogether(t *testing.T) {
	r := newRig(t, rigOptions{iscsi: `initiators: ["iqn.*:backup"]`, disks: otherDisk, targets: otherTarget})
	before := r.snapshot()
	for first, second := range map[string]string{"t": "u", "u": "t"} {
		r.mustAttach(Where{}, r.options())
		p := r.options()
		p.Target = "u"
		if n := r.mustAttach(Where{}, p); n != 3 { // initiators, device, policy
			t.Errorf("%d: %s", n, strings.Join(r.said(), "\n"))
		}
		r.detachOf(first)
		if ss, err := r.c.Sessions(r.ctx); err != nil || len(ss) != 1 || ss[0].Target != second {
			t.Errorf("after detach of %s: %+v %v", first, ss, err)
		}
		r.detachOf(second)
		r.same(before)
	}
}

// A target that lets everybody in is found by the send target of another one, before
// it is attached and after it was detached. In no order is anything left in the end.
func TestOpenTarget(t *testing.T) {
	r := newRig(t, rigOptions{disks: otherDisk, targets: otherTarget})
	before := r.snapshot()
	attach := map[string]Options{"t": r.options(), "u": r.options()}
	for n := range attach {
		o := attach[n]
		o.Target = n
		attach[n] = o
	}
	for _, order := range []string{"tu tu", "tu ut", "ut tu", "ut ut"} {
		in, out, _ := strings.Cut(order, " ")
		for _, n := range strings.Split(in, "") {
			r.mustAttach(Where{}, attach[n])
		}
		if ss, err := r.c.Sessions(r.ctx); err != nil || len(ss) != 2 {
			t.Errorf("%s: %d sessions, %v", order, len(ss), err)
		}
		r.said()
		for _, n := range strings.Split(out, "") {
			r.detachOf(n)
		}
		if said := strings.Join(r.said(), "\n"); out == "tu" && !strings.Contains(said, "device "+r.naa+" stays") {
			t.Errorf("%s: %s", order, said)
		}
		r.same(before)
		if testing.Short() && order == "tu ut" {
			break
		}
	}
}

// What an administrator has set up before stays: the adapter, a send target, what it
// has found.
func TestForeign(t *testing.T) {
	r := newRig(t, rigOptions{iscsi: `initiators: ["iqn.1998-01.com.vmware:*", "iqn.*:backup"]`, disks: otherDisk, targets: otherTarget})
	r.mustAttach(Where{}, r.options())
	as, err := r.c.Attachments(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.c.DeleteAttachment(r.ctx, as[0]); err != nil { // as if by hand
		t.Fatal(err)
	}
	before := r.snapshot()
	if n := r.mustAttach(Where{}, r.options()); n != 0 {
		t.Errorf("%d", n)
	}
	p := r.options()
	p.Target = "u"
	r.mustAttach(Where{}, p)
	r.detachOf("u")
	if r.snapshot() != before {
		t.Error("detach took away what it had not set up")
	}
}

// A list of initiators that is not ours stays, and nobody is locked out by one of ours.
func TestInitiators(t *testing.T) {
	r := newRig(t, rigOptions{iscsi: `initiators: ["iqn.*:backup"]`})
	before := r.snapshot()
	r.mustAttach(Where{}, r.options())
	// The administrator takes the other one out: ours is left alone in a list that is
	// not ours, and must not go.
	x := iscsiOf(r.config(), "t").Initiators.Words()
	_, err := r.c.Edit(r.ctx, api.EditRequest{Ops: []api.EditOp{{Action: config.Modify, Kind: "target", Name: "t", Values: map[string]any{"iscsi": map[string]any{"initiators": []any{x[1]}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	r.mustDetach(Where{})
	if got := iscsiOf(r.config(), "t").Initiators.Words(); !slices.Equal(got, x[1:]) {
		t.Errorf("%v", got)
	}
	if said := strings.Join(r.said(), "\n"); !strings.Contains(said, "let everybody in") {
		t.Error(said)
	}
	_, err = r.c.Edit(r.ctx, api.EditRequest{Ops: []api.EditOp{{Action: config.Modify, Kind: "target", Name: "t", Values: map[string]any{"iscsi": map[string]any{"initiators": []any{x[0]}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	tempotest.Wait(t, "the session's end", func() bool { return len(r.sessions()) == 0 })
	if len(before) == 0 {
		t.Error("no snapshot")
	}
}

func (r *rig) config() *config.Config {
	r.t.Helper()
	text := r.d.Config()
	c, err := config.Parse(text.File, []byte(text.Text))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// A disk for one initiator is not offered to two hosts.
func TestNotShared(t *testing.T) {
	r := newRig(t, rigOptions{hosts: 2, notShared: true})
	before := r.snapshot()
	_, err := r.attach(Where{Cluster: r.lab.Cluster}, r.options())
	r.mustFail(err, "disk d", "one initiator only", "vtgt disk set d --shared")
	r.same(before)
	r.mustAttach(Where{Host: r.lab.HostNames[0]}, r.options())
	_, err = r.attach(Where{Host: r.lab.HostNames[1]}, r.options())
	r.mustFail(err, "disk d")
	r.mustDetach(Where{Host: r.lab.HostNames[0]})
	r.same(before)
}

func TestRefused(t *testing.T) {
	r := newRig(t, rigOptions{hosts: 2})
	before := r.snapshot()
	for _, c := range []struct {
		w     Where
		o     func(*Options)
		words []string
	}{
		{Where{}, nil, []string{"it has 2 hosts", "--host", r.lab.HostNames[0]}},
		{Where{Host: "esx9"}, nil, []string{"host esx9", "is not there", r.lab.HostNames[1]}},
		{Where{Cluster: "c9"}, nil, []string{"cluster c9", "is not there", r.lab.Cluster}},
		{Where{Host: r.lab.HostNames[0], Cluster: r.lab.Cluster}, nil, []string{"a host and a cluster"}},
		{Where{Cluster: r.lab.Cluster}, func(o *Options) { o.Target = "x" }, []string{"target x", "is not there", "vtgt get targets"}},
		{Where{Cluster: r.lab.Cluster}, func(o *Options) { o.LUN = 7 }, []string{"LUN 7 of target t", "is not there"}},
		{Where{Cluster: r.lab.Cluster}, func(o *Options) { o.Portals = nil }, []string{"--portal", r.portal}},
		{Where{Cluster: r.lab.Cluster}, func(o *Options) { o.Portals = []string{":x"} }, []string{"portal :x"}},
		{Where{Cluster: r.lab.Cluster}, func(o *Options) { o.Policy = "fast" }, []string{"--policy fast"}},
		{Where{Cluster: r.lab.Cluster}, func(o *Options) { o.RDM, o.Datastore = "a", "b" }, []string{"--datastore and --rdm"}},
		{Where{Cluster: r.lab.Cluster}, func(o *Options) { o.Datastore = "a/b" }, []string{"no name of a datastore"}},
	} {
		o := r.options()
		if c.o != nil {
			c.o(&o)
		}
		_, err := r.attach(c.w, o)
		r.mustFail(err, c.words...)
	}
	// The host cannot reach vtgt.
	o := r.options()
	o.Portals, o.Wait = []string{"127.0.0.1:1"}, short
	_, err := r.attach(Where{Host: r.lab.HostNames[0]}, o)
	r.mustFail(err, "did not log in at 127.0.0.1:1", "vmkping")
	r.same(before)
}

// What is known of attachments without asking the hosts, and hosts that are gone.
func TestInspectForget(t *testing.T) {
	r := newRig(t, rigOptions{hosts: 2})
	conf := r.d.Config().Text
	r.mustAttach(Where{Cluster: r.lab.Cluster}, r.options())
	views := func() map[string]attach.View {
		as, err := r.c.Attachments(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]attach.View{}
		for id, v := range Inspect(r.ctx, r.c, as) {
			for i := range as {
				if as[i].ID == id {
					out[as[i].Options["name"]] = v
				}
			}
		}
		return out
	}
	one, two := r.lab.HostNames[0], r.lab.HostNames[1]
	for n, v := range views() {
		if v.Now != "logged in" || v.Problems != nil {
			t.Errorf("%s: %+v", n, v)
		}
	}
	r.lab.Logout(one)
	tempotest.Wait(t, "the end of a session", func() bool { return len(r.sessions()) == 1 })
	vs := views()
	if v := vs[one]; v.Now != "not logged in" || len(v.Problems) != 1 || !strings.Contains(v.Problems[0], one) {
		t.Errorf("%+v", v)
	}
	if v := vs[two]; v.Now != "logged in" {
		t.Errorf("%+v", v)
	}
	o := r.options()
	for _, h := range []string{one, two, two} {
		o.DryRun = true
		n, err := Forget(r.ctx, r.c, Where{Host: h}, o)
		o.DryRun = false
		m, err2 := Forget(r.ctx, r.c, Where{Host: h}, o)
		if err != nil || err2 != nil || n != m {
			t.Errorf("%s: %d %v, %d %v", h, n, err, m, err2)
		}
		if said := strings.Join(r.said(), "\n"); n == 1 && (!strings.Contains(said, h+": left: send target "+r.portal) || !strings.Contains(said, h+": back: admission of iqn.")) {
			t.Error(said)
		}
	}
	if as, err := r.c.Attachments(r.ctx); err != nil || len(as) > 0 || r.d.Config().Text != conf {
		t.Errorf("%+v %v\n%s", as, err, r.d.Config().Text)
	}
}

// Each portal is a path; policies are set and taken back.
func TestPaths(t *testing.T) {
	r := newRig(t, rigOptions{twoPortals: true})
	before := r.snapshot()
	o := r.options()
	o.Portals = r.d.Exports()[0].Addresses
	if len(o.Portals) != 2 || o.Portals[0] == o.Portals[1] {
		t.Fatal(o.Portals)
	}
	unit := func() *types.HostMultipathInfoLogicalUnit {
		hosts, err := r.session().hosts(r.ctx, Where{})
		if err != nil {
			t.Fatal(err)
		}
		v, err := hosts[0].look(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return v.unit(v.device(r.naa))
	}
	r.mustAttach(Where{}, o)
	if u := unit(); u == nil || len(u.Path) != 2 || u.Policy.GetHostMultipathInfoLogicalUnitPolicy().Policy != "VMW_PSP_RR" {
		t.Errorf("%+v", u)
	}
	o.Policy = "fixed"
	if n := r.mustAttach(Where{}, o); n != 1 {
		t.Errorf("%d: %s", n, strings.Join(r.said(), "\n"))
	}
	if f, ok := unit().Policy.(*types.HostMultipathInfoFixedLogicalUnitPolicy); !ok || f.Prefer == "" {
		t.Errorf("%+v", unit().Policy)
	}
	o.Policy = "keep"
	if n := r.mustAttach(Where{}, o); n != 0 {
		t.Errorf("%d", n)
	}
	r.mustDetach(Where{})
	r.same(before)
	r.mustAttach(Where{}, o)
	if p := unit().Policy.GetHostMultipathInfoLogicalUnitPolicy().Policy; p != "VMW_PSP_MRU" {
		t.Error(p)
	}
	r.mustDetach(Where{})
	r.same(before)
}
