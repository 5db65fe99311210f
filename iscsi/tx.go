package iscsi

import (
	"syscall"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

const (
	// maxSegs bounds the pieces that wait for the socket.
	maxSegs = sys.MaxSockVec
	// arenaLen is the room for headers, sense data, padding and digests of what
	// waits for the socket.
	arenaLen = 12 << 10
	// A PDU is begun only with so much room left: a header with digest, sense
	// data (or a rejected header with AHS), padding and digest; and payload in
	// at most three pieces.
	spaceArena = 2 << 10
	spaceSegs  = 8
	// flushBytes is what a connection sends before others have their turn.
	flushBytes = 4 << 20
)

// seg is a piece of output: of the arena, or payload that request r keeps.
type seg struct {
	b []byte
	r *request
}

// sender is the sending side of a connection. Answers wait in a queue as requests;
// they become PDUs, and get their StatSN, only when there is room for them. So what
// waits is bounded by the command window, however slowly the peer reads.
type sender struct {
	first, last *request // queue of answers

	segs    [maxSegs]seg
	s0, s1  int // segs[s0:s1] wait
	arena   []byte
	used    int
	blocked bool // the socket takes no more; EPOLLOUT is awaited
	hdr     int  // start of the header that is being made
	dcrc    uint32

	pace     pace
	deferred loop.Node // flush at the end of the round
	statSN   uint32
}

// queue appends r to the answers, and has them sent at the end of the round.
func (c *conn) queue(r *request) {
	if r.flushed {
		return // what is to be made of it is decided when its turn comes
	}
	r.flushed = true
	r.next = nil
	if c.last != nil {
		c.last.next = r
	} else {
		c.first = r
	}
	c.last = r
	c.flushLater()
}

func (c *conn) flushLater() {
	if !c.deferred.Queued() {
		c.sh.l.Defer(&c.deferred)
	}
}

// flush makes PDUs and sends them until there are none, the socket is full, or
// others shall have their turn.
func (c *conn) flush() {
	total := 0
	for !c.dead && !c.blocked {
		c.make()
		if c.s0 == c.s1 {
			break
		}
		v := &c.sh.sv
		v.Reset()
		for i := c.s0; i < c.s1; i++ {
			v.Add(c.segs[i].b)
		}
		n, err := c.ep.send(v)
		if err != nil {
			if err != syscall.EAGAIN {
				c.lost(err)
				return
			}
			n = 0
		}
		c.blocked = n < v.Bytes()
		c.sentBytes(n)
		if total += n; total >= flushBytes && !c.blocked {
			// From the mailbox: a deferred node would run in this round.
			if !c.deferred.Queued() {
				c.sh.l.Post(&c.deferred)
			}
			break
		}
	}
	c.published.set(&c.traffic)
	if c.dead {
		return
	}
	if c.pace.waits(c.traffic.commands, c.requests) && !c.blocked {
		c.sh.l.Expect()
	}
	if c.ending && c.s0 == c.s1 && c.first == nil {
		c.drop()
		return
	}
	if !c.stir() {
		c.rearm()
	}
	c.sess.deliver()
	if c.paused && !c.stopReading() {
		c.paused = false
		c.requeue()
	}
}

// sentBytes drops n bytes from the front of the output.
func (c *conn) sentBytes(n int) {
	c.traffic.bytesOut += uint64(n)
	for c.s0 < c.s1 {
		s := &c.segs[c.s0]
		if n < len(s.b) {
			s.b = s.b[n:]
			return
		}
		n -= len(s.b)
		c.dropSeg(s)
		c.s0++
	}
	c.s0, c.s1, c.used = 0, 0, 0
}

func (c *conn) dropSeg(s *seg) {
	if r := s.r; r != nil {
		if r.inflight--; r.inflight == 0 && r.made {
			r.release()
		}
	}
	*s = seg{}
}

// make turns answers into PDUs while there is room.
func (c *conn) make() {
	for r := c.first; r != nil; r = c.first {
		if !c.space() || !c.makeAnswer(r) {
			return
		}
		c.first = r.next
		if c.first == nil {
			c.last = nil
		}
		r.next, r.flushed = nil, false
		if r.state == stData {
			// R2Ts were sent, or a failure made them needless.
			if r.failed {
				c.advance(r)
			}
			continue
		}
		r.state = stDone
		r.made = true
		r.retire()
		if r.inflight == 0 {
			r.release()
		}
	}
}

// space reports whether another PDU may be begun.
func (c *conn) space() bool {
	return len(c.arena)-c.used >= spaceArena && maxSegs-c.s1 >= spaceSegs
}

// begin starts a PDU: the header is in the arena, for the caller to fill.
func (c *conn) begin(op pdu.Opcode) *pdu.BHS {
	c.hdr = c.used
	h := (*pdu.BHS)(c.arena[c.used : c.used+pdu.BHSLen])
	c.used += pdu.BHSLen
	h.Reset(op)
	return h
}

// endHeader ends the header of the PDU.
func (c *conn) endHeader() {
	c.traffic.pdusOut++
	if c.headerDigest {
		d := pdu.Digest(0, c.arena[c.hdr:c.used])
		pdu.PutDigest(c.arena[c.used:c.used+pdu.DigestLen], d)
		c.used += pdu.DigestLen
	}
	c.addArena(c.hdr)
	c.dcrc = 0
}

// addArena puts arena[from:used] behind the output: in one piece with what is before
// it where that is of the arena too.
func (c *conn) addArena(from int) {
	if c.s1 > c.s0 {
		if p := &c.segs[c.s1-1]; p.r == nil && c.inArena(p, from) {
			p.b = p.b[:len(p.b)+c.used-from]
			return
		}
	}
	c.segs[c.s1] = seg{b: c.arena[from:c.used]}
	c.s1++
}

// inArena reports whether p ends where arena[from] begins. A slice of the arena knows
// its distance to the arena's end.
func (c *conn) inArena(p *seg, from int) bool {
	return cap(p.b)-len(p.b) == len(c.arena)-from && len(p.b) > 0 && &p.b[len(p.b)-1] == &c.arena[from-1]
}

// payload adds b, kept by r until it was sent, to the PDU's data segment.
func (c *conn) payload(b []byte, r *request) {
	if c.dataDigest {
		c.dcrc = pdu.Digest(c.dcrc, b)
	}
	c.segs[c.s1] = seg{b: b, r: r}
	c.s1++
	r.inflight++
}

// endData ends a data segment of n bytes, n > 0: padding and digest.
func (c *conn) endData(n int) {
	from := c.used
	pad := pdu.Pad(n)
	for range pad {
		c.arena[c.used] = 0
		c.used++
	}
	if c.dataDigest {
		pdu.PutDigest(c.arena[c.used:c.used+pdu.DigestLen], pdu.DigestPad(c.dcrc, n))
		c.used += pdu.DigestLen
	}
	if c.used > from {
		c.addArena(from)
	}
}

// small adds b, at most 1.5 KiB, as the whole data segment, by copying it.
func (c *conn) small(b []byte) {
	if len(b) == 0 {
		return
	}
	from := c.used
	c.used += copy(c.arena[c.used:], b)
	if c.dataDigest {
		c.dcrc = pdu.Digest(c.dcrc, b)
	}
	c.addArena(from)
	c.endData(len(b))
}

// nextStatSN takes a StatSN.
func (c *conn) nextStatSN() uint32 {
	n := c.statSN
	c.statSN++
	return n
}
