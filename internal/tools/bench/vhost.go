package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/vtgt/vtgt/internal/tools/peer"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// The clients of the vhost tables.
const (
	polling  = "ring client, polling"
	sleeping = "ring client, blocking"
)

const (
	vhostTable = "vhost-user"
	limitTable = "limits"
)

// A front is our ring client at one of a server's sockets, which takes one at a time:
// contenders of one row share it.
type front struct {
	srv     *peer.Server
	disk    string
	queues  int
	c       *vhosttest.Client
	drivers []*ringDriver
	loads   map[[2]int]*vhosttest.Load // by queues and depth
}

func (f *front) client() (*vhosttest.Client, error) {
	var err error
	if f.c == nil {
		f.c, err = dialDisk(f.srv.VHostSocket(f.disk), f.queues, 32<<20)
		f.drivers, f.loads = make([]*ringDriver, f.queues), map[[2]int]*vhosttest.Load{}
	}
	return f.c, err
}

func (f *front) close() {
	if f.c != nil {
		_ = f.c.Close()
		f.c = nil
	}
}

// load is depth requests in each of the front's first queues rings, 4 KiB reads or
// writes, each ring on a thread of its own. With spin the client is a ringDriver, else
// vhosttest's, which sleeps.
func (b *bench) load(name string, f *front, queues, depth int, write, spin bool) contender {
	return contender{name: name,
		run: func(_ context.Context, d time.Duration) (sample, error) {
			c, err := f.client()
			if err != nil {
				return sample{}, err
			}
			k, err := startClocks(f.srv.CPU)
			if err != nil {
				return sample{}, err
			}
			cpu0, err := peer.ProcessCPU(os.Getpid())
			if err != nil {
				return sample{}, err
			}
			var n int
			var took time.Duration
			if spin {
				n, took, err = f.spin(b, queues, depth, write, d)
			} else {
				n, took, err = f.sleep(b, c, queues, depth, write, d)
			}
			if err != nil {
				return sample{}, err
			}
			cpu1, err := peer.ProcessCPU(os.Getpid())
			if err != nil {
				return sample{}, err
			}
			s, err := k.sample(n, took, cpu1-cpu0, 0)
			if !spin { // one that polls is always busy
				s.Client = (cpu1 - cpu0).Seconds() / took.Seconds() / float64(queues)
			}
			return s, err
		},
		end: f.close,
	}
}

// sleep runs the load with vhosttest's client.
func (f *front) sleep(b *bench, c *vhosttest.Client, queues, depth int, write bool, d time.Duration) (int, time.Duration, error) {
	key := [2]int{queues, depth}
	l := f.loads[key]
	if l == nil {
		l = &vhosttest.Load{LUN: vhosttest.LUN(0, 0), NQ: queues, Blocks: int(b.o.bytes() / 4096), Depth: depth, Indirect: true, Seed: 9}
		f.loads[key] = l
	}
	l.Time, l.Writes = d, 0
	if write {
		l.Writes = 100
	}
	res, err := l.Run(c)
	return int(res.Requests), res.Elapsed, err
}

// spin runs it with ringDrivers, which take the rings from the client meanwhile.
func (f *front) spin(b *bench, queues, depth int, write bool, d time.Duration) (n int, took time.Duration, err error) {
	var wg sync.WaitGroup
	ns, errs := make([]int, queues), make([]error, queues)
	times := make([]time.Duration, queues)
	blocks := int(b.o.bytes()/4096) / queues
	for i := range queues {
		q := f.c.Request(i)
		l := q.Ring().Layout
		if f.drivers[i] == nil {
			if f.drivers[i], err = newRingDriver(f.c.Mem, l.Size, l.Desc, l.Avail, l.Used, l.Tables, 0); err != nil {
				return 0, 0, err
			}
			f.drivers[i].notify = q.Notify
		}
		r := f.drivers[i]
		r.idx, r.last = q.Ring().Index(), q.Ring().Index()
		r.aim(i*blocks, blocks, write)
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ns[i], times[i], errs[i] = r.drive(depth, d)
			q.Ring().SetIndex(r.idx)
		})
	}
	wg.Wait()
	for i := range queues {
		n += ns[i]
		took = max(took, times[i])
	}
	return n, took, errors.Join(errs...)
}

// dialDisk connects as a machine with so many queues and reads away unit attentions.
func dialDisk(socket string, queues, memory int) (*vhosttest.Client, error) {
	c, err := vhosttest.Dial(socket, vhosttest.Options{Queues: queues, Style: vhosttest.QEMU10, Size: 256, Table: 8, MemoryBytes: memory, Scratch: 4096})
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		_ = c.Close()
		return nil, err
	}
	for range 6 {
		r, err := c.Request(0).Exec(vhosttest.LUN(0, 0), make([]byte, 6), nil, nil)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		if r.Response == vhosttest.RespOK && r.Status == 0 {
			return c, nil
		}
	}
	_ = c.Close()
	return nil, fmt.Errorf("%s: TEST UNIT READY does not succeed", socket)
}

