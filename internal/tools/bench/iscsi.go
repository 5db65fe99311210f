package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/tools/peer"
)

// The media of the iSCSI tables.
const (
	cached = "file"   // an image file in the page cache
	direct = "direct" // the same, opened with O_DIRECT
	ram    = "ram"    // vtgt: mem:, others: a file on /dev/shm
)

// The clients of the iSCSI tables.
const (
	ours = "own client"
	qemu = "qemu-img"
	perf = "iscsi-perf"
)

// A team is a target with a disk of each medium.
type team struct {
	name  string
	srv   map[string]*peer.Server // by medium
	image map[string]string       // path, to be settled before a run; "" where nothing lies on a medium
}

func iscsiTable(medium string) string { return "iSCSI, " + medium }

// crowdOf is n of our initiators against the team's disk of that medium.
func (b *bench) crowdOf(t *team, medium string, c cell, n int) contender {
	srv := t.srv[medium]
	var all crowd
	return contender{name: t.name,
		run: func(_ context.Context, d time.Duration) (sample, error) {
			if all == nil {
				for range n {
					// Each session is of an initiator of its own.
					b.initiators++
					i, err := dialInitiator(srv.Addr(), srv.IQN(medium), srv.LUN(), b.o.bytes(), c, b.initiators)
					if err != nil {
						return sample{}, b.why(t, medium, err)
					}
					all = append(all, i)
				}
			}
			if err := settle(t.image[medium]); err != nil {
				return sample{}, err
			}
			k, err := startClocks(srv.CPU)
			if err != nil {
				return sample{}, b.why(t, medium, err)
			}
			reqs, took, cpu, busiest, err := all.run(d)
			if err != nil {
				return sample{}, b.why(t, medium, err)
			}
			return k.sample(reqs, took, cpu, busiest)
		},
		end: func() { all.close() },
	}
}

// foreign is another's client, which logs in anew for each run.
func (b *bench) foreign(t *team, medium string, client string, c cell) contender {
	srv := t.srv[medium]
	n := 0
	return contender{name: t.name, run: func(ctx context.Context, d time.Duration) (sample, error) {
		var err error
		if n == 0 && client == qemu {
			if n, err = calibrate(ctx, srv.URL(medium), c, b.o.each); err != nil {
				return sample{}, b.why(t, medium, err)
			}
		}
		if err := settle(t.image[medium]); err != nil {
			return sample{}, err
		}
		k, err := startClocks(srv.CPU)
		if err != nil {
			return sample{}, b.why(t, medium, err)
		}
		reqs, took, cpu := n, time.Duration(0), time.Duration(0)
		if client == qemu {
			took, cpu, err = qemuImg(ctx, srv.URL(medium), c, n)
		} else {
			reqs, took, cpu, err = iscsiPerf(ctx, srv.URL(medium), c)
		}
		if err != nil {
			return sample{}, b.why(t, medium, err)
		}
		return k.sample(reqs, took, cpu, cpu)
	}}
}

// why adds what a target that has ended by itself has said.
func (b *bench) why(t *team, medium string, err error) error {
	if s := t.srv[medium]; s.Exited() {
		return fmt.Errorf("%w\n%s ended by itself:\n%s", err, t.name, s.Log())
	}
	return err
}

