package vhost

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/vring"
)

// TestOffers is what a front end is told.
func TestOffers(t *testing.T) {
	f := newHouse(t).export("vm1")
	r := f.raw()
	want := proto.FeatureVersion1 | proto.FeatureIndirectDesc | proto.FeatureEventIdx | proto.FeatureHotplug | proto.FeatureChange | proto.FeatureProtocol | proto.FeatureAnyLayout |
		proto.FeatureLogAll | proto.FeatureRingPacked
	if got := proto.Features(r.get(proto.GetFeatures)); got != want {
		t.Errorf("features %v, want %v", got, want)
	}
	wantP := proto.ProtocolMQ | proto.ProtocolReplyAck | proto.ProtocolConfigureMemSlots | proto.ProtocolResetDevice | proto.ProtocolInflightShmFD | proto.ProtocolStatus |
		proto.ProtocolLogShmFD
	if got := proto.ProtocolFeatures(r.get(proto.GetProtocolFeatures)); got != wantP {
		t.Errorf("protocol features %v, want %v", got, wantP)
	}
	if n := r.get(proto.GetQueueNum); n != 1024 {
		t.Errorf("%d queues", n)
	}
	if n := r.get(proto.GetMaxMemSlots); n < 509 {
		t.Errorf("%d memory slots", n)
	}
	r.send(proto.SetStatus, 0, u64(15))
	if n := r.get(proto.GetStatus); n != 15 {
		t.Errorf("status %d", n)
	}
	if got := f.Status().DeviceStatus; got != "ACKNOWLEDGE|DRIVER|DRIVER_OK|FEATURES_OK" {
		t.Errorf("status %s", got)
	}
}

