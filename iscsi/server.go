package iscsi

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/iscsi/chap"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/iscsi/pdu"
	"github.com/vtgt/vtgt/scsi"
)

// Config configures a Server.
type Config struct {
	// Group has the loops that serve connections. It must outlive the server.
	Group *loop.Group
	// Log hears of sessions and, at a bounded rate, of what peers do wrong; nil:
	// nobody does.
	Log    *slog.Logger
	Limits Limits
	// Login is what the target offers in negotiations and the Authenticator.
	// Its Lookup, Admit and CmdWindow are the server's own.
	Login login.Config
	// OnSession, when set, hears of every normal session that begins (up) and
	// ends, in that order for each of them. It may be a loop that calls: it must
	// not block, nor call the server.
	OnSession func(up bool, target, initiator, peer string)
}

// Server is iSCSI targets behind portals. Its methods may be called on any
// goroutine.
type Server struct {
	group       *loop.Group
	log         *slog.Logger
	limits      Limits
	login       login.Config
	journal     journal
	onSession   func(up bool, target, initiator, peer string)
	shards      map[*loop.Loop]*shard
	logoutGrace time.Duration
	tick        time.Duration // how often connections look after their peers

	handshakes sync.WaitGroup // goroutines of portals and logins

	mu          sync.Mutex
	closed      bool
	frozen      chan struct{} // nil: not; closed by Thaw
	portals     map[*Portal]struct{}
	targets     map[string]*target
	sessions    map[sessionKey]*session
	lastTSIH    uint16
	halfOpen    halfOpen
	discoveries map[net.Conn]struct{}
	discoverers []chap.Account
	logins      uint64
	past        Traffic // of sessions that have ended
}

// TargetConfig describes one target.
type TargetConfig struct {
	// Name is the iSCSI name, as login.NormalizeName leaves it.
	Name  string
	Alias string
	// Target is served through Port.
	Target *scsi.Target
	Port   *scsi.Port
	TPGT   uint16 // target portal group tag
	// Access says who may log in; nil: everybody. SetAccess changes it.
	Access *Access
}

type target struct {
	TargetConfig
	// attach makes a nexus for s. A field for tests.
	attach func(s *session) error
}

// SessionInfo describes a session. What is not the same for all its connections is
// that of the oldest one.
type SessionInfo struct {
	Target, Initiator, InitiatorAlias string
	ISID                              [6]byte
	TSIH, CID                         uint16
	Portal, Peer                      string // addresses
	Loop                              int
	Since                             time.Time
	Params                            login.Params // what was negotiated
	HeaderDigest, DataDigest          bool
	Traffic                           Traffic // of all connections, those that have ended too
	Connections                       []ConnectionInfo

	local    netip.AddrPort
	remote   netip.Addr
	nameOnly bool // the session's identity is without the ISID
}

// ConnectionInfo describes a connection of a session.
type ConnectionInfo struct {
	CID                      uint16
	Portal, Peer             string // addresses
	Since                    time.Time
	HeaderDigest, DataDigest bool
	Traffic                  Traffic
}

