package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/api"
)

// The names of the steps, in their order.
const (
	stepISCSI     = "software-iscsi"
	stepTarget    = "target"
	stepSend      = "send-target"
	stepCHAP      = "chap"
	stepACL       = "initiators"
	stepDevice    = "device"
	stepPolicy    = "policy"
	stepDatastore = "datastore"
	stepRDM       = "rdm"
)

// describe names a step for people.
func describe(s *api.AttachmentStep) string {
	switch s.Name {
	case stepISCSI:
		return "software iSCSI"
	case stepTarget:
		return "log out of " + s.Args["iqn"] + ", rescan"
	case stepSend:
		return "send target " + s.Args["portal"]
	case stepCHAP:
		return "CHAP at send target " + s.Args["portal"]
	case stepACL:
		return "admission of " + s.Args["iqn"] + " to target " + s.Args["target"]
	case stepDevice:
		return "device " + s.Args["naa"]
	case stepPolicy:
		return "path policy of " + s.Args["naa"]
	case stepDatastore:
		return "datastore " + s.Args["name"]
	case stepRDM:
		return "raw device mapping in " + s.Args["name"]
	}
	return s.Name
}

// yes is a step's look at the host that cannot fail.
func yes(f func(v *storageView) bool) func(*storageView) (bool, error) {
	return func(v *storageView) (bool, error) { return f(v), nil }
}