// startTeams starts vtgt, tgtd and, when wanted, gotgt.
func (b *bench) startTeams(ctx context.Context) error {
	shm, err := filepath.Abs(b.dir)
	if err != nil {
		return err
	}
	// Two peers have an image each.
	if mem, remove, err := hosttest.Memory(2*b.o.bytes() + 1<<20); err == nil {
		shm = mem
		b.closers = append(b.closers, remove)
	} else {
		fmt.Fprintf(os.Stderr, "the peers' disks in memory are files on disk: %v\n", err)
	}
	type builder func(sub string, disks []peer.Disk) (*peer.Server, error)
	start := func(name string, media []string, mem bool, f builder) (*team, error) {
		t := &team{name: name, srv: map[string]*peer.Server{}, image: map[string]string{}}
		sub := filepath.Join(b.dir, name)
		if err := os.Mkdir(sub, 0o700); err != nil {
			return nil, err
		}
		var files, rams []peer.Disk
		for _, m := range media {
			d := peer.Disk{Name: m, BlockSize: 512, PhysicalBlockSize: 4096, Direct: m == direct}
			if m == ram && mem {
				d.Store, d.Size, d.VHost = "mem:", b.o.bytes(), true
				n := d
				n.Name, n.Store = "null", "null:"
				rams = append(rams, d, n)
				continue
			}
			where := sub
			if m == ram {
				where = shm
			}
			d.Path = filepath.Join(where, name+"-"+m)
			if err := makeImage(d.Path, b.o.bytes(), b.o.fillKiB<<10); err != nil {
				return nil, err
			}
			t.image[m] = d.Path
			d.VHost = mem
			files = append(files, d)
		}
		for k, disks := range [][]peer.Disk{files, rams} {
			if len(disks) == 0 {
				continue
			}
			dir := filepath.Join(sub, fmt.Sprint("d", k))
			if err := os.Mkdir(dir, 0o700); err != nil {
				return nil, err
			}
			srv, err := f(dir, disks)
			if err != nil {
				return nil, err
			}
			srv.Name = name
			b.servers = append(b.servers, srv)
			b.res.Targets[name] = srv.Version
			for _, d := range disks {
				t.srv[d.Name] = srv
			}
		}
		return t, nil
	}
	vtgt := func(binary string) builder {
		return func(dir string, disks []peer.Disk) (*peer.Server, error) { return peer.Vtgt(binary, dir, disks) }
	}
	media := []string{cached, direct, ram}
	if b.vtgt, err = start("vtgt", media, true, vtgt(b.o.vtgt)); err != nil {
		return err
	}
	if err := b.fillRAM(b.vtgt); err != nil {
		return err
	}
	if !b.want("iscsi") && b.o.against == "tgtd" {
		return nil
	}
	switch b.o.against {
	case "none", "":
		return nil
	case "tgtd":
		if b.other, err = start("tgtd", media, false, peer.Tgtd); err != nil {
			b.other = nil
			b.note("no tgtd: %v", err)
		}
	default:
		if b.other, err = start("other", media, true, vtgt(b.o.against)); err != nil {
			return err
		}
		return b.fillRAM(b.other)
	}
	if b.o.gotgt {
		program, err := peer.BuildGotgt(ctx, b.o.dir)
		if err == nil {
			b.gotgt, err = start("gotgt", []string{cached}, false, func(dir string, disks []peer.Disk) (*peer.Server, error) {
				return peer.Gotgt(program, dir, disks)
			})
		}
		if err != nil {
			b.gotgt = nil
			b.note("no gotgt: %v", err)
		}
	}
	return nil
}

// fillRAM writes the whole mem: disk once: what was never written costs no memory and
// is read from nowhere.
func (b *bench) fillRAM(t *team) error {
	srv := t.srv[ram]
	c := cell{Write: true, Block: 1 << 20, Depth: 4}
	i, err := dialInitiator(srv.Addr(), srv.IQN(ram), srv.LUN(), b.o.bytes(), c, 1<<32)
	if err != nil {
		return err
	}
	defer i.close()
	return i.fill()
}

// teams are those that play on that medium.
func (b *bench) teams(medium string) []*team {
	var all []*team
	for _, t := range []*team{b.vtgt, b.other} {
		if t != nil && t.srv[medium] != nil {
			all = append(all, t)
		}
	}
	return all
}

// iscsiRow measures one cell with one client.
func (b *bench) iscsiRow(ctx context.Context, medium, client string, c cell, teams []*team) error {
	var cs []contender
	for _, t := range teams {
		if client == ours {
			cs = append(cs, b.crowdOf(t, medium, c, 1))
		} else {
			cs = append(cs, b.foreign(t, medium, client, c))
		}
	}
	return b.compare(ctx, row{Table: iscsiTable(medium), Load: c.String(), Client: client, Bytes: c.Block}, cs)
}

