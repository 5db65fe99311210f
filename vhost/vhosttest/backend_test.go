package vhosttest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/vring"
)

// A backend is as small a back end as the client can be tried on: a disk in memory, one
// goroutine for each ring, which looks all the time. It shares nothing with package
// vhost.
type backend struct {
	tb     testing.TB
	l      *net.UnixListener
	diskMu sync.Mutex // the race detector does not see how the rings order accesses
	disk   []byte
	feats  uint64
	proto  uint64
	space  *gmem.Space
	mem    *gmem.Map
	rings  map[uint32]*backRing
	wg     sync.WaitGroup
	got    []Message
	gotMu  sync.Mutex
	inf    int // descriptor of the inflight region
	queues uint64
	ended  atomic.Int32 // connections
}

type backRing struct {
	num, base         uint32
	desc, used, avail uint64
	call              int
	stop              chan struct{}
	done              chan uint16
}

func newBackend(tb testing.TB) (*backend, string) {
	path := filepath.Join(tb.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		tb.Fatal(err)
	}
	b := &backend{tb: tb, l: l, disk: make([]byte, 8<<20), queues: 64, inf: -1,
		feats: FeatureVersion1 | FeatureProtocolFeatures | FeatureIndirect | FeatureEventIdx | FeatureHotplug,
		proto: ProtocolMQ | ProtocolReplyAck | ProtocolInflight | ProtocolReset | ProtocolMemSlots | ProtocolStatus}
	b.wg.Add(1)
	go b.serve()
	tb.Cleanup(func() {
		l.Close()
		b.wg.Wait()
		if b.inf >= 0 {
			sys.Close(b.inf)
		}
	})
	return b, path
}

func (b *backend) serve() {
	defer b.wg.Done()
	for {
		conn, err := b.l.AcceptUnix()
		if err != nil {
			return
		}
		b.space, b.mem, b.rings = gmem.NewSpace(), nil, map[uint32]*backRing{}
		if err := b.talk(conn); err != nil && !errors.Is(err, io.EOF) {
			b.tb.Error("back end:", err)
		}
		conn.Close()
		for _, r := range b.rings {
			r.halt()
			if r.call >= 0 {
				sys.Close(r.call)
			}
		}
		if b.mem != nil {
			gone := make(chan struct{})
			b.mem.Retire(func() { close(gone) })
			<-gone
		}
		if err := b.space.Close(); err != nil {
			b.tb.Error(err)
		}
		b.ended.Add(1)
	}
}

func (r *backRing) halt() uint16 {
	if r.stop == nil {
		return uint16(r.base)
	}
	close(r.stop)
	r.stop = nil
	r.base = uint32(<-r.done)
	return uint16(r.base)
}

