package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/tools/peer"
)

const (
	// soakAllocs is how many objects a request may cost on average: none. What is
	// allowed is the runtime's own, and the page that tells the figure.
	soakAllocs = 0.01
	// soakGrowth is how much more memory (bytes) the last third of a soak may take
	// than the second, the first being for pools to fill. A byte that each request
	// left behind would be 20 MB in three minutes.
	soakGrowth = 8 << 20
)

// soak loads every path of vtgt at once: iSCSI and vhost-user, over files in the page
// cache and past it, over memory and over nothing, reads and writes, small and large.
// Then each path by itself must do without allocations, and resident memory must not
// have grown.
func (b *bench) soak(ctx context.Context) error {
	paths, err := b.soakPaths()
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range paths {
			p.end()
		}
	}()
	var bad error
	for _, p := range paths {
		if _, err := p.run(ctx, time.Second); err != nil { // pools fill
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	for _, p := range paths {
		if err := b.soakAllocations(ctx, p); err != nil {
			bad = errors.Join(bad, err)
		}
	}
	if err := b.soakMemory(ctx, paths); err != nil {
		bad = errors.Join(bad, err)
	}
	return bad
}

// soakPath is one way through vtgt.
type soakPath struct {
	contender
	srv *peer.Server
}

func (b *bench) soakPaths() (all []soakPath, err error) {
	for _, m := range []string{cached, direct, ram} {
		for _, c := range []cell{{false, 4 << 10, 32}, {true, 4 << 10, 32}, {false, 256 << 10, 4}, {true, 256 << 10, 4}} {
			x := b.crowdOf(b.vtgt, m, c, 1)
			x.name = fmt.Sprintf("iSCSI, %s, %v", m, c)
			all = append(all, soakPath{x, b.vtgt.srv[m]})
		}
	}
	for _, disk := range []string{"null", ram, cached, direct} {
		// One socket takes one front end: reads and writes take turns in it.
		f := &front{srv: b.vtgt.srv[disk], disk: disk, queues: 2}
		x := b.load(fmt.Sprintf("vhost-user, %s, 4k d32", disk), f, 2, 32, false, false)
		writes, turn := b.load(x.name, f, 2, 32, true, false), false
		reads := x.run
		x.run = func(ctx context.Context, d time.Duration) (sample, error) {
			turn = !turn
			if turn {
				return writes.run(ctx, d)
			}
			return reads(ctx, d)
		}
		all = append(all, soakPath{x, f.srv})
	}
	return all, nil
}

// soakAllocations counts what a path allocates in steady state.
func (b *bench) soakAllocations(ctx context.Context, p soakPath) error {
	c := api.NewClient(p.srv.Socket)
	defer c.Close()
	least := 0.0
	for try := range 4 {
		from, err := c.Footprint(ctx)
		if err != nil {
			return err
		}
		s, err := p.run(ctx, time.Second)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		to, err := c.Footprint(ctx)
		if err != nil {
			return err
		}
		// The page itself costs some hundred.
		n := max(0, float64(to.Allocated-from.Allocated)-2000) / float64(max(s.Requests, 1))
		if try == 0 || n < least {
			least = n
		}
		if least <= soakAllocs {
			fmt.Fprintf(os.Stderr, "%5.0fs %s: %d requests, %d objects allocated\n", time.Since(b.begin).Seconds(), p.name, s.Requests, to.Allocated-from.Allocated)
			return nil
		}
	}
	return fmt.Errorf("%s: %.3f objects allocated per request", p.name, least)
}

// soakMemory runs all paths at once and looks at resident memory.
func (b *bench) soakMemory(ctx context.Context, paths []soakPath) error {
	end := time.Now().Add(b.o.soak)
	errs := make([]error, len(paths))
	var wg sync.WaitGroup
	for i, p := range paths {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil && errs[i] == nil {
				_, errs[i] = p.run(ctx, time.Second)
			}
		})
	}
	seen := map[*peer.Server][]int64{}
	for time.Now().Before(end) && ctx.Err() == nil {
		time.Sleep(min(b.o.soak/60, 5*time.Second))
		for _, m := range []string{cached, ram} {
			n, err := b.vtgt.srv[m].RSS()
			if err != nil {
				wg.Wait()
				return errors.Join(append(errs, err)...)
			}
			seen[b.vtgt.srv[m]] = append(seen[b.vtgt.srv[m]], n)
		}
	}
	wg.Wait()
	err := errors.Join(append(errs, ctx.Err())...)
	for _, m := range []string{cached, ram} {
		v := seen[b.vtgt.srv[m]]
		third := len(v) / 3
		if third == 0 {
			continue
		}
		before, after := middle(v[third:2*third]), middle(v[len(v)-third:])
		fmt.Fprintf(os.Stderr, "%5.0fs resident memory over %s: %.1f MiB in the second third, %.1f in the last\n", time.Since(b.begin).Seconds(), m, float64(before)/(1<<20), float64(after)/(1<<20))
		if after > before+soakGrowth {
			err = errors.Join(err, fmt.Errorf("resident memory over %s has grown from %d to %d bytes", m, before, after))
		}
	}
	return err
}

// middle is the median.
func middle(v []int64) int64 {
	f := make([]float64, len(v))
	for i, n := range v {
		f[i] = float64(n)
	}
	return int64(median(f))
}
