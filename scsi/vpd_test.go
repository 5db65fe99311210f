package scsi

import (
	"strings"
	"testing"

	"github.com/vtgt/vtgt/backing"
)

func goldenUnit() *UnitConfig {
	return &UnitConfig{
		Name: "d", Vendor: "VTGT", Product: "VIRTUAL DISK", Revision: "0001", Serial: "SN42",
		NAA: 0x3123456789abcdef, BlockSize: 512, PhysicalBlockSize: 4096, Thin: true,
	}
}

var goldenPort = PortConfig{RelID: 2, Protocol: 5, Name: "iqn.a:b,t,0x0001", DeviceName: "iqn.a:b"}

// The expected bytes are written from SPC-4 §7.8 and SBC-3 §6.6.
func TestVPDGolden(t *testing.T) {
	thin, full := goldenUnit(), goldenUnit()
	full.Thin, full.BlockSize, full.PhysicalBlockSize = false, 4096, 0
	info := &backing.Info{Size: 1 << 30, DiscardGranularity: 8192, DiscardZeroes: true, Volatile: true, OptimalIO: 65536}
	plain := &backing.Info{Size: 1 << 30, Rotational: true}
	zeros := strings.Repeat("00", 60)
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"00", appendVPDSupported(nil), "00 00 000b 00 80 83 86 87 88 8f b0 b1 b2 b6"},
		{"80", appendVPDSerial(nil, thin), "00 80 0004 534e3432"},
		{"83", appendVPDIdentification(nil, thin, &goldenPort, 0x103), `
			00 83 006c
			01 03 00 08  31 23 45 67 89 ab cd ef               # NAA 3h
			02 01 00 0c  56 54 47 54 20 20 20 20  53 4e 34 32  # T10 vendor id
			03 08 00 18  6e 61 61 2e 33 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 00 00 00 00
			51 94 00 04  00 00 00 02                           # relative target port
			51 95 00 04  00 00 01 03                           # target port group
			53 98 00 14  69 71 6e 2e 61 3a 62 2c 74 2c 30 78 30 30 30 31 00 00 00 00
			53 a8 00 08  69 71 6e 2e 61 3a 62 00`},
		{"86", appendVPDExtended(nil, info), "00 86 003c 00 07 01 01 00 00 0000 00 60" + zeros[:50*2]},
		{"86 without a cache", appendVPDExtended(nil, plain), "00 86 003c 00 07 00 01 00 00 0000 00 60" + zeros[:50*2]},
		{"87", appendVPDModePolicy(nil), "00 87 0004 3f ff 00 00"},
		{"88", appendVPDPorts(nil, []*Port{{conf: goldenPort}, {conf: PortConfig{RelID: 0x102, Protocol: protocolSRP}}}), `
			00 88 0030
			0000 0002 0000 0000 0000 0018
			53 98 00 14  69 71 6e 2e 61 3a 62 2c 74 2c 30 78 30 30 30 31 00 00 00 00
			0000 0102 0000 0000 0000 0000`},
		{"88 without ports", appendVPDPorts(nil, nil), "00 88 0000"},
		{"b6", appendVPDZoned(nil), "00 b6 003c 00 000000 ffffffff ffffffff ffffffff" + zeros[:44*2]},
		{"b0 thin", appendVPDBlockLimits(nil, thin, info), `
			00 b0 003c
			00 ff 0008        # COMPARE AND WRITE 255, granularity 8
			00002000 00000080 # transfer: maximum 4 MiB, optimal 64 KiB
			00000000          # PRE-FETCH: no limit told
			00100000 00000100 # UNMAP: 2^20 blocks, 256 descriptors
			00000010 80000000 # granularity 8 KiB, alignment 0
			0000000000200000  # WRITE SAME: 1 GiB
` + zeros[:20*2]},
		{"b0 full 4096", appendVPDBlockLimits(nil, full, plain), `
			00 b0 003c
			00 40 0001 00000400 00000000 00000000
			00000000 00000000 00000000 00000000 0000000000040000` + zeros[:20*2]},
		{"b0 atomic", appendVPDBlockLimits(nil, full, &backing.Info{AtomicMax: 1 << 20}), `
			00 b0 003c
			00 40 0001 00000400 00000000 00000000
			00000000 00000000 00000000 00000000 0000000000040000
			00000100 00000001 00000001` + zeros[:8*2]},
		{"b1", appendVPDCharacteristics(nil, full, info), "00 b1 003c 0001 00 00 03" + zeros[:55*2]},
		{"b1 rotating", appendVPDCharacteristics(nil, full, plain), "00 b1 003c 0000 00 00 03" + zeros[:55*2]},
		{"b1 WABEREQ", appendVPDCharacteristics(nil, thin, info), "00 b1 003c 0001 00 40 03" + zeros[:55*2]},
		{"b1 WACEREQ", appendVPDCharacteristics(nil, full, &backing.Info{Rekeys: true}), "00 b1 003c 0001 00 10 03" + zeros[:55*2]},
		{"b2 thin", appendVPDProvisioning(nil, thin, false), "00 b2 0004 00 e4 02 00"},
		{"b2 thresholds", appendVPDProvisioning(nil, thin, true), "00 b2 0004 0b e4 02 00"},
		{"b2 full", appendVPDProvisioning(nil, full, false), "00 b2 0004 00 00 00 00"},
	} {
		wantBytes(t, c.name, c.got, unhex(t, c.want))
	}
}

