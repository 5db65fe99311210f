package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// iscsi-perf prints its averages in place, again and again; the last one counts.
var perfAverage = regexp.MustCompile(`iops average ([0-9]+)`)

// iscsiPerf reads at random for about a second (the program counts in whole ones) and
// tells how many requests there were.
func iscsiPerf(ctx context.Context, url string, c cell) (n int, took, cpu time.Duration, err error) {
	const seconds = 1
	out, cpu, err := program(ctx, "iscsi-perf", "-r", "-m", strconv.Itoa(c.Depth), "-b", strconv.Itoa(c.Block/512), "-t", strconv.Itoa(seconds), url)
	if err != nil {
		return 0, 0, 0, err
	}
	all := perfAverage.FindAllStringSubmatch(out, -1)
	if all == nil {
		return 0, 0, 0, fmt.Errorf("iscsi-perf printed no average: %s", out)
	}
	n, err = strconv.Atoi(all[len(all)-1][1])
	return n * seconds, seconds * time.Second, cpu, err
}
