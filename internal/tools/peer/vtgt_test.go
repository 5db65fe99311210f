package peer

import (
	"testing"

	"github.com/vtgt/vtgt/config"
)

// TestVtgtConfig: what is generated is a configuration, and means what was asked for.
func TestVtgtConfig(t *testing.T) {
	text := vtgtConfig(&Server{addr: "127.0.0.1:3260", Socket: "/run/s", sock: "/run"}, "/var/lib/x", []Disk{
		{Name: "a0", Path: "/tmp/a b.img", BlockSize: 512, PhysicalBlockSize: 4096, Thin: true, Removable: true},
		{Name: "d0", Path: "/tmp/d.img", BlockSize: 512, PhysicalBlockSize: 512, ReadOnly: true},
		{Name: "m0", Store: "mem:", Size: 1 << 20, BlockSize: 512, PhysicalBlockSize: 4096, VHost: true},
		{Name: "o0", Path: "/tmp/o.img", Direct: true, BlockSize: 512, PhysicalBlockSize: 4096},
	})
	c, err := config.Parse("generated", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	a, d := c.Disk("a0"), c.Disk("d0")
	if a == nil || d == nil || len(c.Targets) != 4 {
		t.Fatalf("disks or targets missing:\n%s", text)
	}
	if a.Path() != "/tmp/a b.img" || a.PhysicalBlockSize != 4096 || !a.Thin || !a.Removable || a.ReadOnly {
		t.Errorf("a0 is %+v", *a)
	}
	if d.PhysicalBlockSize != 512 || d.Thin || d.Removable || !d.ReadOnly {
		t.Errorf("d0 is %+v", *d)
	}
	if m := c.Disk("m0"); m == nil || m.Store != "mem:" || m.Size != 1<<20 || c.Target("m0").VHost == nil || c.Target("m0").VHost.Socket != "/run/m0" {
		t.Errorf("m0 is %+v", m)
	}
	if o := c.Disk("o0"); o == nil || o.Cache != "direct" {
		t.Errorf("o0 is %+v", o)
	}
	if got := c.Target("a0").ISCSI.IQN; got != iqn+"a0" {
		t.Errorf("the target's name is %s", got)
	}
}
