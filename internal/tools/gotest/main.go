package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

func main() {
	args := os.Args[1:]
	var again *regexp.Regexp
	if len(args) > 0 && strings.HasPrefix(args[0], "-again=") {
		again = regexp.MustCompile(strings.TrimPrefix(args[0], "-again="))
		args = args[1:]
	}
	done, err := prepare()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(2)
	}
	code, err := runAgain(args, again, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	done()
	os.Exit(code)
}

// runAgain is run, and where nothing failed but tests that again matches, they get a
// second try, alone: theirs is the verdict then.
func runAgain(args []string, again *regexp.Regexp, out io.Writer) (int, error) {
	if again == nil {
		code, _, err := run(args, out)
		return code, err
	}
	code, failed, err := run(args, &calm{out: out})
	if err != nil || code == 0 {
		return code, err
	}
	var names []string
	for _, f := range failed {
		name, _, _ := strings.Cut(f.test, "/")
		if name == "" || !again.MatchString(name) {
			fmt.Fprintf(out, "FAIL: %s\n", f.name)
			return code, nil
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	list := strings.Join(names, ", ")
	fmt.Fprintf(out, "\n=== a second try: %s\n", list)
	code, _, err = run(append([]string{"-run", "^(" + strings.Join(names, "|") + ")$"}, without(args, "-run")...), out)
	if code == 0 && err == nil {
		fmt.Fprintf(out, "=== failed once, passed alone: %s: the output of the first try is above; look at it\n", list)
	}
	return code, err
}

// without leaves out a flag that has its value in the next argument.
func without(args []string, flag string) []string {
	i := slices.Index(args, flag)
	if i < 0 {
		return args
	}
	return slices.Delete(slices.Clone(args), i, min(i+2, len(args)))
}

// calm takes the verdicts out of the output of a try that may not be the last: who
// looks for failures in a log is not to find one that was none.
type calm struct{ out io.Writer }

func (c *calm) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if t := strings.TrimLeft(line, " "); strings.HasPrefix(t, "--- FAIL") || strings.HasPrefix(t, "FAIL") {
			line = strings.Replace(line, "FAIL", "failed once", 1)
		}
		if _, err := io.WriteString(c.out, line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// run gives go test's exit code and what failed.
func run(args []string, out io.Writer) (int, []failure, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 2, nil, err
	}
	// ^C reaches go test, too; what it says then is to be seen.
	signal.Ignore(os.Interrupt)
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 2, nil, err
	}
	go func() {
		for s := range ends {
			_ = cmd.Process.Signal(s)
		}
	}()
	p := newPrinter(out, slices.Contains(args, "-v"))
	r := bufio.NewReader(pipe)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			p.line(line)
		}
		if err != nil {
			break
		}
	}
	err = cmd.Wait()
	p.summary()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return max(1, ee.ExitCode()), p.failures, nil
	}
	if err != nil {
		return 2, nil, err
	}
	return 0, nil, nil
}
