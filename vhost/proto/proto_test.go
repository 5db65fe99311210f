package proto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// golden are messages as QEMU 7.2 and 10.0 send and take them on a little-endian
// machine.
var golden = []struct {
	name  string
	bytes string
	req   Request
	flags Flags
	body  []byte
	parse func(b []byte) (any, error)
	want  any
}{
	{"GET_FEATURES", "01000000 01000000 00000000", GetFeatures, 0, nil,
		func(b []byte) (any, error) { return nil, ParseEmpty(b) }, nil},
	{"GET_FEATURES' answer", "01000000 05000000 08000000 0600007801000000", GetFeatures, FlagReply,
		AppendU64(nil, uint64(FeatureHotplug|FeatureChange|FeatureAnyLayout|FeatureIndirectDesc|FeatureEventIdx|FeatureProtocol|FeatureVersion1)),
		func(b []byte) (any, error) { return ParseU64(b) }, uint64(0x178000006)},
	{"SET_PROTOCOL_FEATURES", "10000000 01000000 08000000 09b0010000000000", SetProtocolFeatures, 0,
		AppendU64(nil, uint64(ProtocolMQ|ProtocolReplyAck|ProtocolInflightShmFD|ProtocolResetDevice|ProtocolConfigureMemSlots|ProtocolStatus)),
		func(b []byte) (any, error) { return ParseU64(b) }, uint64(0x1b009)},
	{"SET_VRING_NUM", "08000000 01000000 08000000 02000000 80000000", SetVringNum, 0, VringState{2, 128}.Append(nil),
		func(b []byte) (any, error) { return ParseVringState(b) }, VringState{2, 128}},
	{"SET_VRING_BASE", "0a000000 01000000 08000000 01000000 ffff0000", SetVringBase, 0, VringState{1, 0xffff}.Append(nil),
		func(b []byte) (any, error) { return ParseVringState(b) }, VringState{1, 0xffff}},
	{"GET_VRING_BASE's answer", "0b000000 05000000 08000000 03000000 34120000", GetVringBase, FlagReply, VringState{3, 0x1234}.Append(nil),
		func(b []byte) (any, error) { return ParseVringState(b) }, VringState{3, 0x1234}},
	{"SET_VRING_ENABLE, acknowledged", "12000000 09000000 08000000 00000000 01000000", SetVringEnable, FlagNeedReply, VringState{0, 1}.Append(nil),
		func(b []byte) (any, error) { return ParseVringState(b) }, VringState{0, 1}},
	{"SET_VRING_ADDR", `09000000 01000000 28000000
		02000000 01000000 0010000000070000 0030000000070000 0020000000070000 0000000140000000`, SetVringAddr, 0,
		VringAddr{2, VringLog, 0x70000001000, 0x70000003000, 0x70000002000, 0x4001000000}.Append(nil),
		func(b []byte) (any, error) { return ParseVringAddr(b) },
		VringAddr{Index: 2, Flags: VringLog, Desc: 0x70000001000, Used: 0x70000003000, Avail: 0x70000002000, Log: 0x4001000000}},
	{"SET_VRING_KICK", "0c000000 01000000 08000000 0700000000000000", SetVringKick, 0, AppendU64(nil, uint64(NewVringFD(7, false))),
		func(b []byte) (any, error) { v, err := ParseU64(b); return VringFD(v), err }, NewVringFD(7, false)},
	{"SET_VRING_CALL, none", "0d000000 01000000 08000000 ff01000000000000", SetVringCall, 0, AppendU64(nil, uint64(NewVringFD(255, true))),
		func(b []byte) (any, error) { v, err := ParseU64(b); return VringFD(v), err }, NewVringFD(255, true)},
	{"SET_MEM_TABLE", `05000000 01000000 48000000
		02000000 00000000
		0000000000000000 00000a0000000000 0000400000070000 0000000000000000
		0000000001000000 0000001000000000 0000c00000070000 00000c0000000000`, SetMemTable, 0,
		AppendMemTable(nil, []MemRegion{{0, 0xa0000, 0x70000400000, 0}, {1 << 32, 1 << 28, 0x70000c00000, 0xc0000}}),
		func(b []byte) (any, error) {
			var t [MaxTable]MemRegion
			n, err := ParseMemTable(b, &t)
			return t[:n], err
		}, []MemRegion{{0, 0xa0000, 0x70000400000, 0}, {1 << 32, 1 << 28, 0x70000c00000, 0xc0000}}},
	{"ADD_MEM_REG", `25000000 09000000 28000000 0000000000000000
		0000000001000000 0000200000000000 0000c00000070000 0000100000000000`, AddMemReg, FlagNeedReply,
		AppendMemReg(nil, MemRegion{1 << 32, 2 << 20, 0x70000c00000, 1 << 20}),
		func(b []byte) (any, error) { return ParseMemReg(b) }, MemRegion{1 << 32, 2 << 20, 0x70000c00000, 1 << 20}},
	{"GET_INFLIGHT_FD", "1f000000 01000000 18000000 0000000000000000 0000000000000000 0600 8000 00000000", GetInflightFD, 0,
		Inflight{0, 0, 6, 128, true}.Append(nil),
		func(b []byte) (any, error) { return ParseInflight(b) }, Inflight{Queues: 6, QueueSize: 128, Pad: true}},
	{"SET_INFLIGHT_FD, as specified", "20000000 01000000 14000000 0030000000000000 0010000000000000 0600 8000", SetInflightFD, 0,
		Inflight{0x3000, 0x1000, 6, 128, false}.Append(nil),
		func(b []byte) (any, error) { return ParseInflight(b) }, Inflight{Size: 0x3000, Off: 0x1000, Queues: 6, QueueSize: 128}},
	{"SET_LOG_BASE", "06000000 01000000 10000000 0010000000000000 0020000000000000", SetLogBase, 0, Log{0x1000, 0x2000}.Append(nil),
		func(b []byte) (any, error) { return ParseLog(b) }, Log{0x1000, 0x2000}},
	{"SET_STATUS", "27000000 01000000 08000000 0700000000000000", SetStatus, 0, AppendU64(nil, uint64(StatusAcknowledge|StatusDriver|StatusDriverOK)),
		func(b []byte) (any, error) { return ParseU64(b) }, uint64(7)},
}

