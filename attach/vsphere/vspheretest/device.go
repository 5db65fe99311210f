package vspheretest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// defaultPolicy is what a host takes for an array with ALUA.
const defaultPolicy = "VMW_PSP_MRU"

// device is a logical unit as INQUIRY and READ CAPACITY describe it.
type device struct {
	name    string // naa.…
	naa     []byte // the designator
	inquiry []byte
	page83  []byte
	serial  string
	blocks  int64
	block   int32
	target  string // of the first path
	paths   []path
}

type path struct {
	x   *session
	lun uint16
}

func inquiry(page int) []byte {
	c := []byte{0x12, 0, 0, 0x01, 0, 0}
	if page >= 0 {
		c[1], c[2] = 1, byte(page)
	}
	return c
}

// look asks a LUN what it is.
func (x *session) look(lun uint16) (*device, error) {
	d := &device{target: x.target, paths: []path{{x, lun}}}
	var err error
	if d.inquiry, err = x.run(iscsitest.Command{LUN: lun, CDB: inquiry(-1), In: 256}); err != nil {
		return nil, err
	}
	if len(d.inquiry) < 36 || d.inquiry[0] != 0 {
		return nil, errors.New("it is no disk")
	}
	if d.page83, err = x.run(iscsitest.Command{LUN: lun, CDB: inquiry(0x83), In: 256}); err != nil {
		return nil, err
	}
	for b := d.page83[min(4, len(d.page83)):]; len(b) >= 4 && len(b) >= 4+int(b[3]); b = b[4+int(b[3]):] {
		// A designator of the logical unit, of type NAA (SPC-4 §7.8.6.6).
		if b[1]&0x3f == 0x03 {
			d.naa = bytes.Clone(b[4 : 4+int(b[3])])
			break
		}
	}
	if d.naa == nil {
		return nil, errors.New("it has no NAA designator")
	}
	d.name = "naa." + hex.EncodeToString(d.naa)
	if b, err := x.run(iscsitest.Command{LUN: lun, CDB: inquiry(0x80), In: 256}); err == nil && len(b) > 4 {
		d.serial = strings.TrimSpace(string(b[4:]))
	}
	b, err := x.run(iscsitest.Command{LUN: lun, CDB: []byte{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0}, In: 32})
	if err != nil || len(b) < 12 {
		return nil, fmt.Errorf("READ CAPACITY (16): %d bytes, %v", len(b), err)
	}
	d.blocks, d.block = int64(binary.BigEndian.Uint64(b))+1, int32(binary.BigEndian.Uint32(b[8:]))
	return d, nil
}

// uuid is as a host makes it: type, LUN, designator, and half of the product's name.
func (d *device) uuid() string {
	return fmt.Sprintf("0200%02x0000%x%x", d.paths[0].lun, d.naa, d.inquiry[16:22])
}

func (d *device) scsi(off bool) *types.HostScsiDisk {
	state := "ok"
	if off {
		state = "off"
	}
	text := func(from, to int) string { return string(d.inquiry[from:to]) }
	return &types.HostScsiDisk{
		ScsiLun: types.ScsiLun{
			HostDevice: types.HostDevice{DeviceName: "/vmfs/devices/disks/" + d.name, DeviceType: "disk"},
			Key:        "key-vim.host.ScsiDisk-" + d.uuid(), Uuid: d.uuid(),
			Descriptor:    []types.ScsiLunDescriptor{{Quality: "highQuality", Id: d.name}, {Quality: "lowQuality", Id: "vml." + d.uuid()}},
			CanonicalName: d.name, DisplayName: fmt.Sprintf("%s iSCSI Disk (%s)", strings.TrimSpace(text(8, 16)), d.name),
			LunType: "disk", Vendor: text(8, 16), Model: text(16, 32), Revision: text(32, 36), ScsiLevel: int32(d.inquiry[2]),
			SerialNumber:    d.serial,
			DurableName:     &types.ScsiLunDurableName{Namespace: "GENERIC_VPD", NamespaceId: 5, Data: append([]byte{0x01, 0x03, 0x00, byte(len(d.naa))}, d.naa...)},
			StandardInquiry: bytes.Clone(d.inquiry), QueueDepth: 128, OperationalState: []string{state},
			Capabilities: &types.ScsiLunCapabilities{UpdateDisplayNameSupported: true}, VStorageSupport: "vStorageSupported",
		},
		Capacity:   types.HostDiskDimensionsLba{BlockSize: d.block, Block: d.blocks},
		DevicePath: "/vmfs/devices/disks/" + d.name, LocalDisk: types.NewBool(false), ScsiDiskType: "native512",
	}
}

func (d *device) unit(policy types.BaseHostMultipathInfoLogicalUnitPolicy) types.HostMultipathInfoLogicalUnit {
	if policy == nil {
		policy = &types.HostMultipathInfoLogicalUnitPolicy{Policy: defaultPolicy}
	}
	u := types.HostMultipathInfoLogicalUnit{
		Key: "key-vim.host.MultipathInfo.LogicalUnit-" + d.uuid(), Id: d.uuid(), Lun: "key-vim.host.ScsiDisk-" + d.uuid(),
		Policy:                 policy,
		StorageArrayTypePolicy: &types.HostMultipathInfoLogicalUnitStorageArrayTypePolicy{Policy: "VMW_SATP_ALUA"},
	}
	for i, p := range d.paths {
		state := "active"
		if p.x.isDead() {
			state = "dead"
		}
		name := fmt.Sprintf("%s:C0:T%d:L%d", adapter, p.x.number, p.lun)
		u.Path = append(u.Path, types.HostMultipathInfoPath{
			Key: "key-vim.host.MultipathInfo.Path-" + name, Name: name, PathState: state, State: state,
			IsWorkingPath: types.NewBool(i == 0), Adapter: adapterKey, Lun: u.Key, Transport: p.x.transport(),
		})
	}
	return u
}

func (x *session) transport() *types.HostInternetScsiTargetTransport {
	return &types.HostInternetScsiTargetTransport{IScsiName: x.target, Address: []string{x.address}}
}

// topology are the targets of the adapter.
func (s *storage) topology() types.HostScsiTopologyInterface {
	t := types.HostScsiTopologyInterface{Key: "key-vim.host.ScsiTopology.Interface-" + adapter, Adapter: adapterKey}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.all() {
		g := types.HostScsiTopologyTarget{Key: fmt.Sprintf("key-vim.host.ScsiTopology.Target-%s:0:%d", adapter, x.number), Target: int32(x.number), Transport: x.transport()}
		for _, d := range s.devices {
			for _, p := range d.paths {
				if p.x == x {
					g.Lun = append(g.Lun, types.HostScsiTopologyLun{Key: fmt.Sprintf("key-vim.host.ScsiTopology.Lun-%s-%d", d.uuid(), x.number), Lun: int32(p.lun), ScsiLun: "key-vim.host.ScsiDisk-" + d.uuid()})
				}
			}
		}
		t.Target = append(t.Target, g)
	}
	return t
}
