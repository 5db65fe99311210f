package vhost

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
)

// An Export can go on in another process without its front end noticing: Freeze brings it
// to a halt between two messages, with every request answered, and tells what there is;
// the next process makes its Export of that (Config.Saved). Thaw has this one go on.
//
// A ring that was halted starts in this process or in the next one by the same step, at
// the index at which it was: only its first look is without a kick, and the driver is
// notified once more than it need be.

// Saved is what the next process needs of an Export. Descriptors are numbers in a
// handover.Set.
type Saved struct {
	// Socket is the connection; handover.None: no front end was there.
	Socket   int       `json:"socket"`
	PID      int       `json:"pid"`
	UID      int       `json:"uid"`
	Since    time.Time `json:"since"`
	Features uint64    `json:"features"`
	Agreed   bool      `json:"agreed"`
	Protocol uint64    `json:"protocol"`
	Status   uint64    `json:"status"`

	Regions  []SavedRegion  `json:"regions"`
	Inflight *SavedInflight `json:"inflight,omitempty"`
	Log      *SavedLog      `json:"log,omitempty"`
	Rings    []SavedRing    `json:"rings"`

	// Events wait for buffers.
	Events []SavedEvent `json:"events,omitempty"`
	Missed bool         `json:"missed"`
	Began  bool         `json:"began"`
}

// SavedRegion is a region of guest memory.
type SavedRegion struct {
	Guest uint64 `json:"guest"`
	Size  uint64 `json:"size"`
	User  uint64 `json:"user"`
	Off   uint64 `json:"off"`
	FD    int    `json:"fd"`
}

// SavedInflight is the region in which requests in flight are recorded.
type SavedInflight struct {
	FD     int    `json:"fd"`
	Off    uint64 `json:"off"`
	Queues int    `json:"queues"`
	Size   int    `json:"size"` // entries of each
}

// SavedLog is the dirty log of a migration.
type SavedLog struct {
	FD   int    `json:"fd"`
	Off  uint64 `json:"off"`
	Size uint64 `json:"size"` // bytes
}

// SavedRing is what the front end has said of a ring.
type SavedRing struct {
	Index   int    `json:"index"`
	Num     int    `json:"num"`
	Base    uint32 `json:"base"`
	Placed  bool   `json:"placed"`
	Desc    uint64 `json:"desc"`
	Avail   uint64 `json:"avail"`
	Used    uint64 `json:"used"`
	LogUsed bool   `json:"logUsed,omitempty"`
	UsedAt  uint64 `json:"usedAt,omitempty"`
	Enabled bool   `json:"enabled"`
	Runs    bool   `json:"runs"`
	Kick    int    `json:"kick"`
	Call    int    `json:"call"`
	Err     int    `json:"err"`
}

// SavedEvent is an event that waits.
type SavedEvent struct {
	Kind   uint32  `json:"kind"`
	LUN    [8]byte `json:"lun"`
	Reason uint32  `json:"reason"`
}

// halt is one Freeze.
type halt struct {
	until   time.Time
	set     *handover.Set
	state   atomic.Int32 // 0: asked for, 1: a session is at it, 2: given up
	parked  chan struct{}
	out     chan halted
	thawing chan struct{}
}

type halted struct {
	s   *Saved
	err error
}

// begin tells the session whether it is to halt: once.
func (h *halt) begin() bool { return h.state.CompareAndSwap(0, 1) }

// wait is Serve's halt.
func (h *halt) wait(quit <-chan struct{}) {
	select {
	case h.parked <- struct{}{}:
	default:
	}
	select {
	case <-h.thawing:
	case <-quit:
	}
}

var errHalting = errors.New("the export is halted already")