// TestRefusals says what each message may not say. Each case is played on a session of
// its own, with and without a wish for an answer: it is answered with failure, and the
// connection ends, with a reason that Status has.
func TestRefusals(t *testing.T) {
	kick := func(i uint8, none bool) []byte { return u64(uint64(proto.NewVringFD(i, none))) }
	inflight := func(d proto.Inflight) []byte { return d.Append(nil) }
	features := func(f proto.Features) []byte { return u64(uint64(offeredSplit | f)) }
	region := func(r proto.MemRegion) []byte { return proto.AppendMemReg(nil, r) }
	for _, tc := range []struct {
		name  string
		setup func(r *raw)
		req   proto.Request
		body  []byte
		fds   func(r *raw) []int
		why   string
	}{
		{"in order", nil, proto.SetFeatures, features(proto.FeatureInOrder), nil, "in_order=on"},
		{"iommu", nil, proto.SetFeatures, features(proto.FeatureAccessPlatform), nil, "iommu_platform=on"},
		{"t10", nil, proto.SetFeatures, features(proto.FeatureT10PI | proto.FeatureInOrder), nil, "t10_pi=on and in_order=on"},
		{"log body", nil, proto.SetLogBase, u64(0), nil, "wrong size"},
		{"log without fd", nil, proto.SetLogBase, proto.Log{Size: 4096}.Append(nil), nil, "0 descriptors"},
		{"empty log", nil, proto.SetLogBase, proto.Log{}.Append(nil), func(r *raw) []int { return []int{r.memfd(4096)} }, "a log of 0 bytes"},
		{"log beyond its file", nil, proto.SetLogBase, proto.Log{Size: 4096, Off: 4096}.Append(nil), func(r *raw) []int { return []int{r.memfd(4096)} }, "4096 bytes only"},
		{"log that is none", nil, proto.SetLogBase, proto.Log{Size: 4096}.Append(nil), func(r *raw) []int { return []int{r.eventfd()} }, "cannot be mapped"},
		{"features body", nil, proto.SetFeatures, []byte{1}, nil, "wrong size"},
		{"protocol", nil, proto.SetProtocolFeatures, u64(uint64(offeredProtocol | proto.ProtocolConfig)), nil, "CONFIG"},
		{"num 0", nil, proto.SetVringNum, state(0, 0), nil, "power of two"},
		{"num 100", nil, proto.SetVringNum, state(0, 100), nil, "power of two"},
		{"num 65536", nil, proto.SetVringNum, state(0, 65536), nil, "power of two"},
		{"num 2^31", nil, proto.SetVringNum, state(0, 1<<31), nil, "power of two"},
		{"ring 256", nil, proto.SetVringNum, state(256, 128), nil, "num_queues=254"},
		{"ring 1026", nil, proto.SetVringNum, state(1026, 128), nil, "there are 1026"},
		{"ring 2^32-1", nil, proto.SetVringAddr, proto.VringAddr{Index: 1<<32 - 1}.Append(nil), nil, "there are 1026"},
		{"get base of ring 5000", nil, proto.GetVringBase, state(5000, 0), nil, "there are 1026"},
		{"base", nil, proto.SetVringBase, state(0, 1<<16), nil, "16 bits"},
		{"enable 2", nil, proto.SetVringEnable, state(0, 2), nil, "0 or 1"},
		{"kick polled", nil, proto.SetVringKick, kick(0, true), nil, "not polled"},
		{"kick without", nil, proto.SetVringKick, kick(0, false), nil, "without its descriptor"},
		{"call without", nil, proto.SetVringCall, kick(0, false), nil, "without its descriptor"},
		{"kick memfd", nil, proto.SetVringKick, kick(0, false), func(r *raw) []int { return []int{r.memfd(4096)} }, "no eventfd"},
		{"call of stdin", nil, proto.SetVringCall, kick(0, false), func(r *raw) []int {
			fd, err := sys.Dup(0)
			if err != nil {
				r.Fatal(err)
			}
			r.fds = append(r.fds, fd)
			return []int{fd}
		}, "no eventfd"},

		{"num while it runs", ringUp, proto.SetVringNum, state(2, 64), nil, "which runs"},
		{"base while it runs", ringUp, proto.SetVringBase, state(2, 64), nil, "which runs"},
		{"features while it runs", ringUp, proto.SetFeatures, u64(uint64(offeredSplit &^ proto.FeatureEventIdx)), nil, "while ring 2 runs"},
		{"addr outside while it runs", ringUp, proto.SetVringAddr, proto.VringAddr{Index: 2, Desc: 1 << 40, Avail: 1 << 41, Used: 1 << 42}.Append(nil), nil, "outside the memory map"},
		{"inflight while it runs", ringUp, proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 20, Queues: 1, QueueSize: 128}), mem(1 << 20), "which runs"},
		{"rings overlap", memUp, proto.SetVringEnable, state(3, 1), nil, "overlap"},
		{"ring outside", memUp, proto.SetVringEnable, state(4, 1), nil, "outside the memory map"},
		{"ring wraps", memUp, proto.SetVringEnable, state(5, 1), nil, "wraps"},
		{"ring not aligned", memUp, proto.SetVringEnable, state(6, 1), nil, "align"},

		{"table of 9", nil, proto.SetMemTable, append(le32(9, 0), make([]byte, 9*32)...), nil, "at most 8"},
		{"table of 2^32-1", nil, proto.SetMemTable, append(le32(1<<32-1, 0), make([]byte, 32)...), nil, "at most 8"},
		{"table short", nil, proto.SetMemTable, append(le32(2, 0), make([]byte, 32)...), mem(rawSize, rawSize), "wrong size"},
		{"table tiny", nil, proto.SetMemTable, []byte{1, 0, 0}, nil, "wrong size"},
		{"table without fds", nil, proto.SetMemTable, regions(oneRegion(0)), nil, "share=on"},
		{"table with an fd too many", nil, proto.SetMemTable, regions(oneRegion(0)), mem(rawSize, rawSize), "2 descriptors"},
		{"table of a short file", nil, proto.SetMemTable, regions(oneRegion(0)), mem(rawSize - 1), "bytes only"},
		{"table overlaps", nil, proto.SetMemTable, regions(oneRegion(0), oneRegion(rawSize/2)), mem(rawSize, rawSize), "overlap"},
		{"table twice the same", nil, proto.SetMemTable, regions(oneRegion(0), oneRegion(0)), func(r *raw) []int { fd := r.memfd(rawSize); return []int{fd, fd} }, "twice"},
		{"table wraps", nil, proto.SetMemTable, regions(proto.MemRegion{Guest: 1<<64 - 4096, Size: 8192}), mem(rawSize), "wrap"},
		{"table with an offset that wraps", nil, proto.SetMemTable, regions(proto.MemRegion{Size: 8192, Off: 1<<64 - 4096}), mem(rawSize), "wrap"},
		{"table with an empty region", nil, proto.SetMemTable, regions(proto.MemRegion{}), mem(rawSize), "empty"},
		{"table of 17 TiB", nil, proto.SetMemTable, regions(proto.MemRegion{Size: 17 << 40}), mem(17 << 40), "more than 16 TiB"},
		{"table of 2 times 9 TiB", nil, proto.SetMemTable, regions(proto.MemRegion{Size: 9 << 40}, proto.MemRegion{Guest: 9 << 40, User: 9 << 40, Size: 9 << 40}), mem(9<<40, 9<<40), "more than 16 TiB"},
		{"table of an eventfd", nil, proto.SetMemTable, regions(oneRegion(0)), func(r *raw) []int { return []int{r.eventfd()} }, "share=on"},
		{"first region of a short file", nil, proto.AddMemReg, region(oneRegion(0)), mem(1), "bytes only"},
		{"region without fd", nil, proto.AddMemReg, region(oneRegion(0)), nil, "share=on"},
		{"region with two", nil, proto.AddMemReg, region(oneRegion(0)), mem(rawSize, rawSize), "2 descriptors"},
		{"region body", nil, proto.AddMemReg, []byte{1, 2}, mem(rawSize), "wrong size"},
		{"remove without memory", nil, proto.RemMemReg, region(oneRegion(0)), nil, "no region"},
		{"remove another", memUp, proto.RemMemReg, region(oneRegion(7 * rawSize)), nil, "no region"},

		{"inflight of no ring", nil, proto.GetInflightFD, inflight(proto.Inflight{QueueSize: 128}), nil, "0 rings"},
		{"inflight of 300 rings", nil, proto.GetInflightFD, inflight(proto.Inflight{Queues: 300, QueueSize: 128}), nil, "num_queues=254"},
		{"inflight of no entries", nil, proto.GetInflightFD, inflight(proto.Inflight{Queues: 3}), nil, "0 entries"},
		{"inflight of 65535", nil, proto.GetInflightFD, inflight(proto.Inflight{Queues: 3, QueueSize: 65535}), nil, "65535 entries"},
		{"inflight body", nil, proto.GetInflightFD, []byte{1}, nil, "wrong size"},
		{"inflight back without fd", nil, proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 20, Queues: 3, QueueSize: 128}), nil, "0 descriptors"},
		{"inflight back too small", nil, proto.SetInflightFD, inflight(proto.Inflight{Size: 4096, Queues: 3, QueueSize: 128}), mem(1 << 20), "need"},
		{"inflight back of a short file", nil, proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 20, Queues: 3, QueueSize: 128}), mem(4096), "bytes only"},
		{"inflight back beyond its file", nil, proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 20, Off: 1 << 20, Queues: 3, QueueSize: 128}), mem(1 << 20), "bytes only"},
		{"inflight back at an odd place", nil, proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 19, Off: 3, Queues: 3, QueueSize: 128}), mem(1 << 20), "align"},
		{"inflight back wraps", nil, proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 20, Off: 1<<64 - 4096, Queues: 3, QueueSize: 128}), mem(1 << 20), "wrap"},
		{"inflight back of an eventfd", nil, proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 20, Queues: 3, QueueSize: 128}), func(r *raw) []int { return []int{r.eventfd()} }, "cannot be mapped"},
		{"inflight for fewer rings", func(r *raw) {
			memUp(r)
			r.must(proto.SetInflightFD, inflight(proto.Inflight{Size: 1 << 20, Queues: 2, QueueSize: 128}), r.memfd(1<<20))
		}, proto.SetVringEnable, state(2, 1), nil, "is for 2 rings"},
		{"inflight for shorter rings", func(r *raw) {
			memUp(r)
			r.must(proto.SetInflightFD, inflight(proto.Inflight{Size: uint64(vring.InflightSize(8, 64)), Queues: 8, QueueSize: 64}), r.memfd(1<<20))
		}, proto.SetVringEnable, state(2, 1), nil, "the ring has 128"},

		{"unknown with an answer", nil, proto.PostcopyEnd, nil, nil, "not offered"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newHouse(t).export("vm1")
			for _, ask := range []bool{true, false} {
				r := f.raw()
				r.greet()
				if tc.setup != nil {
					tc.setup(r)
				}
				var fds []int
				if tc.fds != nil {
					fds = tc.fds(r)
				}
				if ask && !tc.req.HasReply() && tc.req != proto.SetLogBase {
					if v, closed := r.ack(tc.req, tc.body, fds...); v == 0 || closed {
						t.Errorf("outcome %d, closed %v", v, closed)
					}
				} else {
					r.send(tc.req, 0, tc.body, fds...)
				}
				r.isClosed()
				f.settles("the session's end", func(st Status) bool { return st.Connected.IsZero() && st.Queues == 0 })
				if st := f.Status(); !strings.Contains(st.Refused, tc.why) {
					t.Errorf("refused for %q, want %q", st.Refused, tc.why)
				}
				if !tempotest.Settles(func() bool { return f.h.log.has(tc.why) }) {
					t.Error("the log does not say why")
				}
				r.close()
			}
			// A session is over before what it did is counted.
			f.settles("both are counted", func(st Status) bool { return st.Counters.Violations >= 2 && st.Counters.Connections == 2 })
		})
	}
}

