package vhost

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/proto"
)

// The features that we offer. ANY_LAYOUT because QEMU offers it to old drivers without
// asking, and it is how we read requests anyway.
const (
	offered = proto.FeatureHotplug | proto.FeatureChange | proto.FeatureAnyLayout |
		proto.FeatureIndirectDesc | proto.FeatureEventIdx | proto.FeatureProtocol | proto.FeatureVersion1 |
		proto.FeatureRingPacked

	// Whatever is offered here QEMU uses. CONFIG it must not see: it answers for
	// the configuration space itself.
	offeredProtocol = proto.ProtocolMQ | proto.ProtocolReplyAck | proto.ProtocolInflightShmFD |
		proto.ProtocolResetDevice | proto.ProtocolConfigureMemSlots | proto.ProtocolStatus
)

// offers is what the front end is told of. Without LOG_ALL it does not let the machine
// migrate.
func (e *Export) offers() (proto.Features, proto.ProtocolFeatures) {
	if e.conf.Migratable {
		return offered | proto.FeatureLogAll, offeredProtocol | proto.ProtocolLogShmFD
	}
	return offered, offeredProtocol
}

// session is what one front end has set up. It belongs to the connection's goroutine;
// what others may read is published after each message.
type session struct {
	e    *Export
	d    *device
	c    *conn
	view atomic.Pointer[view]

	features proto.Features
	agreed   bool // SET_FEATURES has come
	protocol proto.ProtocolFeatures
	status   proto.Status

	resume  []*setup // rings that ran in the process before this one
	crashed bool     // which was killed while they did
	changed bool     // since it was parked

	mem   *gmem.Map // the present generation, nil: none yet
	files []file    // of mem's regions
	inf   *inflight // nil: nothing is recorded
	log   *dirtyLog // nil: none was given
	held  bool      // Config.Hold
	rings []*setup
	seen  [maxRequest / 64]uint64 // unknown requests that were logged
}

const maxRequest = 64

// view is what Status tells of a session.
type view struct {
	features proto.Features
	protocol proto.ProtocolFeatures
	status   proto.Status
	regions  int
	bytes    int64
	queues   []*virtqueue
}

func newSession(e *Export, d *device, c *conn) *session {
	s := &session{e: e, d: d, c: c}
	s.publish()
	return s
}

// run serves the front end until it goes, breaks the protocol, or has to be left.
func (s *session) run() error {
	if err := s.restart(s.resume); err != nil {
		return err
	}
	for {
		if h := s.e.halt.Load(); h != nil && h.begin() {
			if err := s.stand(h); err != nil {
				return err
			}
		}
		m, err := s.c.read()
		if err == errIdle {
			s.attend()
			continue
		}
		if err != nil {
			return err
		}
		s.e.count.Messages.Add(1)
		s.changed = s.changed || changes(m.Request)
		err = s.handle(m)
		m.drop()
		s.publish()
		if err != nil {
			return err
		}
	}
}

// handle does what m says and answers it. An error ends the connection.
func (s *session) handle(m *incoming) error {
	err := s.dispatch(m)
	if derr := s.d.err(); derr != nil && err == nil {
		// Nothing that could be answered now is true: a ring that failed has
		// no index to go on from.
		err = derr
	}
	replied := m.Request.HasReply() || m.Request == proto.SetLogBase && s.protocol&proto.ProtocolLogShmFD != 0
	if d, ok := err.(*declined); ok {
		s.note(m.Request, d)
		if !replied && s.wantsAck(m) {
			return s.reply(m.Request, proto.AppendU64(nil, 1), -1)
		}
		return nil
	}
	if replied || !s.wantsAck(m) {
		return err
	}
	if err != nil {
		_ = s.reply(m.Request, proto.AppendU64(nil, 1), -1)
		return err
	}
	return s.reply(m.Request, proto.AppendU64(nil, 0), -1)
}

func (s *session) wantsAck(m *incoming) bool {
	return s.protocol&proto.ProtocolReplyAck != 0 && m.NeedReply()
}

