package vspheretest

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// datastores is a host's datastore system.
type datastores struct {
	*simulator.HostDatastoreSystem
	s *storage
}

// label is what stands in block vmfsLBA of a disk with a datastore.
type label struct {
	VMFS, UUID, Name string
}

const (
	vmfsLBA   = 2048
	vmfsMagic = "vspheretest VMFS 6"
)

// volume is a VMFS volume that a host knows.
type volume struct {
	uuid, label, device string
	capacity            int64
	mounted             bool
	ref                 types.ManagedObjectReference // the datastore while mounted
}

func (v *volume) vmfs() *types.HostVmfsVolume {
	return &types.HostVmfsVolume{
		HostFileSystemVolume: types.HostFileSystemVolume{Type: "VMFS", Name: v.label, Capacity: v.capacity},
		BlockSizeMb:          1, MaxBlocks: 63963136, MajorVersion: 6, Version: "6.82", Uuid: v.uuid,
		Extent: []types.HostScsiDiskPartition{{DiskName: v.device, Partition: 1}},
	}
}

func (v *volume) info(s *storage) types.HostFileSystemMountInfo {
	there := slices.ContainsFunc(s.devices, func(d *device) bool { return d.name == v.device && !s.off[d.name] })
	return types.HostFileSystemMountInfo{
		MountInfo: types.HostMountInfo{Path: "/vmfs/volumes/" + v.uuid, AccessMode: "readWrite", Mounted: types.NewBool(v.mounted), Accessible: types.NewBool(v.mounted && there)},
		Volume:    v.vmfs(), VStorageSupport: "vStorageSupported",
	}
}

// mounted is the volume that is mounted from a device, nil if none is.
func (s *storage) mounted(device string) *volume {
	for _, v := range s.mounts {
		if v.device == device && v.mounted {
			return v
		}
	}
	return nil
}

func (s *storage) volume(uuid string) *volume {
	for _, v := range s.mounts {
		if v.uuid == uuid {
			return v
		}
	}
	return nil
}

// access reads or writes the block with the label.
func (d *device) access(write []byte) ([]byte, error) {
	p := d.paths[0]
	cdb := []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	binary.BigEndian.PutUint32(cdb[2:], vmfsLBA)
	c := iscsitest.Command{LUN: p.lun, CDB: cdb, In: int(d.block)}
	if write != nil {
		cdb[0], c.In, c.Out = 0x2a, 0, make([]byte, d.block)
		copy(c.Out, write)
	}
	return p.x.run(c)
}

// label reads a disk's label; nil: it has none.
func (d *device) label() *label {
	b, err := d.access(nil)
	if err != nil {
		return nil
	}
	var l label
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	if json.Unmarshal(b, &l) != nil || l.VMFS != vmfsMagic {
		return nil
	}
	return &l
}

// QueryAvailableDisksForVmfs of the API.
func (x *datastores) QueryAvailableDisksForVmfs(ctx *simulator.Context, r *types.QueryAvailableDisksForVmfs) soap.HasFault {
	b := &methods.QueryAvailableDisksForVmfsBody{Res: new(types.QueryAvailableDisksForVmfsResponse)}
	ctx.WithLock(x.s, func() {
		for _, d := range x.s.devices {
			if !x.s.off[d.name] && d.label() == nil {
				b.Res.Returnval = append(b.Res.Returnval, *d.scsi(false))
			}
		}
	})
	return b
}

// QueryVmfsDatastoreCreateOptions of the API.
func (x *datastores) QueryVmfsDatastoreCreateOptions(ctx *simulator.Context, r *types.QueryVmfsDatastoreCreateOptions) soap.HasFault {
	b := new(methods.QueryVmfsDatastoreCreateOptionsBody)
	ctx.WithLock(x.s, func() {
		for _, d := range x.s.devices {
			if "/vmfs/devices/disks/"+d.name != r.DevicePath {
				continue
			}
			b.Res = &types.QueryVmfsDatastoreCreateOptionsResponse{Returnval: []types.VmfsDatastoreOption{{
				Info: &types.VmfsDatastoreAllExtentOption{},
				Spec: &types.VmfsDatastoreCreateSpec{
					VmfsDatastoreSpec: types.VmfsDatastoreSpec{DiskUuid: d.uuid()},
					Partition: types.HostDiskPartitionSpec{PartitionFormat: "gpt", TotalSectors: d.blocks,
						Partition: []types.HostDiskPartitionAttributes{{Partition: 1, StartSector: 2048, EndSector: d.blocks - 34, Type: "vmfs"}}},
					Vmfs: types.HostVmfsSpec{Extent: types.HostScsiDiskPartition{DiskName: d.name, Partition: 1}, MajorVersion: 6, BlockSizeMb: 1},
				},
			}}}
		}
	})
	if b.Res == nil {
		b.Fault_ = fault(&types.NotFound{}, "there is no device %s", r.DevicePath)
	}
	return b
}