func TestGolden(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine, this is none")
	}
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.bytes)
			if got := Append(nil, g.req, g.flags, g.body); !bytes.Equal(got, want) {
				t.Fatalf("written as\n%x, want\n%x", got, want)
			}
			h, err := ParseHeader((*[HeaderSize]byte)(want))
			if err != nil || h.Request != g.req || h.Flags != g.flags|FlagVersion || int(h.Size) != len(want)-HeaderSize {
				t.Fatalf("header %+v, %v", h, err)
			}
			if h.NeedReply() != (g.flags&FlagNeedReply != 0) {
				t.Error("need_reply is not seen")
			}
			v, err := g.parse(want[HeaderSize:])
			if err != nil || !reflect.DeepEqual(v, g.want) {
				t.Errorf("read as %+v, %v, want %+v", v, err, g.want)
			}
			for _, n := range []int{1, 7, len(want) - HeaderSize + 1} {
				if _, err := g.parse(make([]byte, n)); !errors.Is(err, ErrSize) {
					t.Errorf("a body of %d bytes: %v", n, err)
				}
			}
		})
	}
}

func TestHeader(t *testing.T) {
	var b [HeaderSize]byte
	copy(b[:], Append(nil, SetFeatures, ^Flags(0), nil))
	if h, err := ParseHeader(&b); err != nil || h.Flags&flagVersions != FlagVersion {
		t.Errorf("%+v, %v: Append sets the version", h, err)
	}
	for _, v := range []uint32{0, 2, 3} {
		ne.PutUint32(b[4:], v)
		if _, err := ParseHeader(&b); err == nil {
			t.Errorf("version %d is taken", v)
		}
	}
	ne.PutUint32(b[4:], 1)
	for n, ok := range map[uint32]bool{MaxBody: true, MaxBody + 1: false, 1<<32 - 1: false} {
		ne.PutUint32(b[8:], n)
		if _, err := ParseHeader(&b); (err == nil) != ok {
			t.Errorf("a body of %d bytes: %v", n, err)
		}
	}
	if got := AppendReply(nil, GetFeatures, nil)[4]; got != 5 {
		t.Errorf("an answer's flags are %#x", got)
	}
}

