package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// A Style is whose order of messages the client keeps.
type Style int

// The styles.
const (
	QEMU72 Style = iota // QEMU 7.2: no reconnect, the inflight region anew at each start
	QEMU10              // QEMU 10.0: SET_FEATURES before the inflight region, which outlives connections; enables are acknowledged
)

// Options describe the machine. The zero value is a QEMU 7.2 with one request queue.
type Options struct {
	Style  Style
	Queues int // request queues of the device (1)
	Used   int // of these, those that the driver sets up (0: all)
	Size   int // entries of each ring (128)
	Table  int // room for so many entries in an indirect table of each head (64)

	// Features is the mask of what the driver takes of what is offered, 0: all that
	// a Linux guest takes. Force is set on top of that, offered or not.
	Features, Force uint64
	// ProtocolFeatures is the same for the protocol; 0: all that the style uses.
	ProtocolFeatures uint64

	// Regions are the guest's memory; none: half of MemoryBytes (16 MiB) at 0, half at
	// 4 GiB, as QEMU lays it out.
	Regions     []RegionSpec
	MemoryBytes int
	Scratch     int // bytes of data that Queue.Exec can move in each direction (256 KiB)

	StartIndex uint16        // of every ring
	Timeout    time.Duration // of every wait for the back end (tempotest.Patience)
}

const (
	slotBytes = 256
	slotResp  = 64 // of a slot: the response
)

// packedEnv has drivers use packed rings where a test does not say which features they
// take: the same tests for the other kind of ring.
const packedEnv = "VTGT_PACKED"

// A Client is a machine with one virtio-scsi device. Control methods (Start, Stop,
// ShareMemory, ...) may be called by any goroutine, one at a time; each queue belongs
// to one goroutine, and runs beside them.
type Client struct {
	o      Options
	socket string
	wire   sync.Mutex // a message and its answer
	conn   *net.UnixConn

	Mem      *Memory
	Offered  uint64 // features of the back end
	Features uint64 // as negotiated
	Protocol uint64
	QueueNum uint64 // the answer to GET_QUEUE_NUM
	MemSlots uint64

	queues   []*Queue // 0 control, 1 events, then requests
	events   *Events
	started  bool
	shared   []*Region // what the back end has been told of, on this connection
	inflight inflight
	logging  bool // StartLog
}

// inflight is the region in which the back end marks what it has in flight.
type inflight struct {
	fd        int
	size, off uint64
	mem       []byte
}

func defaults(o Options) Options {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.Queues, 1)
	set(&o.Size, 128)
	set(&o.Table, 64)
	set(&o.MemoryBytes, 16<<20)
	set(&o.Scratch, 256<<10)
	set(&o.Used, o.Queues)
	if o.Features == 0 {
		o.Features = FeatureInOut | FeatureHotplug | FeatureChange | FeatureIndirect | FeatureEventIdx | FeatureVersion1
		if os.Getenv(packedEnv) != "" {
			o.Features |= FeatureRingPacked
		}
	}
	if o.ProtocolFeatures == 0 {
		o.ProtocolFeatures = ProtocolMQ | ProtocolLogSHMFD | ProtocolReplyAck | ProtocolInflight | ProtocolReset | ProtocolMemSlots | ProtocolStatus
	}
	if o.Regions == nil {
		half := o.MemoryBytes / 2 &^ (pageBytes - 1)
		o.Regions = []RegionSpec{{Guest: 0, Size: half}, {Guest: 4 << 30, Size: half, Before: pageBytes}}
	}
	if o.Timeout == 0 {
		o.Timeout = tempotest.Patience
	}
	return o
}