// note counts a request that was declined, and logs it once in a session.
func (s *session) note(r proto.Request, why error) {
	s.e.count.UnknownMessages.Add(1)
	if r < maxRequest {
		if s.seen[r/64]&(1<<(r%64)) != 0 {
			return
		}
		s.seen[r/64] |= 1 << (r % 64)
	}
	s.e.log.line(lineUnknown, slog.LevelWarn, "vhost-user: a request is declined", "export", s.e.conf.Name, "request", r.String(), "why", why)
}

func (s *session) dispatch(m *incoming) error {
	switch m.Request {
	case proto.GetFeatures:
		f, _ := s.e.offers()
		return s.number(m, uint64(f))
	case proto.SetFeatures:
		return s.setFeatures(m)
	case proto.GetProtocolFeatures:
		_, p := s.e.offers()
		return s.number(m, uint64(p))
	case proto.SetProtocolFeatures:
		return s.setProtocolFeatures(m)
	case proto.GetQueueNum:
		return s.number(m, uint64(s.e.conf.Queues))
	case proto.GetMaxMemSlots:
		return s.number(m, gmem.MaxRegions)
	case proto.SetOwner:
		return nil // whoever is connected is the owner
	case proto.ResetOwner:
		s.disable()
		return nil
	case proto.ResetDevice:
		return s.reset()
	case proto.SetStatus:
		v, err := proto.ParseU64(m.body)
		s.status = proto.Status(v)
		return broken(m, err)
	case proto.GetStatus:
		return s.number(m, uint64(s.status))

	case proto.SetMemTable:
		return s.setMemTable(m)
	case proto.AddMemReg:
		return s.addMemReg(m)
	case proto.RemMemReg:
		return s.remMemReg(m)

	case proto.SetVringNum:
		return s.setVringNum(m)
	case proto.SetVringAddr:
		return s.setVringAddr(m)
	case proto.SetVringBase:
		return s.setVringBase(m)
	case proto.GetVringBase:
		return s.getVringBase(m)
	case proto.SetVringEnable:
		return s.setVringEnable(m)
	case proto.SetVringKick, proto.SetVringCall, proto.SetVringErr:
		return s.setVringFD(m)

	case proto.SetLogBase:
		return s.setLogBase(m)
	case proto.SetLogFD:
		// An eventfd to tell that something was noted, which nobody has ever used.
		return nil

	case proto.GetInflightFD:
		return s.getInflightFD(m)
	case proto.SetInflightFD:
		return s.setInflightFD(m)

	case proto.GetConfig:
		// An empty answer is the error.
		if err := s.reply(m.Request, nil, -1); err != nil {
			return err
		}
	default:
		if m.Request.HasReply() {
			// The front end waits for an answer that we cannot give.
			return &violation{fmt.Errorf("%v, which was not offered", m.Request)}
		}
	}
	return &declined{fmt.Errorf("it was not offered")}
}

// reply answers a request, when Status shows what it has done.
func (s *session) reply(r proto.Request, body []byte, fd int) error {
	s.publish()
	return s.c.reply(r, body, fd)
}

// number answers m with v.
func (s *session) number(m *incoming, v uint64) error {
	if err := proto.ParseEmpty(m.body); err != nil {
		return broken(m, err)
	}
	return s.reply(m.Request, proto.AppendU64(nil, v), -1)
}

// broken is err, of m's body, as what it is; nil for nil.
func broken(m *incoming, err error) error {
	if err == nil {
		return nil
	}
	return &violation{fmt.Errorf("%v: %w", m.Request, err)}
}

