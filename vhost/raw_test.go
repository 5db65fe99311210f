package vhost

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/proto"
)

// raw is a front end that says what a test has it say.
type raw struct {
	testing.TB
	nc  *net.UnixConn
	fds []int // ours, closed at the end
}

func (f *flat) raw() *raw {
	f.h.Helper()
	return f.rawOf(f.h.TB)
}

func (f *flat) rawOf(tb testing.TB) *raw {
	tb.Helper()
	nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: f.socket, Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(2 * tempotest.Patience))
	r := &raw{TB: tb, nc: nc}
	tb.Cleanup(r.close)
	return r
}

func (r *raw) close() {
	r.nc.Close()
	for _, fd := range r.fds {
		sys.Close(fd)
	}
	r.fds = nil
}

func (r *raw) eventfd() int {
	r.Helper()
	fd, err := sys.NewEventfd()
	if err != nil {
		r.Fatal(err)
	}
	r.fds = append(r.fds, fd)
	return fd
}

func (r *raw) memfd(n int64) int {
	r.Helper()
	fd, err := sys.NewMemfd("raw", n)
	if errors.Is(err, syscall.EFBIG) {
		r.Skipf("a file of %d bytes is more than may be made here: ulimit -f", n)
	}
	if err != nil {
		r.Fatal(err)
	}
	r.fds = append(r.fds, fd)
	return fd
}

// send sends a message; that the back end has gone by then is no failure.
func (r *raw) send(q proto.Request, f proto.Flags, body []byte, fds ...int) {
	r.Helper()
	r.bytes(proto.Append(nil, q, f, body), fds...)
}

func (r *raw) bytes(b []byte, fds ...int) {
	r.Helper()
	_, _, _ = r.nc.WriteMsgUnix(b, sys.Rights(fds...), nil)
}

// answer reads the next message; false: the back end has closed the connection.
func (r *raw) answer() (h proto.Header, body []byte, fds []int, ok bool) {
	r.Helper()
	var hb [proto.HeaderSize]byte
	oob := make([]byte, sys.RightsSpace(8))
	n, on, flags, _, err := r.nc.ReadMsgUnix(hb[:], oob)
	if err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			r.Fatal("the back end neither answers nor closes")
		}
		return h, nil, nil, false
	}
	if fds, err = sys.ParseRights(nil, oob[:on], flags); err != nil {
		r.Fatal(err)
	}
	if _, err := io.ReadFull(r.nc, hb[n:]); err != nil {
		r.Fatal(err)
	}
	if h, err = proto.ParseHeader(&hb); err != nil {
		r.Fatal(err)
	}
	if h.Flags != proto.FlagVersion|proto.FlagReply {
		r.Errorf("answer to %v has flags %#x", h.Request, h.Flags)
	}
	body = make([]byte, h.Size)
	if _, err := io.ReadFull(r.nc, body); err != nil {
		r.Fatal(err)
	}
	return h, body, fds, true
}

// get asks and wants a number.
func (r *raw) get(q proto.Request) uint64 {
	r.Helper()
	r.send(q, 0, nil)
	h, b, _, ok := r.answer()
	if !ok {
		r.Fatalf("%v: closed", q)
	}
	v, err := proto.ParseU64(b)
	if err != nil || h.Request != q {
		r.Fatalf("%v: %v, %v", q, h, err)
	}
	return v
}

// ack sends with need_reply and returns the outcome; closed: none came.
func (r *raw) ack(q proto.Request, body []byte, fds ...int) (outcome uint64, closed bool) {
	r.Helper()
	r.send(q, proto.FlagNeedReply, body, fds...)
	h, b, _, ok := r.answer()
	if !ok {
		return 0, true
	}
	v, err := proto.ParseU64(b)
	if err != nil || h.Request != q {
		r.Fatalf("%v: %v, %v", q, h, err)
	}
	return v, false
}

// must is ack that succeeds.
func (r *raw) must(q proto.Request, body []byte, fds ...int) {
	r.Helper()
	if v, closed := r.ack(q, body, fds...); v != 0 || closed {
		r.Fatalf("%v: %d, closed %v", q, v, closed)
	}
}

// offeredSplit is what a driver with split rings takes.
const offeredSplit = offered &^ proto.FeatureRingPacked

// greet agrees on all that is offered but packed rings.
func (r *raw) greet() {
	r.Helper()
	f, p := r.get(proto.GetFeatures), r.get(proto.GetProtocolFeatures)
	r.send(proto.SetProtocolFeatures, 0, proto.AppendU64(nil, p))
	r.must(proto.SetOwner, nil)
	r.must(proto.SetFeatures, proto.AppendU64(nil, f&uint64(offeredSplit)))
}

// isClosed wants the connection's end.
func (r *raw) isClosed() {
	r.Helper()
	if h, _, _, ok := r.answer(); ok {
		r.Errorf("%v is answered, the connection should have been closed", h.Request)
	}
}

const (
	rawSize = 1 << 20
	rawUser = 0x7f00_0000_0000
)

func u64(v uint64) []byte                  { return proto.AppendU64(nil, v) }
func state(i, n uint32) []byte             { return proto.VringState{Index: i, Num: n}.Append(nil) }
func regions(rs ...proto.MemRegion) []byte { return proto.AppendMemTable(nil, rs) }

func oneRegion(guest uint64) proto.MemRegion {
	return proto.MemRegion{Guest: guest, Size: rawSize, User: rawUser + guest}
}

// addr lays ring i out in the region at guest address 0, 64 KiB for each.
func addr(i uint32) proto.VringAddr {
	u := rawUser + uint64(i)<<16
	return proto.VringAddr{Index: i, Desc: u, Avail: u + 0x4000, Used: u + 0x8000}
}

// ring starts ring i as QEMU does.
func (r *raw) ring(i uint32) {
	r.Helper()
	r.must(proto.SetVringNum, state(i, 128))
	r.must(proto.SetVringBase, state(i, 0))
	r.must(proto.SetVringAddr, addr(i).Append(nil))
	r.must(proto.SetVringKick, u64(uint64(proto.NewVringFD(uint8(i), false))), r.eventfd())
	r.must(proto.SetVringCall, u64(uint64(proto.NewVringFD(uint8(i), false))), r.eventfd())
	r.must(proto.SetVringEnable, state(i, 1))
}
