package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// A Message is a request number of the vhost-user protocol ("Front-end message
// types").
type Message uint32

// The messages that QEMU sends to a virtio-scsi back end.
const (
	GetFeatures         Message = 1
	SetFeatures         Message = 2
	SetOwner            Message = 3
	ResetOwner          Message = 4
	SetMemTable         Message = 5
	SetLogBase          Message = 6
	SetLogFD            Message = 7
	SetVringNum         Message = 8
	SetVringAddr        Message = 9
	SetVringBase        Message = 10
	GetVringBase        Message = 11
	SetVringKick        Message = 12
	SetVringCall        Message = 13
	SetVringErr         Message = 14
	GetProtocolFeatures Message = 15
	SetProtocolFeatures Message = 16
	GetQueueNum         Message = 17
	SetVringEnable      Message = 18
	SetBackendReqFD     Message = 21
	GetConfig           Message = 24
	GetInflightFD       Message = 31
	SetInflightFD       Message = 32
	ResetDevice         Message = 34
	GetMaxMemSlots      Message = 36
	AddMemReg           Message = 37
	RemMemReg           Message = 38
	SetStatus           Message = 39
	GetStatus           Message = 40
)

// Bits of a message's flags.
const (
	FlagVersion   = 1
	FlagReply     = 4
	FlagNeedReply = 8
)

// Feature bits of the device.
const (
	FeatureInOut            = 1 << 0
	FeatureHotplug          = 1 << 1
	FeatureChange           = 1 << 2
	FeatureT10PI            = 1 << 3
	FeatureLogAll           = 1 << 26
	FeatureIndirect         = 1 << 28
	FeatureEventIdx         = 1 << 29
	FeatureProtocolFeatures = 1 << 30
	FeatureVersion1         = 1 << 32
	FeatureRingPacked       = 1 << 34
)

// Feature bits of the protocol.
const (
	ProtocolMQ         = 1 << 0
	ProtocolLogSHMFD   = 1 << 1
	ProtocolReplyAck   = 1 << 3
	ProtocolBackendReq = 1 << 5
	ProtocolInflight   = 1 << 12
	ProtocolReset      = 1 << 13
	ProtocolMemSlots   = 1 << 15
	ProtocolStatus     = 1 << 16
)

const (
	headerBytes = 12
	maxPayload  = 4096
	maxFDs      = 8
)

// A Reply is a message of the back end.
type Reply struct {
	Message Message
	Flags   uint32
	Payload []byte
	FDs     []int // the receiver's
}

// U64 is the payload of a reply that is a number.
func (r *Reply) U64() uint64 {
	if len(r.Payload) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(r.Payload)
}

func (r *Reply) closeFDs() {
	for _, fd := range r.FDs {
		_ = sys.Close(fd)
	}
	r.FDs = nil
}

// A RefusedError is a message that the back end answered with failure.
type RefusedError struct {
	Message Message
	Code    uint64
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the back end refused message %d: %#x", e.Message, e.Code)
}

// u64s and u32s make payloads.
func u64s(v ...uint64) []byte {
	var b []byte
	for _, x := range v {
		b = binary.NativeEndian.AppendUint64(b, x)
	}
	return b
}

func u32s(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	return b
}

// frame is a whole message.
func frame(m Message, flags uint32, payload []byte) []byte {
	return append(u32s(uint32(m), flags, uint32(len(payload))), payload...)
}

// Send sends a message as it is given, without waiting for an answer.
func (c *Client) Send(m Message, flags uint32, payload []byte, fds ...int) error {
	return c.SendRaw(frame(m, flags, payload), fds...)
}

// SendRaw sends bytes that need not be a message.
func (c *Client) SendRaw(b []byte, fds ...int) error {
	c.wire.Lock()
	defer c.wire.Unlock()
	return c.sendRaw(b, fds...)
}

func (c *Client) sendRaw(b []byte, fds ...int) error {
	if c.conn == nil {
		return net.ErrClosed
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.o.Timeout)); err != nil {
		return err
	}
	n, _, err := c.conn.WriteMsgUnix(b, oob, nil)
	if err != nil {
		return fmt.Errorf("vhost-user socket: %w", err)
	}
	if n < len(b) {
		_, err = c.conn.Write(b[n:])
	}
	return err
}

