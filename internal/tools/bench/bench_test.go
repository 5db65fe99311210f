package main

import (
	"strings"
	"testing"
	"time"
)

func TestParseBusy(t *testing.T) {
	got, err := parseBusy("cpu  100 20 30 99999 888 1 2 3 0 0\ncpu0 1 2 3\n")
	if err != nil || got != 1560*time.Millisecond {
		t.Errorf("got %v, %v; want 1.56s: idle and iowait are not busy", got, err)
	}
	if _, err := parseBusy("intr 1 2"); err == nil {
		t.Error("no error for a foreign line")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

// TestRatio: neighbours are compared, so a machine that slows down for both does not show.
func TestRatio(t *testing.T) {
	a := []sample{{IOPS: 200}, {IOPS: 20}, {IOPS: 100}}
	b := []sample{{IOPS: 100}, {IOPS: 10}, {IOPS: 50}}
	if got := ratio(a, b, iops); got != 2 {
		t.Errorf("got %v, want 2", got)
	}
}

func TestMarkdown(t *testing.T) {
	r := &result{Machine: "m", Image: "i", Order: []string{"vtgt", "tgtd"}, Targets: map[string]string{},
		Rows: []row{{cell{true, 4096, 32}, map[string][]sample{
			"vtgt": {{IOPS: 1000, CPUMicros: 5, Client: 0.99}, {IOPS: 1100, CPUMicros: 5, Client: 0.99}},
			"tgtd": {{IOPS: 500, CPUMicros: 10}, {IOPS: 900, CPUMicros: 10}},
		}}}}
	var out strings.Builder
	r.markdown(&out)
	for _, want := range []string{"| 4k d32 write | 1050 (1000–1100) | 4.3 | 5.0 |", "| 0.50 |", "client-bound vtgt (99%)", "noisy tgtd (spread 57%)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	lines := strings.Split(out.String(), "\n")
	cols := -1
	for _, l := range lines {
		if strings.HasPrefix(l, "|") {
			if n := strings.Count(l, "|"); cols >= 0 && n != cols {
				t.Errorf("%d columns, the table has %d: %s", n, cols, l)
			} else {
				cols = n
			}
		}
	}
}
