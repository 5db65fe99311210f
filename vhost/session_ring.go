package vhost

import (
	"fmt"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/vring"
)

// setup is what the front end has said of one ring. The ring is started when it is
// enabled and size, addresses and kick are known, in whatever order they came;
// GET_VRING_BASE stops it, and takes the kick away with it.
//
//	stopped ── NUM, BASE, ADDR, KICK, ENABLE 1 ──> started <── ENABLE ──> paused
//	   ^────────────────── GET_VRING_BASE ────────────┴──────────────────────┘
type setup struct {
	vq *virtqueue

	num               int // 0: not said
	base              uint32
	placed            bool // addresses are known
	desc, avail, used uint64
	logUsed           bool // writes to the used ring are noted
	usedAt            uint64

	enabled bool
	parked  bool // started, and its areas are in no memory at present

	kick, call int // held until start, -1: none
	err        int // ours for the connection: QEMU gives it once
}

// forget brings q to the beginning, except for the error eventfd.
func (q *setup) forget() {
	shut(q.kick)
	shut(q.call)
	*q = setup{vq: q.vq, kick: -1, call: -1, err: q.err}
}

// setup finds ring index i, and makes it when it is named first.
func (s *session) setup(m *incoming, i uint32) (*setup, error) {
	// Control and event queue come on top of what GET_QUEUE_NUM says.
	if n := s.e.conf.Queues + requestQueue; uint64(i) >= uint64(n) {
		return nil, &violation{fmt.Errorf("%v for ring %d: there are %d", m.Request, i, n)}
	}
	if i >= proto.MaxVringFD {
		return nil, &violation{fmt.Errorf("%v for ring %d: the protocol has eventfds for %d rings only; set num_queues=%d or less in QEMU's -device vhost-user-scsi-pci",
			m.Request, i, proto.MaxVringFD, proto.MaxVringFD-requestQueue)}
	}
	for int(i) >= len(s.rings) {
		s.rings = append(s.rings, nil)
	}
	if s.rings[i] == nil {
		s.rings[i] = &setup{vq: newVirtqueue(s.d, int(i)), kick: -1, call: -1, err: -1}
	}
	return s.rings[i], nil
}

// vring reads m's state and finds its ring.
func (s *session) vring(m *incoming) (*setup, uint32, error) {
	v, err := proto.ParseVringState(m.body)
	if err != nil {
		return nil, 0, broken(m, err)
	}
	q, err := s.setup(m, v.Index)
	return q, v.Num, err
}

func running(m *incoming, q *setup) error {
	return &violation{fmt.Errorf("%v for ring %d, which runs", m.Request, q.vq.index)}
}

func (s *session) setVringNum(m *incoming) error {
	q, n, err := s.vring(m)
	switch {
	case err != nil:
		return err
	case n == 0 || n > vring.MaxSize || n&(n-1) != 0 && !s.packed():
		return &violation{fmt.Errorf("SET_VRING_NUM of %d entries for ring %d: it must be a power of two, at most %d", n, q.vq.index, vring.MaxSize)}
	case q.vq.started():
		return running(m, q)
	}
	q.num = int(n)
	return s.start(m, q)
}

func (s *session) setVringBase(m *incoming) error {
	q, n, err := s.vring(m)
	switch {
	case err != nil:
		return err
	case n > 0xffff && !s.packed():
		return &violation{fmt.Errorf("SET_VRING_BASE of %#x for ring %d: an index has 16 bits", n, q.vq.index)}
	case q.vq.started():
		return running(m, q)
	}
	q.base = n
	return nil
}

func (s *session) packed() bool { return s.features&proto.FeatureRingPacked != 0 }

// parts finds q's areas in the present generation.
func (s *session) parts(q *setup) (vring.Parts, error) {
	return userParts(s.mem, s.packed(), q.num, [3]uint64{q.desc, q.avail, q.used})
}

func (s *session) setVringAddr(m *incoming) error {
	a, err := proto.ParseVringAddr(m.body)
	if err != nil {
		return broken(m, err)
	}
	q, err := s.setup(m, a.Index)
	if err != nil {
		return err
	}
	same := q.placed && q.desc == a.Desc && q.avail == a.Avail && q.used == a.Used
	q.placed, q.desc, q.avail, q.used = true, a.Desc, a.Avail, a.Used
	q.logUsed, q.usedAt = a.Flags&proto.VringLog != 0, a.Log
	if q.vq.started() {
		q.relog(s.logNow())
		if same || q.parked {
			return nil
		}
		return broken(m, q.vq.setAddr(a.Desc, a.Avail, a.Used))
	}
	return s.start(m, q)
}

func (s *session) setVringEnable(m *incoming) error {
	q, n, err := s.vring(m)
	switch {
	case err != nil:
		return err
	case n > 1:
		return &violation{fmt.Errorf("SET_VRING_ENABLE of %d for ring %d: it is 0 or 1", n, q.vq.index)}
	}
	q.enabled = n == 1
	s.enable(q)
	return s.start(m, q)
}

// on tells whether q may take requests: without the protocol features bit, rings are
// enabled from the start.
func (s *session) on(q *setup) bool {
	return (q.enabled || s.agreed && s.features&proto.FeatureProtocol == 0) && !q.parked
}

