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

// runLimit bounds one run of a client: what takes longer hangs.
const runLimit = 3 * time.Minute

var completed = regexp.MustCompile(`Run completed in ([0-9.]+) seconds`)

// program runs a client's program to its end.
func program(ctx context.Context, name string, args ...string) (out string, cpu time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 30 * time.Second
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	out = strings.TrimSpace(b.String())
	if err != nil {
		if strings.Contains(out, "Unknown protocol") {
			out += " (its iSCSI driver is in package qemu-block-extra: run make deps)"
		}
		return out, 0, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return out, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// qemuImg sends n requests with qemu-img bench.
func qemuImg(ctx context.Context, url string, c cell, n int) (took, cpu time.Duration, err error) {
	args := []string{"bench", "-f", "raw", "-c", strconv.Itoa(n), "-d", strconv.Itoa(c.Depth),
		"-s", strconv.Itoa(c.Block), "-S", strconv.Itoa(c.step())}
	if c.Write {
		args = append(args, "-w", "--pattern=165")
	}
	out, cpu, err := program(ctx, "qemu-img", append(args, url)...)
	if err != nil {
		return 0, 0, err
	}
	m := completed.FindStringSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("qemu-img bench printed no time: %s", out)
	}
	s, err := strconv.ParseFloat(m[1], 64)
	return time.Duration(s * float64(time.Second)), cpu, err
}

// calibrate finds how many requests take about as long as is wanted.
func calibrate(ctx context.Context, url string, c cell, want time.Duration) (int, error) {
	n := 32
	if c.Block < 64<<10 {
		n = 512
	}
	for range 4 {
		took, _, err := qemuImg(ctx, url, c, n)
		if err != nil {
			return 0, err
		}
		// Short runs tell little: grow at most by 16 and look again.
		next := int(float64(n) * min(16, want.Seconds()/max(took.Seconds(), 1e-4)))
		if took > want/4 {
			return max(next, 32), nil
		}
		n = max(next, n)
	}
	return n, nil
}
