package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/tools/peer"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// How much of everything.
type crowdSize struct {
	targets, sockets, sessions int
	idle                       time.Duration
}

// scale measures what many targets, sockets and sessions cost.
func (b *bench) scale(ctx context.Context) error {
	n := crowdSize{targets: 1000, sockets: 256, sessions: 1000, idle: 5 * time.Second}
	if b.o.quick {
		n = crowdSize{targets: 100, sockets: 16, sessions: 50, idle: time.Second}
	}
	if err := b.manyTargets(ctx, n); err != nil {
		return fmt.Errorf("%d targets: %w", n.targets, err)
	}
	if err := b.manySockets(ctx, n); err != nil {
		return fmt.Errorf("%d vhost-user sockets: %w", n.sockets, err)
	}
	return nil
}

// tell notes one goal of the scale part: a figure whose median must be below its limit.
func (b *bench) tell(name, unit string, limit float64, values ...float64) {
	s := spreadOf(values)
	g := goal{Name: name, Limit: fmt.Sprintf("< %g %s", limit, unit), Value: s.Median, Min: s.Min, Max: s.Max, Outcome: missed, Unit: unit}
	if s.Median < limit {
		g.Outcome = met
	}
	b.res.Scale = append(b.res.Scale, g)
	fmt.Fprintf(os.Stderr, "%5.0fs %s: %.4g %s (%s)\n", time.Since(b.begin).Seconds(), name, s.Median, unit, g.Outcome)
}

// scaleDisks are n sparse files' disks, made by vtgt itself.
func scaleDisks(dir string, n int) ([]peer.Disk, error) {
	var all []peer.Disk
	for i := range n {
		p := filepath.Join(dir, fmt.Sprintf("d%04d.img", i))
		f, err := os.Create(p)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Truncate(64<<20), f.Close()); err != nil {
			return nil, err
		}
		all = append(all, peer.Disk{Name: fmt.Sprintf("d%04d", i), Path: p, BlockSize: 512, PhysicalBlockSize: 4096})
	}
	return all, nil
}

// startIdle starts vtgt over disks and waits until the API shows all their targets.
func (b *bench) startIdle(ctx context.Context, name string, disks []peer.Disk) (*peer.Server, *api.Client, time.Duration, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, nil, 0, err
	}
	begin := time.Now()
	srv, err := peer.Vtgt(b.o.vtgt, dir, disks)
	if err != nil {
		return nil, nil, 0, err
	}
	b.servers = append(b.servers, srv)
	c := api.NewClient(srv.Socket)
	for end := begin.Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		ts, err := c.Targets(ctx)
		if err == nil && len(ts) == len(disks) {
			return srv, c, time.Since(begin), nil
		}
		if time.Now().After(end) {
			c.Close()
			return nil, nil, 0, fmt.Errorf("not all of %d targets are there: %w", len(disks), err)
		}
	}
}

func (b *bench) manyTargets(ctx context.Context, n crowdSize) error {
	dir := filepath.Join(b.dir, "many")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	disks, err := scaleDisks(dir, n.targets+2*applyRounds)
	if err != nil {
		return err
	}
	// What one daemon takes by itself is no target's.
	bare, c, _, err := b.startIdle(ctx, "idle0", disks[:1])
	if err != nil {
		return err
	}
	c.Close()
	empty, err := bare.RSS()
	if err != nil {
		return err
	}
	if err := b.drop(bare); err != nil {
		return err
	}
	srv, c, took, err := b.startIdle(ctx, "idle1", disks[:n.targets])
	if err != nil {
		return err
	}
	defer c.Close()
	b.tell(fmt.Sprintf("start with %d targets", n.targets), "s", 3, took.Seconds())
	full, err := srv.RSS()
	if err != nil {
		return err
	}
	b.tell(fmt.Sprintf("memory of each of %d idle targets", n.targets), "KB", 200, float64(full-empty)/1e3/float64(n.targets))
	if err := b.oneMore(ctx, srv, c, n.targets, disks[n.targets:]); err != nil {
		return err
	}

	// Sessions, spread over the targets.
	before, err := srv.RSS()
	if err != nil {
		return err
	}
	var conns []*iscsitest.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	begin := time.Now()
	for k := range n.sessions {
		nc, err := iscsitest.Dial(srv.Addr())
		if err != nil {
			return err
		}
		conns = append(conns, nc)
		l := iscsitest.Login{InitiatorName: fmt.Sprintf("iqn.2026-11.org.vtgt:scale%d", k), TargetName: srv.IQN(disks[k%n.targets].Name)}
		if err := nc.Login(l); err != nil {
			return fmt.Errorf("session %d: %w", k, err)
		}
	}
	fmt.Fprintf(os.Stderr, "%5.0fs %d logins in %v\n", time.Since(b.begin).Seconds(), n.sessions, time.Since(begin).Round(time.Millisecond))
	for round := range 3 { // unit attentions first
		for k, nc := range conns {
			t, err := nc.Run(&iscsitest.Command{CDB: []byte{0x28, 0, 0, 0, 0, byte(k), 0, 0, 8, 0}, In: 4096})
			if err != nil {
				return fmt.Errorf("session %d: %w", k, err)
			}
			if round == 2 && t.Status != 0 {
				return fmt.Errorf("session %d: READ ends with status %#x", k, t.Status)
			}
		}
	}
	after, err := srv.RSS()
	if err != nil {
		return err
	}
	ss, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	if len(ss) != n.sessions {
		return fmt.Errorf("%d sessions are shown of %d", len(ss), n.sessions)
	}
	b.note("each of %d iSCSI sessions takes %.0f KB in vtgt after some READs", n.sessions, float64(after-before)/1e3/float64(n.sessions))
	used, err := idleCPU(srv, n.idle)
	if err != nil {
		return err
	}
	b.note("%d targets with %d sessions that do nothing take %.2f %% of a processor", n.targets, n.sessions, used)
	return nil
}

