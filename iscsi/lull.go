package iscsi

import (
	"time"

	"github.com/vtgt/vtgt/internal/loop"
)

// lull is a pause in receiving. While a worker has some long writes there is no hurry to
// take more (loop.Loop.Relieved): the loop is faster than its initiator, and would be woken
// for each piece that comes. So it waits until writes have ended, and takes then what came
// meanwhile.
type lull struct {
	on    bool // EPOLLIN is not wanted
	over  bool // the last one took too long: none until something is sent
	timer loop.Timer
}

const (
	// lullWrites is how many writes a worker must have for a pause, which begins when
	// the socket has given all it had.
	lullWrites = 4
	// lullMax bounds a pause: on a store that is slow, or hangs, what else comes must
	// not wait.
	lullMax = 200 * time.Microsecond
)

type connLull conn

// calm begins a pause where there may be one.
func (c *conn) calm() {
	if l := c.sh.l; l.Relieved() >= lullWrites && !c.lull.over && !c.dead {
		c.lull.on = true
		l.After(&c.lull.timer, lullMax)
	}
}

// stir ends a pause because something was sent; false: there was none.
func (c *conn) stir() bool {
	l := &c.lull
	l.over = false
	if !l.on {
		return false
	}
	l.on = false
	c.sh.l.Stop(&l.timer)
	c.requeue()
	return true
}

func (n *connLull) Expired(*loop.Timer) {
	c := (*conn)(n)
	c.lull.on, c.lull.over = false, true
	c.requeue()
}