// CreateVmfsDatastore of the API.
func (x *datastores) CreateVmfsDatastore(ctx *simulator.Context, r *types.CreateVmfsDatastore) soap.HasFault {
	b := new(methods.CreateVmfsDatastoreBody)
	ctx.WithLock(x.s, func() {
		s := x.s
		d := s.byUUID(r.Spec.DiskUuid)
		name := r.Spec.Vmfs.VolumeName
		switch {
		case d == nil || d.name != r.Spec.Vmfs.Extent.DiskName || name == "":
			b.Fault_ = fault(&types.InvalidArgument{InvalidProperty: "spec"}, "the spec names no disk that is there")
			return
		case d.label() != nil:
			b.Fault_ = fault(&types.ResourceInUse{Type: "ScsiDisk", Name: d.name}, "the disk has a datastore")
			return
		case ctx.Map.FindByName(name, x.Datastore) != nil:
			b.Fault_ = fault(&types.DuplicateName{Name: name}, "there is a datastore %s", name)
			return
		}
		var id [10]byte
		_, _ = rand.Read(id[:])
		l := label{VMFS: vmfsMagic, UUID: fmt.Sprintf("%x-%x-%x", id[:4], id[4:8], id[8:]), Name: name}
		text, _ := json.Marshal(l)
		if _, err := d.access(text); err != nil {
			b.Fault_ = fault(failure(err), "%v", err)
			return
		}
		v := &volume{uuid: l.UUID, label: l.Name, device: d.name, capacity: d.blocks * int64(d.block)}
		if b.Fault_ = s.mount(ctx, v); b.Fault_ != nil {
			return
		}
		b.Res, b.Fault_ = done(ctx, s, "CreateVmfsDatastore", &types.CreateVmfsDatastoreResponse{Returnval: v.ref})
	})
	return b
}

// mount makes a volume a datastore of the host.
func (s *storage) mount(ctx *simulator.Context, v *volume) *soap.Fault {
	dir, err := os.MkdirTemp("", "vspheretest-")
	if err != nil {
		return fault(failure(err), "%v", err)
	}
	r := s.ds.CreateLocalDatastore(ctx, &types.CreateLocalDatastore{This: s.ds.Self, Name: v.label, Path: dir})
	if f := r.Fault(); f != nil {
		os.Remove(dir)
		return f
	}
	v.ref = r.(*methods.CreateLocalDatastoreBody).Res.Returnval
	ds, ok := ctx.Map.Get(v.ref).(*simulator.Datastore)
	if !ok {
		// It is another host's already, and has that one's name of the folder.
		os.Remove(dir)
		for _, e := range ctx.Map.All("Datastore") {
			if d := e.(*simulator.Datastore); d.Name == v.label {
				ds, v.ref = d, d.Self
			}
		}
	}
	ctx.WithLock(ds, func() {
		if i, ok := ds.Info.(*types.VmfsDatastoreInfo); ok && i.Url != dir {
			os.Remove(dir)
		} else {
			info := *ds.Info.GetDatastoreInfo()
			info.Url = dir
			ds.Info = &types.VmfsDatastoreInfo{DatastoreInfo: info, Vmfs: v.vmfs()}
		}
		ds.Summary.Type = "VMFS"
	})
	v.mounted = true
	if s.volume(v.uuid) == nil {
		s.mounts = append(slices.Clone(s.mounts), v)
	}
	return nil
}

// unmount takes the datastore from the host, and away where no host has it any more.
func (s *storage) unmount(ctx *simulator.Context, v *volume) {
	ds := ctx.Map.Get(v.ref).(*simulator.Datastore)
	last := false
	host := s.Host.Self
	ctx.WithLock(ds, func() {
		ds.Host = slices.DeleteFunc(slices.Clone(ds.Host), func(m types.DatastoreHostMount) bool { return m.Key == host })
		last = len(ds.Host) == 0
	})
	without := func(in []types.ManagedObjectReference) []types.ManagedObjectReference {
		return slices.DeleteFunc(slices.Clone(in), func(r types.ManagedObjectReference) bool { return r == v.ref })
	}
	ctx.WithLock(s.ds, func() { s.ds.Datastore = without(s.ds.Datastore) })
	ctx.WithLock(s.Host, func() { s.Host.Datastore = without(s.Host.Datastore) })
	if last {
		url := ds.Summary.Url
		ds.DestroyTask(ctx, &types.Destroy_Task{This: ds.Self})
		os.RemoveAll(url)
		if cr, ok := ctx.Map.Get(*s.Host.Parent).(*simulator.ClusterComputeResource); ok {
			ctx.WithLock(cr, func() { cr.Datastore = without(cr.Datastore) })
		}
	}
	v.mounted, v.ref = false, types.ManagedObjectReference{}
}