// Freeze brings the Export to a halt until the time t, and puts its descriptors into set;
// nothing of it is touched until Thaw. On an error it goes on at once: it says what did not
// come to its end.
func (e *Export) Freeze(t time.Time, set *handover.Set) (*Saved, error) {
	h := &halt{until: t, set: set, out: make(chan halted, 1), thawing: make(chan struct{})}
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	h.parked = make(chan struct{}, len(e.listeners))
	if !e.halt.CompareAndSwap(nil, h) {
		e.mu.Unlock()
		return nil, errHalting
	}
	n := len(e.listeners)
	for l := range e.listeners {
		_ = l.SetDeadline(time.Unix(1, 0))
	}
	e.mu.Unlock()
	s, err := e.freeze(h, n)
	if err != nil {
		e.Thaw()
		return nil, fmt.Errorf("vhost export %s: %w", e.conf.Name, err)
	}
	return s, nil
}

func (e *Export) freeze(h *halt, serving int) (*Saved, error) {
	timer := time.NewTimer(max(time.Until(h.until), time.Millisecond))
	defer timer.Stop()
	for range serving {
		select {
		case <-h.parked:
		case <-timer.C:
			return nil, errors.New("a connection is being made")
		case <-e.quit:
			return nil, ErrClosed
		}
	}
	// Nobody makes a session any more.
	e.mu.Lock()
	sess, over := e.sess, e.over
	e.mu.Unlock()
	if over == nil {
		return e.saveIdle(), nil
	}
	sess.c.interrupt()
	select {
	case <-over:
		return e.saveIdle(), nil
	case r := <-h.out:
		return r.s, r.err
	case <-timer.C:
	}
	if h.state.CompareAndSwap(0, 2) {
		return nil, errors.New("its front end is in the middle of something")
	}
	r := <-h.out
	return r.s, r.err
}

// saveIdle is what there is without a front end.
func (e *Export) saveIdle() *Saved {
	s := &Saved{Socket: handover.None}
	e.mu.Lock()
	d := e.dev
	e.mu.Unlock()
	d.saveEvents(s)
	return s
}

// Thaw has the Export go on after Freeze.
func (e *Export) Thaw() {
	h := e.halt.Swap(nil)
	if h == nil {
		return
	}
	h.state.CompareAndSwap(0, 2)
	close(h.thawing)
}

// stand is the session's halt: it answers h, and returns when the session may go on.
func (s *session) stand(h *halt) error {
	ran, err := s.still(h.until)
	var st *Saved
	if err == nil {
		st, err = s.save(h.set, ran)
	}
	if err == nil {
		// The next process parks what it goes on with, where it can; this one does
		// when it goes on itself.
		s.unpark()
	}
	h.out <- halted{st, err}
	if err == nil {
		select {
		case <-h.thawing:
		case <-s.e.quit:
			// The next process has taken everything, what is held too.
			s.held = false
			return ErrClosed
		}
	}
	s.attend()
	return s.restart(ran)
}

// attend has the session read again, unless it is to halt.
func (s *session) attend() {
	s.c.resume()
	if h := s.e.halt.Load(); h != nil && h.state.Load() == 0 {
		s.c.interrupt()
	}
}

// still has every ring end its requests until t, and then halts those that run.
func (s *session) still(t time.Time) (ran []*setup, err error) {
	for _, q := range s.rings {
		if q == nil || !q.vq.started() {
			continue
		}
		if q.parked {
			return nil, errors.New("its guest memory is being changed")
		}
		ran = append(ran, q)
	}
	for _, q := range ran {
		q.vq.enable(false)
	}
	for _, q := range ran {
		if n := q.vq.drain(t); n > 0 {
			err = fmt.Errorf("%d requests of ring %d have not ended", n, q.vq.index)
			break
		}
	}
	if err == nil {
		err = s.d.err()
	}
	if err != nil {
		for _, q := range ran {
			s.enable(q)
		}
		return nil, err
	}
	for _, q := range ran {
		run := q.vq.info()
		q.base, q.kick, q.call = q.vq.halt()
		s.e.total(&run)
	}
	s.publish()
	return ran, nil
}

// restart starts rings that were halted, by this process or the one before.
func (s *session) restart(ran []*setup) error {
	for _, q := range ran {
		if err := s.begin(q, !s.crashed); err != nil {
			return fmt.Errorf("going on: %w", err)
		}
	}
	s.resume, s.crashed, s.changed = nil, false, true
	s.publish()
	return nil
}

