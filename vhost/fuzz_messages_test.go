package vhost

import (
	"encoding/binary"
	"io"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/leaktest"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/proto"
)

// script reads a fuzz input as what a front end does. Bytes that are no longer there
// are 0.
type script struct{ b []byte }

func (s *script) byte() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

func (s *script) bytes(n int) []byte {
	b := make([]byte, n)
	s.b = s.b[copy(b, s.b):]
	return b
}

// of picks one of vs, or eight bytes of the input.
func (s *script) of(vs ...uint64) uint64 {
	if i := int(s.byte()); i < 224 {
		return vs[i%len(vs)]
	}
	return binary.LittleEndian.Uint64(s.bytes(8))
}

func (s *script) ring() uint32 { return uint32(s.of(2, 0, 1, 3, 4, 255, 256, 2000)) }
func (s *script) size() uint64 { return s.of(rawSize, 4096, 0, 1, rawSize/2, 1<<40) }
func (s *script) at() uint64   { return s.of(0, rawSize, rawSize/2, 1<<40, 1<<64-4096, 3) }
func (s *script) user() uint64 {
	return s.of(rawUser, rawUser+0x4000, rawUser+0x8000, rawUser+0x10000, rawUser+rawSize, rawUser+8, 1<<63) + s.of(0, 0, 0, 1, 16)
}

func (s *script) region() proto.MemRegion {
	return proto.MemRegion{Guest: s.at(), Size: s.size(), User: s.user(), Off: s.of(0, 4096, 1, rawSize)}
}

// body makes the body of a message of kind q, mostly of the right form.
func (s *script) body(q proto.Request) []byte {
	if c := s.byte(); c >= 240 {
		return s.bytes(int(c) - 240)
	}
	switch q {
	case proto.SetFeatures:
		return u64(s.of(uint64(offered), uint64(offered&^proto.FeatureProtocol), uint64(offered&^proto.FeatureEventIdx), 0, uint64(proto.FeatureRingPacked)))
	case proto.SetProtocolFeatures:
		return u64(s.of(uint64(offeredProtocol), uint64(proto.ProtocolReplyAck), 0))
	case proto.SetStatus:
		return u64(s.of(0, 15))
	case proto.SetMemTable:
		rs := make([]proto.MemRegion, s.byte()%10)
		for i := range rs {
			rs[i] = s.region()
		}
		return regions(rs...)
	case proto.AddMemReg, proto.RemMemReg:
		return proto.AppendMemReg(nil, s.region())
	case proto.SetVringNum:
		return state(s.ring(), uint32(s.of(128, 1, 2, 64, 256, 32768, 0, 65536)))
	case proto.SetVringBase, proto.GetVringBase, proto.SetVringEnable:
		return state(s.ring(), uint32(s.of(0, 1, 1, 1, 5, 65535)))
	case proto.SetVringAddr:
		if s.byte() < 128 {
			return addr(s.ring() & 7).Append(nil)
		}
		return proto.VringAddr{Index: s.ring(), Flags: uint32(s.of(0, 0, 0, 1)), Desc: s.user(), Used: s.user(), Avail: s.user()}.Append(nil)
	case proto.SetVringKick, proto.SetVringCall, proto.SetVringErr:
		return u64(s.of(2, 0, 1, 3, 4, 255, 258))
	case proto.GetInflightFD, proto.SetInflightFD:
		return proto.Inflight{Size: s.size(), Off: s.of(0, 0, 4096, 3), Queues: uint16(s.of(6, 3, 1, 0, 300)),
			QueueSize: uint16(s.of(128, 64, 0, 32768)), Pad: s.byte()&1 == 0}.Append(nil)
	}
	return nil
}

// kinds are the requests that a script picks from: all, and the ones that say much
// more often.
var kinds = []proto.Request{
	proto.SetMemTable, proto.AddMemReg, proto.RemMemReg, proto.SetVringNum, proto.SetVringAddr, proto.SetVringBase,
	proto.GetVringBase, proto.SetVringKick, proto.SetVringCall, proto.SetVringErr, proto.SetVringEnable,
	proto.SetInflightFD, proto.GetInflightFD, proto.SetFeatures, proto.SetProtocolFeatures, proto.ResetDevice,
	proto.ResetOwner, proto.SetOwner, proto.SetStatus, proto.GetStatus, proto.GetFeatures, proto.SetVringKick, proto.SetVringEnable,
}

// FuzzMessages has front ends that say anything, with any descriptors, in any order,
// over memory that has anything in it. The export outlives them, and nothing of theirs
// is left.
func FuzzMessages(f *testing.F) {
	// A ring that runs, with rings of 0xff in its memory; the same with everything off.
	start := []byte{1, 0xff}
	for _, op := range [][]byte{
		{1, 0, 2, 0x01, 0, 0, 0, 0, 0, 0},          // ADD_MEM_REG
		{3, 0, 0, 0, 0, 0},                         // NUM
		{4, 0, 0, 0, 0, 0},                         // ADDR
		{7, 0, 1, 0x00, 0, 0}, {10, 0, 0, 0, 0, 1}, // KICK, ENABLE
		{6, 0, 0, 0, 0, 0}, // GET_VRING_BASE
	} {
		start = append(start, op...)
		f.Add(start)
	}
	f.Add([]byte{0, 0, 20, 0, 0, 200, 3, 1, 1})
	h := newHouse(f)
	h.plain = true
	x := h.export("fuzzed", within(100*time.Millisecond))
	fds0, maps0 := leaktest.FDs(f), guestMaps()
	f.Fuzz(func(t *testing.T, in []byte) { x.play(t, in, fds0, maps0) })
}

// play has a front end do what in says, and looks for what it has left.
func (x *flat) play(t *testing.T, in []byte, fds0, maps0 int) {
	s := &script{b: in}
	r := x.rawOf(t)
	// What comes back is not looked at, but has to be read.
	over := make(chan struct{})
	if s.byte()&1 == 1 {
		r.greet()
	}
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, r.nc)
	}()
	fill := s.byte()
	for n := 0; len(s.b) > 0 && n < 100; n++ {
		q := proto.Request(s.byte())
		if q < 200 {
			q = kinds[int(q)%len(kinds)]
		}
		flags := proto.FlagNeedReply
		if s.byte()&1 == 1 {
			flags = 0
		}
		var fds []int
		for range s.byte() % 10 {
			switch s.byte() % 4 {
			case 0:
				fds = append(fds, r.eventfd())
			case 1:
				fd := r.memfd(rawSize)
				if b, err := sys.MapShared(fd, 0, rawSize); err == nil {
					for i := range 0x20000 {
						b[i] = fill
					}
					_ = sys.Unmap(b)
				}
				fds = append(fds, fd)
			case 2:
				fds = append(fds, r.memfd(4095))
			case 3:
				fds = append(fds, 1)
			}
		}
		r.send(q, flags, s.body(q), fds...)
	}
	_ = r.nc.CloseWrite()
	<-over
	r.close()
	var fds, maps int
	if !tempotest.Settles(func() bool {
		fds, maps = leaktest.FDs(t), guestMaps()
		st := x.Status()
		return st.Connected.IsZero() && st.Queues == 0 && fds <= fds0 && maps <= maps0
	}) {
		t.Fatalf("left %d descriptors and %d mappings: %+v", fds-fds0, maps-maps0, x.Status())
	}
	next := x.rawOf(t)
	next.greet()
	next.close()
	if !tempotest.Settles(func() bool { st := x.Status(); return st.Connected.IsZero() && st.Queues == 0 }) {
		t.Fatal("the session does not end")
	}
}