// setFeatures takes what driver and front end have agreed on. What we have not offered
// we cannot serve: QEMU offers some features to the driver without asking us.
func (s *session) setFeatures(m *incoming) error {
	v, err := proto.ParseU64(m.body)
	if err != nil {
		return broken(m, err)
	}
	f := proto.Features(v)
	offered, _ := s.e.offers()
	if more := f &^ offered; more != 0 {
		return &violation{fmt.Errorf("SET_FEATURES with %v, which was not offered: leave out %s in QEMU's -device vhost-user-scsi-pci",
			more, strings.Join(more.Properties(), " and "))}
	}
	if s.agreed && f == s.features {
		return nil
	}
	// A migration begins and ends while rings run.
	if s.agreed && f^s.features == proto.FeatureLogAll {
		s.features = f
		s.relog()
		return nil
	}
	for _, r := range s.rings {
		if r != nil && r.vq.started() {
			return &violation{fmt.Errorf("SET_FEATURES changes %v while ring %d runs", f^s.features, r.vq.index)}
		}
	}
	s.features, s.agreed = f, true
	return s.startAll(m)
}

func (s *session) setProtocolFeatures(m *incoming) error {
	v, err := proto.ParseU64(m.body)
	if err != nil {
		return broken(m, err)
	}
	f := proto.ProtocolFeatures(v)
	_, offeredProtocol := s.e.offers()
	if more := f &^ offeredProtocol; more != 0 {
		return &violation{fmt.Errorf("SET_PROTOCOL_FEATURES with %v, which was not offered", more)}
	}
	s.protocol = f
	return nil
}

// reset is RESET_DEVICE: rings as at the beginning, commands ended, the initiator's
// nexuses reset. Memory and protocol features stay: the front end sends changes of
// these only.
func (s *session) reset() error {
	s.e.count.Resets.Add(1)
	err := s.stopAll(s.e.conf.Deadline)
	for _, r := range s.rings {
		if r != nil {
			r.forget()
		}
	}
	s.features, s.agreed, s.status = 0, false, 0
	if err != nil {
		return err
	}
	if !s.d.reset() {
		return &declined{fmt.Errorf("commands have not ended within %v", s.e.conf.Deadline)}
	}
	return nil
}

// end lets go of everything, after the connection's end. Commands that were taken are
// finished: their results are in the guest's memory when the next front end comes. The
// deadline is for all rings together. stuck requests it has passed by.
func (s *session) end(deadline time.Duration) (stuck int) {
	s.disable()
	until := time.Now().Add(deadline)
	for _, r := range s.rings {
		if r != nil {
			run := r.vq.info()
			stuck += r.vq.close(left(until))
			s.e.total(&run)
			r.forget()
			shut(r.err)
		}
	}
	s.counted(stuck)
	if s.mem != nil {
		s.mem.Retire(nil)
	}
	closeFiles(s.files, nil)
	s.letGo()
	// Where something is stuck its mark is not cleared any more, and the memory not
	// touched: the record is free in any case.
	s.inf.retire()
	s.log.retire()
	s.rings, s.mem, s.files, s.inf, s.log = nil, nil, nil, nil, nil
	s.publish()
	return stuck
}

// counted waits until the device's count shows stuck requests: it is published at the
// end of a loop's round.
func (s *session) counted(stuck int) {
	if stuck == 0 {
		return
	}
	for range 2 {
		for _, l := range s.e.conf.Group.Loops() {
			l.Do(func() {})
		}
	}
}

// left is the time until t, never so little that it would mean something else.
func left(t time.Time) time.Duration { return max(time.Until(t), time.Millisecond) }

// publish shows the session's state to Status.
func (s *session) publish() {
	v := &view{features: s.features, protocol: s.protocol, status: s.status}
	if s.mem != nil {
		v.regions = s.mem.Len()
		for i := range v.regions {
			v.bytes += int64(s.mem.Region(i).Size)
		}
	}
	if old := s.view.Load(); old != nil && len(old.queues) == s.queues() {
		v.queues = old.queues
	} else {
		for _, r := range s.rings {
			if r != nil {
				v.queues = append(v.queues, r.vq)
			}
		}
	}
	s.view.Store(v)
	s.park()
}

func (s *session) queues() (n int) {
	for _, r := range s.rings {
		if r != nil {
			n++
		}
	}
	return n
}
