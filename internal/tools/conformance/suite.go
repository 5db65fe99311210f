package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path"
	"strings"
)

// A test is one test of iscsi-test-cu: SUITE.NAME.
type test struct{ suite, name string }

func (t test) String() string { return t.suite + "." + t.name }

// list asks the program for its tests.
func list(ctx context.Context, program string) ([]test, error) {
	out, err := exec.CommandContext(ctx, program, "-l").Output()
	if err != nil {
		return nil, fmt.Errorf("%s -l: %w", program, err)
	}
	tests := parseList(out)
	if len(tests) == 0 {
		return nil, fmt.Errorf("%s -l lists no test", program)
	}
	return tests, nil
}

// parseList takes the family ALL; the other families name the same tests again.
func parseList(out []byte) []test {
	var tests []test
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		f := strings.Split(strings.TrimSpace(sc.Text()), ".")
		if len(f) == 3 && f[0] == "ALL" {
			tests = append(tests, test{f[1], f[2]})
		}
	}
	return tests
}

// match tells whether a glob names the test or its suite.
func match(globs []string, t test) bool {
	for _, g := range globs {
		if ok, _ := path.Match(g, t.suite); ok {
			return true
		}
		if ok, _ := path.Match(g, t.String()); ok {
			return true
		}
	}
	return false
}
