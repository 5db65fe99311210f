package main

import (
	"fmt"
	"io"
	"strings"
)

// A tally counts verdicts.
type tally struct{ pass, fail, skip int }

func (c *tally) add(v verdict) {
	switch {
	case v == pass:
		c.pass++
	case v == skip:
		c.skip++
	default:
		c.fail++
	}
}

func (c tally) String() string {
	if c == (tally{}) {
		return "·"
	}
	return fmt.Sprintf("%d/%d/%d", c.pass, c.fail, c.skip)
}

// A report is the outcome of a run.
type report struct {
	layouts []layout
	tests   []test                     // in the program's order
	results map[test]map[string]result // by test and layout
	judge   bool                       // apply the allowances
}

// print writes the table by suite, then everything that did not pass, and returns the
// number of tests that make the run fail.
func (r *report) print(w io.Writer, verbose bool) int {
	r.table(w)
	bad := 0
	for _, t := range r.tests {
		if r.printTest(w, t, verbose) {
			bad++
		}
	}
	return bad
}

// printTest writes one line per way the test ended other than passing, and tells
// whether it makes the run fail.
func (r *report) printTest(w io.Writer, t test, verbose bool) (bad bool) {
	passed := r.passedIn(t)
	done := map[string]bool{}
	for _, l := range r.layouts {
		res, ok := r.results[t][l.name]
		if !ok || res.verdict == pass || done[l.name] {
			continue
		}
		a := allowed(t, res.verdict, l.name)
		var same []string
		for _, m := range r.layouts {
			o, ok := r.results[t][m.name]
			if ok && o.verdict == res.verdict && o.reason == res.reason && allowed(t, o.verdict, m.name) == a {
				same = append(same, m.name)
				done[m.name] = true
			}
		}
		note := ""
		switch {
		case res.verdict == skip && len(passed) > 0:
			note = " (passes on " + strings.Join(passed, ", ") + ")"
		case r.judge && a != nil:
			note = " (expected: " + a.why + ")"
		case r.judge && res.verdict.bad():
			bad = true
		}
		fmt.Fprintf(w, "%s  %-5s  %s: %s%s\n", res.verdict, strings.Join(same, ","), t, res.reason, note)
		if verbose && res.verdict.bad() {
			fmt.Fprintf(w, "%s\n", indent(res.output))
		}
	}
	// Some of the layouts cannot tell that a test passes on none.
	if r.judge && len(passed) == 0 && len(r.results[t]) > 0 && len(r.layouts) == len(layouts) && !bad && !mayPassNowhere(t) {
		bad = true
		fmt.Fprintf(w, "FAIL         %s: passes nowhere, and expect.go does not name it\n", t)
	}
	return bad
}

func (r *report) passedIn(t test) []string {
	var in []string
	for _, l := range r.layouts {
		if r.results[t][l.name].verdict == pass {
			in = append(in, l.name)
		}
	}
	return in
}

func (r *report) table(w io.Writer) {
	for _, l := range r.layouts {
		fmt.Fprintf(w, "%s: %s\n", l.name, l.text)
	}
	fmt.Fprintf(w, "\n%-24s", "pass/fail/skip")
	for _, l := range r.layouts {
		fmt.Fprintf(w, "%10s", l.name)
	}
	fmt.Fprintln(w)
	var suites []string
	counts := map[string]map[string]*tally{}
	total := map[string]*tally{}
	for _, l := range r.layouts {
		total[l.name] = &tally{}
	}
	for _, t := range r.tests {
		if counts[t.suite] == nil {
			counts[t.suite] = map[string]*tally{}
			for _, l := range r.layouts {
				counts[t.suite][l.name] = &tally{}
			}
			suites = append(suites, t.suite)
		}
		for name, res := range r.results[t] {
			counts[t.suite][name].add(res.verdict)
			total[name].add(res.verdict)
		}
	}
	for _, s := range suites {
		fmt.Fprintf(w, "%-24s", s)
		for _, l := range r.layouts {
			fmt.Fprintf(w, "%10s", counts[s][l.name])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "%-24s", "all")
	for _, l := range r.layouts {
		fmt.Fprintf(w, "%10s", total[l.name])
	}
	fmt.Fprint(w, "\n\n")
}

func (r *report) total() tally {
	var c tally
	for _, m := range r.results {
		for _, res := range m {
			c.add(res.verdict)
		}
	}
	return c
}

func indent(s string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n\t")
}
