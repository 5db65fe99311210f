package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	code, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(code)
}

// run gives go test's exit code.
func run(args []string, out io.Writer) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 2, err
	}
	// ^C reaches go test, too; what it says then is to be seen.
	signal.Ignore(os.Interrupt)
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 2, err
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
		return max(1, ee.ExitCode()), nil
	}
	if err != nil {
		return 2, err
	}
	return 0, nil
}
