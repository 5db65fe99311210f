package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/tools/peer"
)

type options struct {
	peer, vtgt        string
	families, layouts []string
	jobs              int
	limit             time.Duration
	strict, verbose   bool
}

func main() {
	var o options
	var families, names string
	flag.StringVar(&o.peer, "peer", "vtgt", "what to test: vtgt or tgtd")
	flag.StringVar(&o.vtgt, "vtgt", "bin/vtgt", "vtgt's binary")
	flag.StringVar(&families, "families", "*", "globs of SUITE or SUITE.NAME, separated by commas")
	flag.StringVar(&names, "configs", "A,B,C,D,E", "disk configurations")
	flag.IntVar(&o.jobs, "jobs", 4, "tests at a time, each with disks of its own")
	flag.DurationVar(&o.limit, "timeout", 5*time.Minute, "limit of one test")
	flag.BoolVar(&o.strict, "strict", false, "judge a peer like vtgt")
	flag.BoolVar(&o.verbose, "v", false, "print what failed tests printed")
	flag.Parse()
	o.families, o.layouts = strings.Split(families, ","), strings.Split(names, ",")

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bad, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	if bad > 0 {
		os.Exit(1)
	}
}

// run returns how many tests make it a failure.
func run(ctx context.Context, o options) (bad int, err error) {
	program, err := exec.LookPath("iscsi-test-cu")
	if err != nil {
		return 0, errors.New("iscsi-test-cu is not installed (package libiscsi-bin): run make deps")
	}
	all, err := list(ctx, program)
	if err != nil {
		return 0, err
	}
	rep := &report{results: map[test]map[string]result{}, judge: o.peer == "vtgt" || o.strict}
	for _, t := range all {
		if match(o.families, t) {
			rep.tests = append(rep.tests, t)
		}
	}
	for _, l := range layouts {
		if slices.Contains(o.layouts, l.name) {
			rep.layouts = append(rep.layouts, l)
		}
	}
	if len(rep.tests) == 0 || len(rep.layouts) == 0 {
		return 0, fmt.Errorf("no test matches -families %v -configs %v", o.families, o.layouts)
	}

	dir, err := os.MkdirTemp("", "vtgt-conformance-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	o.jobs = max(1, o.jobs)
	disks, err := makeDisks(dir, rep.layouts, o.jobs)
	if err != nil {
		return 0, err
	}
	h := &host{dir: dir}
	switch o.peer {
	case "vtgt":
		h.launch = func(dir string) (*peer.Server, error) { return peer.Vtgt(o.vtgt, dir, disks) }
	case "tgtd":
		h.launch = func(dir string) (*peer.Server, error) { return peer.Tgtd(dir, disks) }
	default:
		return 0, fmt.Errorf("-peer %s: vtgt and tgtd are known", o.peer)
	}
	srv, err := h.server()
	if err != nil {
		return 0, err
	}
	fmt.Printf("iscsi-test-cu against %s\n", srv.Version)

	begin := time.Now()
	err = runAll(ctx, program, o, h, rep)
	if cerr := h.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return 0, err
	}
	bad = rep.print(os.Stdout, o.verbose)
	word := "ok"
	if bad > 0 {
		word = "FAIL"
	}
	c := rep.total()
	fmt.Printf("%s  \tconformance of %s\t%d tests: %d runs pass, %d fail, %d skip; %d against expectation\t%.1fs\n",
		word, o.peer, len(rep.tests), c.pass, c.fail, c.skip, bad, time.Since(begin).Seconds())
	return bad, nil
}

// runAll spreads tests and layouts over the workers.
func runAll(ctx context.Context, program string, o options, h *host, rep *report) error {
	type job struct {
		t test
		l layout
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for w := range o.jobs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range jobs {
				srv, err := h.server()
				if err == nil {
					// Nothing of the test before may reach the disk any more.
					err = srv.Idle(ctx, diskName(j.l, w))
				}
				if err == nil {
					err = blank(j.l, w, h.dir)
				}
				if err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					continue
				}
				r := runTest(ctx, program, srv.URL(diskName(j.l, w)), j.t, o.limit)
				if srv.Exited() && r.verdict != pass {
					r.verdict, r.reason = died, "the target's process ended during this test"
				}
				r.layout = j.l.name
				mu.Lock()
				if rep.results[j.t] == nil {
					rep.results[j.t] = map[string]result{}
				}
				rep.results[j.t][j.l.name] = r
				mu.Unlock()
			}
		}()
	}
feed:
	for _, l := range rep.layouts {
		for _, t := range rep.tests {
			if l.families != nil && !match(l.families, t) {
				continue
			}
			select {
			case jobs <- job{t, l}:
			case <-ctx.Done():
				break feed
			}
		}
	}
	close(jobs)
	wg.Wait()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return first
}
