package iscsi

import "time"

// Limits bound what peers can make the server hold. A zero field stands for the
// value named beside it.
type Limits struct {
	// HalfOpen is the number of connections that may be in login at a time (64),
	// and HalfOpenPerPeer how many of them may come from one address (32; IPv6: from
	// one /64).
	HalfOpen, HalfOpenPerPeer int
	// LoginQueue is how many more connections may wait for their turn to log in
	// (512), one half of them from one address; others are closed at once.
	// Negative: none.
	LoginQueue int
	// LoginTimeout is the time from accept to full feature phase (15 s).
	LoginTimeout time.Duration
	// Discoveries is the number of discovery sessions at a time (64), and
	// DiscoveryTimeout how long one may be silent (60 s).
	Discoveries      int
	DiscoveryTimeout time.Duration
	// Sessions is the number of normal sessions at a time (4096).
	Sessions int
	// Connections is the number of connections of one session that the server
	// agrees to where its login.Config does not say (4).
	Connections int
	// Window is the number of commands that an initiator may have outstanding
	// in a session (128, at most 256).
	Window int
	// SessionMemory bounds the payload buffers of one session, bytes (64 MiB).
	// One command may exceed it when the session holds nothing else. All
	// sessions together are bounded by the limit of the loops' slabs.
	SessionMemory int64
	// MaxTransfer is the most that one command may move, bytes (32 MiB). Longer
	// ones end with INVALID FIELD IN CDB.
	MaxTransfer int64
	// PingInterval is the silence after which a NOP-In asks whether the
	// initiator is there (15 s), and PingTimeout how long it may take to say
	// anything (15 s). A negative interval: never.
	PingInterval, PingTimeout time.Duration
	// TaskTimeout is the deadline of task management and of closing a session's
	// nexus (30 s).
	TaskTimeout time.Duration
	// StallTimeout is how long a session may make no progress while it waits for
	// data that its initiator owes, or for memory (60 s).
	StallTimeout time.Duration
}

const maxWindow = 256

func (l Limits) withDefaults() Limits {
	def := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	num := func(p *int, d int) {
		if *p <= 0 {
			*p = d
		}
	}
	num(&l.HalfOpen, 64)
	num(&l.HalfOpenPerPeer, max(l.HalfOpen/2, 1))
	if l.LoginQueue == 0 {
		l.LoginQueue = 512
	}
	num(&l.Discoveries, 64)
	num(&l.Sessions, 4096)
	num(&l.Connections, 4)
	l.Connections = min(l.Connections, 65535)
	num(&l.Window, 128)
	l.Window = min(l.Window, maxWindow)
	if l.SessionMemory <= 0 {
		l.SessionMemory = 64 << 20
	}
	if l.MaxTransfer <= 0 {
		l.MaxTransfer = 32 << 20
	}
	def(&l.LoginTimeout, 15*time.Second)
	def(&l.DiscoveryTimeout, time.Minute)
	def(&l.PingInterval, 15*time.Second)
	def(&l.PingTimeout, 15*time.Second)
	def(&l.TaskTimeout, 30*time.Second)
	def(&l.StallTimeout, time.Minute)
	return l
}

// tick is how often a connection looks whether one of its times is over.
func (l Limits) tick() time.Duration {
	t := min(4*time.Second, l.StallTimeout, l.PingTimeout)
	if l.PingInterval > 0 {
		t = min(t, l.PingInterval)
	}
	return max(t/4, 10*time.Millisecond)
}
