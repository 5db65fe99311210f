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
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/internal/tools/peer"
)

type options struct {
	vtgt, against string
	dir, out      string
	parts         []string
	rounds        int
	each          time.Duration
	sizeMiB       int64
	fillKiB       int
	cores         int
	quick, gotgt  bool
	lines         *regexp.Regexp // nil: all
	soak          time.Duration  // 0: measure
}

func (o *options) bytes() int64 { return o.sizeMiB << 20 }

// The parts of a run.
var allParts = []string{"iscsi", "vhost", "scale"}

func main() {
	var o options
	var helper, parts string
	flag.StringVar(&o.vtgt, "vtgt", "bin/vtgt", "vtgt's binary")
	flag.StringVar(&o.against, "against", "tgtd", "the other target: tgtd, none, or the path of another vtgt binary")
	flag.StringVar(&o.dir, "dir", ".cache/bench", "where the image files go")
	flag.StringVar(&o.out, "o", "", "JSON file (default DIR/bench.json); the tables go beside it as .md")
	flag.StringVar(&parts, "parts", strings.Join(allParts, ","), "what to measure")
	flag.Func("lines", "measure only lines that match this regular expression, as \"vhost-user: null, 4k d128\"", func(s string) (err error) {
		o.lines, err = regexp.Compile(s)
		return err
	})
	flag.IntVar(&o.rounds, "rounds", 5, "runs of each load and contender")
	flag.DurationVar(&o.each, "each", 300*time.Millisecond, "about how long one run takes")
	flag.Int64Var(&o.sizeMiB, "size", 256, "size of a disk, MiB")
	flag.IntVar(&o.fillKiB, "fill", 4, "piece in which the images are filled, KiB")
	flag.BoolVar(&o.gotgt, "gotgt", true, "measure gotgt, too (built by the module proxy, once)")
	flag.BoolVar(&o.quick, "quick", false, "few and short loads over small disks: shows that it works, under a minute")
	flag.DurationVar(&o.soak, "soak", 0, "instead of measuring, load vtgt by every path for so long: its memory must stay flat and no request may allocate")
	flag.StringVar(&helper, "helper", "", "internal: be the serving side of a bare exchange")
	flag.Parse()
	o.cores, o.parts = runtime.NumCPU(), strings.Split(parts, ",")
	if helper != "" {
		if err := serveHelper(helper, o.bytes()); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if o.quick {
		o.rounds, o.each, o.sizeMiB, o.gotgt = 2, 50*time.Millisecond, 64, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the program.
type bench struct {
	o           options
	dir         string // of this run
	begin       time.Time
	res         *result
	vtgt, other *team
	gotgt       *team
	servers     []*peer.Server
	closers     []func()
	qemu, perf  bool // the clients are installed
	initiators  uint64
	failed      []error // lines
}

// want tells whether a part is asked for.
func (b *bench) want(part string) bool { return slices.Contains(b.o.parts, part) }

func run(ctx context.Context, o options) (err error) {
	if o.rounds < 1 || o.sizeMiB < 16 || o.fillKiB < 1 {
		return errors.New("-rounds and -fill must be positive, -size at least 16")
	}
	for _, p := range o.parts {
		if !slices.Contains(allParts, p) {
			return fmt.Errorf("-parts: there is no %q; there are %s", p, strings.Join(allParts, ", "))
		}
	}
	b := &bench{o: o, begin: time.Now(), res: &result{Machine: machine(), Targets: map[string]string{}}}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if b.o.out == "" {
		b.o.out = filepath.Join(o.dir, "bench.json")
	}
	if b.dir, err = os.MkdirTemp(o.dir, "run-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	defer func() {
		for _, s := range b.servers {
			// How others end is not our fault.
			if cerr := s.Close(); err == nil && s.Socket != "" {
				err = cerr
			}
		}
		for _, f := range b.closers {
			f()
		}
	}()
	for program, there := range map[string]*bool{"qemu-img": &b.qemu, "iscsi-perf": &b.perf} {
		if _, err := exec.LookPath(program); err == nil {
			*there = true
		} else {
			b.note("%s is not installed: its lines are left out (run make deps)", program)
		}
	}
	b.res.Setup = fmt.Sprintf("disks of %d MiB, image files in %s filled by %d KiB writes; %d rounds of %v, in turn, after one to warm up",
		o.sizeMiB, o.dir, o.fillKiB, o.rounds, o.each)
	if o.soak > 0 {
		b.o.against, b.o.gotgt = "none", false
		if err := b.startTeams(ctx); err != nil {
			return err
		}
		return b.soak(ctx)
	}
	if b.want("iscsi") || b.want("vhost") {
		if err := b.startTeams(ctx); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		name string
		run  func(context.Context) error
	}{{"vhost", b.vhost}, {"iscsi", b.iscsi}, {"scale", b.scale}} {
		if !b.want(p.name) {
			continue
		}
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	return errors.Join(append(b.failed, b.report())...)
}

// report prints the tables and writes the files.
func (b *bench) report() error {
	seen := map[*peer.Server]bool{}
	for _, t := range []*team{b.vtgt, b.other, b.gotgt} {
		if t == nil {
			continue
		}
		for _, m := range []string{cached, ram} {
			s := t.srv[m]
			if s == nil || seen[s] {
				continue
			}
			seen[s] = true
			n, err := s.RSS()
			if err != nil {
				return err
			}
			with := "image files"
			if m == ram && s != t.srv[cached] {
				with = fmt.Sprintf("a mem: disk of %d MiB in it, and a null: one", b.o.sizeMiB)
			}
			b.res.RSS = append(b.res.RSS, rss{t.name, n, with})
		}
	}
	b.res.Goals = b.goals()
	b.res.markdown(os.Stdout)
	text, err := json.MarshalIndent(b.res, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.o.out, append(text, '\n'), 0o644); err != nil {
		return err
	}
	md := strings.TrimSuffix(b.o.out, ".json") + ".md"
	f, err := os.Create(md)
	if err != nil {
		return err
	}
	b.res.markdown(f)
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Printf("\nall samples: %s; tables: %s; %.0f s\n", b.o.out, md, time.Since(b.begin).Seconds())
	return nil
}
