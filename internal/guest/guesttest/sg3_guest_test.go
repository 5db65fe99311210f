package guesttest

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
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
	"sg_verify", "sg_sync", "sg_start", "sg_prevent", "sg_raw", "sg_format", "sg_wr_mode", "sg_sanitize", "sg_reset", "sg_dd", "sg_xcopy", "sg_copy_results"}

// sg3Image is what a guest with them boots; it can reach disks by virtio-scsi and by
// iSCSI. more are other programs. One archive serves several guests.
func sg3Image(t *testing.T, more ...guest.Binary) (im *guest.Image, initramfs string, k *guest.Kernel) {
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
	im = &guest.Image{
		Kernel: k,
		// The handler is there before the first disk, which it would else miss.
		Boot:     []string{"virtio_pci", "virtio_net", "crc32c_generic", "scsi_dh_alua", "sd_mod", "sg", "virtio_scsi", "iscsi_tcp"},
		Binaries: []guest.Binary{{Root: roots[0], Path: "/sbin/iscsistart", Libs: roots[1:]}},
	}
	for _, p := range sg3Programs {
		im.Binaries = append(im.Binaries, guest.Binary{Root: roots[4], Path: "/usr/bin/" + p, Libs: roots[1:]})
	}
	im.Binaries = append(im.Binaries, more...)
	if initramfs, err = im.Build(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return im, initramfs, k
}

// bootAll boots guests at the same time.
func bootAll(t *testing.T, os ...guest.Options) []*linux {
	t.Helper()
	return bootAllWith(t, nil, os...)
}

// bootAllWith is bootAll with more programs.
func bootAllWith(t *testing.T, more []guest.Binary, os ...guest.Options) []*linux {
	t.Helper()
	im, initramfs, k := sg3Image(t, more...)
	gs, errs := make([]*linux, len(os)), make([]error, len(os))
	var wg sync.WaitGroup
	for i, o := range os {
		o.Image, o.Initramfs, o.Dir = im, initramfs, t.TempDir()
		wg.Go(func() {
			vm, err := guest.Boot(o)
			gs[i], errs[i] = &linux{t: t, vm: vm, k: k}, err
		})
	}
	wg.Wait()
	for i, g := range gs {
		if errs[i] != nil {
			continue
		}
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the console of guest %d:\n%s", i, g.vm.Console())
				if l, err := g.vm.Log(); err == nil {
					t.Logf("the kernel log of guest %d:\n%s", i, l)
				}
			}
			g.vm.Kill()
		})
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, g := range gs {
		g.put("/etc/iscsi/initiatorname.iscsi", "InitiatorName="+initiatorName+"\n")
		g.put("/run/lock/iscsi/made", "")
	}
	return gs
}

// bootSG3 boots a guest that reaches h by virtio-scsi, and can by iSCSI.
func bootSG3(t *testing.T, h *host) *linux {
	t.Helper()
	return bootAll(t, guest.Options{Net: true, CPUs: 2, Args: vhostDevice("c", filepath.Join(h.dir, "vm.sock"), ",num_queues=2")})[0]
}
