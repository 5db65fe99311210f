package vsphere

import (
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

// A device is found by its NAA designator, whatever the host calls it.
func TestDevice(t *testing.T) {
	const naa = "naa.3123456789abcdef"
	raw := []byte{0x31, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	for name, c := range map[string]struct {
		d    types.ScsiLun
		want bool
	}{
		"canonical":  {types.ScsiLun{CanonicalName: "naa.3123456789ABCDEF"}, true},
		"descriptor": {types.ScsiLun{CanonicalName: "t10.VTGT", Descriptor: []types.ScsiLunDescriptor{{Id: "vml.1"}, {Id: naa}}}, true},
		"durable":    {types.ScsiLun{CanonicalName: "eui.1", DurableName: &types.ScsiLunDurableName{Data: append([]byte{1, 3, 0, 8}, raw...)}}, true},
		"alternate":  {types.ScsiLun{CanonicalName: "t10.VTGT", AlternateName: []types.ScsiLunDurableName{{Data: []byte{1}}, {Data: append([]byte{0, 0x83, 0, 12, 1, 3, 0, 8}, raw...)}}}, true},
		"another":    {types.ScsiLun{CanonicalName: "naa.3123456789abcdee", DurableName: &types.ScsiLunDurableName{Data: raw[:7]}}, false},
	} {
		v := &storageView{info: &types.HostStorageDeviceInfo{ScsiLun: []types.BaseScsiLun{&types.ScsiLun{CanonicalName: naa}, &types.HostScsiDisk{ScsiLun: c.d}}}}
		if got := v.device(naa); (got != nil) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	v := &storageView{info: &types.HostStorageDeviceInfo{ScsiLun: []types.BaseScsiLun{&types.HostScsiDisk{ScsiLun: types.ScsiLun{AlternateName: []types.ScsiLunDurableName{{}}}}}}}
	if v.device("naa.") != nil || v.device("") != nil {
		t.Error("a disk without a name is found")
	}
}
