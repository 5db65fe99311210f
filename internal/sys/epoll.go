package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// EpollEvent is the kernel's struct epoll_event. Fd and Pad are its 64-bit user
// data: 32 bits each to the caller's liking.
type EpollEvent = unix.EpollEvent

// The operations of EpollCtl.
const (
	EpollAdd = unix.EPOLL_CTL_ADD
	EpollMod = unix.EPOLL_CTL_MOD
	EpollDel = unix.EPOLL_CTL_DEL
)

// Event bits of epoll.
const (
	EPOLLIN    = unix.EPOLLIN
	EPOLLOUT   = unix.EPOLLOUT
	EPOLLERR   = unix.EPOLLERR
	EPOLLHUP   = unix.EPOLLHUP
	EPOLLRDHUP = unix.EPOLLRDHUP
	EPOLLET    = unix.EPOLLET
)

// NewEpoll makes a close-on-exec epoll instance.
func NewEpoll() (int, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("epoll_create1: %w", err)
	}
	return fd, nil
}

// Timespec is the kernel's struct __kernel_timespec, the same on every
// architecture.
type Timespec struct {
	Sec, Nsec int64
}

func (t *Timespec) set(ns int64) { t.Sec, t.Nsec = ns/1e9, ns%1e9 }