// talk answers messages. It borrows the client's reading of them.
func (b *backend) talk(conn *net.UnixConn) error {
	c := &Client{conn: conn, o: defaults(Options{})}
	for {
		m, err := c.Receive()
		if err != nil {
			return err
		}
		b.gotMu.Lock()
		b.got = append(b.got, m.Message)
		b.gotMu.Unlock()
		u32 := func(i int) uint32 { return binary.NativeEndian.Uint32(m.Payload[4*i:]) }
		ring := func() *backRing {
			r := b.rings[u32(0)&0xff]
			if r == nil {
				r = &backRing{call: -1}
				b.rings[u32(0)&0xff] = r
			}
			return r
		}
		var answer []byte
		var fds []int
		switch m.Message {
		case GetFeatures:
			answer = u64s(b.feats)
		case GetProtocolFeatures:
			answer = u64s(b.proto)
		case GetQueueNum:
			answer = u64s(b.queues)
		case GetMaxMemSlots:
			answer = u64s(32)
		case GetStatus:
			answer = u64s(0)
		case GetInflightFD:
			if b.inf, err = sys.NewMemfd("inflight", 4096); err != nil {
				return err
			}
			answer = append(u64s(4096, 0), m.Payload[16:24]...)
			fds = []int{b.inf}
		case SetVringNum:
			ring().num = u32(1)
		case SetVringBase:
			ring().base = u32(1)
		case SetVringAddr:
			r := ring()
			r.desc, r.used, r.avail = binary.NativeEndian.Uint64(m.Payload[8:]), binary.NativeEndian.Uint64(m.Payload[16:]), binary.NativeEndian.Uint64(m.Payload[24:])
		case SetVringCall:
			r := ring()
			if r.stop == nil && len(m.FDs) > 0 {
				if r.call >= 0 {
					sys.Close(r.call)
				}
				r.call, m.FDs = m.FDs[0], nil
			}
		case SetVringEnable:
			if r := ring(); u32(1) == 1 && r.num > 0 && r.stop == nil && u32(0) >= 2 {
				if err := b.start(r); err != nil {
					return err
				}
			}
		case GetVringBase:
			answer = u32s(u32(0), uint32(ring().halt()))
		case SetMemTable:
			for i := range int(u32(0)) {
				if err := b.add(m.Payload[8+32*i:], m.FDs[i]); err != nil {
					return err
				}
			}
		case AddMemReg:
			if err := b.add(m.Payload[8:], m.FDs[0]); err != nil {
				return err
			}
		}
		m.closeFDs()
		if answer == nil && m.Flags&FlagNeedReply != 0 {
			answer = u64s(0)
		}
		if answer != nil {
			if err := c.Send(m.Message, FlagVersion|FlagReply, answer, fds...); err != nil {
				return err
			}
		}
	}
}

func (b *backend) add(p []byte, fd int) error {
	u := func(i int) uint64 { return binary.NativeEndian.Uint64(p[8*i:]) }
	r := gmem.Region{Guest: u(0), Size: u(1), User: u(2), Off: u(3), FD: fd}
	var m *gmem.Map
	var err error
	if b.mem == nil {
		m, err = b.space.Map([]gmem.Region{r})
	} else {
		m, err = b.space.Add(b.mem, r)
		b.mem.Retire(nil)
	}
	b.mem = m
	return err
}

func (b *backend) start(r *backRing) error {
	p, err := vring.UserParts(b.mem, int(r.num), r.desc, r.avail, r.used)
	if err != nil {
		return err
	}
	v, err := vring.New(vring.Config{Size: int(r.num), EventIdx: true, Indirect: true, Base: uint32(r.base)}, b.mem, p)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	r.stop, r.done = stop, make(chan uint16, 1)
	go func() {
		var ch vring.Chain
		for {
			select {
			case <-stop:
				r.done <- v.Next()
				return
			default:
			}
			ok, err := v.Pop(&ch)
			if err != nil {
				b.tb.Error(err)
			}
			if !ok {
				v.EnableKick()
				time.Sleep(20 * time.Microsecond)
				continue
			}
			v.Push(ch.Head, b.do(&ch))
			if v.Publish() {
				sys.EventfdSignal(r.call)
			}
		}
	}()
	return nil
}

// do answers READ(10), WRITE(10) and TEST UNIT READY; all else by CHECK CONDITION.
func (b *backend) do(ch *vring.Chain) uint32 {
	var req [ReqBytes]byte
	gmem.Gather(req[:], ch.Out)
	var resp [RespBytes]byte
	cdb := req[19:]
	off, n := int(binary.BigEndian.Uint32(cdb[2:]))*512, int(binary.BigEndian.Uint16(cdb[7:]))*512
	data := gmem.Skip(append([][]byte(nil), ch.In...), RespBytes)
	moved := 0
	b.diskMu.Lock()
	defer b.diskMu.Unlock()
	switch cdb[0] {
	case 0:
	case 0x28:
		moved = gmem.Scatter(data, b.disk[off:off+n])
	case 0x2a:
		gmem.Gather(b.disk[off:off+n], gmem.Skip(append([][]byte(nil), ch.Out...), ReqBytes))
	default:
		resp[0], resp[10] = 18, 2
		copy(resp[12:], []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0})
	}
	gmem.Scatter(ch.In, resp[:])
	return uint32(RespBytes + moved)
}