// NewServer makes a server without portals and targets.
func NewServer(c Config) *Server {
	s := &Server{
		group: c.Group, log: c.Log, limits: c.Limits.withDefaults(), login: c.Login,
		shards:      make(map[*loop.Loop]*shard),
		logoutGrace: time.Second, tick: c.Limits.withDefaults().tick(),
		portals:     make(map[*Portal]struct{}),
		targets:     make(map[string]*target),
		sessions:    make(map[sessionKey]*session),
		halfOpen:    newHalfOpen(),
		discoveries: make(map[net.Conn]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.onSession = c.OnSession; s.onSession == nil {
		s.onSession = func(bool, string, string, string) {}
	}
	s.journal.log = s.log
	s.login.CmdWindow = uint32(s.limits.Window)
	if s.login.MaxConnections == 0 {
		s.login.MaxConnections = uint16(s.limits.Connections)
	}
	for _, l := range c.Group.Loops() {
		s.shards[l] = newShard(s, l)
	}
	return s
}

// AddTarget lets initiators log in to a target.
func (s *Server) AddTarget(c TargetConfig) error {
	t := &target{TargetConfig: c}
	t.attach = t.attachCore
	return s.addTarget(t)
}

func (s *Server) addTarget(t *target) error {
	name, err := login.NormalizeName(t.Name)
	if err != nil {
		return fmt.Errorf("iscsi: target %q: %w", t.Name, err)
	}
	t.Name = name
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.targets[name] != nil {
		return fmt.Errorf("iscsi: target %s exists already; give each target a name of its own", name)
	}
	s.targets[name] = t
	return nil
}

var errClosed = errors.New("iscsi: the server is closed")

// attachCore makes the nexus of s.
func (t *target) attachCore(s *session) error {
	n, err := t.Port.Attach(s.initiatorID(), s)
	if err != nil {
		return err
	}
	s.nexus = n
	s.newLane = func() (lane, error) {
		ln, err := n.Lane(s.l)
		if err != nil {
			return nil, err
		}
		return ln, nil
	}
	return nil
}

// RemoveTarget refuses further logins to target name and ends its sessions: their
// initiators are told, commands under way are aborted. done is called, on a goroutine
// of its own, when all have ended or the deadline has passed, with the number of
// sessions that are left.
func (s *Server) RemoveTarget(name string, deadline time.Duration, done func(stuck int)) error {
	if n, err := login.NormalizeName(name); err == nil {
		name = n
	}
	s.mu.Lock()
	t := s.targets[name]
	delete(s.targets, name)
	s.mu.Unlock()
	if t == nil {
		return fmt.Errorf("iscsi: no target %s; `vtgt get targets` lists those there are", name)
	}
	ss := s.list(func(x *session) bool { return x.target == t })
	go func() {
		left := s.endAll(ss, deadline)
		if done != nil {
			done(left)
		}
	}()
	return nil
}

// endAll ends sessions within about deadline: their initiators are asked to log out,
// then told that their connections end, then the connections end and their commands
// are aborted. It returns how many are left.
func (s *Server) endAll(ss []*session, deadline time.Duration) (left int) {
	if len(ss) == 0 {
		return 0
	}
	until := time.Now().Add(deadline)
	all := func(order uint32) {
		for _, x := range ss {
			x.stop(order)
		}
	}
	all(orderLogout)
	wait(ss, time.Now().Add(min(deadline/4, s.logoutGrace)))
	all(orderDrop)
	// A peer that does not read does not get to keep the connection.
	wait(ss, time.Now().Add(deadline/4))
	all(orderEnd)
	return wait(ss, until)
}

// dropTarget ends all sessions of t.
func (s *Server) dropTarget(t *target) []*session {
	ss := s.list(func(x *session) bool { return x.target == t })
	for _, x := range ss {
		x.stop(orderDrop)
	}
	return ss
}

func (s *Server) list(keep func(*session) bool) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ss []*session
	for _, x := range s.sessions {
		if keep == nil || keep(x) {
			ss = append(ss, x)
		}
	}
	return ss
}

// wait waits for the end of sessions and returns how many did not end in time.
func wait(ss []*session, until time.Time) (left int) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	for _, x := range ss {
		select {
		case <-x.gone:
			if x.stuck.Load() > 0 {
				left++
			}
			continue
		default:
		}
		select {
		case <-x.gone:
			if x.stuck.Load() > 0 {
				left++
			}
		case <-t.C:
			left++
			t.Reset(0)
		}
	}
	return left
}

// Sessions lists the normal sessions, in the order of their names.
func (s *Server) Sessions() []SessionInfo {
	var is []SessionInfo
	s.mu.Lock()
	for _, x := range s.sessions {
		if len(x.live) > 0 {
			is = append(is, x.describe())
		}
	}
	s.mu.Unlock()
	slices.SortFunc(is, func(a, b SessionInfo) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Initiator, b.Initiator),
			slices.Compare(a.ISID[:], b.ISID[:]))
	})
	return is
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	st := Stats{
		Sessions: len(s.sessions), Discoveries: len(s.discoveries), HalfOpen: len(s.halfOpen.active), Waiting: s.halfOpen.waiting,
		Logins: s.logins, Traffic: s.past, Complaints: make(map[string]uint64),
	}
	for _, x := range s.sessions {
		for _, c := range x.live {
			st.Traffic.add(c.published.get())
		}
	}
	s.mu.Unlock()
	for k := range complaints {
		st.Complaints[k.String()] = s.journal.count[k].Load()
	}
	return st
}

