package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of go test -json (go doc test2json, go help buildjson).
type event struct {
	Action      string
	ImportPath  string // of build-output and build-fail
	Package     string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

type key struct{ pkg, test string }

// printer turns events back into go test's text.
type printer struct {
	out     io.Writer
	verbose bool
	// said is what each test that runs, package or build has printed.
	said map[key]*strings.Builder
	// failures, in the order in which they ended.
	failures []failure
	failed   map[key]bool
}

type failure struct {
	name, output string
	// test is empty of a build or a package.
	test string
}

func newPrinter(out io.Writer, verbose bool) *printer {
	return &printer{out: out, verbose: verbose, said: make(map[key]*strings.Builder), failed: make(map[key]bool)}
}

func (p *printer) line(b []byte) {
	var e event
	if json.Unmarshal(b, &e) != nil || e.Action == "" {
		p.out.Write(b) // not an event: somebody's own output
		return
	}
	k := key{e.Package, e.Test}
	if e.ImportPath != "" {
		k = key{pkg: e.ImportPath}
	}
	switch e.Action {
	case "output", "build-output":
		s := p.said[k]
		if s == nil {
			s = new(strings.Builder)
			p.said[k] = s
		}
		s.WriteString(e.Output)
		if p.verbose || e.Action == "build-output" {
			io.WriteString(p.out, e.Output)
		}
	case "build-fail":
		p.fail(k, "build of "+e.ImportPath)
	case "pass", "skip", "fail":
		if e.Action == "fail" && e.FailedBuild == "" {
			p.ended(k)
		}
		p.print(k, e.Action == "fail")
		delete(p.said, k)
	}
}

// print shows what go test without -v does.
func (p *printer) print(k key, failed bool) {
	if p.verbose || p.said[k] == nil || k.test != "" && !failed {
		return
	}
	for line := range strings.Lines(p.said[k].String()) {
		switch {
		case strings.HasPrefix(line, "=== "), line == "PASS\n", strings.HasSuffix(line, "\t[no test files]\n"):
		default:
			io.WriteString(p.out, line)
		}
	}
}

// ended notes a test or package that failed. A test whose subtest failed and a
// package whose test did are not told again.
func (p *printer) ended(k key) {
	if k.test != "" {
		if !p.failed[k] {
			p.fail(k, k.pkg+" "+k.test)
		}
		return
	}
	if p.failed[k] {
		return
	}
	// It ended in the midst of a test, or outside of any.
	var running strings.Builder
	for o, s := range p.said {
		if o.pkg == k.pkg && o.test != "" {
			fmt.Fprintf(&running, "%s was running:\n%s", o.test, s)
		}
	}
	if running.Len() > 0 {
		p.said[k].WriteString(running.String())
	}
	p.fail(k, k.pkg)
}

// fail notes a failure, and that those above k have been told with it.
func (p *printer) fail(k key, name string) {
	f := failure{name: name, test: k.test}
	if s := p.said[k]; s != nil {
		f.output = s.String()
	}
	p.failures = append(p.failures, f)
	p.failed[key{pkg: k.pkg}] = true
	for t := k.test; t != ""; {
		p.failed[key{k.pkg, t}] = true
		t = t[:max(0, strings.LastIndexByte(t, '/'))]
	}
}

// summaryLines bounds the summary: a log's end of 60 lines holds it, with what make
// says afterwards.
const summaryLines = 45

func (p *printer) summary() {
	n := len(p.failures)
	if n == 0 {
		return
	}
	fmt.Fprintf(p.out, "\n--- what failed: %d\n", n)
	each := max(summaryLines/n-1, 2)
	left := summaryLines
	for i, f := range p.failures {
		if left <= 1 && i < n-1 {
			fmt.Fprintf(p.out, "... and %d more\n", n-i)
			return
		}
		fmt.Fprintf(p.out, "FAIL: %s\n", f.name)
		lines := short(f.output, each)
		for _, l := range lines {
			fmt.Fprintf(p.out, "  %s\n", l)
		}
		left -= 1 + len(lines)
	}
}

// short takes at most n lines of what a test printed: the beginning, which says what
// is wrong, and the end.
func short(s string, n int) []string {
	var ls []string
	for l := range strings.Lines(s) {
		l = strings.TrimRight(l, "\n")
		if t := strings.TrimSpace(l); t == "" || t == "FAIL" || strings.HasPrefix(l, "=== ") {
			continue
		}
		if len(l) > 300 {
			l = l[:300] + "..."
		}
		ls = append(ls, l)
	}
	if len(ls) <= n {
		return ls
	}
	head := (n - 1) * 2 / 3
	tail := n - 1 - head
	cut := append([]string{}, ls[:head]...)
	cut = append(cut, fmt.Sprintf("... (%d lines)", len(ls)-head-tail))
	return append(cut, ls[len(ls)-tail:]...)
}
