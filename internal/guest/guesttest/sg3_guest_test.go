package guesttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/internal/guest"
)

const sg3IQN = "iqn.2026-11.org.vtgt:sg3"

// The same disks by two ways: a thin one of 512-byte blocks on 4096-byte sectors, a
// removable one of 4096-byte blocks that is not thin, and one that is read-only.
const sg3Config = `disks:
  - {name: thin, store: "file:DIR/thin.img", create: true, size: 64MiB, physicalBlockSize: 4096, serial: "SG3-THIN-01", naa: "3123456789abcde0", shared: true, explicitALUA: true}
  - {name: plain, store: "file:DIR/plain.img", create: true, size: 16MiB, blockSize: 4096, thin: false, removable: true, serial: "SG3-PLAIN-002", naa: "3123456789abcde1", shared: true}
  - {name: fixed, store: "file:DIR/fixed.img", cache: writethrough, serial: "SG3-RO", naa: "3123456789abcde2", shared: true, readOnly: true}
targets:
  - {name: net, luns: [{lun: 0, disk: thin}, {lun: 1, disk: plain}, {lun: 5, disk: fixed}], iscsi: {iqn: "` + sg3IQN + `"}}
  - {name: vm, luns: [{lun: 0, disk: thin}, {lun: 1, disk: plain}, {lun: 5, disk: fixed}], vhost: {socket: "DIR/vm.sock", initiator: 5d0b3d5e-5a1c-4a86-9b65-0123456789ab}}
`

// startSG3 starts vtgt with them.
func startSG3(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	if err := os.WriteFile(filepath.Join(h.dir, "fixed.img"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	h.write(h.config(sg3Config))
	h.start()
	return h
}

// sg3Programs are those of package sg3-utils that the guest has.
var sg3Programs = []string{"sg_persist", "sg_opcodes", "sg_vpd", "sg_modes", "sg_logs", "sg_unmap", "sg_write_same", "sg_compare_and_write",
	"sg_get_lba_status", "sg_rtpg", "sg_stpg", "sg_inq", "sg_turs", "sg_requests", "sg_luns", "sg_ident", "sg_timestamp", "sg_readcap",
	"sg_verify", "sg_sync", "sg_start", "sg_prevent", "sg_raw", "sg_format", "sg_wr_mode", "sg_sanitize", "sg_reset", "sg_dd"}

// bootSG3 boots a guest with them that reaches h by virtio-scsi, and can by iSCSI.
func bootSG3(t *testing.T, h *host) *linux {
	t.Helper()
	c := wantGuest(t)
	k, err := c.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := c.Packages("open-iscsi", "libopeniscsiusr", "libisns0", "libkmod2", "sg3-utils", "libsgutils2-1.46-2")
	if err != nil {
		t.Fatal(err)
	}
	im := &guest.Image{
		Kernel:   k,
		Boot:     []string{"virtio_pci", "virtio_net", "crc32c_generic", "scsi_dh_alua", "sd_mod", "sg", "virtio_scsi", "iscsi_tcp"},
		Binaries: []guest.Binary{{Root: roots[0], Path: "/sbin/iscsistart", Libs: roots[1:]}},
	}
	for _, p := range sg3Programs {
		im.Binaries = append(im.Binaries, guest.Binary{Root: roots[4], Path: "/usr/bin/" + p, Libs: roots[1:]})
	}
	vm, err := guest.Boot(guest.Options{
		Dir: t.TempDir(), Net: true, Image: im, CPUs: 2, MemMB: 256,
		Args: []string{"-chardev", "socket,id=c,path=" + filepath.Join(h.dir, "vm.sock"), "-device", "vhost-user-scsi-pci,chardev=c,num_queues=2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guest's console:\n%s", vm.Console())
			if l, err := vm.Log(); err == nil {
				t.Logf("the guest's kernel log:\n%s", l)
			}
		}
		vm.Kill()
	})
	g := &linux{t: t, vm: vm, k: k}
	g.put("/etc/iscsi/initiatorname.iscsi", "InitiatorName="+initiatorName+"\n")
	g.put("/run/lock/iscsi/made", "")
	return g
}
