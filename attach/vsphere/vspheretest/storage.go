package vspheretest

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// adapter is the device name of the software iSCSI adapter.
const adapter = "vmhba65"

const adapterKey = "key-vim.host.InternetScsiHba-" + adapter

// storage is a host's storage system. Its fields are guarded by the simulator's lock
// of the object, except where mu is named.
type storage struct {
	*simulator.HostStorageSystem
	lab  *Lab
	ds   *simulator.HostDatastoreSystem
	name string
	iqn  string

	local *types.HostStorageDeviceInfo // what the host has without iSCSI

	enabled bool
	auth    types.HostInternetScsiHbaAuthenticationProperties
	send    []types.HostInternetScsiHbaSendTarget
	static  []types.HostInternetScsiHbaStaticTarget

	mu       sync.Mutex
	sessions map[string]*session // by address, port and target name

	devices []*device
	policy  map[string]types.BaseHostMultipathInfoLogicalUnitPolicy // set by somebody, by canonical name
	off     map[string]bool                                         // detached devices, by canonical name
	mounts  []*volume
	kept    map[string]bool // volumes that somebody has unmounted
}

func newStorage(l *Lab, ss *simulator.HostStorageSystem, ds *simulator.HostDatastoreSystem, h *simulator.HostSystem) *storage {
	f := fnv.New32a()
	fmt.Fprint(f, h.Name)
	s := &storage{
		HostStorageSystem: ss, lab: l, ds: ds, name: h.Name,
		iqn:      fmt.Sprintf("iqn.1998-01.com.vmware:%s-%08x", strings.ToLower(strings.ReplaceAll(h.Name, "_", "-")), f.Sum32()),
		local:    ss.StorageDeviceInfo,
		sessions: map[string]*session{},
		policy:   map[string]types.BaseHostMultipathInfoLogicalUnitPolicy{},
		off:      map[string]bool{},
		kept:     map[string]bool{},
	}
	s.FileSystemVolumeInfo.VolumeTypeList = []string{"VMFS", "NFS"}
	info := *s.local
	s.StorageDeviceInfo = &info
	h.Config.StorageDevice = &info
	return s
}

// done ends a method that has done its work: its answer is res, or a fault.
func done[R any](ctx *simulator.Context, s *storage, method string, res *R) (*R, *soap.Fault) {
	s.publish(ctx)
	if err := s.lab.tell(Call{Host: s.name, Method: method, After: true}); err != nil {
		return nil, fault(failure(err), "%v", err)
	}
	return res, nil
}

// publish makes the state visible, all of it anew: readers may still hold the last one.
func (s *storage) publish(ctx *simulator.Context) {
	info := *s.local
	info.SoftwareInternetScsiEnabled = s.enabled
	info.HostBusAdapter = slices.Clone(s.local.HostBusAdapter)
	if s.enabled {
		info.HostBusAdapter = append(info.HostBusAdapter, s.hba())
	}
	info.ScsiLun = slices.Clone(s.local.ScsiLun)
	topo, multi := *s.local.ScsiTopology, *s.local.MultipathInfo
	topo.Adapter, multi.Lun = slices.Clone(topo.Adapter), slices.Clone(multi.Lun)
	for _, d := range s.devices {
		info.ScsiLun = append(info.ScsiLun, d.scsi(s.off[d.name]))
		multi.Lun = append(multi.Lun, d.unit(s.policy[d.name]))
	}
	if s.enabled {
		topo.Adapter = append(topo.Adapter, s.topology())
	}
	info.ScsiTopology, info.MultipathInfo = &topo, &multi
	s.StorageDeviceInfo = &info
	s.FileSystemVolumeInfo.MountInfo = nil
	for _, v := range s.mounts {
		s.FileSystemVolumeInfo.MountInfo = append(s.FileSystemVolumeInfo.MountInfo, v.info(s))
	}
	ctx.WithLock(s.Host, func() { s.Host.Config.StorageDevice = &info })
}

