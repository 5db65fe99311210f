package iscsitest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// DefaultTimeout bounds every operation of a Conn that has not been given another:
// no measure of the target, which may run on a busy machine, but an end of waiting.
const DefaultTimeout = 2 * time.Minute

// ErrTarget is in every error about what the target did wrong.
var ErrTarget = errors.New("the target broke a rule")

func wrong(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrTarget, fmt.Sprintf(format, a...))
}

// PDU is a PDU as a test sees it.
type PDU struct {
	pdu.BHS
	AHS  []byte // with padding
	Data []byte // without padding
}

// Corrupt says how [Conn.Encode] spoils a PDU.
type Corrupt uint8

// Ways to spoil a PDU.
const (
	BadHeaderDigest Corrupt = 1 << iota
	BadDataDigest
	// KeepLength leaves the header's DataSegmentLength and TotalAHSLength as
	// they are, whatever Data and AHS hold.
	KeepLength
)

// Conn is a connection of an initiator. The exported numbers are the protocol's
// state; a test may set them to anything between calls.
type Conn struct {
	nc net.Conn
	r  *bufio.Reader

	// Timeout of each operation.
	Timeout time.Duration

	// HeaderDigest and DataDigest are on from full feature phase on, when
	// negotiated.
	HeaderDigest, DataDigest bool

	// CmdSN is what the next non-immediate command carries, ExpStatSN what the
	// next status must carry; ExpCmdSN and MaxCmdSN are the target's last words.
	CmdSN, ExpStatSN, ExpCmdSN, MaxCmdSN uint32
	// ITT is the next initiator task tag.
	ITT uint32
	// Keys are the results of the login: what the target answered or declared.
	Keys map[string]string
	// Params are the results as numbers.
	Params Params
	// LoginResponses are all Login Responses, in order.
	LoginResponses []*PDU
	TSIH           uint16

	// Rejects, Asyncs and Pings are what came besides answers: Reject PDUs,
	// Asynchronous Messages, and NOP-Ins that the target sent on its own (those
	// that ask for an answer have been answered unless MutePings is set).
	Rejects, Asyncs, Pings []*PDU
	MutePings              bool

	tasks map[uint32]*Task
	sess  *Session // of several connections; nil: this is the only one
	cid   uint16
	loose map[uint32]bool // NOP-Outs whose answer nobody waits for
	held  []byte          // what Hold keeps back
	hold  bool
	// judge ends Recv behind the header where it says so; for a target's side.
	judge func(h *pdu.BHS) bool
	// statSNKnown: ExpStatSN was set by a first response.
	statSNKnown bool
}

// Params are what the data phases of a test need to know.
type Params struct {
	InitialR2T, ImmediateData            bool
	MaxRecv, MaxXmit                     uint32 // bytes: ours, the target's
	FirstBurstLength, MaxBurstLength     uint32
	MaxOutstandingR2T, ErrorRecoverLevel uint32
}

// Dial connects to addr ("host:port").
func Dial(addr string) (*Conn, error) {
	nc, err := net.DialTimeout("tcp", addr, DefaultTimeout)
	if err != nil {
		return nil, err
	}
	return New(nc), nil
}

// New makes an initiator's connection of nc, which it owns from then on.
func New(nc net.Conn) *Conn {
	return &Conn{
		nc: nc, r: bufio.NewReaderSize(nc, 64<<10),
		Timeout: DefaultTimeout,
		CmdSN:   1, ITT: 1,
		Keys: make(map[string]string),
		Params: Params{
			InitialR2T: true, ImmediateData: true, MaxRecv: 8192, MaxXmit: 8192,
			FirstBurstLength: 65536, MaxBurstLength: 262144, MaxOutstandingR2T: 1,
		},
		tasks: make(map[uint32]*Task),
	}
}

// Close closes the connection without a logout.
func (c *Conn) Close() error { return c.nc.Close() }

// NetConn is the connection below, for tests that need its like.
func (c *Conn) NetConn() net.Conn { return c.nc }

// NextITT takes a task tag.
func (c *Conn) NextITT() uint32 {
	if s := c.sess; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.ITT = s.itt
		defer func() { s.itt = c.ITT }()
	}
	t := c.ITT
	if c.ITT++; c.ITT == pdu.ReservedTag {
		c.ITT = 1
	}
	return t
}

// Encode makes the bytes of p, with the connection's digests. It sets the lengths
// in p's header.
func (c *Conn) Encode(p *PDU, how Corrupt) []byte {
	return Encode(p, c.HeaderDigest, c.DataDigest, how)
}