// Designators of hostile or only long names keep to their limits, the page to its
// form.
func TestVPDIdentificationLimits(t *testing.T) {
	c := goldenUnit()
	c.Serial = strings.Repeat("s", 500)
	for _, p := range []PortConfig{
		{RelID: 1, Protocol: protocolISCSI, Name: strings.Repeat("n", 223) + ",t,0x0001", DeviceName: strings.Repeat("d", 223)},
		{RelID: 1, Protocol: protocolISCSI, Name: strings.Repeat("n", 5000), DeviceName: strings.Repeat("d", 5000)},
		{RelID: 1, Protocol: protocolSRP, Name: strings.Repeat("n", 61), DeviceName: strings.Repeat("d", 59)},
		{},
	} {
		b := appendVPDIdentification(nil, c, &p, 1)
		if len(b) > maxVPD || int(b[2])<<8|int(b[3]) != len(b)-4 {
			t.Fatalf("length %d, told %x", len(b), b[2:4])
		}
		for d := b[4:]; len(d) > 0; {
			if len(d) < 4 || len(d) < 4+int(d[3]) {
				t.Fatalf("designator leaves the page: % x", d)
			}
			n := int(d[3])
			if p.Protocol != protocolISCSI && 4+n > 64 {
				t.Errorf("designator type %d takes %d bytes", d[1]&15, 4+n)
			}
			if d[1]&15 == designatorName && (n%4 != 0 || d[4+n-1] != 0) {
				t.Errorf("name string of %d bytes is not padded", n)
			}
			d = d[4+n:]
		}
	}
}

// Page 88h has all ports of all targets of the unit, as far as they show it, and
// keeps to the length of a page.
func TestVPDPorts(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	tg := NewTarget(TargetConfig{Name: "other"})
	if err := tg.Map(3, r.u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	tg.NewPort(PortConfig{RelID: 1, Protocol: protocolSRP})
	hidden := tg.NewPort(PortConfig{RelID: 9, View: func(*Mapping) (uint16, bool) { return 0, false }})
	n := r.nexus()
	rel := func(b []byte) (ids []int) {
		if int(b[2])<<8|int(b[3]) != len(b)-4 {
			t.Fatalf("length %x of %d bytes", b[2:4], len(b))
		}
		for b = b[4:]; len(b) > 0; {
			ids = append(ids, int(b[2])<<8|int(b[3]))
			b = b[12+(int(b[10])<<8|int(b[11])):]
		}
		return ids
	}
	b := n.expect("good", "12 01 88 ffff 00", nil, 0xffff).in()
	if ids := rel(b); len(ids) != 2 || ids[0] != 1 || ids[1] != 2 {
		t.Errorf("ports %v", ids)
	}
	// Cut to the allocation length, told whole.
	wantBytes(t, "first bytes", n.expect("good", "12 01 88 0008 00", nil, 8).in(), b[:8])
	many := make([]*Port, 400)
	for i := range many {
		many[i] = &Port{conf: PortConfig{RelID: uint16(i + 1), Protocol: protocolISCSI, Name: strings.Repeat("n", 240)}}
	}
	if b := appendVPDPorts(nil, many); len(rel(b)) != 65535/260 {
		t.Errorf("%d ports of 260 bytes", len(rel(b)))
	}
	hidden.Close(0, nil)
	done := make(chan int, 1)
	tg.Close(0, func(n int) { done <- n })
	<-done
}
