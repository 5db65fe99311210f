package iscsi

import (
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/scsi"
)

// conn is one connection in full feature phase. Everything in it belongs to its loop.
type conn struct {
	srv  *Server
	sess *session
	sh   *shard
	lane lane
	ep   endpoint
	text *login.Text

	headerDigest, dataDigest  bool
	initialR2T, immediateData bool
	maxRecv                   int    // data segments that we take, bytes
	maxSend                   uint32 // data segments that we send, bytes
	maxBurst, firstBurst      uint32 // bytes
	maxR2T                    uint32

	receiver
	sender

	// tags are the commands by initiator task tag, chained.
	tags    [256]*request
	nextTag uint32 // target transfer tag

	requests int // alive
	inCore   int // tasks and task management functions that the core has
	owed     int // commands whose initiator owes data

	dead       bool // closed; waits for the core at most
	ending     bool // closes when the output is sent
	paused     bool // reading stopped by stopReading
	memoryless bool // the next PDU waits for memory
	waiting    bool // in the shard's list of waiters
	nextWait   *conn

	again     loop.Node // posted: pump
	timer     loop.Timer
	lastIn    int64 // loop time of the last bytes
	pinged    int64 // loop time of the ping that is not answered; 0: none
	pingTag   uint32
	progress  uint64 // PDUs in and out when the watchdog last looked
	stalledAt int64  // since when nothing has moved; 0: it moves
	endAt     int64  // when an ending connection is closed whatever is left

	traffic   traffic
	published published
}

const tagBuckets = 256

// newConn makes the connection of s. What was read behind the login comes along.
func newConn(s *session, ep endpoint, ln lane, p *login.Params, rest []byte) *conn {
	c := &conn{
		srv: s.srv, sess: s, sh: s.sh, lane: ln, ep: ep,
		headerDigest: p.HeaderDigest, dataDigest: p.DataDigest,
		initialR2T: p.InitialR2T, immediateData: p.ImmediateData,
		maxRecv:    int(p.MaxRecvDataSegmentLength),
		maxSend:    min(p.MaxXmitDataSegmentLength, maxPDUData),
		maxBurst:   p.MaxBurstLength,
		firstBurst: p.FirstBurstLength,
		maxR2T:     uint32(max(p.MaxOutstandingR2T, 1)),
	}
	c.rx = make([]byte, max(rxLen, len(rest)))
	c.w = copy(c.rx, rest)
	c.arena = make([]byte, arenaLen)
	c.statSN = p.StatSN
	c.again.Init((*connAgain)(c))
	c.deferred.Init((*connFlush)(c))
	c.timer.Init((*connTimer)(c))
	s.c = c
	s.expCmdSN = p.ExpCmdSN
	s.maxCmdSN = p.ExpCmdSN + uint32(s.srv.limits.Window) - 1
	c.text = login.NewText(s.srv.textConfig(s.info.local), &s.params)
	return c
}

// A connection's handlers.
type (
	connReady conn
	connAgain conn
	connFlush conn
	connTimer conn
)

func (n *connReady) Ready(_ *loop.Source, ev loop.Events) {
	c := (*conn)(n)
	if !c.dead {
		c.ready(ev&loop.In != 0, ev&loop.Out != 0, ev&(loop.Err|loop.Hup) != 0)
	}
}

func (n *connAgain) Handle(*loop.Node) {
	c := (*conn)(n)
	if !c.dead {
		c.pump()
		c.rearm()
	}
}

func (n *connFlush) Handle(*loop.Node) {
	c := (*conn)(n)
	if !c.dead {
		c.flush()
		if !c.dead && c.lane != nil {
			c.lane.Kick() // flush may have delivered
		}
	}
}

// open opens the endpoint and handles what has come already. On the loop.
func (c *conn) open() error {
	if err := c.ep.open(c.sh.l, loop.In, (*connReady)(c)); err != nil {
		c.dead = true
		c.ep.close()
		c.sess.closed()
		return err
	}
	c.lastIn = c.sh.l.Now()
	c.sh.l.After(&c.timer, tick)
	c.pump()
	c.rearm()
	(*sessionStop)(c.sess).Handle(nil) // orders given meanwhile
	return nil
}

// stopReading: nothing more may come in now.
func (c *conn) stopReading() bool {
	return c.memoryless || c.ending || c.requests >= c.srv.limits.Window+maxImmediate+64
}

// rearm asks for the readiness that the connection can use.
func (c *conn) rearm() {
	if c.dead {
		return
	}
	var ev loop.Events
	if !c.stopReading() {
		ev |= loop.In
	}
	if c.blocked {
		ev |= loop.Out
	}
	c.ep.want(ev)
}