// Encode makes the bytes of p.
func Encode(p *PDU, headerDigest, dataDigest bool, how Corrupt) []byte {
	if how&KeepLength == 0 {
		p.SetAHSLength(len(p.AHS))
		p.SetDataSegmentLength(len(p.Data))
	}
	b := append([]byte(nil), p.BHS[:]...)
	b = append(b, p.AHS...)
	var d [pdu.DigestLen]byte
	if headerDigest {
		pdu.PutDigest(d[:], pdu.Digest(0, b))
		if how&BadHeaderDigest != 0 {
			d[1] ^= 0x10
		}
		b = append(b, d[:]...)
	}
	if len(p.Data) == 0 {
		return b
	}
	b = append(b, p.Data...)
	b = append(b, make([]byte, pdu.Pad(len(p.Data)))...)
	if dataDigest {
		pdu.PutDigest(d[:], pdu.DigestPad(pdu.Digest(0, p.Data), len(p.Data)))
		if how&BadDataDigest != 0 {
			d[2] ^= 0x01
		}
		b = append(b, d[:]...)
	}
	return b
}

// Send encodes and sends p.
func (c *Conn) Send(p *PDU) error { return c.SendRaw(c.Encode(p, 0)) }

// SendRaw sends bytes as they are (or keeps them, between Hold and Release).
func (c *Conn) SendRaw(b []byte) error {
	if c.hold {
		c.held = append(c.held, b...)
		return nil
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.Timeout))
	_, err := c.nc.Write(b)
	return err
}

// Hold keeps back everything that is sent until Release, which sends it in one
// write: pipelined PDUs.
func (c *Conn) Hold() { c.hold = true }

// Release sends what was held; in pieces of size bytes with a pause after each where
// size is not 0: fragmented PDUs.
func (c *Conn) Release(size int, pause time.Duration) error {
	b := c.held
	c.hold, c.held = false, nil
	if size == 0 {
		return c.SendRaw(b)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		if err := c.SendRaw(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		time.Sleep(pause)
	}
	return nil
}

// ReleasePart sends the first n bytes of what was held and keeps holding the rest.
func (c *Conn) ReleasePart(n int) error {
	b := c.held[:n]
	c.held = c.held[n:]
	c.hold = false
	defer func() { c.hold = true }()
	return c.SendRaw(b)
}

// Recv reads one PDU and checks its digests; it changes no state.
func (c *Conn) Recv() (*PDU, error) {
	c.nc.SetReadDeadline(time.Now().Add(c.Timeout))
	p := new(PDU)
	if _, err := io.ReadFull(c.r, p.BHS[:]); err != nil {
		return nil, err
	}
	if c.judge != nil && c.judge(&p.BHS) {
		return p, nil
	}
	d := pdu.Digest(0, p.BHS[:])
	if n := p.AHSLength(); n > 0 {
		p.AHS = make([]byte, n)
		if _, err := io.ReadFull(c.r, p.AHS); err != nil {
			return nil, noEOF(err)
		}
		d = pdu.Digest(d, p.AHS)
	}
	if c.HeaderDigest {
		if err := c.checkDigest("header", d); err != nil {
			return nil, err
		}
	}
	n := p.DataSegmentLength()
	if n == 0 {
		return p, nil
	}
	if uint32(n) > max(c.Params.MaxRecv, 8192) {
		return nil, wrong("%v is longer than MaxRecvDataSegmentLength %d", p, c.Params.MaxRecv)
	}
	b := make([]byte, pdu.PaddedLen(n))
	if _, err := io.ReadFull(c.r, b); err != nil {
		return nil, noEOF(err)
	}
	p.Data = b[:n:n]
	if c.DataDigest {
		if err := c.checkDigest("data", pdu.Digest(0, b)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *Conn) checkDigest(which string, want uint32) error {
	var b [pdu.DigestLen]byte
	if _, err := io.ReadFull(c.r, b[:]); err != nil {
		return noEOF(err)
	}
	if got := pdu.ReadDigest(b[:]); got != want {
		return wrong("%s digest is %08x, should be %08x", which, got, want)
	}
	return nil
}

// Closed waits until the target has closed the connection, reading and keeping
// Rejects and Asynchronous Messages; any other PDU is an error, and so is the end of
// timeout.
func (c *Conn) Closed(timeout time.Duration) error {
	old := c.Timeout
	defer func() { c.Timeout = old }()
	end := time.Now().Add(timeout)
	for {
		c.Timeout = time.Until(end)
		p, err := c.Recv()
		switch {
		case IsTimeout(err):
			return fmt.Errorf("the connection is still open after %v", timeout)
		case errors.Is(err, ErrTarget):
			return err
		case err != nil:
			return nil
		}
		switch p.Opcode() {
		case pdu.OpReject:
			c.Rejects = append(c.Rejects, p)
		case pdu.OpAsync:
			c.Asyncs = append(c.Asyncs, p)
		case pdu.OpNOPIn:
		default:
			return wrong("%v instead of the end of the connection", p)
		}
	}
}

// IsTimeout reports whether err is the end of a deadline.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// IsClosed reports whether err says that the target has closed the connection.
func IsClosed(err error) bool {
	return err != nil && !IsTimeout(err) && !errors.Is(err, ErrTarget)
}
