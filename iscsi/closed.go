package iscsi

import (
	"slices"
	"time"
)

// maxClosed bounds the sessions that a login looks at: nodes have a few.
const maxClosed = 16

// closedWait bounds the wait for their end: of commands in the store.
const closedWait = time.Second

// endClosed ends the sessions that are of those meant and that their nodes have closed:
// the end of a connection came before the new one began, but its loop may not have looked
// yet, and what the old session holds (a RESERVE, PREVENT ALLOW MEDIUM REMOVAL, a disk
// that is not shared) would stand in the new one's way.
func (s *Server) endClosed(of func(sessionKey) bool) {
	var olds, over []*session
	s.mu.Lock()
	for k, x := range s.sessions {
		if of(k) && x.admitted && len(olds) < maxClosed {
			olds = append(olds, x)
		}
	}
	s.mu.Unlock()
	for _, x := range olds {
		x.l.Do(func() {
			for _, c := range slices.Clone(x.conns) {
				if !c.dead {
					c.ready(true, false, false)
				}
			}
			if x.ended || len(x.conns) == 0 {
				over = append(over, x)
			}
		})
	}
	if len(over) > 0 {
		wait(over, time.Now().Add(closedWait))
	}
}
