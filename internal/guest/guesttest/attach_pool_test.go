package guesttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pool follows the recipe of docs/libvirt.md: a storage pool of the kind iscsi-direct
// lists the target's LUNs as volumes, and a domain has one as its disk.
func (b *bench) pool() {
	if so, _ := filepath.Glob("/usr/lib/*/libvirt/storage-backend/libvirt_storage_backend_iscsi-direct.so"); len(so) == 0 {
		b.t.Fatal("libvirt-daemon-driver-storage-iscsi-direct is not installed: run make deps")
	}
	const uuid = "5b1f0e0c-27c2-4d4d-9c7e-0d5b0b0f3a11"
	file := func(name, text string) string {
		b.t.Helper()
		p := filepath.Join(b.l.dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			b.t.Fatal(err)
		}
		return p
	}
	b.l.virsh("secret-define", file("secret.xml", "<secret ephemeral='no' private='yes'><uuid>"+uuid+"</uuid><usage type='iscsi'><target>vtgt-pool</target></usage></secret>"))
	b.l.virsh("secret-set-value", uuid, "--file", file("secret.txt", "open-sesame-12"), "--plain")
	b.l.virsh("pool-define", file("pool.xml", fmt.Sprintf(`<pool type='iscsi-direct'>
  <name>vtgt</name>
  <source>
    <host name='127.0.0.1' port='%d'/>
    <device path='iqn.2026-11.org.vtgt:t1'/>
    <auth type='chap' username='web'><secret uuid='%s'/></auth>
    <initiator><iqn name='iqn.2026-11.org.example:pool'/></initiator>
  </source>
</pool>
`, b.port, uuid)))
	b.l.virsh("pool-start", "vtgt")
	if out := b.l.virsh("vol-list", "vtgt"); !strings.Contains(out, "unit:0:0:0") || !strings.Contains(out, "unit:0:0:5") || !strings.Contains(out, "iqn.2026-11.org.vtgt:t1-lun-5") {
		b.t.Errorf("%s", out)
	}
	// libvirt 9.0 takes the last block's number for the number of blocks.
	if out := b.l.virsh("vol-info", "--bytes", "unit:0:0:5", "vtgt"); !strings.Contains(out, fmt.Sprint(24<<20)) && !strings.Contains(out, fmt.Sprint(24<<20-512)) {
		b.t.Errorf("%s", out)
	}
	b.small("pooled", "q35", 3, false, `<controller type='scsi' index='0' model='virtio-scsi'/>
    <disk type='volume' device='lun'><driver name='qemu' type='raw'/><source pool='vtgt' volume='unit:0:0:5'/><target dev='sda' bus='scsi'/></disk>`)
	b.l.virsh("start", "--paused", "pooled")
	if ss := b.sessions(); len(ss) != 1 || ss[0].Initiator != "iqn.2026-11.org.example:pool" || ss[0].Target != "t1" {
		b.t.Errorf("%+v", ss)
	}
	b.l.virsh("destroy", "pooled")
	b.l.virsh("pool-destroy", "vtgt")
	b.l.virsh("pool-undefine", "vtgt")
	b.l.virsh("secret-undefine", uuid)
}
