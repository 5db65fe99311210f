package vsphere

import (
	"context"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
)

// undos take steps back. What another attachment of the host stands on stays, and what
// is gone already is success.
func (j *job) undos() map[string]attach.Undo {
	type undo func(ctx context.Context, v *storageView, a *api.Attachment, s *api.AttachmentStep) error
	m := map[string]attach.Undo{}
	for name, f := range map[string]undo{
		stepISCSI: j.undoISCSI, stepTarget: j.undoTarget, stepSend: j.undoSend, stepCHAP: j.undoCHAP, stepACL: j.undoACL,
		stepDevice: j.undoDevice, stepPolicy: j.undoPolicy, stepDatastore: j.undoDatastore, stepRDM: j.undoRDM,
	} {
		m[name] = func(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error {
			others, err := j.rest(ctx, a)
			if err != nil {
				return err
			}
			if held(others, s.Name, s.Args) != nil {
				return nil
			}
			v, err := j.h.look(ctx)
			if err != nil {
				return err
			}
			return f(ctx, v, a, s)
		}
	}
	return m
}

// rest are the other attachments of the host.
func (j *job) rest(ctx context.Context, a *api.Attachment) ([]api.Attachment, error) {
	as, err := j.c.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(as, func(o api.Attachment) bool { return o.ID == a.ID || o.Kind != Kind || o.Subject != a.Subject }), nil
}

func (j *job) undoISCSI(ctx context.Context, v *storageView, _ *api.Attachment, _ *api.AttachmentStep) error {
	if !v.info.SoftwareInternetScsiEnabled {
		return nil
	}
	if v.hba != nil && len(v.hba.ConfiguredSendTarget)+len(v.hba.ConfiguredStaticTarget) > 0 {
		j.say("software iSCSI stays on: others have added targets to %s meanwhile", v.hba.Device)
		return nil
	}
	// Sessions of targets that are not configured any more end by a rescan.
	if err := j.rescan(ctx, v); err != nil {
		return err
	}
	if _, err := methods.UpdateSoftwareInternetScsiEnabled(ctx, j.h.s.c, &types.UpdateSoftwareInternetScsiEnabled{This: j.h.storage, Enabled: false}); err != nil {
		return because(j.h.object(), "software iSCSI cannot be turned off", "detach again in a minute; sessions or port bindings may be in the way", err)
	}
	return nil
}

// removeStatics takes static targets away.
func (j *job) removeStatics(ctx context.Context, v *storageView, ts []types.HostInternetScsiHbaStaticTarget) error {
	for _, t := range ts {
		_, err := methods.RemoveInternetScsiStaticTargets(ctx, j.h.s.c, &types.RemoveInternetScsiStaticTargets{This: j.h.storage, IScsiHbaDevice: v.hba.Device,
			Targets: []types.HostInternetScsiHbaStaticTarget{{Address: t.Address, Port: t.Port, IScsiName: t.IScsiName}}})
		if err != nil && !is[types.NotFound](err) {
			return because(j.h.object(), "target "+staticName(&t)+" cannot be taken away", "end what uses its LUNs, then detach again", err)
		}
	}
	return nil
}

// undoTarget logs out: no static target, a rescan, and nothing remembered of devices.
func (j *job) undoTarget(ctx context.Context, v *storageView, _ *api.Attachment, s *api.AttachmentStep) error {
	if v.hba == nil {
		return nil
	}
	naas := strings.Fields(s.Undo["naas"])
	names := slices.Clone(naas) // the host's
	for i, n := range naas {
		if d := v.device(n); d != nil {
			names[i] = d.CanonicalName
		}
	}
	first := v
	if err := j.removeStatics(ctx, v, v.of(s.Args["iqn"])); err != nil {
		return err
	}
	again := func(ctx context.Context) error { return j.rescan(ctx, v) }
	if err := again(ctx); err != nil {
		return err
	}
	there := func(v *storageView) (out []*types.HostScsiDisk) {
		for _, n := range naas {
			if d := v.device(n); d != nil {
				out = append(out, d)
			}
		}
		return out
	}
	// Discovered again at once, it does not go.
	if _, err := j.await(ctx, func(v *storageView) bool { return len(there(v)) == 0 || len(v.of(s.Args["iqn"])) > 0 }, again); err != nil {
		return err
	}
	v, err := j.h.look(ctx)
	if err != nil {
		return err
	}
	stay := there(v)
	for _, d := range stay {
		// It is seen by a way that is not ours, and was detached by us.
		if off(d) {
			if _, err := methods.AttachScsiLun(ctx, j.h.s.c, &types.AttachScsiLun{This: j.h.storage, LunUuid: d.Uuid}); err != nil {
				return because(j.h.object(), "device "+d.CanonicalName+" cannot be turned on again", "attach it in the vSphere client", err)
			}
		}
		j.say("device %s stays: the host finds %s by a send target that stays, and is let in; a list of iscsi.initiators would keep it out", d.CanonicalName, s.Args["iqn"])
	}
	// A device that comes back is not to be off.
	for _, n := range names {
		if !slices.ContainsFunc(stay, func(d *types.HostScsiDisk) bool { return strings.EqualFold(d.CanonicalName, n) }) {
			_, _ = methods.DeleteScsiLunState(ctx, j.h.s.c, &types.DeleteScsiLunState{This: j.h.storage, LunCanonicalName: n})
		}
	}
	for _, n := range names {
		j.forget(ctx, first, n)
	}
	return ctx.Err()
}

// undoSend takes a send target away and what the host has discovered by it, which it
// would keep.
func (j *job) undoSend(ctx context.Context, v *storageView, a *api.Attachment, s *api.AttachmentStep) error {
	p, err := parsePortal(s.Args["portal"])
	if err != nil || v.hba == nil {
		return err
	}
	others, err := j.rest(ctx, a)
	if err != nil {
		return err
	}
	ts, err := j.c.Targets(ctx)
	if err != nil {
		return err
	}
	before := strings.Split(s.Undo["before"], "\n")
	found := v.statics(func(t *types.HostInternetScsiHbaStaticTarget) bool {
		return t.DiscoveryMethod == string(types.HostInternetScsiHbaStaticTargetTargetDiscoveryMethodSendTargetMethod) &&
			!slices.Contains(before, staticName(t)) &&
			slices.ContainsFunc(ts, func(x api.Target) bool { return strings.EqualFold(x.IQN, t.IScsiName) }) &&
			held(others, stepTarget, map[string]string{"iqn": t.IScsiName}) == nil
	})
	if v.send(p) != nil {
		_, err := methods.RemoveInternetScsiSendTargets(ctx, j.h.s.c, &types.RemoveInternetScsiSendTargets{This: j.h.storage, IScsiHbaDevice: v.hba.Device,
			Targets: []types.HostInternetScsiHbaSendTarget{{Address: p.host, Port: p.port}}})
		if err != nil && !is[types.NotFound](err) {
			return because(j.h.object(), "send target "+p.String()+" cannot be taken away", "look at Dynamic Discovery of "+v.hba.Device+" in the vSphere client, then detach again", err)
		}
	}
	return j.removeStatics(ctx, v, found)
}

func (j *job) undoCHAP(ctx context.Context, v *storageView, _ *api.Attachment, s *api.AttachmentStep) error {
	p, err := parsePortal(s.Args["portal"])
	if err != nil {
		return err
	}
	t := v.send(p)
	if t == nil || t.AuthenticationProperties == nil || !t.AuthenticationProperties.ChapAuthEnabled || t.AuthenticationProperties.ChapName != s.Args["user"] {
		return nil
	}
	inherited := s.Undo["inherited"] == "true"
	a := types.HostInternetScsiHbaAuthenticationProperties{ChapInherited: &inherited, MutualChapInherited: &inherited}
	if !inherited {
		a.ChapAuthenticationType = string(types.HostInternetScsiHbaChapAuthenticationTypeChapProhibited)
		a.MutualChapAuthenticationType = a.ChapAuthenticationType
	}
	if err := j.setCHAP(ctx, v, p, a); err != nil && !is[types.NotFound](err) {
		return because(j.h.object(), "CHAP cannot be taken off send target "+p.String(), "look at Dynamic Discovery of "+v.hba.Device+" in the vSphere client, then detach again", err)
	}
	return nil
}

func (j *job) undoACL(ctx context.Context, _ *storageView, _ *api.Attachment, s *api.AttachmentStep) error {
	note, err := expel(ctx, j.c, s.Args["target"], s.Args["iqn"], s.Undo["made"] == "true")
	if note != "" {
		j.say("%s", note)
	}
	return err
}

func (j *job) undoDevice(ctx context.Context, v *storageView, _ *api.Attachment, s *api.AttachmentStep) error {
	d := v.device(s.Args["naa"])
	if d == nil {
		return nil
	}
	if err := j.h.unmount(ctx, v, d.CanonicalName); err != nil {
		return err
	}
	if !off(d) {
		_, err := methods.DetachScsiLun(ctx, j.h.s.c, &types.DetachScsiLun{This: j.h.storage, LunUuid: d.Uuid})
		if err != nil && !is[types.NotFound](err) && !is[types.InvalidState](err) {
			return because(j.h.object(), "device "+d.CanonicalName+" cannot be detached", "end what uses it (a virtual machine's raw device mapping, a datastore, a coredump partition), then detach again", err)
		}
	}
	// When the device comes back its volumes are not to stay unmounted.
	j.forget(ctx, v, d.CanonicalName)
	return nil
}

// forget has the host forget that the volumes of a device were unmounted. There is no
// asking whether it remembers anything: only that there is nothing fails.
func (j *job) forget(ctx context.Context, v *storageView, canonical string) {
	for _, m := range v.volumes(canonical) {
		_, _ = methods.DeleteVmfsVolumeState(ctx, j.h.s.c, &types.DeleteVmfsVolumeState{This: j.h.storage, VmfsUuid: m.Uuid})
	}
}

func (j *job) undoPolicy(ctx context.Context, v *storageView, _ *api.Attachment, s *api.AttachmentStep) error {
	u := v.unit(v.device(s.Args["naa"]))
	old := s.Undo["policy"]
	if u == nil || old == "" || u.Policy == nil || u.Policy.GetHostMultipathInfoLogicalUnitPolicy().Policy != s.Args["policy"] {
		return nil // gone, or somebody has chosen another one
	}
	return j.setPolicy(ctx, u, old, s.Undo["prefer"])
}

func (j *job) undoDatastore(ctx context.Context, v *storageView, _ *api.Attachment, s *api.AttachmentStep) error {
	d := v.device(s.Args["naa"])
	if d == nil {
		return nil
	}
	return j.h.unmount(ctx, v, d.CanonicalName)
}

func (j *job) undoRDM(ctx context.Context, v *storageView, _ *api.Attachment, s *api.AttachmentStep) error {
	found, _, err := j.h.s.vms(ctx, func(m *vm) bool { return m.uuid == s.Args["vm"] })
	if err != nil || len(found) == 0 {
		return err
	}
	m := object.NewVirtualMachine(j.h.s.c, found[0].ref)
	who := "virtual machine " + found[0].name
	devices, err := m.Device(ctx)
	if err != nil {
		return because(who, "its devices cannot be read", "give the user the right to see them", err)
	}
	uuid := ""
	if d := v.device(s.Args["naa"]); d != nil {
		uuid = d.Uuid
	}
	for _, d := range mappings(devices, s.Args["naa"], uuid) {
		// The file is the mapping, not what is on the LUN.
		if err := j.reconfigure(ctx, m, who, "the disk cannot be taken away", &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationRemove, FileOperation: types.VirtualDeviceConfigSpecFileOperationDestroy, Device: d,
		}); err != nil {
			return err
		}
	}
	return nil
}