// iscsi measures the iSCSI tables.
func (b *bench) iscsi(ctx context.Context) error {
	blocks, depths := []int{4 << 10, 64 << 10, 1 << 20}, []int{1, 32, 128}
	media, crowds := []string{cached, ram, direct}, []int{4, 16}
	if b.o.quick {
		blocks, depths, crowds = []int{4 << 10, 1 << 20}, []int{32}, []int{4}
	}
	for _, m := range media {
		for _, c := range cells(blocks, depths) {
			if err := b.iscsiRow(ctx, m, ours, c, b.teams(m)); err != nil {
				return err
			}
			// Another's client on the same cells: all of the cached file, and
			// those of the other media that people quote.
			if b.qemu && (m == cached || c.Block == 4<<10 && !b.o.quick) {
				if err := b.iscsiRow(ctx, m, qemu, c, b.teams(m)); err != nil {
					return err
				}
			}
			if b.perf && !c.Write && c.Block == 4<<10 && c.Depth == 32 && m != direct && !b.o.quick {
				if err := b.iscsiRow(ctx, m, perf, c, b.teams(m)); err != nil {
					return err
				}
			}
			if t := b.gotgt; t != nil && m == cached && c.Block == 4<<10 && c.Depth == 32 {
				r := row{Table: "iSCSI, " + m + ", gotgt", Load: c.String(), Client: ours, Bytes: c.Block}
				cs := []contender{b.crowdOf(b.vtgt, m, c, 1), b.crowdOf(t, m, c, 1)}
				// What becomes of gotgt does not fail the run.
				if b.chosen(r.Table, r.Load, r.Client) {
					if err := b.compareAll(ctx, r, cs); err != nil {
						b.note("gotgt: %v", err)
					}
				}
			}
		}
	}
	for _, m := range []string{cached, ram} {
		for _, n := range crowds {
			for _, write := range []bool{false, true} {
				c := cell{write, 4 << 10, 32}
				if b.o.cores < 4 && !b.o.quick {
					b.skip(iscsiTable(m), fmt.Sprintf("%v, %d sessions", c, n), ours, "fewer than 4 cores")
					continue
				}
				var cs []contender
				for _, t := range b.teams(m) {
					cs = append(cs, b.crowdOf(t, m, c, n))
				}
				r := row{Table: iscsiTable(m), Load: fmt.Sprintf("%v, %d sessions", c, n), Client: ours, Bytes: c.Block}
				if err := b.compare(ctx, r, cs); err != nil {
					return err
				}
			}
		}
	}
	return b.tcpExchange(ctx)
}

// tcpExchange measures vtgt on RAM beside the bare exchange.
func (b *bench) tcpExchange(ctx context.Context) error {
	h, err := startHelper("tcp", b.o.bytes())
	if err != nil {
		return err
	}
	defer h.close()
	for _, depth := range []int{1, 32, 128} {
		c := cell{false, exchangeBytes, depth}
		var i *initiator
		bare := contender{name: "TCP exchange",
			run: func(_ context.Context, d time.Duration) (sample, error) {
				if i == nil {
					var err error
					if i, err = dialExchange(h.addr, b.o.bytes(), c, 1); err != nil {
						return sample{}, err
					}
				}
				k, err := startClocks(h.cpu)
				if err != nil {
					return sample{}, err
				}
				n, took, cpu, busiest, err := crowd{i}.run(d)
				if err != nil {
					return sample{}, err
				}
				return k.sample(n, took, cpu, busiest)
			},
			end: func() {
				if i != nil {
					i.close()
				}
			},
		}
		r := row{Table: limitTable, Load: "iSCSI on RAM, " + c.String(), Client: ours, Bytes: c.Block}
		if err := b.compare(ctx, r, []contender{b.crowdOf(b.vtgt, ram, c, 1), bare}); err != nil {
			return err
		}
	}
	return nil
}
