package vhost

// hold takes what the rings work on for this process, where that has to be.
func (s *session) hold() error {
	if s.held || s.e.conf.Hold == nil {
		return nil
	}
	if err := s.e.conf.Hold(); err != nil {
		return err
	}
	s.held = true
	return nil
}

// letGo gives it back when no ring runs. A request that the deadline has passed by is
// still in the store: what it does there is our own doing, so nobody else may.
func (s *session) letGo() {
	if !s.held || s.d.stuck() > 0 {
		return
	}
	for _, q := range s.rings {
		if q != nil && q.vq.started() {
			return
		}
	}
	s.held = false
	if f := s.e.conf.LetGo; f != nil {
		f()
	}
}