// starve stops reading until there is memory.
func (c *conn) starve() {
	c.memoryless = true
	c.sh.await(c)
}

// memoryBack tries again.
func (c *conn) memoryBack() {
	if c.dead {
		return
	}
	c.sess.deliver()
	if c.memoryless && !c.dead {
		c.memoryless = false
		c.pump()
	} else if c.lane != nil {
		c.lane.Kick()
	}
	c.rearm()
}

// start begins a request in its turn.
func (c *conn) start(r *request) {
	switch r.kind {
	case kindCommand:
		c.startCommand(r)
		if a := r.task.Attr; (a == scsi.Ordered || a == scsi.ACA) && r.owed && !r.immediate {
			c.sess.barrier = r
		}
	case kindTMF:
		c.startTMF(r)
	case kindNOP:
		r.state = stSend
		c.queue(r)
	case kindText:
		c.startText(r)
	case kindLogout:
		c.startLogout(r)
	}
}

// coreLane is the lane for scsi.TMF.
func (c *conn) coreLane() *scsi.Lane { return c.sess.core }

func bucket(itt uint32) uint32 { return itt * 0x9e3779b1 >> 24 }

// find looks a command up by its tag.
func (c *conn) find(itt uint32) *request {
	for r := c.tags[bucket(itt)]; r != nil; r = r.chain {
		if r.h.ITT() == itt {
			return r
		}
	}
	return nil
}

func (c *conn) insert(r *request) {
	p := &c.tags[bucket(r.h.ITT())]
	r.chain, *p = *p, r
	r.tagged = true
}

func (c *conn) remove(r *request) {
	for p := &c.tags[bucket(r.h.ITT())]; *p != nil; p = &(*p).chain {
		if *p == r {
			*p = r.chain
			break
		}
	}
	r.chain, r.tagged = nil, false
}

// end closes the connection as soon as the output is sent.
func (c *conn) end() {
	if c.dead || c.ending {
		return
	}
	c.ending = true
	c.endAt = c.sh.l.Now() + int64(5*time.Second)
	c.flushLater()
}

// drop closes the connection now and gives back what the core does not hold; the
// rest follows as its tasks end.
func (c *conn) drop() {
	if c.dead {
		return
	}
	c.dead = true
	c.ep.close()
	c.sh.l.Stop(&c.timer)
	c.sh.forget(c)
	c.sess.barrier = nil
	if r := c.cur; r != nil && r.state == stArriving {
		r.release()
	}
	c.cur, c.data = nil, false
	for ; c.s0 < c.s1; c.s0++ {
		c.dropSeg(&c.segs[c.s0])
	}
	c.s0, c.s1, c.used = 0, 0, 0
	for r := c.first; r != nil; {
		next := r.next
		r.next, r.flushed = nil, false
		if r.state == stSend {
			r.release()
		}
		r = next
	}
	c.first, c.last = nil, nil
	for i, r := range c.sess.held {
		c.sess.held[i] = nil
		if r != nil && r != &c.sess.hole {
			r.release()
		}
	}
	for i := range c.tags {
		for r := c.tags[i]; r != nil; {
			next := r.chain
			if r.state == stData {
				r.release()
			}
			r = next
		}
	}
	c.published.set(&c.traffic)
	c.srv.retireTraffic(c)
	c.sess.closed()
}

const tick = time.Second

// Expired looks after a silent peer and after one that owes.
func (n *connTimer) Expired(*loop.Timer) {
	c := (*conn)(n)
	if c.dead {
		return
	}
	l := &c.srv.limits
	now := c.sh.l.Now()
	if c.ending && now >= c.endAt {
		c.drop()
		return
	}
	if c.lastIn > c.pinged {
		c.pinged = 0
	}
	switch {
	case l.PingInterval < 0 || c.ending:
	case c.pinged != 0 && now-c.pinged > int64(l.PingTimeout) && !c.stopReading():
		c.complain(peerSilent, "no answer to a ping, connection dropped", "after", l.PingTimeout)
		c.drop()
		return
	case c.pinged == 0 && now-c.lastIn > int64(l.PingInterval):
		c.ping(now)
	}
	if p := c.traffic.bytesIn + c.traffic.bytesOut; p != c.progress || c.owed == 0 && c.sess.unserved == 0 && !c.memoryless && c.s0 == c.s1 || c.inCore > 0 {
		c.progress, c.stalledAt = p, 0
	} else if c.stalledAt == 0 {
		c.stalledAt = now
	} else if now-c.stalledAt > int64(l.StallTimeout) {
		c.complain(peerStalled, "no progress, connection dropped", "owed", c.owed, "for", l.StallTimeout)
		c.drop()
		return
	}
	c.sh.l.After(&c.timer, tick)
}
