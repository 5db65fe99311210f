package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A result is what goes into the JSON file.
type result struct {
	Machine string            `json:"machine"`
	Setup   string            `json:"setup"`
	Targets map[string]string `json:"targets"` // name: version
	Notes   []string          `json:"notes,omitempty"`
	Rows    []row             `json:"rows"`
	RSS     []rss             `json:"rss,omitempty"`
	Scale   []goal            `json:"scale,omitempty"`
	Goals   []goal            `json:"goals"`
}

// rss is a target's resident memory at the end of the run.
type rss struct {
	Target string `json:"target"`
	Bytes  int64  `json:"bytes"`
	With   string `json:"with"` // its disks
}

// doubts says why a row's figures are not to be trusted.
func (r *row) doubts() string {
	var d []string
	for _, n := range r.Order {
		if w := r.figure(n, iops).width(); w > maxSpread {
			d = append(d, fmt.Sprintf("noisy %s (spread %.0f%%)", n, 100*w))
		}
		if o := r.figure(n, func(s sample) float64 { return s.Others }).Median; o > maxOthers {
			d = append(d, fmt.Sprintf("others used %.1f CPUs (%s)", o, n))
		}
		if r.clientBound(n) {
			d = append(d, "client-bound "+n)
		}
	}
	return strings.Join(d, ", ")
}

// markdown prints it all.
func (r *result) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s; %s\n\n", r.Machine, r.Setup)
	names := make([]string, 0, len(r.Targets))
	for n := range r.Targets {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(w, "- %s: %s\n", n, r.Targets[n])
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "- %s\n", n)
	}
	var tables []string
	for _, x := range r.Rows {
		if !slices.Contains(tables, x.Table) {
			tables = append(tables, x.Table)
		}
	}
	for _, t := range tables {
		r.table(w, t)
	}
	if len(r.RSS) > 0 {
		fmt.Fprint(w, "\n### Resident memory at the end\n\n| target | MiB | with |\n|---|---:|---|\n")
		for _, m := range r.RSS {
			fmt.Fprintf(w, "| %s | %.1f | %s |\n", m.Target, float64(m.Bytes)/(1<<20), m.With)
		}
	}
	r.verdicts(w)
}

// table prints one table: first the contender that the others are compared with.
func (r *result) table(w io.Writer, name string) {
	fmt.Fprintf(w, "\n### %s\n\n| load | client | contender | requests/s (min–max) | MB/s | µs each | CPU µs | vtgt to it: rate (min–max) | CPU (min–max) | doubts |\n|---|---|---|---:|---:|---:|---:|---:|---:|---|\n", name)
	for i := range r.Rows {
		x := &r.Rows[i]
		if x.Table != name {
			continue
		}
		if x.Skipped != "" {
			fmt.Fprintf(w, "| %s | %s | SKIPPED: %s | | | | | | | |\n", x.Load, x.Client, x.Skipped)
			continue
		}
		for k, n := range x.Order {
			rate, cpu := "", ""
			if k > 0 {
				rate = ratioText(ratios(x.Samples[x.Order[0]], x.Samples[n], iops))
				cpu = ratioText(ratios(x.Samples[x.Order[0]], x.Samples[n], cost))
			}
			load, client, doubts := x.Load, x.Client, x.doubts()
			if k > 0 {
				load, client, doubts = "", "", ""
			}
			f, c := x.figure(n, iops), x.figure(n, cost)
			used := fmt.Sprintf("%.2f", c.Median)
			if c.Median == 0 {
				used = ""
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s (%s–%s) | %.0f | %.2f | %s | %s | %s | %s |\n", load, client, n,
				short(f.Median), short(f.Min), short(f.Max), f.Median*float64(x.Bytes)/1e6, 1e6/max(f.Median, 1e-9), used, rate, cpu, doubts)
		}
	}
}

func ratioText(s spread) string {
	if s.Median == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max)
}

// verdicts prints the goals, and says whether the machine was quiet enough for them.
func (r *result) verdicts(w io.Writer) {
	fmt.Fprint(w, "\n### Goals\n\n| goal | limit | measured (min–max) | |\n|---|---|---:|---|\n")
	noisy, counted := 0, 0
	for _, g := range r.Goals {
		if g.Outcome == skipped {
			fmt.Fprintf(w, "| %s | %s | | SKIPPED: %s |\n", g.Name, g.Limit, g.Why)
			continue
		}
		counted++
		text := g.Outcome
		if g.Why != "" {
			text += ", " + g.Why
		}
		if g.Noisy {
			noisy++
			text += ", noisy"
			if g.Best > 0 {
				text += fmt.Sprintf(" (best to best %.2f)", g.Best)
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", g.Name, g.Limit, g.text(), text)
	}
	if counted > 0 && noisy*4 > counted {
		fmt.Fprintf(w, "\nToo noisy to conclude: in %d of %d goals others used the machine, or the rounds lie more than %.0f%% apart. Repeat on a quiet machine.\n", noisy, counted, 100*maxSpread)
	}
}
