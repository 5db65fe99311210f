package vsphere

import (
	"bytes"
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// storageView is a host's storage as it is now.
type storageView struct {
	info *types.HostStorageDeviceInfo
	fs   []types.HostFileSystemMountInfo
	hba  *types.HostInternetScsiHba // the software adapter, nil while there is none
}

// look reads a host's storage.
func (h *host) look(ctx context.Context) (*storageView, error) {
	var ss mo.HostStorageSystem
	if err := h.s.one(ctx, h.storage, []string{"storageDeviceInfo", "fileSystemVolumeInfo"}, &ss); err != nil {
		return nil, because(h.object(), "its storage cannot be read", "give the user the privilege Host.Config.Storage", err)
	}
	v := &storageView{info: ss.StorageDeviceInfo, fs: ss.FileSystemVolumeInfo.MountInfo}
	if v.info == nil {
		v.info = &types.HostStorageDeviceInfo{}
	}
	for _, b := range v.info.HostBusAdapter {
		if x, ok := b.(*types.HostInternetScsiHba); ok && x.IsSoftwareBased {
			v.hba = x
		}
	}
	return v, nil
}

func portOf(p int32) int32 {
	if p == 0 {
		return 3260
	}
	return p
}

// send is the send target of a portal, nil if there is none.
func (v *storageView) send(p portal) *types.HostInternetScsiHbaSendTarget {
	if v.hba == nil {
		return nil
	}
	for i := range v.hba.ConfiguredSendTarget {
		if t := &v.hba.ConfiguredSendTarget[i]; strings.EqualFold(t.Address, p.host) && portOf(t.Port) == p.port {
			return t
		}
	}
	return nil
}

// statics are the static targets, configured and discovered, that match.
func (v *storageView) statics(match func(*types.HostInternetScsiHbaStaticTarget) bool) (out []types.HostInternetScsiHbaStaticTarget) {
	if v.hba == nil {
		return nil
	}
	for i := range v.hba.ConfiguredStaticTarget {
		if match(&v.hba.ConfiguredStaticTarget[i]) {
			out = append(out, v.hba.ConfiguredStaticTarget[i])
		}
	}
	return out
}

func (v *storageView) of(iqn string) []types.HostInternetScsiHbaStaticTarget {
	return v.statics(func(t *types.HostInternetScsiHbaStaticTarget) bool { return strings.EqualFold(t.IScsiName, iqn) })
}

// staticName tells a static target from others.
func staticName(t *types.HostInternetScsiHbaStaticTarget) string {
	return portal{t.Address, portOf(t.Port)}.String() + " " + strings.ToLower(t.IScsiName)
}

// device is the disk of a name, nil if the host does not see it. A host names disks by
// their NAA designators (SPC-4 §7.8.6.6); where it has chosen another of a disk's
// designators, ours is in what it keeps of VPD page 83h.
func (v *storageView) device(naa string) *types.HostScsiDisk {
	raw, _ := hex.DecodeString(strings.TrimPrefix(naa, "naa."))
	if len(raw) < 8 {
		return nil
	}
	for _, l := range v.info.ScsiLun {
		d, ok := l.(*types.HostScsiDisk)
		if !ok {
			continue
		}
		if strings.EqualFold(d.CanonicalName, naa) || slices.ContainsFunc(d.Descriptor, func(x types.ScsiLunDescriptor) bool { return strings.EqualFold(x.Id, naa) }) {
			return d
		}
		has := func(n types.ScsiLunDurableName) bool { return bytes.Contains(n.Data, raw) }
		if d.DurableName != nil && has(*d.DurableName) || slices.ContainsFunc(d.AlternateName, has) {
			return d
		}
	}
	return nil
}

func off(d *types.HostScsiDisk) bool {
	return slices.Contains(d.OperationalState, string(types.ScsiLunStateOff))
}

// unit is the multipath side of a device.
func (v *storageView) unit(d *types.HostScsiDisk) *types.HostMultipathInfoLogicalUnit {
	if v.info.MultipathInfo == nil || d == nil {
		return nil
	}
	for i := range v.info.MultipathInfo.Lun {
		if u := &v.info.MultipathInfo.Lun[i]; u.Lun == d.Key {
			return u
		}
	}
	return nil
}

// volumes are the VMFS volumes of a disk, mounted or not.
func (v *storageView) volumes(canonical string) (out []mountedVolume) {
	for _, m := range v.fs {
		f, ok := m.Volume.(*types.HostVmfsVolume)
		if !ok {
			continue
		}
		if slices.ContainsFunc(f.Extent, func(e types.HostScsiDiskPartition) bool { return strings.EqualFold(e.DiskName, canonical) }) {
			out = append(out, mountedVolume{f, m.MountInfo.Mounted == nil || *m.MountInfo.Mounted})
		}
	}
	return out
}

type mountedVolume struct {
	*types.HostVmfsVolume
	mounted bool
}
