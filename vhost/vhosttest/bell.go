package vhosttest

import (
	"errors"
	"fmt"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

// A bell is an eventfd that its owner can wait for without allocating.
type bell struct {
	fd, epoll int
	ts        sys.Timespec
	evs       [1]sys.EpollEvent
}

func newBell(wait bool) (*bell, error) {
	b := &bell{fd: -1, epoll: -1}
	var err error
	if b.fd, err = sys.NewEventfd(); err != nil {
		return nil, err
	}
	if !wait {
		return b, nil
	}
	if b.epoll, err = sys.NewEpoll(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.evs[0] = sys.EpollEvent{Events: sys.EPOLLIN}
	if e := sys.EpollCtl(b.epoll, sys.EpollAdd, b.fd, &b.evs[0]); e != 0 {
		return nil, errors.Join(fmt.Errorf("epoll: %w", e), b.close())
	}
	return b, nil
}

func (b *bell) close() error {
	var err error
	if b.epoll >= 0 {
		err = sys.Close(b.epoll)
	}
	if b.fd >= 0 {
		err = errors.Join(err, sys.Close(b.fd))
	}
	b.fd, b.epoll = -1, -1
	return err
}

func (b *bell) ring() { sys.EventfdSignal(b.fd) }

// take takes the signals so far.
func (b *bell) take() uint64 {
	n, _ := sys.EventfdDrain(b.fd)
	return n
}

// wait sleeps until the bell was rung, d at most, and takes the signals.
func (b *bell) wait(d time.Duration) uint64 {
	if n := b.take(); n > 0 {
		return n
	}
	sys.EpollWait(b.epoll, b.evs[:], int64(d), &b.ts)
	return b.take()
}