// Receive waits for the next message of the back end: io.EOF when it has closed the
// socket.
func (c *Client) Receive() (*Reply, error) {
	c.wire.Lock()
	defer c.wire.Unlock()
	return c.receive()
}

func (c *Client) receive() (*Reply, error) {
	if c.conn == nil {
		return nil, net.ErrClosed
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(c.o.Timeout)); err != nil {
		return nil, err
	}
	var h [headerBytes]byte
	oob := make([]byte, syscall.CmsgSpace(4*maxFDs))
	n, on, _, _, err := c.conn.ReadMsgUnix(h[:], oob)
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("vhost-user socket: %w", err)
	case n == 0:
		return nil, io.EOF
	}
	r := &Reply{}
	if r.FDs, err = rights(oob[:on]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.conn, h[n:]); err != nil {
		r.closeFDs()
		return nil, fmt.Errorf("vhost-user socket: header: %w", err)
	}
	r.Message = Message(binary.NativeEndian.Uint32(h[0:]))
	r.Flags = binary.NativeEndian.Uint32(h[4:])
	size := binary.NativeEndian.Uint32(h[8:])
	if size > maxPayload {
		r.closeFDs()
		return nil, fmt.Errorf("the back end sent message %d with %d bytes", r.Message, size)
	}
	r.Payload = make([]byte, size)
	if _, err := io.ReadFull(c.conn, r.Payload); err != nil {
		r.closeFDs()
		return nil, fmt.Errorf("vhost-user socket: payload: %w", err)
	}
	return r, nil
}

func rights(oob []byte) ([]int, error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		f, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			return nil, err
		}
		for _, fd := range f {
			syscall.CloseOnExec(fd)
		}
		fds = append(fds, f...)
	}
	return fds, nil
}

// Call sends a message that has an answer of its own and waits for that, which must
// have size bytes (-1: any).
func (c *Client) Call(m Message, size int, payload []byte, fds ...int) (*Reply, error) {
	c.wire.Lock()
	defer c.wire.Unlock()
	return c.call(m, FlagVersion, size, payload, fds...)
}

func (c *Client) call(m Message, flags uint32, size int, payload []byte, fds ...int) (*Reply, error) {
	if err := c.sendRaw(frame(m, flags, payload), fds...); err != nil {
		return nil, err
	}
	r, err := c.receive()
	if err != nil {
		return nil, fmt.Errorf("answer to message %d: %w", m, err)
	}
	if r.Message != m || r.Flags&(FlagReply|3) != FlagReply|FlagVersion || size >= 0 && len(r.Payload) != size {
		r.closeFDs()
		return nil, fmt.Errorf("answer to message %d: message %d, flags %#x, %d bytes", m, r.Message, r.Flags, len(r.Payload))
	}
	return r, nil
}

// Set sends a message that has no answer of its own. With wait it asks for one as
// QEMU does, where REPLY_ACK was negotiated; the error is a *RefusedError if that
// says so.
func (c *Client) Set(m Message, wait bool, payload []byte, fds ...int) error {
	c.wire.Lock()
	defer c.wire.Unlock()
	if !wait || c.Protocol&ProtocolReplyAck == 0 {
		return c.sendRaw(frame(m, FlagVersion, payload), fds...)
	}
	r, err := c.call(m, FlagVersion|FlagNeedReply, 8, payload, fds...)
	if err != nil {
		return err
	}
	r.closeFDs()
	if v := r.U64(); v != 0 {
		return &RefusedError{m, v}
	}
	return nil
}

// sync waits until the back end has read everything sent so far.
func (c *Client) sync() error {
	_, err := c.Call(GetFeatures, 8, nil)
	return err
}

// WaitClosed waits until the back end closes the socket and gives its last words that
// nobody asked for.
func (c *Client) WaitClosed() error {
	for {
		r, err := c.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.closeFDs()
	}
}