func (s *storage) hba() *types.HostInternetScsiHba {
	return &types.HostInternetScsiHba{
		HostHostBusAdapter: types.HostHostBusAdapter{
			Key: adapterKey, Device: adapter, Status: "online", Model: "iSCSI Software Adapter", Driver: "iscsi_vmk",
		},
		IsSoftwareBased: true, CanBeDisabled: types.NewBool(true),
		DiscoveryCapabilities: types.HostInternetScsiHbaDiscoveryCapabilities{SendTargetsDiscoverySettable: true, StaticTargetDiscoverySettable: true},
		DiscoveryProperties:   types.HostInternetScsiHbaDiscoveryProperties{SendTargetsDiscoveryEnabled: true, StaticTargetDiscoveryEnabled: true},
		AuthenticationCapabilities: types.HostInternetScsiHbaAuthenticationCapabilities{
			ChapAuthSettable: true, TargetChapSettable: types.NewBool(true), MutualChapSettable: types.NewBool(true), TargetMutualChapSettable: types.NewBool(true),
		},
		AuthenticationProperties: hidden(s.auth),
		IScsiName:                s.iqn,
		ConfiguredSendTarget:     shownSend(s.send),
		ConfiguredStaticTarget:   shownStatic(s.static),
	}
}

// hidden is a without secrets: a host never tells them.
func hidden(a types.HostInternetScsiHbaAuthenticationProperties) types.HostInternetScsiHbaAuthenticationProperties {
	a.ChapSecret, a.MutualChapSecret = "", ""
	return a
}

func hiddenPtr(a *types.HostInternetScsiHbaAuthenticationProperties) *types.HostInternetScsiHbaAuthenticationProperties {
	h := hidden(*inherited(a))
	return &h
}

// inherited is a, or that all comes from above.
func inherited(a *types.HostInternetScsiHbaAuthenticationProperties) *types.HostInternetScsiHbaAuthenticationProperties {
	if a == nil {
		return &types.HostInternetScsiHbaAuthenticationProperties{ChapInherited: types.NewBool(true), MutualChapInherited: types.NewBool(true)}
	}
	return a
}

func shownSend(in []types.HostInternetScsiHbaSendTarget) (out []types.HostInternetScsiHbaSendTarget) {
	for _, t := range in {
		t.AuthenticationProperties = hiddenPtr(t.AuthenticationProperties)
		out = append(out, t)
	}
	return out
}

func shownStatic(in []types.HostInternetScsiHbaStaticTarget) (out []types.HostInternetScsiHbaStaticTarget) {
	for _, t := range in {
		t.AuthenticationProperties = hiddenPtr(t.AuthenticationProperties)
		out = append(out, t)
	}
	return out
}

// UpdateSoftwareInternetScsiEnabled of the API.
func (s *storage) UpdateSoftwareInternetScsiEnabled(ctx *simulator.Context, r *types.UpdateSoftwareInternetScsiEnabled) soap.HasFault {
	b := new(methods.UpdateSoftwareInternetScsiEnabledBody)
	s.mu.Lock()
	n := len(s.sessions)
	s.mu.Unlock()
	if !r.Enabled && n > 0 {
		b.Fault_ = fault(&types.HostConfigFault{}, "the adapter has %d sessions", n)
		return b
	}
	s.enabled = r.Enabled
	if !r.Enabled {
		s.send, s.static, s.auth = nil, nil, types.HostInternetScsiHbaAuthenticationProperties{}
	}
	b.Res, b.Fault_ = done(ctx, s, "UpdateSoftwareInternetScsiEnabled", new(types.UpdateSoftwareInternetScsiEnabledResponse))
	return b
}

// adapter checks the name of an adapter.
func (s *storage) adapter(device string) *soap.Fault {
	if !s.enabled || device != adapter {
		return fault(&types.NotFound{}, "there is no iSCSI adapter %q", device)
	}
	return nil
}

func port(p int32) int32 {
	if p == 0 {
		return 3260
	}
	return p
}

func (s *storage) findSend(t types.HostInternetScsiHbaSendTarget) int {
	return slices.IndexFunc(s.send, func(x types.HostInternetScsiHbaSendTarget) bool {
		return x.Address == t.Address && port(x.Port) == port(t.Port)
	})
}

func (s *storage) findStatic(t types.HostInternetScsiHbaStaticTarget) int {
	return slices.IndexFunc(s.static, func(x types.HostInternetScsiHbaStaticTarget) bool {
		return x.Address == t.Address && port(x.Port) == port(t.Port) && x.IScsiName == t.IScsiName
	})
}