// describe is what Sessions tells of x. srv.mu is held.
func (x *session) describe() SessionInfo {
	i := x.live[0].info
	i.Params = x.params
	i.TSIH = x.params.TSIH
	i.Traffic = x.past
	for _, c := range x.live {
		t := c.published.get()
		i.Traffic.add(t)
		i.Connections = append(i.Connections, ConnectionInfo{CID: c.info.CID, Portal: c.info.Portal, Peer: c.info.Peer,
			Since: c.info.Since, HeaderDigest: c.info.HeaderDigest, DataDigest: c.info.DataDigest, Traffic: t})
	}
	return i
}

// retire takes a connection of x that has ended off the list, and adds up what it has
// counted.
func (s *Server) retire(x *session, c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(x.live, c); i >= 0 {
		x.live = slices.Delete(x.live, i, i+1)
		t := c.published.get()
		x.past.add(t)
		s.past.add(t)
	}
}

// forget takes an ended session off the list.
func (s *Server) forget(x *session) {
	s.mu.Lock()
	if s.sessions[x.key] == x {
		delete(s.sessions, x.key)
	}
	began := x.admitted
	s.mu.Unlock()
	if !began {
		return // its login was refused
	}
	s.onSession(false, x.key.target, x.key.initiator, x.info.Peer)
	s.log.Info("iscsi: session ended", "target", x.key.target, "initiator", x.key.initiator,
		"peer", x.info.Peer, "stuck", x.stuck.Load())
}

// Close ends everything within about deadline: no further logins; initiators are
// asked to log out, then told that their connections end, then the connections end
// and their commands are aborted. Sessions that still own commands in a store at the
// deadline are named by the error. Close is idempotent.
func (s *Server) Close(deadline time.Duration) error {
	until := time.Now().Add(deadline)
	s.mu.Lock()
	s.closed = true
	for p := range s.portals {
		p.ln.Close()
	}
	s.halfOpen.closeAll()
	for c := range s.discoveries {
		c.Close()
	}
	s.mu.Unlock()
	s.handshakes.Wait()

	left := s.endAll(s.list(nil), time.Until(until))
	for l, sh := range s.shards {
		l.Do(sh.close)
	}
	if left > 0 {
		return fmt.Errorf("iscsi: %d sessions still own commands that their stores do not give back; look at the disks' devices", left)
	}
	return nil
}

// Portals lists what the server listens to.
func (s *Server) Portals() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ps []netip.AddrPort
	for p := range s.portals {
		ps = append(ps, p.addr)
	}
	slices.SortFunc(ps, netip.AddrPort.Compare)
	return ps
}

// textConfig answers SendTargets for the connection that info describes.
func (s *Server) textConfig(info *SessionInfo) login.TextConfig {
	return login.TextConfig{Targets: func(p *login.Params, name string, yield func(login.TargetRecord) bool) {
		s.mu.Lock()
		var ts []*target
		for n, t := range s.targets {
			// A discovery session shows what its initiator may use. Who has
			// logged in to a target may see where it is, whatever has changed.
			if (name == "" || n == name) && (!p.Discovery || t.access().allows(p.InitiatorName, info.remote)) {
				ts = append(ts, t)
			}
		}
		addrs := s.reachable(info.local)
		s.mu.Unlock()
		slices.SortFunc(ts, func(a, b *target) int { return cmp.Compare(a.Name, b.Name) })
		for _, t := range ts {
			rec := login.TargetRecord{Name: t.Name}
			for _, a := range addrs {
				rec.Portals = append(rec.Portals, login.Portal{Addr: a, TPGT: t.TPGT})
			}
			if !yield(rec) {
				return
			}
		}
	}}
}

// reachable lists the portals for a peer that came in at local: that one first, then
// those with an address of their own. Loopback is told to loopback only.
func (s *Server) reachable(local netip.AddrPort) []netip.AddrPort {
	as := []netip.AddrPort{local}
	for p := range s.portals {
		a := p.addr
		if !a.IsValid() || a == local || a.Addr().IsUnspecified() || a.Addr().IsLoopback() && !local.Addr().IsLoopback() {
			continue
		}
		as = append(as, a)
	}
	slices.SortFunc(as[1:], netip.AddrPort.Compare)
	return as
}