// scan mounts what is on the devices and nobody has unmounted.
func (s *storage) scan(ctx *simulator.Context) *soap.Fault {
	for _, d := range s.devices {
		l := d.label()
		if l == nil || s.off[d.name] || s.kept[l.UUID] {
			continue
		}
		v := s.volume(l.UUID)
		if v == nil {
			v = &volume{uuid: l.UUID, label: l.Name, device: d.name, capacity: d.blocks * int64(d.block)}
		}
		if !v.mounted {
			if f := s.mount(ctx, v); f != nil {
				return f
			}
		}
	}
	s.forget()
	return nil
}

// forget drops volumes that are not mounted and whose devices have gone.
func (s *storage) forget() {
	s.mounts = slices.DeleteFunc(slices.Clone(s.mounts), func(v *volume) bool {
		return !v.mounted && !slices.ContainsFunc(s.devices, func(d *device) bool { return d.name == v.device })
	})
}

// RescanVmfs of the API.
func (s *storage) RescanVmfs(ctx *simulator.Context, _ *types.RescanVmfs) soap.HasFault {
	b := new(methods.RescanVmfsBody)
	if b.Fault_ = s.scan(ctx); b.Fault_ != nil {
		return b
	}
	b.Res, b.Fault_ = done(ctx, s, "RescanVmfs", new(types.RescanVmfsResponse))
	return b
}

// UnmountVmfsVolume of the API: it stays unmounted until somebody mounts it, or has
// it forgotten.
func (s *storage) UnmountVmfsVolume(ctx *simulator.Context, r *types.UnmountVmfsVolume) soap.HasFault {
	b := new(methods.UnmountVmfsVolumeBody)
	v := s.volume(r.VmfsUuid)
	if v == nil || !v.mounted {
		b.Fault_ = fault(&types.InvalidState{}, "volume %s is not mounted", r.VmfsUuid)
		return b
	}
	ds := ctx.Map.Get(v.ref).(*simulator.Datastore)
	used := false
	ctx.WithLock(ds, func() { used = len(ds.Vm) > 0 })
	if used {
		b.Fault_ = fault(&types.ResourceInUse{Type: "Datastore", Name: v.label}, "virtual machines are on datastore %s", v.label)
		return b
	}
	s.unmount(ctx, v)
	s.kept[v.uuid] = true
	b.Res, b.Fault_ = done(ctx, s, "UnmountVmfsVolume", new(types.UnmountVmfsVolumeResponse))
	return b
}

// MountVmfsVolume of the API.
func (s *storage) MountVmfsVolume(ctx *simulator.Context, r *types.MountVmfsVolume) soap.HasFault {
	b := new(methods.MountVmfsVolumeBody)
	if !s.kept[r.VmfsUuid] {
		b.Fault_ = fault(&types.InvalidState{}, "volume %s is not unmounted", r.VmfsUuid)
		return b
	}
	delete(s.kept, r.VmfsUuid)
	if b.Fault_ = s.scan(ctx); b.Fault_ != nil {
		return b
	}
	b.Res, b.Fault_ = done(ctx, s, "MountVmfsVolume", new(types.MountVmfsVolumeResponse))
	return b
}

// DeleteVmfsVolumeState of the API: that a volume was unmounted is forgotten.
func (s *storage) DeleteVmfsVolumeState(ctx *simulator.Context, r *types.DeleteVmfsVolumeState) soap.HasFault {
	b := new(methods.DeleteVmfsVolumeStateBody)
	if !s.kept[r.VmfsUuid] {
		b.Fault_ = fault(&types.NotFound{}, "volume %s is not unmounted", r.VmfsUuid)
		return b
	}
	delete(s.kept, r.VmfsUuid)
	b.Res, b.Fault_ = done(ctx, s, "DeleteVmfsVolumeState", new(types.DeleteVmfsVolumeStateResponse))
	return b
}

// Occupy puts a virtual machine on a datastore, as far as the datastore knows; "" for
// the virtual machine takes it away.
func (l *Lab) Occupy(datastore, vm string) {
	reg := l.model.Map()
	ctx := l.model.Service.Context
	var who []types.ManagedObjectReference
	for _, e := range reg.All("VirtualMachine") {
		if e.Entity().Name == vm {
			who = append(who, e.Reference())
		}
	}
	for _, e := range reg.All("Datastore") {
		if ds := e.(*simulator.Datastore); ds.Name == datastore {
			ctx.WithLock(ds, func() { ds.Vm = who })
		}
	}
}