func le32(v ...uint32) (b []byte) {
	for i := 0; i+1 < len(v); i += 2 {
		b = append(b, state(v[i], v[i+1])...)
	}
	return b
}

func mem(sizes ...int64) func(r *raw) []int {
	return func(r *raw) (fds []int) {
		for _, n := range sizes {
			fds = append(fds, r.memfd(n))
		}
		return fds
	}
}

// memUp gives memory, and says all of some rings but that they are enabled: 2 is right,
// 3 overlaps, 4 is outside, 5 wraps, 6 is not aligned.
func memUp(r *raw) {
	r.must(proto.AddMemReg, proto.AppendMemReg(nil, oneRegion(0)), r.memfd(rawSize))
	for i := uint32(2); i <= 6; i++ {
		a := addr(i)
		switch i {
		case 3:
			a.Used = a.Desc + 16
		case 4:
			a.Desc = 1 << 40
		case 5:
			a.Avail = 1<<64 - 8
		case 6:
			a.Desc++
		}
		r.must(proto.SetVringNum, state(i, 128))
		r.must(proto.SetVringAddr, a.Append(nil))
		r.must(proto.SetVringKick, u64(uint64(proto.NewVringFD(uint8(i), false))), r.eventfd())
	}
}

// ringUp has ring 2 run.
func ringUp(r *raw) {
	memUp(r)
	r.must(proto.SetVringEnable, state(2, 1))
}