// save describes the session. ran are rings that were halted.
func (s *session) save(set *handover.Set, ran []*setup) (*Saved, error) {
	e := s.e
	e.mu.Lock()
	st := &Saved{PID: e.pid, UID: e.uid, Since: e.since}
	e.mu.Unlock()
	st.Features, st.Agreed, st.Protocol, st.Status = uint64(s.features), s.agreed, uint64(s.protocol), uint64(s.status)
	var bad error
	add := func(fd int) int {
		i, err := set.Add(fd)
		bad = errors.Join(bad, err)
		return i
	}
	var err error
	if st.Socket, err = set.AddConn(s.c.nc); err != nil {
		return nil, err
	}
	for _, f := range s.files {
		st.Regions = append(st.Regions, SavedRegion{Guest: f.Guest, Size: f.Size, User: f.User, Off: f.Off, FD: add(f.fd)})
	}
	if f := s.inf; f != nil {
		st.Inflight = &SavedInflight{FD: add(f.fd), Off: f.off, Queues: f.queues, Size: f.size}
	}
	if g := s.log; g != nil {
		st.Log = &SavedLog{FD: add(g.fd), Off: g.off, Size: g.size}
	}
	for _, q := range s.rings {
		if q == nil {
			continue
		}
		kick, call := q.kick, q.call
		if q.vq.started() {
			kick, call = q.vq.eventfds()
		}
		r := SavedRing{
			Index: q.vq.index, Num: q.num, Base: q.base, Placed: q.placed, Desc: q.desc, Avail: q.avail, Used: q.used,
			LogUsed: q.logUsed, UsedAt: q.usedAt,
			Enabled: q.enabled, Kick: add(kick), Call: add(call), Err: add(q.err), Runs: q.vq.started(),
		}
		for _, o := range ran {
			r.Runs = r.Runs || o == q
		}
		st.Rings = append(st.Rings, r)
	}
	s.d.saveEvents(st)
	return st, bad
}

func (d *device) saveEvents(s *Saved) {
	d.home.Do(func() {
		v := &d.events
		s.Missed, s.Began = v.missed, v.began
		for _, e := range v.list {
			s.Events = append(s.Events, SavedEvent{Kind: uint32(e.kind), LUN: e.lun, Reason: e.reason})
		}
	})
}

// adopt makes the session of what the process before this one has frozen. Nothing that
// the front end could see happens before Serve.
func (e *Export) adopt(st *Saved, set *handover.Set) error {
	d := e.dev
	d.home.Do(func() {
		if e.conf.Crashed {
			return // what has happened since is not known: see events.start
		}
		v := &d.events
		v.missed, v.began = st.Missed, st.Began
		for _, x := range st.Events[:min(len(st.Events), maxEvents)] {
			v.list = append(v.list, event{kind: virtioscsi.EventKind(x.Kind), lun: x.LUN, reason: x.Reason})
		}
	})
	if st.Socket == handover.None {
		return nil
	}
	nc, err := takeConn(set, st.Socket, e.conf.Crashed)
	if err != nil {
		return fmt.Errorf("vhost export %s: its connection: %w", e.conf.Name, err)
	}
	s := newSession(e, d, newConn(nc))
	s.crashed = e.conf.Crashed
	if err := s.adopt(st, set); err != nil {
		s.end(time.Second)
		_ = nc.Close()
		return fmt.Errorf("vhost export %s: %w", e.conf.Name, err)
	}
	s.publish()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nc, e.pid, e.uid, e.since, e.over = nc, st.PID, st.UID, st.Since, make(chan struct{})
	e.sess, e.adopted = s, s
	return nil
}

