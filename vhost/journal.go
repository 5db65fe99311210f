package vhost

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A kind of line that a front end or a guest can cause, as fast as it likes, is written
// lineBurst times in a row and then once in lineRefill.
const (
	lineBurst  = 8
	lineRefill = 10 * time.Second
)

// A lineKind is a kind of line, with a rate of its own.
type lineKind uint8

const (
	lineConnect lineKind = iota
	lineGone
	lineRejected
	lineRefused
	lineUnknown
	lineUnparked
	lineKinds
)

// journal writes lines at a bounded rate.
type journal struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds [lineKinds]struct {
		used       int
		since      time.Time // of the last refill
		suppressed uint64
	}
}

// allow tells whether a line of kind k may be written now, and how many could not be.
func (j *journal) allow(k lineKind, now time.Time) (ok bool, suppressed uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.kinds[k]
	if n := int(now.Sub(s.since) / lineRefill); n > 0 {
		s.used, s.since = max(0, s.used-n), now
	}
	if s.used == lineBurst {
		s.suppressed++
		return false, 0
	}
	s.used++
	suppressed, s.suppressed = s.suppressed, 0
	return true, suppressed
}

func (j *journal) line(k lineKind, lv slog.Level, msg string, args ...any) {
	ok, n := j.allow(k, time.Now())
	if !ok {
		return
	}
	if n > 0 {
		args = append(args, "suppressed", n)
	}
	j.log.Log(context.Background(), lv, msg, args...)
}