func (s *session) enable(q *setup) { q.vq.enable(s.on(q)) }

// disable disables all rings.
func (s *session) disable() {
	for _, q := range s.rings {
		if q != nil {
			q.enabled = false
			q.vq.enable(false)
		}
	}
}

func (s *session) setVringFD(m *incoming) error {
	n, err := proto.ParseU64(m.body)
	if err != nil {
		return broken(m, err)
	}
	v := proto.VringFD(n)
	q, err := s.setup(m, uint32(v.Index()))
	if err != nil {
		return err
	}
	fd := -1
	switch {
	case v.None() && m.Request == proto.SetVringKick:
		return &violation{fmt.Errorf("SET_VRING_KICK without a descriptor for ring %d: it is not polled, give it an eventfd", v.Index())}
	case v.None():
	case len(m.fds) == 0:
		return &violation{fmt.Errorf("%v for ring %d came without its descriptor", m.Request, v.Index())}
	case !sys.IsEventfd(m.fds[0]):
		// Anything else might have us wait when we write to it.
		return &violation{fmt.Errorf("%v for ring %d: the descriptor is no eventfd", m.Request, v.Index())}
	default:
		fd = m.take(0)
	}
	runs := q.vq.started()
	switch m.Request {
	case proto.SetVringKick:
		if runs {
			q.vq.setKick(fd)
			return nil
		}
		shut(q.kick)
		q.kick = fd
		return s.start(m, q)
	case proto.SetVringCall:
		if runs {
			q.vq.setCall(fd)
			return nil
		}
		shut(q.call)
		q.call = fd
	case proto.SetVringErr:
		shut(q.err)
		q.err = fd
		if runs {
			fd, err := s.errFD(q)
			if err != nil {
				return err
			}
			q.vq.setErr(fd)
		}
	}
	return nil
}

// errFD makes a copy of q's error eventfd for one run of the ring.
func (s *session) errFD(q *setup) (int, error) {
	if q.err < 0 {
		return -1, nil
	}
	return sys.Dup(q.err)
}

// startAll starts what has waited for what m brought.
func (s *session) startAll(m *incoming) error {
	for _, q := range s.rings {
		if q == nil {
			continue
		}
		s.enable(q)
		if err := s.start(m, q); err != nil {
			return err
		}
	}
	return nil
}

// start starts q, if everything is there and it does not run. A ring that requests of
// an earlier run have left the deadline behind does not start again: what they write
// could land after what comes now.
func (s *session) start(m *incoming, q *setup) error {
	if q.vq.started() || !s.agreed || !s.on(q) || s.mem == nil || q.num == 0 || !q.placed || q.kick < 0 {
		return nil
	}
	if n := s.d.stuck(); n > 0 {
		return fmt.Errorf("ring %d cannot start: %d requests of an earlier run are still with the store", q.vq.index, n)
	}
	return broken(m, s.begin(q, false))
}

// begin starts q. goesOn: it ran before, and its driver knows of no stop.
func (s *session) begin(q *setup, goesOn bool) error {
	if err := s.hold(); err != nil {
		return err
	}
	r := ringStart{
		Config:   vring.Config{Size: q.num, Base: q.base},
		Features: uint64(s.features),
		Desc:     q.desc, Avail: q.avail, Used: q.used,
		Mem: s.mem, Kick: q.kick, Call: q.call, GoesOn: goesOn,
		Log: s.logNow(), LogUsed: q.logUsed, UsedAt: q.usedAt,
	}
	var err error
	if r.Inflight, err = s.inf.part(q.vq.index); err != nil {
		return err
	}
	if r.Err, err = s.errFD(q); err != nil {
		return err
	}
	q.kick, q.call = -1, -1
	q.vq.enable(s.on(q))
	if err := q.vq.start(r); err != nil {
		return err
	}
	s.e.count.Starts.Add(1)
	if r.Inflight != nil {
		s.e.count.Replayed.Add(uint64(len(r.Inflight.Heads())))
	}
	return nil
}

// getVringBase stops a ring and answers when none of its requests is left, or their
// memory is cut off. Where even that is not safe the answer is the connection's end.
func (s *session) getVringBase(m *incoming) error {
	q, _, err := s.vring(m)
	if err != nil {
		return err
	}
	if err := s.stop(q, 0); err != nil {
		return err
	}
	v := proto.VringState{Index: uint32(q.vq.index), Num: q.base}
	return s.reply(m.Request, v.Append(nil), -1)
}

// stop stops q, if it runs. After it the front end brings a new kick, and a new call.
func (s *session) stop(q *setup, deadline time.Duration) error {
	if q.vq.started() {
		run := q.vq.info()
		base, stuck, err := q.vq.stop(deadline)
		s.e.total(&run)
		s.counted(stuck)
		if err != nil {
			return err
		}
		q.base, q.parked = base, false
		s.letGo()
	}
	shut(q.kick)
	shut(q.call)
	q.kick, q.call = -1, -1
	return nil
}

// stopAll stops all rings within the deadline.
func (s *session) stopAll(deadline time.Duration) error {
	s.disable()
	until := time.Now().Add(deadline)
	for _, q := range s.rings {
		if q != nil {
			if err := s.stop(q, left(until)); err != nil {
				return err
			}
		}
	}
	return nil
}
