package sys

import "golang.org/x/sys/unix"

// MonotonicMicroseconds is CLOCK_MONOTONIC, as sd_notify(3) wants it; 0 where the
// kernel does not tell.
func MonotonicMicroseconds() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano()) / 1000
}