// applyRounds is how often one target is added in each way.
const applyRounds = 9

// oneMore measures how long it takes to add a disk with its target to targets others: by a
// change of single objects, and by a whole text that has them.
func (b *bench) oneMore(ctx context.Context, srv *peer.Server, c *api.Client, targets int, disks []peer.Disk) error {
	var single, whole []float64
	for i, d := range disks {
		ops := []config.Op{
			{Action: config.Add, Kind: "disk", Name: d.Name, Values: map[string]any{"store": "file:" + d.Path, "shared": true}},
			{Action: config.Add, Kind: "target", Name: d.Name, Values: map[string]any{
				"luns":  []any{map[string]any{"lun": 0, "disk": d.Name}},
				"iscsi": map[string]any{"iqn": srv.IQN(d.Name)}}},
		}
		var err error
		var begin time.Time
		if i%2 == 0 {
			e := api.EditRequest{}
			for _, o := range ops {
				e.Ops = append(e.Ops, api.EditOp{Action: o.Action, Kind: o.Kind, Name: o.Name, Values: o.Values})
			}
			begin = time.Now()
			_, err = c.Edit(ctx, e)
			single = append(single, float64(time.Since(begin).Microseconds())/1e3)
		} else {
			is, cerr := c.Config(ctx)
			text, eerr := config.Edit(is.File, []byte(is.Text), ops...)
			if err := errors.Join(cerr, eerr); err != nil {
				return err
			}
			begin = time.Now()
			_, err = c.Apply(ctx, is.File, text, daemon.ApplyOptions{Save: true})
			whole = append(whole, float64(time.Since(begin).Microseconds())/1e3)
		}
		if err != nil {
			return fmt.Errorf("adding %s: %w", d.Name, err)
		}
	}
	b.tell(fmt.Sprintf("adding one to %d targets", targets), "ms", 50, single...)
	b.tell(fmt.Sprintf("apply of a text with one more of %d targets", targets), "ms", 50, whole...)
	return nil
}

// idleCPU is how much of one processor srv uses while nobody wants anything.
func idleCPU(srv *peer.Server, d time.Duration) (percent float64, err error) {
	time.Sleep(time.Second) // what it was doing
	c0, err := srv.CPU()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	time.Sleep(d)
	c1, err := srv.CPU()
	return 100 * (c1 - c0).Seconds() / time.Since(begin).Seconds(), err
}

func (b *bench) manySockets(ctx context.Context, n crowdSize) error {
	var disks []peer.Disk
	for i := range n.sockets {
		disks = append(disks, peer.Disk{Name: fmt.Sprintf("v%03d", i), Store: "null:", Size: 64 << 20, BlockSize: 512, PhysicalBlockSize: 4096, VHost: true})
	}
	srv, c, _, err := b.startIdle(ctx, "sockets", disks)
	if err != nil {
		return err
	}
	c.Close()
	var fronts []*vhosttest.Client
	defer func() {
		for _, f := range fronts {
			_ = f.Close()
		}
	}()
	before, err := srv.RSS()
	if err != nil {
		return err
	}
	for _, d := range disks {
		f, err := dialDisk(srv.VHostSocket(d.Name), 1, 1<<20)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		fronts = append(fronts, f)
	}
	after, err := srv.RSS()
	if err != nil {
		return err
	}
	b.note("each of %d connected vhost-user fronts takes %.0f KB in vtgt", n.sockets, float64(after-before)/1e3/float64(n.sockets))
	used, err := idleCPU(srv, n.idle)
	if err != nil {
		return err
	}
	b.tell(fmt.Sprintf("idle CPU of %d vhost-user sockets with fronts", n.sockets), "% of a processor", 1, used)
	return nil
}

// drop ends a server before the rest.
func (b *bench) drop(s *peer.Server) error {
	for i, o := range b.servers {
		if o == s {
			b.servers = append(b.servers[:i], b.servers[i+1:]...)
			break
		}
	}
	return s.Close()
}

// note keeps a line for the report.
func (b *bench) note(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	b.res.Notes = append(b.res.Notes, strings.ReplaceAll(s, "\n", " "))
	fmt.Fprintln(os.Stderr, s)
}
