package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A cell is one kind of load.
type cell struct {
	Write bool `json:"write"`
	Block int  `json:"block"` // bytes per request
	Depth int  `json:"depth"` // requests in flight
}

func (c cell) String() string {
	size, op := fmt.Sprintf("%dk", c.Block>>10), "read"
	if c.Block >= 1<<20 {
		size = fmt.Sprintf("%dM", c.Block>>20)
	}
	if c.Write {
		op = "write"
	}
	return fmt.Sprintf("%s d%d %s", size, c.Depth, op)
}

// cells are what is measured, reads before the writes that disturb the cache.
func cells() []cell {
	var all []cell
	for _, write := range []bool{false, true} {
		for _, block := range []int{4 << 10, 1 << 20} {
			for _, depth := range []int{1, 32} {
				all = append(all, cell{write, block, depth})
			}
		}
	}
	return all
}

// step is the distance of neighbouring requests: small ones jump about the file.
func (c cell) step() int {
	if c.Block >= 64<<10 {
		return c.Block
	}
	return c.Block * 17
}

var completed = regexp.MustCompile(`Run completed in ([0-9.]+) seconds`)

// drive sends n requests and returns the time they took and the client's own
// processor time.
func drive(ctx context.Context, url string, c cell, n int) (took, cpu time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	args := []string{"bench", "-f", "raw", "-c", strconv.Itoa(n), "-d", strconv.Itoa(c.Depth),
		"-s", strconv.Itoa(c.Block), "-S", strconv.Itoa(c.step())}
	if c.Write {
		args = append(args, "-w", "--pattern=165")
	}
	cmd := exec.CommandContext(ctx, "qemu-img", append(args, url)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 30 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if strings.Contains(text, "Unknown protocol") {
			text += " (its iSCSI driver is in package qemu-block-extra: run make deps)"
		}
		return 0, 0, fmt.Errorf("qemu-img %s %s: %w: %s", strings.Join(args, " "), url, err, text)
	}
	m := completed.FindStringSubmatch(out.String())
	if m == nil {
		return 0, 0, fmt.Errorf("qemu-img bench printed no time: %s", out.String())
	}
	s, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, 0, err
	}
	return time.Duration(s * float64(time.Second)), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}
