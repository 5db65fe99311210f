package vsphere

import (
	"context"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// What a LUN is used for: a datastore, or a virtual machine's disk.

func (j *job) datastore(ctx context.Context) step {
	naa, name := j.t.luns[0].naa, j.o.Datastore
	return step{
		name: stepDatastore, args: map[string]string{"name": name, "naa": naa}, text: "make or mount VMFS datastore " + name + " on " + naa,
		there: func(v *storageView) (bool, error) {
			d := v.device(naa)
			if d == nil {
				return false, nil
			}
			for _, m := range v.volumes(d.CanonicalName) {
				if m.Name != name {
					return false, fail("disk "+naa, "use --datastore "+m.Name+", or detach, wipe the disk and attach it again", "holds datastore %s", m.Name)
				}
				if m.mounted {
					return true, nil
				}
			}
			return false, nil
		},
		do: func(ctx context.Context, v *storageView, undo map[string]string) error {
			uuid, err := j.makeDatastore(ctx, name, naa)
			undo["uuid"] = uuid
			return err
		},
	}
}

// makeDatastore mounts what is on the disk, or makes it.
func (j *job) makeDatastore(ctx context.Context, name, naa string) (uuid string, err error) {
	c := j.h.s.c
	if _, err := methods.RescanVmfs(ctx, c, &types.RescanVmfs{This: j.h.storage}); err != nil {
		return "", because(j.h.object(), "rescan for datastores", "look at the host's tasks and events", err)
	}
	v, err := j.h.look(ctx)
	if err != nil {
		return "", err
	}
	d := v.device(naa)
	if d == nil {
		return "", fail("disk "+naa, "rescan in the vSphere client, then again", "host %s does not see it any more", j.h.name)
	}
	for _, m := range v.volumes(d.CanonicalName) {
		switch {
		case m.Name != name:
			return "", fail("disk "+naa, "use --datastore "+m.Name+", or wipe the disk and attach it again", "holds datastore %s", m.Name)
		case m.mounted:
			return m.Uuid, nil
		}
		if _, err := methods.MountVmfsVolume(ctx, c, &types.MountVmfsVolume{This: j.h.storage, VmfsUuid: m.Uuid}); err != nil {
			return "", because("datastore "+name, "host "+j.h.name+" cannot mount it", "mount it in the vSphere client", err)
		}
		return m.Uuid, nil
	}
	q, err := methods.QueryAvailableDisksForVmfs(ctx, c, &types.QueryAvailableDisksForVmfs{This: j.h.ds})
	if err != nil {
		return "", because(j.h.object(), "which disks can hold a datastore", "give the user the privilege Host.Config.Storage", err)
	}
	free := false
	for i := range q.Returnval {
		free = free || q.Returnval[i].CanonicalName == d.CanonicalName
	}
	if !free {
		return "", fail("disk "+naa, "it may hold partitions, a copy of another datastore, or be a virtual machine's; look at it in the vSphere client", "host %s does not offer it for a datastore", j.h.name)
	}
	opts, err := methods.QueryVmfsDatastoreCreateOptions(ctx, c, &types.QueryVmfsDatastoreCreateOptions{This: j.h.ds, DevicePath: d.DevicePath})
	if err != nil {
		return "", because("disk "+naa, "how a datastore could be made", "look at it in the vSphere client", err)
	}
	var spec *types.VmfsDatastoreCreateSpec
	for i := range opts.Returnval {
		if s, ok := opts.Returnval[i].Spec.(*types.VmfsDatastoreCreateSpec); ok && spec == nil {
			spec = s
		}
	}
	if spec == nil {
		return "", fail("disk "+naa, "it may be too small (VMFS 6 wants 1.3 GB), or hold partitions", "host %s knows no layout for a datastore on it", j.h.name)
	}
	spec.Vmfs.VolumeName = name
	if _, err := methods.CreateVmfsDatastore(ctx, c, &types.CreateVmfsDatastore{This: j.h.ds, Spec: *spec}); err != nil {
		hint := "look at the host's tasks and events"
		if is[types.DuplicateName](err) {
			hint = "choose another name"
		}
		return "", because("datastore "+name, "cannot be made on "+naa, hint, err)
	}
	if v, err = j.h.look(ctx); err != nil {
		return "", err
	}
	for _, m := range v.volumes(d.CanonicalName) {
		uuid = m.Uuid
	}
	return uuid, nil
}

// unmount takes the volumes of a disk from the host. What is on the disk stays there.
func (h *host) unmount(ctx context.Context, v *storageView, canonical string) error {
	for _, m := range v.volumes(canonical) {
		if !m.mounted {
			continue
		}
		if err := h.unused(ctx, m.Uuid, m.Name); err != nil {
			return err
		}
		if _, err := methods.UnmountVmfsVolume(ctx, h.s.c, &types.UnmountVmfsVolume{This: h.storage, VmfsUuid: m.Uuid}); err != nil && !is[types.NotFound](err) {
			return because("datastore "+m.Name, "host "+h.name+" cannot unmount it", "end what uses it: virtual machines, templates and ISO files on it, vSphere HA heartbeats, coredump and scratch folders; then detach again", err)
		}
	}
	return nil
}

// unused refuses to take a datastore away that virtual machines of the host are on.
func (h *host) unused(ctx context.Context, uuid, name string) error {
	var hs mo.HostSystem
	if err := h.s.one(ctx, h.ref, []string{"datastore"}, &hs); err != nil {
		return because(h.object(), "its datastores cannot be listed", "give the user the right to see them", err)
	}
	if len(hs.Datastore) == 0 {
		return nil
	}
	var all []mo.Datastore
	if err := property.DefaultCollector(h.s.c).Retrieve(ctx, hs.Datastore, []string{"info", "vm"}, &all); err != nil {
		return because(h.object(), "its datastores cannot be listed", "give the user the right to see them", err)
	}
	for i := range all {
		x, ok := all[i].Info.(*types.VmfsDatastoreInfo)
		if !ok || x.Vmfs == nil || x.Vmfs.Uuid != uuid || len(all[i].Vm) == 0 {
			continue
		}
		var ms []mo.VirtualMachine
		if err := property.DefaultCollector(h.s.c).Retrieve(ctx, all[i].Vm, []string{"name", "runtime.host"}, &ms); err != nil {
			return because("datastore "+name, "its virtual machines cannot be listed", "give the user the right to see them", err)
		}
		var names []string
		for k := range ms {
			if ms[k].Runtime.Host == nil || *ms[k].Runtime.Host == h.ref {
				names = append(names, ms[k].Name)
			}
		}
		if len(names) > 0 {
			return fail("datastore "+name, "move them to another datastore or take them out of the inventory, then detach again", "is in use on host %s by virtual machines: %s", h.name, some(names))
		}
	}
	return nil
}

// mappings are the raw device mappings of a device in a virtual machine.
func mappings(devices object.VirtualDeviceList, naa, uuid string) object.VirtualDeviceList {
	return devices.Select(func(d types.BaseVirtualDevice) bool {
		x, ok := d.(*types.VirtualDisk)
		if !ok {
			return false
		}
		b, ok := x.Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo)
		return ok && (uuid != "" && b.LunUuid == uuid || strings.Contains(strings.ToLower(b.DeviceName), naa))
	})
}

