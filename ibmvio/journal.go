package ibmvio

import (
	"log/slog"
	"sync"
	"time"
)

// Lines that a virtual machine can cause, as fast as it likes, are written lineBurst
// times in a row and then once in lineRefill.
const (
	lineBurst  = 8
	lineRefill = 10 * time.Second
)

// journal writes lines at a bounded rate.
type journal struct {
	mu         sync.Mutex
	used       int
	since      time.Time // of the last refill
	suppressed uint64
}

func (j *journal) line(log *slog.Logger, msg string, args ...any) {
	j.mu.Lock()
	now := time.Now()
	if n := int(now.Sub(j.since) / lineRefill); n > 0 {
		j.used, j.since = max(0, j.used-n), now
	}
	if j.used == lineBurst {
		j.suppressed++
		j.mu.Unlock()
		return
	}
	j.used++
	n := j.suppressed
	j.suppressed = 0
	j.mu.Unlock()
	if n > 0 {
		args = append(args, "suppressed", n)
	}
	log.Info(msg, args...)
}
