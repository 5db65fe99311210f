package iscsi

import (
	"errors"
	"io"
	"syscall"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

const (
	// rxLen is the length of a connection's receive buffer: headers, and
	// payload that came along with them. Payload that is known to come goes
	// past it, straight into the command's buffers.
	rxLen = 64 << 10
	// bigRead: where at least so much payload is to come, a read takes only
	// readAhead bytes behind it, so that the next payload is not copied.
	bigRead, readAhead = 32 << 10, 4 << 10
	// A connection handles so many PDUs, and reads so many bytes, before it
	// lets others of its loop go first.
	roundPDUs  = 64
	roundBytes = 2 << 20
)

// maxAHS is the most that TotalAHSLength can say, bytes.
const maxAHS = 255 * 4

// verdict is what a look at the receive buffer came to.
type verdict uint8

const (
	rxDone  verdict = iota // one PDU handled
	rxMore                 // needs more bytes
	rxStall                // may not go on now; conn.resume comes later
	rxEnd                  // the connection is over
)

// target of the payload that is being received.
type payload uint8

const (
	toSink    payload = iota
	toCommand         // conn.cur's buffers, from conn.off on
	toControl         // conn.cur.ctl, from conn.off on
)

// receiver is the receiving side of a connection.
type receiver struct {
	rx   []byte // len rxLen
	r, w int    // rx[r:w] was received and not used

	h      pdu.BHS      // the header of the PDU whose data are being received
	ahs    [maxAHS]byte // its additional header segments
	ahsLen int
	cur    *request // who takes it; nil: nobody
	bad    bool     // Data-Out that must not count
	data   bool     // header handled, payload to come
	to     payload
	off    int64
	left   int64  // payload to come
	tail   int    // padding and digest to come behind it
	crc    uint32 // of the payload so far, where data digests are in use
}

// ready handles readiness of the endpoint.
func (c *conn) ready(in, out, broken bool) {
	if out && !c.dead {
		c.blocked = false
		c.flush()
	}
	if broken && c.stopReading() {
		// Reported again and again as long as nobody reads.
		c.lost(io.EOF)
		return
	}
	if in || broken {
		c.pump()
	}
	c.rearm()
}

// pump handles what was received and reads on until nothing is there, the
// connection may not go on, or others shall have their turn.
func (c *conn) pump() {
	pdus, bytes, drained := 0, 0, false
	for !c.dead {
		if c.stopReading() {
			c.paused = true
			break
		}
		switch c.parse() {
		case rxDone:
			if pdus++; pdus < roundPDUs {
				continue
			}
			c.requeue()
		case rxMore:
			if drained {
				c.calm()
				break
			}
			if bytes >= roundBytes {
				c.requeue()
				break
			}
			n, full, err := c.fill()
			if err != nil {
				if err != syscall.EAGAIN {
					c.lost(err)
				}
				break
			}
			bytes += n
			drained = !full
			c.sh.l.SetBehind(full)
			continue
		}
		break
	}
	c.sh.l.SetBehind(false)
	c.sess.kick()
}

// requeue comes back to pump in the next round.
func (c *conn) requeue() {
	if !c.again.Queued() {
		c.sh.l.Post(&c.again)
	}
}

// fill reads once: the rest of the payload into its place, what comes behind it into
// the receive buffer. full: there may be more.
func (c *conn) fill() (n int, full bool, err error) {
	v := &c.sh.rv
	v.Reset()
	direct := 0
	if c.data {
		direct = c.addPayload(v)
	}
	if c.r > 0 {
		c.w = copy(c.rx, c.rx[c.r:c.w])
		c.r = 0
	}
	if space := c.rx[c.w:]; int64(direct) == c.left || !c.data {
		if direct >= bigRead {
			space = space[:min(readAhead, len(space))]
		}
		v.Add(space)
	}
	n, err = c.ep.recv(v)
	if err != nil {
		return 0, false, err
	}
	full = n == v.Bytes()
	took := min(n, direct)
	c.took(took)
	c.w += n - took
	c.traffic.bytesIn += uint64(n)
	c.lastIn = c.sh.l.Now()
	return n, full, nil
}

// place is the next piece of memory for payload at offset off with left to come.
func (c *conn) place(off, left int64) (b []byte, sink bool) {
	switch {
	case c.to == toCommand && off < c.cur.room && len(c.cur.bufs) > 0:
		b = c.cur.at(off)
	case c.to == toControl && off < int64(len(c.cur.ctl)):
		b = c.cur.ctl[off:]
	default:
		b, sink = c.sh.sink[:], true
	}
	if int64(len(b)) > left {
		b = b[:left]
	}
	return b, sink
}

// addPayload adds the places of the payload to come.
func (c *conn) addPayload(v *sys.SockVec) (sum int) {
	off, left := c.off, c.left
	for left > 0 && v.Pieces() < sys.MaxSockVec-1 {
		b, sink := c.place(off, left)
		v.Add(b)
		sum += len(b)
		if sink {
			// The sink is one place: no second piece of it in one read.
			break
		}
		off += int64(len(b))
		left -= int64(len(b))
	}
	return sum
}

// took accounts for n bytes of payload that are in their places.
func (c *conn) took(n int) {
	for n > 0 {
		b, _ := c.place(c.off, c.left)
		if len(b) > n {
			b = b[:n]
		}
		if c.dataDigest {
			c.crc = pdu.Digest(c.crc, b)
		}
		c.off += int64(len(b))
		c.left -= int64(len(b))
		n -= len(b)
	}
}

// parse handles one PDU of the receive buffer, or a part of one.
func (c *conn) parse() verdict {
	if c.raw != 0 && !c.data {
		return c.parseRaw()
	}
	if !c.data {
		if v := c.parseHeader(); v != rxDone || !c.data {
			return v
		}
	}
	for c.left > 0 {
		if c.r == c.w {
			return rxMore
		}
		b, _ := c.place(c.off, c.left)
		n := copy(b, c.rx[c.r:c.w])
		c.took(n)
		c.r += n
	}
	if c.w-c.r < c.tail {
		return rxMore
	}
	good := true
	if c.dataDigest {
		pad := c.tail - pdu.DigestLen
		c.crc = pdu.Digest(c.crc, c.rx[c.r:c.r+pad])
		good = c.crc == pdu.ReadDigest(c.rx[c.r+pad:])
	}
	c.r += c.tail
	c.data = false
	return c.arrived(good)
}

// parseHeader handles the header at the start of the receive buffer, or leaves it
// there.
func (c *conn) parseHeader() verdict {
	b := c.rx[c.r:c.w]
	if len(b) < pdu.BHSLen {
		return rxMore
	}
	h := (*pdu.BHS)(b)
	n := pdu.BHSLen + h.AHSLength()
	if c.headerDigest {
		if len(b) < n+pdu.DigestLen {
			return rxMore
		}
		if pdu.Digest(0, b[:n]) != pdu.ReadDigest(b[n:]) {
			// Nothing in this header can be believed, its lengths least:
			// without error recovery the stream is lost (RFC 7143 §7.8).
			c.complain(badHeaderDigest, "header digest error, connection dropped")
			c.cutOff()
			return rxEnd
		}
	} else if len(b) < n {
		return rxMore
	}
	c.h = *h
	c.ahsLen = copy(c.ahs[:], b[pdu.BHSLen:n])
	dsl := h.DataSegmentLength()
	if dsl > c.maxRecv {
		c.complain(badLength, "data segment longer than declared, connection dropped",
			"opcode", h.Opcode().String(), "length", dsl, "max", c.maxRecv)
		c.rejectAndEnd(pdu.RejectProtocolError)
		return rxEnd
	}
	if c.sess.halting && c.carries(h) {
		c.raw = n + pdu.Pad(dsl) + dsl
		if c.headerDigest {
			c.raw += pdu.DigestLen
		}
		if c.dataDigest && dsl > 0 {
			c.raw += pdu.DigestLen
		}
		return c.parseRaw()
	}
	c.cur, c.bad, c.to, c.off = nil, false, toSink, 0
	ok := c.intake(h, b[pdu.BHSLen:n], dsl)
	if c.dead || c.ending {
		return rxEnd
	}
	if !ok {
		return rxStall
	}
	c.traffic.pdusIn++
	c.r += n
	if c.headerDigest {
		c.r += pdu.DigestLen
	}
	if dsl == 0 {
		return c.arrived(true)
	}
	c.data, c.left, c.crc = true, int64(dsl), 0
	c.tail = pdu.Pad(dsl)
	if c.dataDigest {
		c.tail += pdu.DigestLen
	}
	return rxDone
}

// intake looks at a header and decides who takes the data segment. It returns false,
// and has changed nothing, when the connection must wait. b is AHS, without digest.
func (c *conn) intake(h *pdu.BHS, ahs []byte, dsl int) bool {
	op := h.Opcode()
	if len(ahs) > 0 && op != pdu.OpSCSICommand {
		c.complain(badFormat, "additional header segment where none may be, connection dropped", "opcode", op.String())
		c.rejectAndEnd(pdu.RejectProtocolError)
		return true
	}
	switch op {
	case pdu.OpSCSICommand:
		return c.intakeCommand(h, ahs, dsl)
	case pdu.OpDataOut:
		c.intakeDataOut(h, dsl)
	case pdu.OpNOPOut:
		c.intakeNOP(h, dsl)
	case pdu.OpTMFRequest:
		c.intakeControl(h, kindTMF, dsl)
	case pdu.OpTextRequest:
		c.intakeControl(h, kindText, dsl)
	case pdu.OpLogoutRequest:
		c.intakeControl(h, kindLogout, dsl)
	case pdu.OpSNACK:
		c.complain(refusedSNACK, "SNACK at ErrorRecoveryLevel 0")
		c.reject(h, pdu.RejectSNACK)
	case pdu.OpLoginRequest:
		c.complain(badOpcode, "Login Request in full feature phase, connection dropped")
		c.rejectAndEnd(pdu.RejectProtocolError)
	default:
		c.complain(badOpcode, "unknown opcode", "opcode", op.String())
		c.reject(h, pdu.RejectUnsupported)
		c.sess.skip(h)
	}
	return true
}

// arrived handles a PDU whose data segment is complete; good is false where its
// digest is wrong.
func (c *conn) arrived(good bool) verdict {
	r := c.cur
	c.cur = nil
	if !good {
		c.complain(badDataDigest, "data digest error", "opcode", c.h.Opcode().String())
		c.reject(&c.h, pdu.RejectDataDigest)
	}
	switch {
	case r == nil:
	case c.h.Opcode() == pdu.OpDataOut:
		c.dataArrived(r, good)
	case !good:
		// Discarded: CmdSN does not advance, the initiator may send it again
		// (RFC 7143 §7.8).
		r.release()
	default:
		c.sess.enter(r)
	}
	if c.dead || c.ending {
		return rxEnd
	}
	return rxDone
}

// lost ends a connection whose socket is at its end.
func (c *conn) lost(err error) {
	if !errors.Is(err, io.EOF) && !c.ending {
		c.complain(peerReset, "connection broken", "error", err)
	}
	c.drop()
}