// AddInternetScsiSendTargets of the API.
func (s *storage) AddInternetScsiSendTargets(ctx *simulator.Context, r *types.AddInternetScsiSendTargets) soap.HasFault {
	b := new(methods.AddInternetScsiSendTargetsBody)
	if b.Fault_ = s.adapter(r.IScsiHbaDevice); b.Fault_ != nil {
		return b
	}
	for _, t := range r.Targets {
		if s.findSend(t) >= 0 {
			b.Fault_ = fault(&types.AlreadyExists{Name: t.Address}, "%s:%d is there already", t.Address, t.Port)
			return b
		}
		t.Port = port(t.Port)
		s.send = append(slices.Clone(s.send), t)
	}
	b.Res, b.Fault_ = done(ctx, s, "AddInternetScsiSendTargets", new(types.AddInternetScsiSendTargetsResponse))
	return b
}

// RemoveInternetScsiSendTargets of the API. What was discovered stays.
func (s *storage) RemoveInternetScsiSendTargets(ctx *simulator.Context, r *types.RemoveInternetScsiSendTargets) soap.HasFault {
	b := new(methods.RemoveInternetScsiSendTargetsBody)
	if b.Fault_ = s.adapter(r.IScsiHbaDevice); b.Fault_ != nil {
		return b
	}
	for _, t := range r.Targets {
		i := s.findSend(t)
		if i < 0 {
			b.Fault_ = fault(&types.NotFound{}, "%s:%d is not there", t.Address, t.Port)
			return b
		}
		s.send = slices.Delete(slices.Clone(s.send), i, i+1)
	}
	b.Res, b.Fault_ = done(ctx, s, "RemoveInternetScsiSendTargets", new(types.RemoveInternetScsiSendTargetsResponse))
	return b
}

// RemoveInternetScsiStaticTargets of the API. Sessions end at the next rescan.
func (s *storage) RemoveInternetScsiStaticTargets(ctx *simulator.Context, r *types.RemoveInternetScsiStaticTargets) soap.HasFault {
	b := new(methods.RemoveInternetScsiStaticTargetsBody)
	if b.Fault_ = s.adapter(r.IScsiHbaDevice); b.Fault_ != nil {
		return b
	}
	for _, t := range r.Targets {
		i := s.findStatic(t)
		if i < 0 {
			b.Fault_ = fault(&types.NotFound{}, "%s at %s:%d is not there", t.IScsiName, t.Address, t.Port)
			return b
		}
		for _, d := range s.devices {
			if v := s.mounted(d.name); v != nil && d.target == s.static[i].IScsiName {
				b.Fault_ = fault(&types.ResourceInUse{Type: "Datastore", Name: v.label}, "datastore %s is on it", v.label)
				return b
			}
		}
		s.static = slices.Delete(slices.Clone(s.static), i, i+1)
	}
	b.Res, b.Fault_ = done(ctx, s, "RemoveInternetScsiStaticTargets", new(types.RemoveInternetScsiStaticTargetsResponse))
	return b
}

// UpdateInternetScsiAuthenticationProperties of the API.
func (s *storage) UpdateInternetScsiAuthenticationProperties(ctx *simulator.Context, r *types.UpdateInternetScsiAuthenticationProperties) soap.HasFault {
	b := new(methods.UpdateInternetScsiAuthenticationPropertiesBody)
	if b.Fault_ = s.adapter(r.IScsiHbaDevice); b.Fault_ != nil {
		return b
	}
	a := r.AuthenticationProperties
	if a.ChapAuthEnabled && (a.ChapName == "" || a.ChapSecret == "") {
		b.Fault_ = fault(&types.InvalidArgument{InvalidProperty: "authenticationProperties"}, "CHAP wants a name and a secret")
		return b
	}
	if r.TargetSet == nil {
		s.auth = a
	} else {
		for _, t := range r.TargetSet.SendTargets {
			i := s.findSend(t)
			if i < 0 {
				b.Fault_ = fault(&types.NotFound{}, "%s:%d is not there", t.Address, t.Port)
				return b
			}
			s.send = slices.Clone(s.send)
			s.send[i].AuthenticationProperties = &a
		}
		for _, t := range r.TargetSet.StaticTargets {
			i := s.findStatic(t)
			if i < 0 {
				b.Fault_ = fault(&types.NotFound{}, "%s is not there", t.IScsiName)
				return b
			}
			s.static = slices.Clone(s.static)
			s.static[i].AuthenticationProperties = &a
		}
	}
	b.Res, b.Fault_ = done(ctx, s, "UpdateInternetScsiAuthenticationProperties", new(types.UpdateInternetScsiAuthenticationPropertiesResponse))
	return b
}

