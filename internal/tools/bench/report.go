package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A row is one cell's samples, by contestant, in the order of the rounds.
type row struct {
	Cell    cell                `json:"cell"`
	Samples map[string][]sample `json:"samples"`
}

// A result is what goes into the JSON file.
type result struct {
	Machine string            `json:"machine"`
	Targets map[string]string `json:"targets"` // name: version
	Order   []string          `json:"order"`
	Image   string            `json:"image"`
	Rows    []row             `json:"rows"`
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	m := len(s) / 2
	if len(s)%2 == 1 {
		return s[m]
	}
	return (s[m-1] + s[m]) / 2
}

func column(s []sample, get func(sample) float64) []float64 {
	v := make([]float64, len(s))
	for i := range s {
		v[i] = get(s[i])
	}
	return v
}

func iops(s sample) float64 { return s.IOPS }
func cost(s sample) float64 { return s.CPUMicros }

// ratio is the median over the rounds of a's figure by b's of the same round.
func ratio(a, b []sample, get func(sample) float64) float64 {
	var v []float64
	for i := range min(len(a), len(b)) {
		if d := get(b[i]); d > 0 {
			v = append(v, get(a[i])/d)
		}
	}
	return median(v)
}

// Limits of trust.
const (
	maxSpread = 0.30 // (greatest - least) / median of the IOPS
	maxOthers = 0.25 // processors
	maxClient = 0.85 // of one processor: the client has one thread
)

// doubts says why a row's figures are not to be trusted.
func doubts(r row, order []string) string {
	var d []string
	for _, n := range order {
		s := r.Samples[n]
		v := column(s, iops)
		if len(v) == 0 {
			continue
		}
		if spread := (slices.Max(v) - slices.Min(v)) / max(median(v), 1e-9); spread > maxSpread {
			d = append(d, fmt.Sprintf("noisy %s (spread %.0f%%)", n, 100*spread))
		}
		if o := median(column(s, func(s sample) float64 { return s.Others })); o > maxOthers {
			d = append(d, fmt.Sprintf("others used %.1f CPUs (%s)", o, n))
		}
		if c := median(column(s, func(s sample) float64 { return s.Client })); c > maxClient {
			d = append(d, fmt.Sprintf("client-bound %s (%.0f%%)", n, 100*c))
		}
	}
	return strings.Join(d, ", ")
}

// markdown prints the table.
func (r *result) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s; %s\n\n", r.Machine, r.Image)
	for _, n := range r.Order {
		fmt.Fprintf(w, "- %s: %s\n", n, r.Targets[n])
	}
	fmt.Fprint(w, "\n| load |")
	rule := "|---|"
	for _, n := range r.Order {
		fmt.Fprintf(w, " %s IOPS (min–max) | MB/s | CPU µs/I/O |", n)
		rule += "---:|---:|---:|"
	}
	two := len(r.Order) == 2
	if two {
		fmt.Fprintf(w, " %s/%s IOPS | CPU |", r.Order[0], r.Order[1])
		rule += "---:|---:|"
	}
	fmt.Fprintf(w, " doubts |\n%s---|\n", rule)
	for _, x := range r.Rows {
		fmt.Fprintf(w, "| %s |", x.Cell)
		for _, n := range r.Order {
			v := column(x.Samples[n], iops)
			m := median(v)
			fmt.Fprintf(w, " %.0f (%.0f–%.0f) | %.1f | %.1f |", m, slices.Min(v), slices.Max(v),
				m*float64(x.Cell.Block)/1e6, median(column(x.Samples[n], cost)))
		}
		if two {
			a, b := x.Samples[r.Order[0]], x.Samples[r.Order[1]]
			fmt.Fprintf(w, " %.2f | %.2f |", ratio(a, b, iops), ratio(a, b, cost))
		}
		fmt.Fprintf(w, " %s |\n", doubts(x, r.Order))
	}
}
