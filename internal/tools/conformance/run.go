package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A verdict is how one test ended.
type verdict string

const (
	pass verdict = "pass"
	fail verdict = "FAIL"
	skip verdict = "skip"
	hang verdict = "HANG" // the client did not end in time
	died verdict = "DIED" // the target's process ended
)

func (v verdict) bad() bool { return v == fail || v == hang || v == died }

// A result is one test over one layout.
type result struct {
	test   test
	layout string
	verdict
	reason string
	output string
	took   time.Duration
}

// runTest runs one test in a process of its own.
func runTest(ctx context.Context, program, url string, t test, limit time.Duration) result {
	args := []string{"-d", "-S", "-t", "ALL." + t.String(), url}
	if strings.HasPrefix(t.suite, "Multipath") {
		args = append(args, url) // two paths to one disk
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 30 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err := cmd.Run()
	r := result{test: t, output: out.String(), took: time.Since(begin)}
	r.verdict, r.reason = judge(r.output)
	switch {
	case ctx.Err() != nil:
		r.verdict, r.reason = hang, "no end after "+limit.String()+lastLine(r.output)
	case r.verdict == pass && err != nil:
		r.verdict, r.reason = fail, "the client: "+err.Error()+lastLine(r.output)
		var ee *exec.ExitError
		if !errors.As(err, &ee) {
			r.reason = err.Error()
		}
	}
	return r
}

var (
	// "    tests      1      1      1      0        0": total, ran, passed, failed, inactive
	summary = regexp.MustCompile(`(?m)^\s*tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)`)
	// "    1. test_read10_simple.c:98  - CU_ASSERT_EQUAL(ret,0)"
	assertion = regexp.MustCompile(`^\s*\d+\.\s+\S+\.c:\d+\s+-`)
)

// judge reads what iscsi-test-cu printed. A [SKIPPED] between the line "Test:" and the
// word "passed" says that the test gave up, which the summary counts as passed. Before
// and after come the suite's set-up and tear-down, which look for leftover persistent
// reservations and say [SKIPPED] where the target has none.
func judge(out string) (verdict, string) {
	m := summary.FindStringSubmatch(out)
	if m == nil {
		return fail, "the client printed no summary" + lastLine(out)
	}
	if m[2] == "0" {
		return fail, "the client ran no test" + lastLine(out)
	}
	_, body, _ := strings.Cut(out, "  Test:")
	body, _, _ = strings.Cut(body, "Run Summary:")
	if m[4] != "0" {
		return fail, reasons(body, "[FAILED]")
	}
	if end := strings.LastIndex(body, "passed"); end >= 0 {
		body = body[:end]
	}
	if strings.Contains(body, "[SKIPPED]") {
		return skip, reasons(body, "[SKIPPED]")
	}
	return pass, ""
}

// reasons gathers what the test said at a mark, each once, else its assertions.
func reasons(body, mark string) string {
	var found []string
	add := func(s string) {
		s = strings.Join(strings.Fields(s), " ")
		for _, f := range found {
			if f == s {
				return
			}
		}
		if s != "" && len(found) < 3 {
			found = append(found, s)
		}
	}
	lines := strings.Split(body, "\n")
	for _, l := range lines {
		if _, after, ok := strings.Cut(l, mark); ok && !assertion.MatchString(l) {
			add(after)
		}
	}
	if len(found) == 0 {
		for _, l := range lines {
			if assertion.MatchString(l) {
				l, _, _ = strings.Cut(l, "    [SKIPPED]") // the tear-down's
				add(l)
			}
		}
	}
	if len(found) == 0 {
		return "no reason given"
	}
	return strings.Join(found, "; ")
}

func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if l := strings.TrimSpace(lines[len(lines)-1]); l != "" {
		return ": " + l
	}
	return ""
}