// Dial connects to the back end and greets it as QEMU does when the device is
// realized. Rings come with Start.
func Dial(socket string, o Options) (*Client, error) {
	c := &Client{o: defaults(o), socket: socket, inflight: inflight{fd: -1}}
	if c.o.Used < 1 || c.o.Used > c.o.Queues {
		return nil, fmt.Errorf("%d of %d queues used", c.o.Used, c.o.Queues)
	}
	var err error
	if c.Mem, err = NewMemory(c.o.Regions...); err != nil {
		return nil, err
	}
	if err := c.makeQueues(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.connect(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Client) makeQueues() error {
	for i := range 2 + c.o.Used {
		q, err := newQueue(c, i)
		if err != nil {
			return err
		}
		c.queues = append(c.queues, q)
	}
	c.events = &Events{q: c.queues[1]}
	return c.events.init()
}

// connect dials and greets.
func (c *Client) connect() error {
	d := net.Dialer{Timeout: c.o.Timeout}
	conn, err := d.Dial("unix", c.socket)
	if err != nil {
		return err
	}
	c.wire.Lock()
	c.conn = conn.(*net.UnixConn)
	c.shared = nil
	c.wire.Unlock()
	if err := c.greet(); err != nil {
		return fmt.Errorf("vhost-user greeting: %w", err)
	}
	return nil
}

func (c *Client) get(m Message) (uint64, error) {
	r, err := c.Call(m, 8, nil)
	if err != nil {
		return 0, err
	}
	return r.U64(), nil
}

func (c *Client) greet() error {
	var err error
	if c.Offered, err = c.get(GetFeatures); err != nil {
		return err
	}
	c.Protocol = 0
	if c.Offered&FeatureProtocolFeatures == 0 {
		return errors.New("the back end does not offer VHOST_USER_F_PROTOCOL_FEATURES")
	}
	p, err := c.get(GetProtocolFeatures)
	if err != nil {
		return err
	}
	p &= c.o.ProtocolFeatures
	if err := c.Set(SetProtocolFeatures, false, u64s(p)); err != nil {
		return err
	}
	c.Protocol = p
	c.QueueNum = 1
	if p&ProtocolMQ != 0 {
		if c.QueueNum, err = c.get(GetQueueNum); err != nil {
			return err
		}
	}
	// QEMU 10 compares the number of request queues alone.
	if c.o.Style == QEMU10 && c.QueueNum < uint64(c.o.Queues) {
		return fmt.Errorf("the back end has %d queues, the machine %d", c.QueueNum, c.o.Queues)
	}
	c.MemSlots = 8
	if p&ProtocolMemSlots != 0 {
		if c.MemSlots, err = c.get(GetMaxMemSlots); err != nil {
			return err
		}
	}
	if err := c.Set(SetOwner, false, nil); err != nil {
		return err
	}
	if _, err := c.get(GetFeatures); err != nil {
		return err
	}
	// Every virtqueue of the device, whether the driver will use it or not.
	for i := range 2 + c.o.Queues {
		for _, m := range []Message{SetVringCall, SetVringErr} {
			fd := -1
			if i < len(c.queues) {
				fd = c.queues[i].call.fd
				if m == SetVringErr {
					fd = c.queues[i].err.fd
				}
			}
			if err := c.setFD(m, i, fd); err != nil {
				return err
			}
		}
	}
	return c.sync()
}

// setFD gives the back end an eventfd of ring i; -1: it has none.
func (c *Client) setFD(m Message, i, fd int) error {
	const noFD = 1 << 8
	if fd < 0 {
		return c.Set(m, false, u64s(uint64(i)|noFD))
	}
	return c.Set(m, false, u64s(uint64(i)), fd)
}

// Close ends everything: the connection as the end of a QEMU process does, eventfds
// and memory. No queue may be in use.
func (c *Client) Close() error {
	c.Disconnect()
	var err error
	for _, q := range c.queues {
		err = errors.Join(err, q.close())
	}
	c.queues = nil
	return errors.Join(err, c.dropInflight(), c.Mem.Close())
}

// Disconnect closes the socket without a word. Memory and rings stay: Reconnect goes
// on with them.
func (c *Client) Disconnect() {
	c.wire.Lock()
	defer c.wire.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
	c.started = false
}

// Request is request queue i, from 0 on.
func (c *Client) Request(i int) *Queue { return c.queues[2+i] }

// Requests is the number of request queues that the driver uses.
func (c *Client) Requests() int { return c.o.Used }

// Control is the control queue.
func (c *Client) Control() *Queue { return c.queues[0] }

// Events is the event queue.
func (c *Client) Events() *Events { return c.events }

// Options are the machine's, defaults filled in.
func (c *Client) Options() Options { return c.o }

// InflightBytes is the region in which the back end marks requests in flight, nil
// where there is none.
func (c *Client) InflightBytes() []byte { return c.inflight.mem }

func (c *Client) inflightShape() []byte {
	b := binary.NativeEndian.AppendUint16(u64s(c.inflight.size, c.inflight.off), uint16(2+c.o.Queues))
	// The structure is padded to its alignment.
	return append(binary.NativeEndian.AppendUint16(b, uint16(c.o.Size)), 0, 0, 0, 0)
}

func (c *Client) takeInflight() error {
	r, err := c.Call(GetInflightFD, -1, c.inflightShape())
	if err != nil {
		return err
	}
	if len(r.FDs) != 1 || len(r.Payload) < 20 {
		r.closeFDs()
		return fmt.Errorf("answer to GET_INFLIGHT_FD: %d bytes, %d descriptors", len(r.Payload), len(r.FDs))
	}
	f := &c.inflight
	f.fd = r.FDs[0]
	f.size = binary.NativeEndian.Uint64(r.Payload)
	f.off = binary.NativeEndian.Uint64(r.Payload[8:])
	if f.size == 0 || f.size > 1<<30 {
		return fmt.Errorf("answer to GET_INFLIGHT_FD: a region of %d bytes", f.size)
	}
	f.mem, err = sys.MapShared(f.fd, int64(f.off), int(f.size))
	return err
}

func (c *Client) dropInflight() error {
	var err error
	if c.inflight.mem != nil {
		err = sys.Unmap(c.inflight.mem)
	}
	if c.inflight.fd >= 0 {
		err = errors.Join(err, sys.Close(c.inflight.fd))
	}
	c.inflight = inflight{fd: -1}
	return err
}
