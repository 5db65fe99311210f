package backing

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// put makes a file with its folders.
func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestHostUses(t *testing.T) {
	d := t.TempDir()
	h := host{d + "/proc", d + "/sys", d + "/run"}
	// sdb (8:16) with two partitions, as sysfs has it.
	disk := d + "/sys/devices/pci/sdb"
	for name, dev := range map[string]string{"": "8:16", "/sdb1": "8:17", "/sdb2": "8:18"} {
		put(t, disk+name+"/dev", dev+"\n")
		if name != "" {
			put(t, disk+name+"/partition", "1\n")
		}
		if err := os.MkdirAll(disk+name+"/holders", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(d+"/sys/dev/block", 0o755); err != nil {
		t.Fatal(err)
	}
	os.Symlink("../../devices/pci/sdb", d+"/sys/dev/block/8:16")
	os.Symlink("../../devices/pci/sdb/sdb1", d+"/sys/dev/block/8:17")
	put(t, d+"/proc/self/mountinfo", "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 8:17 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/sdb1 rw\n31 22 0:40 / /b rw - btrfs /nowhere rw\n")
	put(t, d+"/proc/swaps", "Filename Type Size Used Priority\n/nowhere partition 1 0 -2\n")

	is := func(dev string, want ...string) {
		t.Helper()
		us := h.usesOf(dev)
		var got []string
		for _, u := range us {
			if u.Hint == "" {
				t.Errorf("%s: no hint", u.What)
			}
			got = append(got, u.What+" | "+u.Hint)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %q, want %q", dev, got, want)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %q, want %q", dev, got[i], want[i])
			}
		}
	}
	is("8:17", "the device is mounted at /mnt/a b")
	is("8:16", "its partition sdb1 is mounted at /mnt/a b | unmount it first: umount /mnt/a b")
	is("8:32")

	for _, tc := range []struct{ holder, file, text, want string }{
		{"dm-0", "dm/uuid", "mpath-3600", "the device is a path of the multipath device top | serve the multipath device: block:/dev/mapper/top"},
		{"dm-1", "dm/uuid", "LVM-abc", "the device is an LVM physical volume: the logical volume top is on it"},
		{"dm-2", "dm/uuid", "CRYPT-LUKS2-x", "opened as the encrypted volume top"},
		{"dm-3", "dm/uuid", "other", "part of the device-mapper device top"},
		{"md127", "md/level", "raid1", "the device is a member of the RAID array md127"},
		{"bcache0", "x", "", "part of the device bcache0"},
	} {
		os.RemoveAll(disk + "/holders")
		put(t, disk+"/holders/"+tc.holder, "")
		put(t, d+"/sys/class/block/"+tc.holder+"/"+tc.file, tc.text)
		if strings.HasPrefix(tc.holder, "dm-") {
			put(t, d+"/sys/class/block/"+tc.holder+"/dm/name", "top\n")
		}
		is("8:16", "sdb1 is mounted", tc.want)
	}
}

func TestDeviceNumber(t *testing.T) {
	for d, want := range map[uint64]string{0x811: "8:17", 0x10300: "259:0" + "", 0xfd00: "253:0", 1<<20 | 0x800: "8:256", 5<<44 | 0x801: "20488:1"} {
		if d == 0x10300 {
			d = 0x10300&0xff | 259<<8
		}
		if got := deviceNumber(d); got != want {
			t.Errorf("%#x: %s, want %s", d, got, want)
		}
	}
}

func TestSignatures(t *testing.T) {
	disk := func(f func(b []byte)) *bytes.Reader {
		b := make([]byte, 1<<20+4096)
		f(b)
		return bytes.NewReader(b)
	}
	md := func(at int, o binary.ByteOrder) func([]byte) {
		return func(b []byte) { o.PutUint32(b[at:], mdMagic) }
	}
	size := 1<<20 + 4096
	for _, tc := range []struct {
		name string
		f    func(b []byte)
		want string
	}{
		{"nothing", func([]byte) {}, ""},
		{"LVM", func(b []byte) { copy(b[512:], "LABELONE"); copy(b[512+24:], "LVM2 001") }, "LVM physical volume"},
		{"half a label", func(b []byte) { copy(b[512:], "LABELONE") }, ""},
		{"a label too far", func(b []byte) { copy(b[2048:], "LABELONE"); copy(b[2048+24:], "LVM2 001") }, ""},
		{"MD 1.1", md(0, binary.LittleEndian), "RAID"},
		{"MD 1.2", md(4096, binary.LittleEndian), "RAID"},
		{"MD 1.0", md((size/512-16)&^7*512, binary.LittleEndian), "RAID"},
		{"MD 0.90", md(size&^65535-65536, binary.BigEndian), "RAID"},
	} {
		us := signatures(disk(tc.f))
		if tc.want == "" && len(us) > 0 || tc.want != "" && (len(us) != 1 || !us[0].Signature || !strings.Contains(us[0].What, tc.want)) {
			t.Errorf("%s: %+v", tc.name, us)
		}
	}
	for _, short := range []string{"", "x", "LABELONE"} {
		if us := signatures(strings.NewReader(short)); len(us) > 0 {
			t.Errorf("%q: %+v", short, us)
		}
	}
}

// A device that the host has mounted is refused with the reason. No device is made
// here: whichever the root file system is on serves.
func TestHostRefusal(t *testing.T) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Skip("no mountinfo:", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		for i := range f {
			if f[i] != "-" || i+2 >= len(f) {
				continue
			}
			if n, ok := blockDevice(f[i+2]); ok && n == f[2] {
				e := HostRefusal(f[i+2], true)
				if e == nil || !strings.Contains(e.Error(), "is mounted at ") {
					t.Errorf("%s: %v", f[i+2], e)
				}
				return
			}
		}
	}
	t.Skip("no mounted block device has a node here")
}