// admit makes the session of a login that is about to end well: an older one of the
// same initiator port with the same target ends first (RFC 7143 §6.3.5).
// The error is why not, where there is more to say than the status does.
func (s *Server) admit(p *login.Params, info SessionInfo) (*session, pdu.LoginStatus, error) {
	key := keyOf(p, info.nameOnly)
	until := time.Now().Add(s.limits.LoginTimeout)
	s.endClosed(func(k sessionKey) bool { return k.target == key.target && k.initiator == key.initiator })
	for {
		s.mu.Lock()
		t, old := s.targets[p.TargetName], s.sessions[key]
		switch {
		case s.closed, s.frozen != nil:
			s.mu.Unlock()
			return nil, pdu.LoginServiceUnavailable, nil
		case t == nil:
			s.mu.Unlock()
			return nil, pdu.LoginNotFound, nil
		case p.TSIH != 0:
			_, st := s.further(p, info.nameOnly)
			s.mu.Unlock()
			if st == pdu.LoginSuccess && old.params.AuthUser != p.AuthUser {
				// Names and handles can be guessed; who has proved to be
				// somebody else does not come in by them.
				st = pdu.LoginCantIncludeInSession
			}
			if st == pdu.LoginSuccess {
				st = s.joinSession(old, p, until)
			}
			if st != pdu.LoginSuccess {
				old = nil
			}
			return old, st, nil
		case old != nil:
			s.mu.Unlock()
			s.log.Info("iscsi: session reinstated", "target", key.target, "initiator", key.initiator)
			old.stop(orderEnd)
			if wait([]*session{old}, until) > 0 {
				return nil, pdu.LoginServiceUnavailable, nil
			}
			continue
		case len(s.sessions) >= s.limits.Sessions:
			s.mu.Unlock()
			if s.journal.note(tooManySessions) {
				s.journal.line(tooManySessions, "too many sessions, login refused", "limit", s.limits.Sessions, "initiator", key.initiator)
			}
			return nil, pdu.LoginOutOfResources, nil
		}
		x := s.newSession(t, key, p, info)
		s.sessions[key] = x
		s.mu.Unlock()
		p.TSIH = x.info.TSIH
		x.l.AddLoad(1)
		err := t.attach(x)
		if e := (*scsi.SharingError)(nil); errors.As(err, &e) {
			s.endClosed(func(k sessionKey) bool { return k.initiator == e.Holder })
			err = t.attach(x)
		}
		if err != nil {
			x.l.Do(func() { x.ended, x.detached = true, true; x.finish() })
			if errors.Is(err, scsi.ErrNotShared) {
				return nil, pdu.LoginAuthorizationFailure, err
			}
			return nil, pdu.LoginOutOfResources, err
		}
		s.onSession(true, key.target, key.initiator, info.Peer)
		s.mu.Lock()
		x.admitted = true
		s.mu.Unlock()
		return x, pdu.LoginSuccess, nil
	}
}

// newSession makes a session with a TSIH. Under mu.
func (s *Server) newSession(t *target, key sessionKey, p *login.Params, info SessionInfo) *session {
	l := s.group.Pick()
	x := &session{srv: s, target: t, key: key, info: info, l: l, sh: s.shards[l], gone: make(chan struct{})}
	x.stopNode.Init((*sessionStop)(x))
	x.closedNode.Init((*sessionClosed)(x))
	for used := true; used; {
		s.lastTSIH++
		used = s.lastTSIH == 0
		for _, o := range s.sessions {
			used = used || o.info.TSIH == s.lastTSIH
		}
	}
	x.turn.Init((*sessionTurn)(x))
	x.logins = 1
	x.expCmdSN = p.ExpCmdSN
	x.maxCmdSN = p.ExpCmdSN + uint32(s.limits.Window) - 1
	x.params = *p
	x.info.TSIH, x.params.TSIH = s.lastTSIH, s.lastTSIH
	return x
}

// joinSession reserves the place of a further connection of x and waits for the end of
// one that it takes the place of: its tasks end before the login does.
func (s *Server) joinSession(x *session, p *login.Params, until time.Time) pdu.LoginStatus {
	var old *conn
	st := pdu.LoginSessionDoesNotExist
	x.l.Do(func() { old, st = x.join(p.CID) })
	if st != pdu.LoginSuccess || old == nil {
		return st
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-old.gone:
		return pdu.LoginSuccess
	case <-x.gone:
	case <-t.C:
	}
	x.l.Do(x.unjoin)
	return pdu.LoginServiceUnavailable
}
