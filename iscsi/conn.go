package iscsi

import (
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
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
	info SessionInfo // of its own login

	// params are the results of its login; text negotiation changes them.
	params login.Params

	headerDigest, dataDigest  bool
	initialR2T, immediateData bool
	maxRecv                   int    // data segments that we take, bytes
	maxSend                   uint32 // data segments that we send, bytes
	maxBurst, firstBurst      uint32 // bytes
	maxR2T                    uint32

	receiver
	sender
	lull lull

	nextTag uint32 // target transfer tag

	requests int // alive
	inCore   int // tasks and task management functions that the core has
	owed     int // commands whose initiator owes data

	// carry is what has come and is for the process after this one, raw how much of
	// the PDU that is being received belongs to it (or rejoin); see handover.go.
	carry  []byte
	raw    int
	frozen bool // nothing happens

	dead       bool // closed; waits for the core at most
	ending     bool // closes when the output is sent
	paused     bool // reading stopped by stopReading
	memoryless bool // the next PDU waits for memory
	waiting    bool // in the shard's list of waiters
	nextWait   *conn

	// logouts are requests on other connections that wait for the end of this
	// one; gone is closed then.
	logouts  []*request
	stuck    int // tasks that had not left the core when goneNode was posted
	goneNode loop.Node
	gone     chan struct{}

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

// newConn makes a connection of s. What was read behind the login comes along.
func newConn(s *session, ep endpoint, ln lane, p *login.Params, info *SessionInfo, rest []byte) *conn {
	c := &conn{
		srv: s.srv, sess: s, sh: s.sh, lane: ln, ep: ep, info: *info, params: *p,
		gone:         make(chan struct{}),
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
	c.lull.timer.Init((*connLull)(c))
	c.goneNode.Init((*connGone)(c))
	c.text = login.NewText(s.srv.textConfig(&c.info), &c.params)
	return c
}

// A connection's handlers.
type (
	connReady conn
	connAgain conn
	connFlush conn
	connTimer conn
	connGone  conn
)

func (n *connGone) Handle(*loop.Node) { n.sess.departed((*conn)(n)) }

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
		c.sess.kick() // flush may have delivered
	}
}

// open opens the endpoint and handles what has come already. On the loop.
func (c *conn) open() error {
	if err := c.ep.open(c.sh.l, loop.In, (*connReady)(c)); err != nil {
		c.drop()
		return err
	}
	c.lastIn = c.sh.l.Now()
	c.lookLater()
	c.pump()
	c.rearm()
	c.obey(c.sess.told)
	(*sessionStop)(c.sess).Handle(nil) // orders given meanwhile
	return nil
}

// obey does what stop asked for.
func (c *conn) obey(order uint32) {
	if c.dead {
		return
	}
	s := c.sess
	switch {
	case order&orderEnd != 0:
		c.drop()
	case order&orderDrop != 0:
		c.async(pdu.AsyncDropSession, 0, s.params.DefaultTime2Wait, 0)
		c.end()
	case order&orderLogout != 0:
		c.async(pdu.AsyncLogoutRequest, 0, 0, uint16(max(1, s.srv.logoutGrace/time.Second)))
	}
}

// stopReading: nothing more may come in now.
func (c *conn) stopReading() bool {
	return c.memoryless || c.ending || c.frozen || len(c.carry) > maxCarry || c.requests >= c.srv.limits.Window+maxImmediate+64
}

// rearm asks for the readiness that the connection can use.
func (c *conn) rearm() {
	if c.dead {
		return
	}
	var ev loop.Events
	if !c.lull.on && !c.stopReading() {
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
	} else {
		c.sess.kick()
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
func (c *conn) coreLane() *scsi.Lane {
	ln, _ := c.lane.(*scsi.Lane)
	return ln
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
// rest follows as its tasks end. Whoever calls it must not take the session's order
// for granted afterwards: the session may have ended.
func (c *conn) drop() {
	if c.dead {
		return
	}
	c.dead = true
	c.ep.close()
	c.sh.l.Stop(&c.timer)
	c.sh.l.Stop(&c.lull.timer)
	c.sh.forget(c)
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
	c.published.set(&c.traffic)
	c.sess.left(c)
}

// cutOff drops the connection because of what its peer did or did not do; the peer
// may hear of it by another connection.
func (c *conn) cutOff() {
	if c.dead {
		return
	}
	c.drop()
	c.sess.notice(c)
}

// lookLater arms the timer for the next of the server's ticks, which are the same for all
// connections: 1,000 idle ones, each with a second of its own, woke their loops 1,000 times
// a second and took 8 % of a processor.
func (c *conn) lookLater() {
	tick := c.srv.tick
	c.sh.l.After(&c.timer, tick-time.Duration(c.sh.l.Now()%int64(tick)))
}

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
		c.cutOff()
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
		c.cutOff()
		return
	}
	if c.sess.overdue(now) {
		c.complain(peerStalled, "a missing command did not come, session dropped", "CmdSN", c.sess.expCmdSN, "for", l.StallTimeout)
		c.sess.stop(orderDrop)
	}
	c.lookLater()
}
