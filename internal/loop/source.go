package loop

import (
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// Source is a file descriptor whose readiness a loop watches. It is embedded in
// its owner. The descriptor stays the owner's: Remove the source first, then
// close.
type Source struct {
	h    ReadyHandler
	l    *Loop
	fd   int32
	slot int32
	gen  int32
	ev   Events
}

// FD is the watched descriptor; meaningful while the source is added.
func (s *Source) FD() int { return int(s.fd) }

// Added reports whether the source is being watched.
func (s *Source) Added() bool { return s.l != nil }

// Events is what the source asks for at the moment.
func (s *Source) Events() Events { return s.ev }

// slotEntry is what the user data of an epoll event leads to. The generation
// tells events of a removed source from those of the slot's next one.
type slotEntry struct {
	s   *Source
	gen int32
}

var (
	errAdded    = errors.New("loop: source is added already")
	errNotAdded = errors.New("loop: source is not added")
	errNotOn    = errors.New("loop: called off the loop's thread")
)

// Add begins to watch fd for ev. On the loop only (Do and Post lead there);
// elsewhere it fails. Readiness comes to h from the next round on.
func (l *Loop) Add(s *Source, fd int, ev Events, h ReadyHandler) error {
	if !l.OnLoop() {
		return errNotOn
	}
	if s.l != nil {
		return errAdded
	}
	var slot int32
	if n := len(l.free); n > 0 {
		slot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		slot = int32(len(l.srcs))
		l.srcs = append(l.srcs, slotEntry{})
	}
	e := &l.srcs[slot]
	s.h, s.fd, s.slot, s.gen, s.ev = h, int32(fd), slot, e.gen, ev
	l.ectl = sys.EpollEvent{Events: uint32(ev), Fd: slot, Pad: e.gen}
	if errno := sys.EpollCtl(l.epfd, sys.EpollAdd, fd, &l.ectl); errno != 0 {
		l.free = append(l.free, slot)
		return fmt.Errorf("loop: watch descriptor %d: %w", fd, errno)
	}
	e.s = s
	s.l = l
	return nil
}

// Modify changes what an added source asks for. On the loop only.
func (l *Loop) Modify(s *Source, ev Events) error {
	if s.l != l {
		return errNotAdded
	}
	l.ectl = sys.EpollEvent{Events: uint32(ev), Fd: s.slot, Pad: s.gen}
	if errno := sys.EpollCtl(l.epfd, sys.EpollMod, int(s.fd), &l.ectl); errno != 0 {
		return fmt.Errorf("loop: watch descriptor %d: %w", s.fd, errno)
	}
	s.ev = ev
	return nil
}

// Remove ends the watching: s gets no Ready any more, not even one that this
// round has fetched already. On the loop only. A source that is not added is left
// alone.
func (l *Loop) Remove(s *Source) {
	if s.l != l {
		return
	}
	// An error means that the owner has closed the descriptor first: then the
	// kernel has forgotten it by itself.
	sys.EpollCtl(l.epfd, sys.EpollDel, int(s.fd), &l.ectl)
	e := &l.srcs[s.slot]
	e.s = nil
	e.gen++
	l.free = append(l.free, s.slot)
	s.l, s.h = nil, nil
}
