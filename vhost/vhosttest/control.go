package vhosttest

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Task management functions, VIRTIO 1.2 §5.6.6.2.
const (
	AbortTask        = 0
	AbortTaskSet     = 1
	ClearACA         = 2
	ClearTaskSet     = 3
	NexusReset       = 4
	LogicalUnitReset = 5
	QueryTask        = 6
	QueryTaskSet     = 7
)

const (
	tmfBytes    = 24
	controlSlot = 64
)

// A ControlRequest is a request of the control queue under way.
type ControlRequest struct {
	r    Request
	mem  []byte // the request, then the response at controlSlot/2
	room int
}

// StartControl sends body on the control queue with room for an answer of so many
// bytes.
func (c *Client) StartControl(body []byte, room int) (*ControlRequest, error) {
	a, err := c.Mem.Alloc(2*controlSlot, 64)
	if err != nil {
		return nil, err
	}
	x := &ControlRequest{mem: c.Mem.At(a, 2*controlSlot), room: room}
	copy(x.mem, body)
	for i := range room {
		x.mem[controlSlot+i] = untouched
	}
	x.r = Request{Raw: true}
	if len(body) > 0 {
		x.r.Out = []Buf{{Addr: a, Len: uint32(len(body))}}
	}
	if room > 0 {
		x.r.In = []Buf{{Addr: a + controlSlot, Len: uint32(room)}}
	}
	q := c.Control()
	if err := q.Submit(&x.r); err != nil {
		return nil, err
	}
	q.Kick()
	return x, nil
}

// AwaitControl waits for the answer, at most d (0: Options.Timeout).
func (c *Client) AwaitControl(x *ControlRequest, d time.Duration) ([]byte, error) {
	if err := c.Control().Await(&x.r, d); err != nil {
		return nil, err
	}
	if int(x.r.Written) > x.room {
		return nil, fmt.Errorf("control queue: %d bytes written, %d is the room", x.r.Written, x.room)
	}
	return x.mem[controlSlot : controlSlot+x.room], nil
}

// StartTMF sends a task management function.
func (c *Client) StartTMF(subtype uint32, lun [8]byte, tag uint64) (*ControlRequest, error) {
	b := make([]byte, tmfBytes)
	binary.LittleEndian.PutUint32(b[4:], subtype)
	copy(b[8:], lun[:])
	binary.LittleEndian.PutUint64(b[16:], tag)
	return c.StartControl(b, 1)
}

// TMF runs a task management function to its response.
func (c *Client) TMF(subtype uint32, lun [8]byte, tag uint64) (response byte, err error) {
	x, err := c.StartTMF(subtype, lun, tag)
	if err != nil {
		return 0, err
	}
	b, err := c.AwaitControl(x, 0)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// AsyncNotification queries (subscribe false) or subscribes to the asynchronous
// notifications of a unit, and gives the answer.
func (c *Client) AsyncNotification(subscribe bool, lun [8]byte, events uint32) (actual uint32, response byte, err error) {
	b := make([]byte, 16)
	b[0] = 1
	if subscribe {
		b[0] = 2
	}
	copy(b[4:], lun[:])
	binary.LittleEndian.PutUint32(b[12:], events)
	x, err := c.StartControl(b, 5)
	if err != nil {
		return 0, 0, err
	}
	p, err := c.AwaitControl(x, 0)
	if err != nil {
		return 0, 0, err
	}
	return binary.LittleEndian.Uint32(p), p[4], nil
}
