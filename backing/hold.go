package backing

import (
	"fmt"
	"time"
)

// A Holder is a store that two processes may have open of which one at a time holds it
// (Options.Migratable): its locks are taken by Hold and given back by LetGo, not with
// Open and Close. Whoever does not hold it has no operation on it. Not on a loop.
type Holder interface {
	// Hold takes the locks, waiting up to wait for the other process to let go. Held
	// already, it does nothing.
	Hold(wait time.Duration) error
	// LetGo makes everything stable and gives the locks back, also where the former
	// fails.
	LetGo() error
}

func (s *fileStore) Hold(wait time.Duration) error {
	s.reopen.Lock()
	defer s.reopen.Unlock()
	s.mu.Lock()
	closed, d := s.closed, s.d
	s.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case !s.away:
		return nil
	}
	if err := s.lock(d, wait); err != nil {
		return err
	}
	s.away = false
	s.look() // the other process may have let the file grow
	return nil
}

func (s *fileStore) LetGo() error {
	s.reopen.Lock()
	defer s.reopen.Unlock()
	s.mu.Lock()
	closed, d := s.closed, s.d
	s.mu.Unlock()
	if closed || s.away {
		return nil
	}
	var err error
	if !s.readOnly {
		// Another host's kernel sees what is on the server, not our cache.
		if err = s.fdatasync(d.fd); err != nil {
			err = fmt.Errorf("%s: sync: %w", s.spec, err)
		}
	}
	locksFor(s.readOnly).drop(d.fd)
	s.away = true
	return err
}
