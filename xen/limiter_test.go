package xen

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	var l limiter
	now := time.Unix(1000, 0)
	let := 0
	for range 100 {
		if _, ok := l.allow(now); ok {
			let++
		}
	}
	if let != linesPerMinute || l.count() != 100 {
		t.Errorf("%d lines of %d", let, l.count())
	}
	if n, ok := l.allow(now.Add(time.Minute)); !ok || n != 100-linesPerMinute {
		t.Error(n, ok)
	}
	if n, ok := l.allow(now.Add(time.Minute)); !ok || n != 0 {
		t.Error(n, ok)
	}
}