func ringName(disk string, queues, depth int, write bool) string {
	return fmt.Sprintf("%s, %v, %d queue%s", disk, cell{write, 4096, depth}, queues, map[bool]string{true: "s"}[queues > 1])
}

// vhost measures the vhost-user tables, each line beside its limit.
func (b *bench) vhost(ctx context.Context) error {
	mem, err := exchangeMemory(b.o.bytes())
	if err != nil {
		return err
	}
	f, err := os.Open(b.vtgt.image[cached])
	if err != nil {
		return err
	}
	defer f.Close()
	alone := func(name string, f func(d time.Duration) (sample, error)) contender {
		return contender{name: name, run: func(_ context.Context, d time.Duration) (sample, error) { return f(d) }}
	}
	limit := map[string]func(depth int) contender{
		"null": func(depth int) contender {
			return alone("bare ring", func(d time.Duration) (sample, error) { return runBareRing(depth, d) })
		},
		ram:    func(int) contender { return alone("memcpy", memcpyLimit(mem)) },
		cached: func(int) contender { return alone("pread", preadLimit(f, b.o.bytes())) },
	}
	depths := []int{1, 32, 128}
	if b.o.quick {
		depths = []int{32}
	}
	line := func(disk string, queues, depth int, write, spin bool, more ...contender) error {
		client := sleeping
		if spin {
			client = polling
		}
		name := ringName(disk, queues, depth, write)
		if need := 2 * queues; spin && b.o.cores < need {
			b.skip(vhostTable, name, client, fmt.Sprintf("fewer than %d cores", need))
			return nil
		}
		f := &front{srv: b.vtgt.srv[disk], disk: disk, queues: queues}
		cs := []contender{b.load("vtgt", f, queues, depth, write, spin)}
		if spin && queues > 1 {
			cs = append(cs, b.load("one queue", f, 1, depth, write, spin))
		}
		if o := b.other; o != nil && b.o.against != "tgtd" {
			cs = append(cs, b.load("other", &front{srv: o.srv[disk], disk: disk, queues: queues}, queues, depth, write, spin))
		}
		return b.compare(ctx, row{Table: vhostTable, Load: name, Client: client, Bytes: 4096}, append(cs, more...))
	}
	for _, disk := range []string{"null", ram, cached} {
		for _, depth := range depths {
			if err := line(disk, 1, depth, false, true, limit[disk](depth)); err != nil {
				return err
			}
			if err := line(disk, 1, depth, false, false); err != nil {
				return err
			}
		}
		if err := line(disk, 1, 32, true, true); err != nil {
			return err
		}
		for _, queues := range []int{2, 4} {
			if b.o.quick && queues > 2 {
				continue
			}
			if err := line(disk, queues, 32, false, true); err != nil {
				return err
			}
			if err := line(disk, queues, 32, false, false); err != nil {
				return err
			}
		}
	}
	return b.blocking(ctx)
}

// blocking measures a target that does not spin: with two processors for its threads,
// loops sleep at once.
func (b *bench) blocking(ctx context.Context) error {
	dir := filepath.Join(b.dir, "blocking")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	srv, err := peer.Vtgt(b.o.vtgt, dir, []peer.Disk{{Name: "null", Store: "null:", Size: b.o.bytes(), BlockSize: 512, PhysicalBlockSize: 4096, VHost: true}}, "GOMAXPROCS=2")
	if err != nil {
		return err
	}
	b.servers = append(b.servers, srv)
	x, err := newEventExchange()
	if err != nil {
		return err
	}
	bare := contender{name: "bare eventfd", run: func(_ context.Context, d time.Duration) (sample, error) { return x.run(d) }, end: x.close}
	cs := []contender{b.load("vtgt", &front{srv: srv, disk: "null", queues: 1}, 1, 1, false, false)}
	if b.o.against != "tgtd" && b.o.against != "none" && b.o.against != "" {
		sub := filepath.Join(dir, "other")
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		o, err := peer.Vtgt(b.o.against, sub, []peer.Disk{{Name: "null", Store: "null:", Size: b.o.bytes(), BlockSize: 512, PhysicalBlockSize: 4096, VHost: true}}, "GOMAXPROCS=2")
		if err != nil {
			return err
		}
		b.servers = append(b.servers, o)
		cs = append(cs, b.load("other", &front{srv: o, disk: "null", queues: 1}, 1, 1, false, false))
	}
	return b.compare(ctx, row{Table: limitTable, Load: "neither side polls, null, 4k d1 read", Client: sleeping, Bytes: 4096}, append(cs, bare))
}
