package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/tools/peer"
)

type options struct {
	vtgt, against string
	dir, out      string
	rounds        int
	each          time.Duration
	sizeMiB       int64
	fillKiB       int
}

func main() {
	var o options
	var quick bool
	flag.StringVar(&o.vtgt, "vtgt", "bin/vtgt", "vtgt's binary; empty: only the other one")
	flag.StringVar(&o.against, "against", "tgtd", "the other target: tgtd, none, or the path of another vtgt binary")
	flag.StringVar(&o.dir, "dir", ".cache/bench", "where the image files go; /dev/shm for tmpfs")
	flag.StringVar(&o.out, "o", "", "JSON file (default DIR/bench.json)")
	flag.IntVar(&o.rounds, "rounds", 5, "runs of each load and target")
	flag.DurationVar(&o.each, "each", time.Second, "about how long one run takes")
	flag.Int64Var(&o.sizeMiB, "size", 512, "size of an image, MiB")
	flag.IntVar(&o.fillKiB, "fill", 4, "piece in which the images are filled, KiB")
	flag.BoolVar(&quick, "quick", false, "2 short rounds over small images: shows that it works, under a minute")
	flag.Parse()
	if quick {
		o.rounds, o.each, o.sizeMiB = 2, 200*time.Millisecond, 64
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		return errors.New("qemu-img is not installed (packages qemu-utils, qemu-block-extra): run make deps")
	}
	if o.rounds < 1 || o.sizeMiB < 1 || o.fillKiB < 1 {
		return errors.New("-rounds, -size and -fill must be positive")
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if o.out == "" {
		o.out = filepath.Join(o.dir, "bench.json")
	}
	dir, err := os.MkdirTemp(o.dir, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}

	teams, err := lineUp(o, dir)
	defer func() {
		for _, t := range teams {
			// How tgtd ends is not our fault.
			if cerr := t.srv.Close(); err == nil && t.srv.Name != "tgtd" {
				err = cerr
			}
		}
	}()
	if err != nil {
		return err
	}
	r := &result{Machine: machine(), Targets: map[string]string{},
		Image: fmt.Sprintf("%d MiB images in %s, filled by %d KiB writes, in the page cache; qemu-img bench, %d rounds of %v, in turn",
			o.sizeMiB, o.dir, o.fillKiB, o.rounds, o.each)}
	for _, t := range teams {
		r.Order = append(r.Order, t.srv.Name)
		r.Targets[t.srv.Name] = t.srv.Version
	}
	for _, c := range cells() {
		x := row{c, map[string][]sample{}}
		counts := make([]int, len(teams))
		for i, t := range teams {
			if counts[i], err = calibrate(ctx, t, c, o.each); err != nil {
				return withLog(err, t)
			}
		}
		for range o.rounds {
			for i, t := range teams {
				s, err := measure(ctx, t, c, counts[i])
				if err != nil {
					return withLog(err, t)
				}
				x.Samples[t.srv.Name] = append(x.Samples[t.srv.Name], s)
			}
		}
		r.Rows = append(r.Rows, x)
		fmt.Fprintf(os.Stderr, "%s done\n", c)
	}
	r.markdown(os.Stdout)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.out, append(b, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Printf("\nall samples: %s\n", o.out)
	return nil
}

func withLog(err error, t contestant) error {
	if t.srv.Exited() {
		return fmt.Errorf("%w\n%s ended by itself:\n%s", err, t.srv.Name, t.srv.Log())
	}
	return err
}

// lineUp starts the targets. What it started it returns, with an error too.
func lineUp(o options, dir string) ([]contestant, error) {
	var teams []contestant
	add := func(name string, start func(dir string, disks []peer.Disk) (*peer.Server, error)) error {
		sub := filepath.Join(dir, name)
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		d := peer.Disk{Name: "bench", Path: filepath.Join(sub, "image"), BlockSize: 512, PhysicalBlockSize: 4096}
		if err := makeImage(d.Path, o.sizeMiB<<20, o.fillKiB<<10); err != nil {
			return err
		}
		srv, err := start(sub, []peer.Disk{d})
		if err != nil {
			return err
		}
		srv.Name = name
		teams = append(teams, contestant{srv, d.Name, d.Path})
		return nil
	}
	vtgt := func(binary string) func(string, []peer.Disk) (*peer.Server, error) {
		return func(dir string, disks []peer.Disk) (*peer.Server, error) { return peer.Vtgt(binary, dir, disks) }
	}
	if o.vtgt != "" {
		if err := add("vtgt", vtgt(o.vtgt)); err != nil {
			return teams, err
		}
	}
	switch o.against {
	case "none", "":
	case "tgtd":
		if err := add("tgtd", peer.Tgtd); err != nil {
			fmt.Printf("no peer: %v; vtgt alone\n\n", err)
		}
	default:
		if err := add("other", vtgt(o.against)); err != nil {
			return teams, err
		}
	}
	return teams, nil
}