// TestDeclined are requests that do no harm: they fail, and the connection goes on.
func TestDeclined(t *testing.T) {
	f := newHouse(t).export("vm1")
	r := f.raw()
	r.greet()
	ringUp(r)
	for _, tc := range []struct {
		req  proto.Request
		body []byte
		fds  []int
	}{
		{proto.SetBackendReqFD, nil, []int{r.eventfd()}},
		{proto.SetVringEndian, state(0, 0), nil},
		{proto.SetConfig, make([]byte, 12), nil},
		{proto.VringKick, state(2, 0), nil},
		{77, []byte{1, 2, 3}, []int{r.eventfd(), r.eventfd(), r.eventfd()}},
		{1<<32 - 1, nil, nil},
		{proto.AddMemReg, proto.AppendMemReg(nil, oneRegion(rawSize/2)), []int{r.memfd(rawSize)}},
		{proto.AddMemReg, proto.AppendMemReg(nil, oneRegion(1<<40)), []int{r.memfd(1)}},
	} {
		if v, closed := r.ack(tc.req, tc.body, tc.fds...); v == 0 || closed {
			t.Errorf("%v: outcome %d, closed %v", tc.req, v, closed)
		}
		if tc.req != proto.AddMemReg {
			r.send(tc.req, 0, tc.body, tc.fds...) // and nothing comes
		}
	}
	r.send(proto.GetConfig, 0, make([]byte, 268))
	if h, b, _, ok := r.answer(); !ok || h.Request != proto.GetConfig || len(b) != 0 {
		t.Errorf("GET_CONFIG: %v, %d bytes, %v", h, len(b), ok)
	}
	r.must(proto.ResetOwner, nil)
	st := f.Status()
	if st.Refused != "" || st.Started != 1 || st.Enabled != 0 || st.Regions != 1 {
		t.Errorf("%+v", st)
	}
	if n := st.Counters; n.UnknownMessages < 6 || n.Violations != 0 {
		t.Errorf("%+v", n)
	}
	if n := f.h.log.count("SET_VRING_ENDIAN"); n != 1 {
		t.Errorf("SET_VRING_ENDIAN is in the log %d times", n)
	}
}

