package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A contender takes part in a row: run is one run of about d.
type contender struct {
	name string
	run  func(ctx context.Context, d time.Duration) (sample, error)
	end  func() // may be nil
}

// compare measures one row: a short run of each to warm up, then all in turn
// (A B A B), so that what disturbs the machine disturbs all.
//
// A line that fails is told as skipped, and fails the run at its end: the others are
// worth having.
func (b *bench) compare(ctx context.Context, r row, cs []contender) error {
	if !b.chosen(r.Table, r.Load, r.Client) {
		return nil
	}
	err := b.compareAll(ctx, r, cs)
	if err == nil || ctx.Err() != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, err)
	b.failed = append(b.failed, err)
	r.Skipped, r.Samples, r.Order = "failed: "+strings.ReplaceAll(err.Error(), "\n", " "), nil, nil
	b.res.Rows = append(b.res.Rows, r)
	return nil
}

func (b *bench) compareAll(ctx context.Context, r row, cs []contender) error {
	defer func() {
		for _, c := range cs {
			if c.end != nil {
				c.end()
			}
		}
	}()
	r.Samples = map[string][]sample{}
	for _, c := range cs {
		r.Order = append(r.Order, c.name)
		if _, err := c.run(ctx, min(b.o.each, 50*time.Millisecond)); err != nil {
			return fmt.Errorf("%s, %s, %s: %w", r.Table, r.Load, c.name, err)
		}
	}
	for range b.o.rounds {
		for _, c := range cs {
			if err := ctx.Err(); err != nil {
				return err
			}
			s, err := c.run(ctx, b.o.each)
			if err != nil {
				return fmt.Errorf("%s, %s, %s: %w", r.Table, r.Load, c.name, err)
			}
			r.Samples[c.name] = append(r.Samples[c.name], s)
		}
	}
	b.res.Rows = append(b.res.Rows, r)
	b.progress(&r)
	return nil
}

// chosen tells whether the line matches -lines.
func (b *bench) chosen(table, load, client string) bool {
	return b.o.lines == nil || b.o.lines.MatchString(table+": "+load+", "+client)
}

// progress says on stderr what a row came to.
func (b *bench) progress(r *row) {
	fmt.Fprintf(os.Stderr, "%5.0fs %s, %s, %s:", time.Since(b.begin).Seconds(), r.Table, r.Load, r.Client)
	for _, n := range r.Order {
		fmt.Fprintf(os.Stderr, " %s %s/s %.2f µs;", n, short(r.figure(n, iops).Median), r.figure(n, cost).Median)
	}
	fmt.Fprintln(os.Stderr)
}

// skip notes a row that cannot be measured here.
func (b *bench) skip(table, load, client, why string) {
	if b.chosen(table, load, client) {
		b.res.Rows = append(b.res.Rows, row{Table: table, Load: load, Client: client, Skipped: why})
	}
}

// short is a number in three figures.
func short(v float64) string {
	switch {
	case v >= 999_500:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 99_950:
		return fmt.Sprintf("%.0fk", v/1e3)
	case v >= 999.5:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

// find looks a row up; nil: it was not measured.
func (r *result) find(table, load, client string) *row {
	i := slices.IndexFunc(r.Rows, func(x row) bool {
		return x.Table == table && x.Load == load && (client == "" || x.Client == client) && x.Skipped == ""
	})
	if i < 0 {
		return nil
	}
	return &r.Rows[i]
}
