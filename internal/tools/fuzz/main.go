package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// A target is one fuzz function of one package.
type target struct{ pkg, name string }

func main() {
	each := flag.Duration("time", 3*time.Second, "how long each target is fuzzed")
	only := flag.String("run", ".", "only targets whose PACKAGE.NAME matches")
	flag.Parse()
	re, err := regexp.Compile(*only)
	if err != nil {
		fatal(err)
	}
	pkgs := flag.Args()
	if len(pkgs) == 0 {
		pkgs = []string{"./..."}
	}
	targets, err := list(pkgs)
	if err != nil {
		fatal(err)
	}
	ran := 0
	var failed []string // told last, too: a log may be cut down to its end
	for _, t := range targets {
		if !re.MatchString(t.pkg + "." + t.name) {
			continue
		}
		ran++
		out, err := fuzz(t, *each)
		for n := 0; n < 4 && errors.Is(err, errDeadline); n++ {
			// A target that hangs ends the same way each time.
			fmt.Printf("%s\tthe fuzzer ran into its own deadline without a finding: once more\n", t.name)
			out, err = fuzz(t, *each)
		}
		if err != nil {
			verdict := fmt.Sprintf("FAIL\t%s.%s: %v\n", t.pkg, t.name, err)
			fmt.Print(verdict)
			failed = append(failed, verdict+last(out, 20))
		}
	}
	fmt.Printf("fuzz: %d targets, %s each, %d failed\n", ran, *each, len(failed))
	for _, f := range failed {
		fmt.Print(f)
	}
	if len(failed) > 0 || ran == 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "fuzz:", err)
	os.Exit(2)
}

// list asks the go command, which names a package's targets before its "ok" line.
func list(pkgs []string) ([]target, error) {
	cmd := exec.Command("go", append([]string{"test", "-list", "^Fuzz"}, pkgs...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		os.Stderr.Write(out)
		return nil, fmt.Errorf("go test -list: %w", err)
	}
	return parse(out), nil
}

func parse(out []byte) []target {
	var found []target
	var names []string
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		switch {
		case len(f) == 1 && strings.HasPrefix(f[0], "Fuzz"):
			names = append(names, f[0])
		case len(f) >= 2 && f[0] == "ok":
			for _, n := range names {
				found = append(found, target{f[1], n})
			}
			names = names[:0]
		}
	}
	return found
}

// ranOut tells a run that only ran out of time from one with a finding.
func ranOut(out string) bool {
	return strings.Contains(out, "\n    context deadline exceeded\n") && !strings.Contains(out, "Failing input written") &&
		!strings.Contains(out, "panic:")
}

// errDeadline: the go command failed because its fuzzing time ended while a worker
// was still busy, which it does now and then; no input was found to fail.
var errDeadline = errors.New("context deadline exceeded, no failing input")

// last gives the last n lines, each indented.
func last(out string, n int) string {
	ls := strings.Split(strings.TrimSpace(out), "\n")
	return "  " + strings.Join(ls[max(0, len(ls)-n):], "\n  ") + "\n"
}

// fuzz runs t and gives what it printed.
func fuzz(t target, each time.Duration) (string, error) {
	// The compiler may need its time first; the go command's own limit does not
	// cover a fuzzing run.
	ctx, cancel := context.WithTimeout(context.Background(), each+20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(),
		// Minimising an interesting input may take longer than the whole run.
		"-fuzzminimizetime", "20x", t.pkg)
	// Asked, not killed: go test has children, which would live on.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	// Progress lines of a target that passed are noise; keep the last and the verdict.
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err == nil && len(lines) > 2 {
		last := ""
		for _, l := range lines {
			if strings.HasPrefix(l, "fuzz: elapsed") {
				last = l
			}
		}
		lines = []string{last, lines[len(lines)-1]}
	}
	if err != nil && ranOut(out.String()) {
		// Its words are those of a failure, which this is not.
		return out.String(), errDeadline
	}
	fmt.Printf("%s\t%s\n", t.name, strings.Join(lines, "\n"))
	return out.String(), err
}
