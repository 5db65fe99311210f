package main

import (
	"slices"
	"time"
)

// A sample is one run of one contender.
type sample struct {
	Requests  int     `json:"requests"`
	Seconds   float64 `json:"seconds"`
	CPUMicros float64 `json:"cpu_us_per_io"` // the target's processor time; 0: not measured
	Client    float64 `json:"client_cpu"`    // processors that the client used, by its busiest thread where it has several
	Others    float64 `json:"others_cpu"`    // processors that neither of the two used
}

func iops(s sample) float64  { return float64(s.Requests) / max(s.Seconds, 1e-9) }
func cost(s sample) float64  { return s.CPUMicros }
func nanos(s sample) float64 { return s.Seconds * 1e9 / float64(max(s.Requests, 1)) }

// A row is one load, and what each contender did with it, in the order of the rounds.
type row struct {
	Table   string              `json:"table"`
	Load    string              `json:"load"`
	Client  string              `json:"client"` // who drives it
	Bytes   int                 `json:"bytes"`  // of a request
	Order   []string            `json:"order"`  // contenders, the first is vtgt
	Samples map[string][]sample `json:"samples"`
	Skipped string              `json:"skipped,omitempty"` // why there are no samples
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

// A spread is the median, the least and the greatest of some rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	return spread{median(v), slices.Min(v), slices.Max(v)}
}

// width is how far the rounds lie apart, as a part of the median.
func (s spread) width() float64 { return (s.Max - s.Min) / max(s.Median, 1e-9) }

// ratios are a's figures by b's of the same round: neighbours in time.
func ratios(a, b []sample, get func(sample) float64) spread {
	var v []float64
	for i := range min(len(a), len(b)) {
		if d := get(b[i]); d > 0 {
			v = append(v, get(a[i])/d)
		}
	}
	return spreadOf(v)
}

// figure is the spread of one contender's figure.
func (r *row) figure(who string, get func(sample) float64) spread {
	return spreadOf(column(r.Samples[who], get))
}

// Limits of trust.
const (
	maxSpread = 0.30 // (greatest - least) / median of the rounds
	maxOthers = 0.35 // processors that others used
	maxClient = 0.90 // of one processor: the client is one thread
)

// clientBound tells whether the client was the limit for who.
func (r *row) clientBound(who string) bool {
	return r.figure(who, func(s sample) float64 { return s.Client }).Median > maxClient
}

// noisy tells whether others used the machine meanwhile, or the rounds lie far apart.
func (r *row) noisy(get func(sample) float64) bool {
	for _, n := range r.Order {
		if r.figure(n, func(s sample) float64 { return s.Others }).Median > maxOthers || r.figure(n, get).width() > maxSpread {
			return true
		}
	}
	return false
}

// clocks brackets a run: what the target and the whole machine used meanwhile.
type clocks struct {
	begin  time.Time
	target time.Duration
	busy   time.Duration
	read   func() (time.Duration, error)
}

// startClocks begins; read is the target's processor clock, nil: none.
func startClocks(read func() (time.Duration, error)) (c clocks, err error) {
	c.read = read
	if read != nil {
		if c.target, err = read(); err != nil {
			return c, err
		}
	}
	c.busy, err = busy()
	c.begin = time.Now()
	return c, err
}

// sample ends it: n requests took that long, with so much of the client's processor
// time in all and in its busiest thread.
func (c *clocks) sample(n int, took, client, busiest time.Duration) (sample, error) {
	whole := time.Since(c.begin)
	s := sample{Requests: n, Seconds: took.Seconds(), Client: busiest.Seconds() / max(took.Seconds(), 1e-9)}
	var used time.Duration
	if c.read != nil {
		now, err := c.read()
		if err != nil {
			return s, err
		}
		used = now - c.target
		s.CPUMicros = float64(used.Nanoseconds()) / 1e3 / float64(max(n, 1))
	}
	now, err := busy()
	if err != nil {
		return s, err
	}
	s.Others = max(0, (now-c.busy-used-client).Seconds()/whole.Seconds())
	return s, nil
}