func TestMemTable(t *testing.T) {
	var rs [MaxTable]MemRegion
	// QEMU 7.2 sends as many as there are, others the whole structure.
	whole := append(AppendMemTable(nil, []MemRegion{{Size: 1}}), make([]byte, 7*regionSize)...)
	if n, err := ParseMemTable(whole, &rs); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, n := range []uint32{9, 1 << 31, 1<<32 - 1} {
		b := ne.AppendUint32(nil, n)
		b = append(b, make([]byte, 4+8*regionSize)...)
		if _, err := ParseMemTable(b, &rs); err == nil {
			t.Errorf("%d regions are taken", n)
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		GetVringBase.String():                               "GET_VRING_BASE",
		Request(0).String():                                 "request 0",
		Request(99).String():                                "request 99",
		Request(1<<32 - 1).String():                         "request 4294967295",
		(FeatureVersion1 | FeatureHotplug | 1<<63).String(): "HOTPLUG|VERSION_1|bit 63",
		Features(0).String():                                "none",
		strings.Join((FeatureRingPacked | FeatureLogAll).Properties(), ","): "LOG_ALL,packed=on",
		strings.Join(Features(1<<50|1<<33).Properties(), ","):               "iommu_platform=on,bit 50",
		(ProtocolMQ | ProtocolStatus | 1<<40).String():                      "MQ|STATUS|bit 40",
		Status(0x44).String():    "DRIVER_OK|DEVICE_NEEDS_RESET",
		Status(1 << 20).String(): "bit 20",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzMessage reads any bytes as any message: nothing but errors may come of it, and
// what was read is written as it came.
func FuzzMessage(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		if len(b) < HeaderSize {
			return
		}
		h, err := ParseHeader((*[HeaderSize]byte)(b))
		_ = h.Request.String()
		if err == nil && h.Size > MaxBody {
			t.Errorf("a body of %d bytes is taken", h.Size)
		}
		body := b[HeaderSize:]
		same := func(what string, got []byte) {
			if !bytes.Equal(got, body) {
				t.Errorf("%s: %x is written as %x", what, body, got)
			}
		}
		if v, err := ParseU64(body); err == nil {
			same("number", AppendU64(nil, v))
			_, _, _ = Features(v).String(), Features(v).Properties(), ProtocolFeatures(v).String()
			_ = Status(v).String()
			if i := VringFD(v).Index(); i < 0 || i >= MaxVringFD {
				t.Errorf("ring %d", i)
			}
		}
		_ = ParseEmpty(body)
		if v, err := ParseVringState(body); err == nil {
			same("vring state", v.Append(nil))
		}
		if v, err := ParseVringAddr(body); err == nil {
			same("vring addresses", v.Append(nil))
		}
		if v, err := ParseLog(body); err == nil {
			same("log", v.Append(nil))
		}
		if v, err := ParseMemReg(body); err == nil {
			clear(body[:8]) // padding
			same("region", AppendMemReg(nil, v))
		}
		if v, err := ParseInflight(body); err == nil {
			if v.Pad {
				clear(body[inflightSize:])
			}
			same("inflight", v.Append(nil))
		}
		var rs [MaxTable]MemRegion
		if n, err := ParseMemTable(body, &rs); err == nil {
			clear(body[4:8])
			if got := AppendMemTable(nil, rs[:n]); !bytes.HasPrefix(body, got) {
				t.Errorf("table: %x is written as %x", body, got)
			}
		}
	})
}