// steps does all that is missing.
func (j *job) steps(ctx context.Context) error {
	if err := j.ensure(ctx, j.softwareISCSI()); err != nil {
		return err
	}
	v, err := j.h.look(ctx)
	if err != nil {
		return err
	}
	iqn := "" // a dry run may not know
	if v.hba != nil {
		iqn = v.hba.IScsiName
	}
	if iqn != "" {
		if err := j.t.visible(ctx, j.c, iqn); err != nil {
			return err
		}
	}
	todo := []step{j.session()}
	for _, p := range j.t.portals {
		todo = append(todo, j.sendTarget(p))
		if j.t.chap != nil {
			todo = append(todo, j.chap(p))
		}
	}
	todo = append(todo, j.acl(ctx, iqn))
	for _, l := range j.t.luns {
		todo = append(todo, j.device(iqn, l))
	}
	for _, l := range j.t.luns {
		if j.o.Policy != "keep" {
			todo = append(todo, j.policy(l))
		}
	}
	if j.o.Datastore != "" {
		todo = append(todo, j.datastore(ctx))
	}
	if j.vm != nil {
		todo = append(todo, j.rdm(ctx))
	}
	for _, st := range todo {
		if err := j.ensure(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) softwareISCSI() step {
	return step{
		name: stepISCSI, text: "turn software iSCSI on",
		there: yes(func(v *storageView) bool { return v.info.SoftwareInternetScsiEnabled && v.hba != nil }),
		do: func(ctx context.Context, v *storageView, _ map[string]string) error {
			if !v.info.SoftwareInternetScsiEnabled {
				if _, err := methods.UpdateSoftwareInternetScsiEnabled(ctx, j.h.s.c, &types.UpdateSoftwareInternetScsiEnabled{This: j.h.storage, Enabled: true}); err != nil {
					return because(j.h.object(), "software iSCSI cannot be turned on", "give the user the privilege Host.Config.Storage, or turn it on in the vSphere client, then again", err)
				}
			}
			ok, err := j.await(ctx, func(v *storageView) bool { return v.hba != nil && v.hba.IScsiName != "" }, nil)
			if err == nil && !ok {
				err = fail(j.h.object(), "look at Storage Adapters in the vSphere client; a host that has only just turned it off wants a restart", "its software iSCSI adapter did not appear within %v", j.o.Wait)
			}
			return err
		},
	}
}

// session is a step that does nothing: what takes it back logs out, when everything
// that stands on the session has gone, and before the adapter goes.
func (j *job) session() step {
	return step{
		name: stepTarget, args: map[string]string{"iqn": j.t.iqn},
		there: yes(func(v *storageView) bool { return len(v.of(j.t.iqn)) > 0 }),
		ours:  j.discovered,
		undo: func(*storageView) map[string]string {
			var naas []string
			for _, l := range j.t.luns {
				naas = append(naas, l.naa)
			}
			return map[string]string{"naas": strings.Join(naas, " ")}
		},
		do: func(context.Context, *storageView, map[string]string) error { return nil },
	}
}

// discovered tells that the host knows the target only by send targets of other
// attachments, which find all targets that let the host in.
func (j *job) discovered(v *storageView) bool {
	var before []string
	any := false
	for i := range j.others {
		for _, s := range j.others[i].Steps {
			if s.Name == stepSend && s.State != api.Undone {
				any = true
				before = append(before, strings.Split(s.Undo["before"], "\n")...)
			}
		}
	}
	ts := v.of(j.t.iqn)
	return any && len(ts) > 0 && !slices.ContainsFunc(ts, func(t types.HostInternetScsiHbaStaticTarget) bool {
		return t.DiscoveryMethod != string(types.HostInternetScsiHbaStaticTargetTargetDiscoveryMethodSendTargetMethod) || slices.Contains(before, staticName(&t))
	})
}

func (j *job) sendTarget(p portal) step {
	return step{
		name: stepSend, args: map[string]string{"portal": p.String()}, text: "add send target " + p.String(),
		there: yes(func(v *storageView) bool { return v.send(p) != nil }),
		undo: func(v *storageView) map[string]string {
			var before []string
			for _, t := range v.statics(func(*types.HostInternetScsiHbaStaticTarget) bool { return true }) {
				before = append(before, staticName(&t))
			}
			return map[string]string{"before": strings.Join(before, "\n")}
		},
		do: func(ctx context.Context, v *storageView, _ map[string]string) error {
			_, err := methods.AddInternetScsiSendTargets(ctx, j.h.s.c, &types.AddInternetScsiSendTargets{This: j.h.storage, IScsiHbaDevice: v.hba.Device,
				Targets: []types.HostInternetScsiHbaSendTarget{{Address: p.host, Port: p.port}}})
			if err != nil {
				return because(j.h.object(), "send target "+p.String()+" cannot be added", "look at Dynamic Discovery of "+v.hba.Device+" in the vSphere client", err)
			}
			return nil
		},
	}
}

// wantedCHAP is what a send target is to have. A host that must authenticate can
// discover only where discovery does so, too.
func (x *chap) wanted() types.HostInternetScsiHbaAuthenticationProperties {
	no := false
	a := types.HostInternetScsiHbaAuthenticationProperties{
		ChapAuthEnabled: true, ChapName: x.user, ChapSecret: x.secret, ChapInherited: &no,
		ChapAuthenticationType: string(types.HostInternetScsiHbaChapAuthenticationTypeChapPreferred),
		MutualChapInherited:    &no, MutualChapAuthenticationType: string(types.HostInternetScsiHbaChapAuthenticationTypeChapProhibited),
	}
	if x.required {
		a.ChapAuthenticationType = string(types.HostInternetScsiHbaChapAuthenticationTypeChapRequired)
	}
	if x.mutualUser != "" {
		a.MutualChapAuthenticationType = string(types.HostInternetScsiHbaChapAuthenticationTypeChapRequired)
		a.MutualChapName, a.MutualChapSecret = x.mutualUser, x.mutualSecret
	}
	return a
}

func (j *job) setCHAP(ctx context.Context, v *storageView, p portal, a types.HostInternetScsiHbaAuthenticationProperties) error {
	_, err := methods.UpdateInternetScsiAuthenticationProperties(ctx, j.h.s.c, &types.UpdateInternetScsiAuthenticationProperties{
		This: j.h.storage, IScsiHbaDevice: v.hba.Device, AuthenticationProperties: a,
		TargetSet: &types.HostInternetScsiHbaTargetSet{SendTargets: []types.HostInternetScsiHbaSendTarget{{Address: p.host, Port: p.port}}},
	})
	return err
}

func (j *job) chap(p portal) step {
	x := j.t.chap
	own := func(t *types.HostInternetScsiHbaSendTarget) *types.HostInternetScsiHbaAuthenticationProperties {
		if t == nil || t.AuthenticationProperties == nil || t.AuthenticationProperties.ChapInherited == nil || *t.AuthenticationProperties.ChapInherited {
			return nil
		}
		return t.AuthenticationProperties
	}
	return step{
		name: stepCHAP, args: map[string]string{"portal": p.String(), "user": x.user}, text: "set CHAP user " + x.user + " at send target " + p.String(),
		there: func(v *storageView) (bool, error) {
			a := own(v.send(p))
			if a == nil || !a.ChapAuthEnabled {
				return false, nil
			}
			if a.ChapName != x.user {
				return false, fail(j.h.object(), "take that send target away in the vSphere client, or give the target the same CHAP user",
					"its send target %s has CHAP user %s, and the target wants %s", p, a.ChapName, x.user)
			}
			return a.ChapAuthenticationType == x.wanted().ChapAuthenticationType || !x.required, nil
		},
		undo: func(v *storageView) map[string]string {
			return map[string]string{"inherited": strconv.FormatBool(own(v.send(p)) == nil)}
		},
		do: func(ctx context.Context, v *storageView, _ map[string]string) error {
			if err := j.setCHAP(ctx, v, p, x.wanted()); err != nil {
				return because(j.h.object(), "CHAP cannot be set at send target "+p.String(), "look at Dynamic Discovery of "+v.hba.Device+" in the vSphere client", err)
			}
			return nil
		},
	}
}

func (j *job) acl(ctx context.Context, iqn string) step {
	who := iqn
	if who == "" {
		who = "the adapter's name"
	}
	return step{
		name: stepACL, args: map[string]string{"iqn": iqn, "target": j.t.name}, text: "let " + who + " in at target " + j.t.name,
		there: func(*storageView) (bool, error) {
			cfg, _, err := configOf(ctx, j.c, j.t.name)
			return err == nil && iqn != "" && admitted(cfg, j.t.name, iqn), err
		},
		undo: func(*storageView) map[string]string { return map[string]string{"made": "false"} },
		do: func(ctx context.Context, _ *storageView, undo map[string]string) error {
			made := false
			err := j.t.admit(ctx, j.c, iqn, &made)
			undo["made"] = strconv.FormatBool(made)
			return err
		},
	}
}

func (j *job) rescan(ctx context.Context, v *storageView) error {
	if v.hba == nil {
		return nil
	}
	if _, err := methods.RescanHba(ctx, j.h.s.c, &types.RescanHba{This: j.h.storage, HbaDevice: v.hba.Device}); err != nil {
		return because(j.h.object(), "rescan of "+v.hba.Device, "look at the host's tasks and events", err)
	}
	return nil
}

func (j *job) device(iqn string, l lun) step {
	usable := func(v *storageView) bool { d := v.device(l.naa); return d != nil && !off(d) }
	return step{
		name: stepDevice, args: map[string]string{"naa": l.naa}, text: "rescan for LUN " + strconv.Itoa(int(l.number)) + ", " + l.naa,
		there: yes(usable),
		ours:  j.discovered,
		do: func(ctx context.Context, v *storageView, _ map[string]string) error {
			if v.hba == nil {
				return fail(j.h.object(), "try again", "its software iSCSI adapter is gone")
			}
			before, err := j.c.Status(ctx)
			if err != nil {
				return err
			}
			again := func(ctx context.Context) error { return j.rescan(ctx, v) }
			if err := again(ctx); err != nil {
				return err
			}
			ok, err := j.await(ctx, func(v *storageView) bool { return v.device(l.naa) != nil }, again)
			if err != nil {
				return err
			}
			if !ok {
				return j.whyNot(ctx, iqn, l, before.Traffic.Complaints)
			}
			if v, err = j.h.look(ctx); err != nil {
				return err
			}
			if d := v.device(l.naa); d != nil && off(d) {
				if _, err := methods.AttachScsiLun(ctx, j.h.s.c, &types.AttachScsiLun{This: j.h.storage, LunUuid: d.Uuid}); err != nil {
					return because(j.h.object(), "device "+l.naa+" is off and cannot be turned on", "attach it in the vSphere client", err)
				}
			}
			return nil
		},
	}
}

// whyNot says why a device has not appeared: the host does not tell, but vtgt knows
// who knocked.
func (j *job) whyNot(ctx context.Context, iqn string, l lun, before map[string]uint64) error {
	var portals []string
	for _, p := range j.t.portals {
		portals = append(portals, p.String())
	}
	at := strings.Join(portals, ", ")
	object := fmt.Sprintf("LUN %d (%s)", l.number, l.naa)
	ss, err := j.c.Sessions(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(ss, func(s api.Session) bool {
		return s.Target == j.t.name && !s.Discovery && strings.EqualFold(s.Initiator, iqn)
	}) {
		return fail(object, "look at luns[].initiators of the target, and whether the disk runs (vtgt get disks)", "host %s is logged in and does not see it", j.h.name)
	}
	st, err := j.c.Status(ctx)
	if err != nil {
		return err
	}
	rose := func(kind string) bool { return st.Traffic.Complaints[kind] > before[kind] }
	switch {
	case rose("authentication"):
		return fail(object, "write the target's secret into the file that --chap-secret-file names (the daemon's log says which user); it is set again with the next attach",
			"host %s could not log in at %s: CHAP failed", j.h.name, at)
	case rose("authorization"):
		return fail(object, "look at iscsi.addresses of the target; the daemon's log says from where the host came", "host %s could not log in at %s: vtgt does not admit it", j.h.name, at)
	}
	return fail(object, "look whether the host reaches it (vmkping from a VMkernel port in that network), at firewalls, and at port binding of the adapter; --portal names another address",
		"host %s did not log in at %s within %v", j.h.name, at, j.o.Wait)
}

func (j *job) policy(l lun) step {
	want := policies[j.o.Policy]
	current := func(v *storageView) string {
		u := v.unit(v.device(l.naa))
		if u == nil || u.Policy == nil {
			return ""
		}
		return u.Policy.GetHostMultipathInfoLogicalUnitPolicy().Policy
	}
	return step{
		name: stepPolicy, args: map[string]string{"naa": l.naa, "policy": want}, text: "set path policy " + want + " for " + l.naa,
		there: yes(func(v *storageView) bool { return current(v) == want }),
		undo: func(v *storageView) map[string]string {
			m := map[string]string{"policy": current(v)}
			if u := v.unit(v.device(l.naa)); u != nil {
				if f, ok := u.Policy.(*types.HostMultipathInfoFixedLogicalUnitPolicy); ok {
					m["prefer"] = f.Prefer
				}
			}
			return m
		},
		do: func(ctx context.Context, v *storageView, _ map[string]string) error {
			u := v.unit(v.device(l.naa))
			if u == nil || len(u.Path) == 0 {
				return fail("device "+l.naa, "rescan in the vSphere client, then again", "host %s shows no paths to it", j.h.name)
			}
			return j.setPolicy(ctx, u, want, u.Path[0].Name)
		},
	}
}

func (j *job) setPolicy(ctx context.Context, u *types.HostMultipathInfoLogicalUnit, policy, prefer string) error {
	var p types.BaseHostMultipathInfoLogicalUnitPolicy = &types.HostMultipathInfoLogicalUnitPolicy{Policy: policy}
	if policy == policies["fixed"] {
		p = &types.HostMultipathInfoFixedLogicalUnitPolicy{HostMultipathInfoLogicalUnitPolicy: types.HostMultipathInfoLogicalUnitPolicy{Policy: policy}, Prefer: prefer}
	}
	if _, err := methods.SetMultipathLunPolicy(ctx, j.h.s.c, &types.SetMultipathLunPolicy{This: j.h.storage, LunId: u.Id, Policy: p}); err != nil {
		return because(j.h.object(), "path policy "+policy, "another multipath plug-in may own the device; --policy keep leaves the host's choice", err)
	}
	return nil
}