func takeConn(set *handover.Set, i int, crashed bool) (*net.UnixConn, error) {
	fd, err := set.Take(i)
	if err != nil {
		return nil, err
	}
	if crashed && sys.HungUp(fd) {
		shut(fd)
		return nil, errors.New("the front end is gone")
	}
	f := os.NewFile(uintptr(fd), "vhost-user")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("it is no UNIX socket")
	}
	return u, nil
}

func (s *session) adopt(st *Saved, set *handover.Set) error {
	s.features, s.agreed = proto.Features(st.Features), st.Agreed
	s.protocol, s.status = proto.ProtocolFeatures(st.Protocol), proto.Status(st.Status)
	offered, offeredProtocol := s.e.offers()
	if more := s.features &^ offered; more != 0 {
		return fmt.Errorf("%v was agreed upon, which this version does not know", more)
	}
	if more := s.protocol &^ offeredProtocol; more != 0 {
		return fmt.Errorf("%v was agreed upon, which this version does not know", more)
	}
	if len(st.Regions) > gmem.MaxRegions {
		return fmt.Errorf("%d regions of guest memory", len(st.Regions))
	}
	var regions []gmem.Region
	for _, r := range st.Regions {
		fd, err := set.Take(r.FD)
		if err != nil {
			return err
		}
		m := proto.MemRegion{Guest: r.Guest, Size: r.Size, User: r.User, Off: r.Off}
		f, err := newFile(m, fd, s.files)
		if err != nil {
			shut(fd)
			return err
		}
		f.fd = fd
		s.files = append(s.files, f)
		regions = append(regions, region(m, fd))
	}
	var err error
	if len(regions) > 0 {
		if s.mem, err = s.d.memory().Map(regions); err != nil {
			return err
		}
	}
	if i := st.Inflight; i != nil {
		fd, err := set.Take(i.FD)
		if err != nil {
			return err
		}
		if i.Queues < 1 || i.Queues > proto.MaxVringFD || i.Size < 1 || i.Size > vring.MaxSize {
			shut(fd)
			return fmt.Errorf("an inflight region for %d rings of %d entries", i.Queues, i.Size)
		}
		if s.inf, err = s.d.openInflight(fd, i.Off, i.Queues, i.Size); err != nil {
			shut(fd)
			return err
		}
		s.inf.fd = fd
	}
	if l := st.Log; l != nil {
		fd, err := set.Take(l.FD)
		if err != nil {
			return err
		}
		if s.log, err = s.d.openLog(fd, l.Off, l.Size); err != nil {
			shut(fd)
			return err
		}
		s.log.fd = fd
	}
	for i := range st.Rings {
		if err := s.adoptRing(&st.Rings[i], set); err != nil {
			return fmt.Errorf("ring %d: %w", st.Rings[i].Index, err)
		}
	}
	return nil
}

func (s *session) adoptRing(r *SavedRing, set *handover.Set) error {
	if r.Index < 0 || r.Index >= proto.MaxVringFD {
		return errors.New("there is no such ring")
	}
	for r.Index >= len(s.rings) {
		s.rings = append(s.rings, nil)
	}
	if s.rings[r.Index] != nil {
		return errors.New("it is there twice")
	}
	q := &setup{
		vq: newVirtqueue(s.d, r.Index), num: r.Num, base: r.Base, placed: r.Placed, desc: r.Desc, avail: r.Avail, used: r.Used,
		logUsed: r.LogUsed, usedAt: r.UsedAt, enabled: r.Enabled, kick: -1, call: -1, err: -1,
	}
	s.rings[r.Index] = q
	for _, x := range []struct {
		to *int
		i  int
	}{{&q.kick, r.Kick}, {&q.call, r.Call}, {&q.err, r.Err}} {
		var err error
		if *x.to, err = set.Take(x.i); err != nil {
			return err
		}
	}
	if !r.Runs {
		return nil
	}
	if s.mem == nil {
		return errors.New("it runs without guest memory")
	}
	if s.crashed && s.inf == nil {
		return errors.New("nothing tells which of its requests are in flight")
	}
	if _, err := s.parts(q); err != nil {
		return err
	}
	s.resume = append(s.resume, q)
	return nil
}
