package xen

import (
	"log/slog"
	"sync"
	"time"
)

// A limiter lets a few of the lines through that one domain causes: it may do wrong as
// often as it likes. Any goroutine.
type limiter struct {
	mu         sync.Mutex
	since      time.Time // the present minute's beginning
	lines      int       // let through since then
	suppressed uint64
	total      uint64
}

const linesPerMinute = 6

// allow tells whether a line may be logged, and how many were not since the last one.
func (l *limiter) allow(now time.Time) (suppressed uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if now.Sub(l.since) >= time.Minute {
		l.since, l.lines = now, 0
	}
	if l.lines++; l.lines > linesPerMinute {
		l.suppressed++
		return 0, false
	}
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}

// count is how many lines there were to be.
func (l *limiter) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// complain logs what a domain does wrong, or suffers.
func (e *Export) complain(log *slog.Logger, msg string, args ...any) {
	n, ok := e.warn.allow(time.Now())
	if !ok {
		return
	}
	if n > 0 {
		args = append(args, "suppressed", n)
	}
	log.Warn("xen: "+msg, append([]any{"export", e.conf.Name}, args...)...)
}
