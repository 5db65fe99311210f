package peer

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the processor time that the server's threads have used so far, user and
// system, ended threads too, from the process's clock (clock_getcpuclockid(3)): to the
// nanosecond, where /proc/PID/stat ticks every 10 ms.
func (s *Server) CPU() (time.Duration, error) { return ProcessCPU(s.PID) }

// ProcessCPU is the same of any process.
func ProcessCPU(pid int) (time.Duration, error) {
	var ts unix.Timespec
	// CPUCLOCK_SCHED of the whole process, as the kernel numbers such clocks.
	if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("processor clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// RSS is how many bytes of the server's memory are resident.
func (s *Server) RSS() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.PID))
	if err != nil {
		return 0, err
	}
	return parseStatm(string(b))
}

// parseStatm reads the second field of proc(5)'s statm, pages.
func parseStatm(line string) (int64, error) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return 0, fmt.Errorf("short statm line: %q", line)
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize()), err
}