// RescanHba of the API: discovery, logins, LUNs.
func (s *storage) RescanHba(ctx *simulator.Context, r *types.RescanHba) soap.HasFault {
	b := new(methods.RescanHbaBody)
	if b.Fault_ = s.adapter(r.HbaDevice); b.Fault_ != nil {
		return b
	}
	s.rescan()
	b.Res, b.Fault_ = done(ctx, s, "RescanHba", new(types.RescanHbaResponse))
	return b
}

// RescanAllHba of the API.
func (s *storage) RescanAllHba(ctx *simulator.Context, _ *types.RescanAllHba) soap.HasFault {
	if s.enabled {
		s.rescan()
	}
	b := new(methods.RescanAllHbaBody)
	b.Res, b.Fault_ = done(ctx, s, "RescanAllHba", new(types.RescanAllHbaResponse))
	return b
}

func (s *storage) byUUID(uuid string) *device {
	for _, d := range s.devices {
		if d.uuid() == uuid {
			return d
		}
	}
	return nil
}

// SetMultipathLunPolicy of the API.
func (s *storage) SetMultipathLunPolicy(ctx *simulator.Context, r *types.SetMultipathLunPolicy) soap.HasFault {
	b := new(methods.SetMultipathLunPolicyBody)
	d := s.byUUID(r.LunId)
	if d == nil {
		b.Fault_ = fault(&types.NotFound{}, "there is no logical unit %q", r.LunId)
		return b
	}
	p := r.Policy.GetHostMultipathInfoLogicalUnitPolicy().Policy
	if !slices.Contains([]string{"VMW_PSP_RR", "VMW_PSP_MRU", "VMW_PSP_FIXED"}, p) {
		b.Fault_ = fault(&types.InvalidArgument{InvalidProperty: "policy"}, "there is no policy %q", p)
		return b
	}
	s.policy = maps.Clone(s.policy)
	s.policy[d.name] = r.Policy
	if p == defaultPolicy {
		delete(s.policy, d.name)
	}
	b.Res, b.Fault_ = done(ctx, s, "SetMultipathLunPolicy", new(types.SetMultipathLunPolicyResponse))
	return b
}

// DetachScsiLun of the API: the device is off until it is attached, or forgotten.
func (s *storage) DetachScsiLun(ctx *simulator.Context, r *types.DetachScsiLun) soap.HasFault {
	b := new(methods.DetachScsiLunBody)
	d := s.byUUID(r.LunUuid)
	switch {
	case d == nil:
		b.Fault_ = fault(&types.NotFound{}, "there is no device %q", r.LunUuid)
		return b
	case s.mounted(d.name) != nil:
		b.Fault_ = fault(&types.ResourceInUse{Type: "Datastore", Name: s.mounted(d.name).label}, "a datastore is on the device")
		return b
	case s.off[d.name]:
		b.Fault_ = fault(&types.InvalidState{}, "the device is off")
		return b
	}
	s.off[d.name] = true
	b.Res, b.Fault_ = done(ctx, s, "DetachScsiLun", new(types.DetachScsiLunResponse))
	return b
}

// AttachScsiLun of the API.
func (s *storage) AttachScsiLun(ctx *simulator.Context, r *types.AttachScsiLun) soap.HasFault {
	b := new(methods.AttachScsiLunBody)
	d := s.byUUID(r.LunUuid)
	if d == nil || !s.off[d.name] {
		b.Fault_ = fault(&types.NotFound{}, "there is no such device that is off")
		return b
	}
	delete(s.off, d.name)
	b.Res, b.Fault_ = done(ctx, s, "AttachScsiLun", new(types.AttachScsiLunResponse))
	return b
}

// DeleteScsiLunState of the API: a device that is gone is forgotten.
func (s *storage) DeleteScsiLunState(ctx *simulator.Context, r *types.DeleteScsiLunState) soap.HasFault {
	b := new(methods.DeleteScsiLunStateBody)
	if !s.off[r.LunCanonicalName] {
		b.Fault_ = fault(&types.HostConfigFault{}, "%s is not detached", r.LunCanonicalName)
		return b
	}
	delete(s.off, r.LunCanonicalName)
	b.Res, b.Fault_ = done(ctx, s, "DeleteScsiLunState", new(types.DeleteScsiLunStateResponse))
	return b
}
