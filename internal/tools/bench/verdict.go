package main

import "fmt"

// The outcomes of a goal.
const (
	met     = "met"
	missed  = "missed"
	skipped = "SKIPPED"
)

// A goal is one line of what vtgt means to reach, and what this run says of it.
type goal struct {
	Name    string  `json:"name"`
	Limit   string  `json:"limit"`
	Value   float64 `json:"value"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Outcome string  `json:"outcome"`
	Why     string  `json:"why,omitempty"`
	Noisy   bool    `json:"noisy,omitempty"`
	Unit    string  `json:"unit,omitempty"` // empty: a ratio
	// Best is the ratio of the best rounds of both, which a busy machine disturbs
	// least; it decides nothing.
	Best float64 `json:"best,omitempty"`
}

// text is what was measured.
func (g *goal) text() string {
	switch {
	case g.Unit != "" && g.Min != g.Max:
		return fmt.Sprintf("%.4g (%.4g–%.4g)", g.Value, g.Min, g.Max)
	case g.Unit != "":
		return fmt.Sprintf("%.4g", g.Value)
	}
	return ratioText(spread{g.Value, g.Min, g.Max})
}

// judge compares the median of a spread with its limit: at most it, or at least.
func judge(name string, s spread, limit float64, atLeast, noisy bool) goal {
	g := goal{Name: name, Limit: fmt.Sprintf("<= %.2gx", limit), Value: s.Median, Min: s.Min, Max: s.Max, Outcome: missed, Noisy: noisy}
	if atLeast {
		g.Limit = fmt.Sprintf(">= %.2gx", limit)
	}
	if s.Median > 0 && (atLeast && s.Median >= limit || !atLeast && s.Median <= limit) {
		g.Outcome = met
	}
	return g
}

func skip(name, limit, why string) goal {
	return goal{Name: name, Limit: limit, Outcome: skipped, Why: why}
}

// A test is a goal that compares the first contender of a row with another.
type test struct {
	name                string
	table, load, client string
	against             string
	get                 func(sample) float64
	limit               float64
	atLeast             bool
	cores               int  // needed
	peerLimited         bool // a client that is the limit for vtgt makes the line say nothing
}

func (b *bench) check(t test) goal {
	sign := "<="
	if t.atLeast {
		sign = ">="
	}
	limit := fmt.Sprintf("%s %.2gx", sign, t.limit)
	if t.cores > b.o.cores {
		return skip(t.name, limit, fmt.Sprintf("needs %d cores, there are %d", t.cores, b.o.cores))
	}
	r := b.res.find(t.table, t.load, t.client)
	if r == nil || len(r.Samples[t.against]) == 0 {
		return skip(t.name, limit, "not measured in this run")
	}
	g := judge(t.name, ratios(r.Samples[r.Order[0]], r.Samples[t.against], t.get), t.limit, t.atLeast, r.noisy(t.get))
	best := func(who string) float64 {
		f := r.figure(who, t.get)
		if t.atLeast {
			return f.Max
		}
		return f.Min
	}
	if d := best(t.against); d > 0 {
		g.Best = best(r.Order[0]) / d
	}
	if t.peerLimited && r.clientBound(r.Order[0]) {
		g.Why = "client-bound"
	}
	return g
}

// goals are the lines, in the order in which they are stated.
func (b *bench) goals() []goal {
	var all []goal
	add := func(t test) { all = append(all, b.check(t)) }
	for _, c := range []struct {
		block     int
		depths    []int
		cpu, rate float64
	}{{4 << 10, []int{32, 128}, 0.4, 2.5}, {64 << 10, []int{32, 128}, 0.6, 1.5}, {1 << 20, []int{32, 128}, 0.6, 1.5}} {
		for _, depth := range c.depths {
			for _, write := range []bool{false, true} {
				l := cell{write, c.block, depth}.String()
				add(test{name: "iSCSI/tgtd, cached file, CPU per I/O, " + l, table: iscsiTable(cached), load: l, client: ours, against: "tgtd", get: cost, limit: c.cpu})
			}
		}
	}
	rate := func(l string, limit float64) {
		// qemu-img where it is not the limit, else our own client on both sides.
		client := qemu
		if r := b.res.find(iscsiTable(cached), l, qemu); r == nil || r.clientBound(r.Order[0]) {
			client = ours
		}
		add(test{name: "iSCSI/tgtd, cached file, rate, " + l + " (" + client + ")", table: iscsiTable(cached), load: l, client: client, against: "tgtd", get: iops, limit: limit, atLeast: true, cores: 4, peerLimited: true})
	}
	for _, write := range []bool{false, true} {
		for _, depth := range []int{32, 128} {
			rate(cell{write, 4 << 10, depth}.String(), 2.5)
		}
		rate(cell{write, 4 << 10, 1}.String(), 1.3)
		for _, block := range []int{64 << 10, 1 << 20} {
			rate(cell{write, block, 32}.String(), 1.5)
		}
	}
	for _, write := range []bool{false, true} {
		l := cell{write, 4 << 10, 32}.String()
		add(test{name: "iSCSI/gotgt, cached file, rate, " + l, table: iscsiTable(cached) + ", gotgt", load: l, client: ours, against: "gotgt", get: iops, limit: 3, atLeast: true, cores: 4, peerLimited: true})
	}
	add(test{name: "iSCSI on RAM/TCP exchange, CPU per I/O, 4k d32 read", table: limitTable, load: "iSCSI on RAM, 4k d32 read", against: "TCP exchange", get: cost, limit: 1.6, client: ours})
	add(test{name: "vhost, mem d32 read/random memcpy, time", table: vhostTable, load: ringName(ram, 1, 32, false), client: polling, against: "memcpy", get: nanos, limit: 1.3, cores: 2})
	add(test{name: "vhost, null d128/bare ring, time", table: vhostTable, load: ringName("null", 1, 128, false), client: polling, against: "bare ring", get: nanos, limit: 4, cores: 2})
	add(test{name: "vhost, null d1, both polling/bare ring, round trip", table: vhostTable, load: ringName("null", 1, 1, false), client: polling, against: "bare ring", get: nanos, limit: 1.3, cores: 3})
	add(test{name: "vhost, neither side polls/bare eventfd, CPU per request", table: limitTable, load: "neither side polls, null, 4k d1 read", client: sleeping, against: "bare eventfd", get: cost, limit: 1.3})
	add(test{name: "vhost, mem d32, two queues/one, rate", table: vhostTable, load: ringName(ram, 2, 32, false), client: polling, against: "one queue", get: iops, limit: 1.7, atLeast: true, cores: 4})
	return append(all, b.res.Scale...)
}
