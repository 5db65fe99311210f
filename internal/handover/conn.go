package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// A Kind says what a frame is for.
type Kind uint32

const (
	headerLen = 24
	group     = 128 // the kernel takes 253 with one message (SCM_MAX_FD)

	// maxBlock and maxFDs bound what is read: 1000 guests have some 10 MiB and 40000.
	maxBlock = 256 << 20
	maxFDs   = 1 << 20
)

// magic begins each frame.
var magic = [8]byte{'v', 't', 'g', 't', 'H', 'A', 'N', 'D'}

type header struct {
	kind Kind
	fds  int
	len  int
}

func (h header) encode() (b [headerLen]byte) {
	copy(b[:], magic[:])
	binary.LittleEndian.PutUint32(b[8:], uint32(h.kind))
	binary.LittleEndian.PutUint32(b[12:], uint32(h.fds))
	binary.LittleEndian.PutUint64(b[16:], uint64(h.len))
	return b
}

func parseHeader(b *[headerLen]byte) (header, error) {
	if [8]byte(b[:8]) != magic {
		return header{}, errors.New("hand-over: what came is no frame")
	}
	fds, n := binary.LittleEndian.Uint32(b[12:]), binary.LittleEndian.Uint64(b[16:])
	if fds > maxFDs || n > maxBlock {
		return header{}, fmt.Errorf("hand-over: a frame of %d bytes with %d descriptors", n, fds)
	}
	return header{Kind(binary.LittleEndian.Uint32(b[8:])), int(fds), int(n)}, nil
}

// Conn is one end of a hand-over.
type Conn struct{ c *net.UnixConn }

// NewConn speaks over c, which is the Conn's from now on.
func NewConn(c *net.UnixConn) *Conn { return &Conn{c} }

// Close ends it.
func (c *Conn) Close() error { return c.c.Close() }

// Peer tells who is at the other end.
func (c *Conn) Peer() (pid, uid int, err error) {
	rc, err := c.c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	return sys.PeerCred(rc)
}

// Send sends a frame within the time d, with copies of the descriptors in s (nil: none),
// which stay.
func (c *Conn) Send(k Kind, block []byte, s *Set, d time.Duration) error {
	if err := c.c.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	var fds []int
	if s != nil {
		fds = s.fds
	}
	h := header{k, len(fds), len(block)}.encode()
	if _, err := c.c.Write(h[:]); err != nil {
		return err
	}
	for len(fds) > 0 {
		n := min(len(fds), group)
		if _, _, err := c.c.WriteMsgUnix([]byte{'f'}, sys.Rights(fds[:n]...), nil); err != nil {
			return err
		}
		fds = fds[n:]
	}
	if len(block) == 0 {
		return nil // who has the header may have answered and ended by now
	}
	_, err := c.c.Write(block)
	return err
}

// Recv waits for a frame, at most d. What came with it is the caller's.
func (c *Conn) Recv(d time.Duration) (Kind, []byte, *Set, error) {
	if err := c.c.SetReadDeadline(time.Now().Add(d)); err != nil {
		return 0, nil, nil, err
	}
	var b [headerLen]byte
	if _, err := io.ReadFull(c.c, b[:]); err != nil {
		return 0, nil, nil, err
	}
	h, err := parseHeader(&b)
	if err != nil {
		return 0, nil, nil, err
	}
	s := &Set{}
	oob := make([]byte, sys.RightsSpace(group))
	for len(s.fds) < h.fds {
		had := len(s.fds)
		n, oobn, flags, _, err := c.c.ReadMsgUnix(b[:1], oob)
		var perr error
		s.fds, perr = sys.ParseRights(s.fds, oob[:oobn], flags)
		switch {
		case err == nil && perr != nil:
			err = perr
		case err == nil && n == 0:
			err = io.ErrUnexpectedEOF
		case err == nil && (len(s.fds) == had || len(s.fds) > h.fds):
			err = errors.New("hand-over: descriptors are missing")
		}
		if err != nil {
			s.Close()
			return 0, nil, nil, err
		}
	}
	block := make([]byte, h.len)
	if _, err := io.ReadFull(c.c, block); err != nil {
		s.Close()
		return 0, nil, nil, err
	}
	return h.kind, block, s, nil
}