// TestBadStreams are bytes that are no messages.
func TestBadStreams(t *testing.T) {
	f := newHouse(t).export("vm1")
	msg := func(q proto.Request, f proto.Flags, body []byte) []byte { return proto.Append(nil, q, f, body) }
	version0 := msg(proto.GetFeatures, 0, nil)
	version0[4] = 0
	long := msg(proto.SetFeatures, 0, nil)
	copy(long[8:], []byte{1, 0x10, 0, 0}) // 4097
	huge := bytes.Clone(long)
	copy(huge[8:], []byte{255, 255, 255, 255})
	for i, tc := range []struct {
		b    []byte
		fds  int
		why  string
		shut bool // the front end goes in the middle
	}{
		{b: version0, why: "version 0"},
		{b: long, why: "4097 bytes"},
		{b: huge, why: "4294967295 bytes"},
		{b: msg(proto.GetFeatures, 0, nil), fds: 9, why: "descriptors"},
		{b: msg(proto.GetFeatures, 0, nil), fds: 253, why: "descriptors"},
		{b: msg(proto.GetFeatures, 0, make([]byte, 9)), why: "wrong size"},
		{b: msg(proto.GetFeatures, 0, nil)[:5], fds: 3, shut: true},
		{b: msg(proto.SetFeatures, 0, make([]byte, 8))[:17], fds: 1, shut: true},
		{b: nil, shut: true},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r := f.raw()
			fd := r.eventfd()
			var fds []int
			for range tc.fds {
				fds = append(fds, fd)
			}
			if tc.b != nil {
				r.bytes(tc.b, fds...)
			}
			if tc.shut {
				r.nc.CloseWrite()
			}
			r.isClosed()
			f.settles("the session's end", func(st Status) bool { return st.Connected.IsZero() })
			if st := f.Status(); !strings.Contains(st.Refused, tc.why) || (tc.why == "") != (st.Refused == "") {
				t.Errorf("refused for %q, want %q", st.Refused, tc.why)
			}
			r.close()
		})
	}
}

// TestPieces sends messages byte by byte, and many at once, with the descriptors of
// each at some byte of it.
func TestPieces(t *testing.T) {
	f := newHouse(t).export("vm1")
	r := f.raw()
	r.greet()
	m := proto.Append(nil, proto.AddMemReg, proto.FlagNeedReply, proto.AppendMemReg(nil, oneRegion(0)))
	fd := r.memfd(rawSize)
	for i := range m {
		if i == 20 {
			r.bytes(m[i:i+1], fd)
		} else {
			r.bytes(m[i : i+1])
		}
	}
	if _, b, _, ok := r.answer(); !ok || b[0] != 0 {
		t.Fatalf("ADD_MEM_REG in pieces: %v, %v", b, ok)
	}
	var many []byte
	for range 50 {
		many = proto.Append(many, proto.GetQueueNum, 0, nil)
	}
	r.bytes(many)
	for i := range 50 {
		if _, b, _, ok := r.answer(); !ok || len(b) != 8 {
			t.Fatalf("answer %d: %v", i, ok)
		}
	}
}
