package vhost

import (
	"errors"
	"log/slog"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/vhost/proto"
)

// Parker keeps, outside of this process, what the next one needs of an Export to go on
// with its front end after this one was killed (Config.Crashed). Calls come one at a time.
type Parker interface {
	// Park keeps s and copies of the descriptors of set in place of what it has.
	Park(s *Saved, set *handover.Set) error
	// Unpark: there is nothing to go on with.
	Unpark()
}

// changes tells whether a message may change what the next process must know.
func changes(r proto.Request) bool {
	switch r {
	case proto.GetFeatures, proto.GetProtocolFeatures, proto.GetQueueNum, proto.GetMaxMemSlots, proto.GetStatus, proto.GetConfig, proto.GetInflightFD:
		return false
	}
	return true
}

// park has the Parker keep the session as it is now. It comes before the answer to a
// message: what the front end has been told is known to the next process. A message
// without an answer is lost with a process that dies between reading and parking it.
func (s *session) park() {
	p := s.e.conf.Parker
	if p == nil || !s.changed {
		return
	}
	s.changed = false
	var set handover.Set
	defer set.Close()
	st, err := s.saveRunning(&set)
	if err == nil {
		err = p.Park(st, &set)
	}
	if err != nil {
		// What is kept is not true any more.
		p.Unpark()
		s.e.log.line(lineUnparked, slog.LevelWarn, "vhost-user: the machine would not survive a crash of this process", "export", s.e.conf.Name, "why", err)
	}
}

// unpark ends that: the front end is gone.
func (s *session) unpark() {
	if p := s.e.conf.Parker; p != nil {
		s.changed = false
		p.Unpark()
	}
}

// saveRunning describes the session while its rings run: from where they go on stands in
// the record of requests in flight, and nowhere else.
func (s *session) saveRunning(set *handover.Set) (*Saved, error) {
	for _, q := range s.rings {
		switch {
		case q == nil || !q.vq.started():
		case q.parked:
			return nil, errors.New("its guest memory is being changed")
		case s.inf == nil:
			return nil, errors.New("its requests in flight are not recorded")
		}
	}
	return s.save(set, nil)
}