func (j *job) rdm(ctx context.Context) step {
	naa := j.t.luns[0].naa
	m := object.NewVirtualMachine(j.h.s.c, j.vm.ref)
	who := "virtual machine " + j.vm.name
	return step{
		name: stepRDM, args: map[string]string{"vm": j.vm.uuid, "name": j.vm.name, "naa": naa}, text: "give " + naa + " to virtual machine " + j.vm.name + " as a " + j.o.RDMMode + " raw device mapping",
		there: func(v *storageView) (bool, error) {
			devices, err := m.Device(ctx)
			if err != nil {
				return false, because(who, "its devices cannot be read", "give the user the right to see them", err)
			}
			uuid := ""
			if d := v.device(naa); d != nil {
				uuid = d.Uuid
			}
			if len(mappings(devices, naa, uuid)) > 0 {
				return true, nil
			}
			if scsiPlace(devices) == nil {
				return false, fail(who, "add a SCSI controller to it", "has no SCSI controller with a free place")
			}
			return false, nil
		},
		do: func(ctx context.Context, v *storageView, undo map[string]string) error {
			d := v.device(naa)
			if d == nil {
				return fail("disk "+naa, "rescan in the vSphere client, then again", "host %s does not see it any more", j.h.name)
			}
			devices, err := m.Device(ctx)
			if err != nil {
				return because(who, "its devices cannot be read", "give the user the right to see them", err)
			}
			b := &types.VirtualDiskRawDiskMappingVer1BackingInfo{
				DeviceName: d.DeviceName, LunUuid: d.Uuid,
				CompatibilityMode: string(types.VirtualDiskCompatibilityModePhysicalMode),
			}
			if j.o.RDMMode == "virtual" {
				b.CompatibilityMode, b.DiskMode = string(types.VirtualDiskCompatibilityModeVirtualMode), string(types.VirtualDiskModePersistent)
			}
			disk := &types.VirtualDisk{VirtualDevice: types.VirtualDevice{Backing: b}, CapacityInKB: d.Capacity.Block * int64(d.Capacity.BlockSize) / 1024}
			devices.AssignController(disk, scsiPlace(devices))
			return j.reconfigure(ctx, m, who, "the disk cannot be added", &types.VirtualDeviceConfigSpec{
				Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate, Device: disk,
			})
		},
	}
}

// scsiPlace is a SCSI controller with a free place, nil if there is none.
func scsiPlace(devices object.VirtualDeviceList) types.BaseVirtualController {
	c, err := devices.FindSCSIController("")
	if err != nil {
		return nil
	}
	return c
}

func (j *job) reconfigure(ctx context.Context, m *object.VirtualMachine, who, what string, change *types.VirtualDeviceConfigSpec) error {
	t, err := m.Reconfigure(ctx, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{change}})
	if err == nil {
		err = t.Wait(ctx)
	}
	if err != nil {
		return because(who, what, "look at its tasks and events; a snapshot, a backup or fault tolerance may be in the way", err)
	}
	return nil
}
