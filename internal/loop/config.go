package loop

import (
	"log/slog"
	"time"

	"github.com/vtgt/vtgt/internal/slab"
)

// Config describes a Group. The zero value is fit for use.
type Config struct {
	// Loops is the number of event loops, each with an OS thread of its own;
	// 0 means GOMAXPROCS.
	Loops int
	// Spin is the longest time that a loop looks for work before it sleeps; 0
	// means 20 us, negative never. It is an upper bound: a loop spins only
	// while that has lately paid, and no loop does when GOMAXPROCS <= 2. It is
	// for what shows in memory, rings and messages. A loop that sockets alone
	// keep busy sleeps at once, because each look at them is a system call, unless
	// it was told that a peer is about to ask again (Loop.Expect): then it looks
	// for five times as long, which is what a client over TCP takes.
	Spin time.Duration
	// Workers bounds the goroutines for blocking calls; 0 means 64.
	Workers int
	// NoUring makes Ring return nil on every loop.
	NoUring bool
	// Slabs is the memory that the loops' caches draw on; nil means a pool
	// with slab.DefaultLimit.
	Slabs *slab.Pool
	// Log gets what an operator should know; nil means silence.
	Log *slog.Logger
	// Strict makes misuse (a node posted twice) panic. For tests.
	Strict bool
	// Recover, when set, is asked about every panic in code called by a loop,
	// on that loop's thread. true: the loop goes on with the next thing to
	// serve. false: the panic goes on. It is the place where faults in memory
	// that a peer took away are told from bugs.
	Recover func(l *Loop, v any) bool
}

const (
	defaultSpin    = 20 * time.Microsecond
	defaultWorkers = 64
)
