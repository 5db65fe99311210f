package daemon

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/scsi"
)

// CloseTime is how long Close may take with sessions open, unless Options say more.
const CloseTime = 5 * time.Second

// Options are what a configuration file does not say. The zero value works.
type Options struct {
	// Log gets what an operator should know; nil is silence.
	Log *slog.Logger
	// LockWait bounds the wait, in all, for the stores and the state folder
	// that a predecessor is about to let go of when the daemon starts; 0: 5 s,
	// negative: none. It is never waited while a running daemon applies a
	// configuration.
	LockWait time.Duration
	// DrainTime bounds the end of the commands of a LUN, target or disk that
	// Apply removes; 0: 10 s.
	DrainTime time.Duration
	// CloseTime bounds Close; 0: the constant CloseTime.
	CloseTime time.Duration
	// Inherited are sockets that were bound before (socket activation). A portal
	// whose address one of them has takes that. They become the daemon's.
	Inherited []*os.File

	// Legacy is what another daemon hands over (TakeOver). New takes from it what
	// the configuration has still; it is the caller's to close.
	Legacy *Legacy
	// Parking is where virtual machines' connections are kept for the time after a
	// crash; New goes on with those that are there. It is the caller's to close.
	Parking *Parking

	// spaceTick is how often the room of thin disks is looked at; 0: 10 s.
	spaceTick time.Duration
	// space says what room a store has; nil: backing.SpaceOf.
	space func(backing.Store) (backing.Space, error)
	// Xen is the way to Xen, opened when a target has an export to a domain; nil: the
	// kernel's devices.
	Xen func() (*XenParts, error)
	// Open opens stores; nil: backing.Open. Tests put faults into them.
	Open func(spec string, o backing.Options) (backing.Store, error)
}

// Daemon is a running object graph. Its methods may be called from any goroutine.
type Daemon struct {
	log     *slog.Logger
	opt     Options
	eng     engine
	st      *state.Dir
	started time.Time
	served  string // the configuration file, where runtime changes are written to
	events  journal
	comings journal // of sessions
	atts    attachments

	write   sync.Mutex    // one writer
	editor  config.Editor // under write
	closed  bool          // under write
	cur     atomic.Pointer[graph]
	closing atomic.Bool
}

// New starts a daemon with the configuration in text, which came from file. When
// it returns an error nothing of it is left.
func New(file string, text []byte, o Options) (*Daemon, error) {
	cfg, err := config.Parse(file, text)
	if err != nil {
		closeFiles(o.Inherited)
		return nil, AsErrors(err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	eng, err := newEngine(cfg, &o)
	if err != nil {
		return nil, AsErrors(err)
	}
	return start(file, text, cfg, eng, o)
}

func closeFiles(fs []*os.File) {
	for _, f := range fs {
		_ = f.Close()
	}
}

// Alive returns when every loop has gone round: for watchdogs.
func (d *Daemon) Alive() { d.eng.alive() }

// start takes eng over.
func start(file string, text []byte, cfg *config.Config, eng engine, o Options) (*Daemon, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.LockWait == 0 {
		o.LockWait = 5 * time.Second
	}
	if o.DrainTime == 0 {
		o.DrainTime = 10 * time.Second
	}
	if o.CloseTime == 0 {
		o.CloseTime = CloseTime
	}
	deadline := time.Now().Add(o.LockWait)
	var st *state.Dir
	var err error
	if o.Legacy != nil {
		st, err = o.Legacy.state(cfg.State)
	} else {
		st, err = state.Open(cfg.State, 0)
	}
	if errors.Is(err, state.ErrInUse) && o.LockWait > 0 {
		o.Log.Info("waiting for another vtgt to end", "state", cfg.State, "atMost", o.LockWait)
		st, err = state.Open(cfg.State, o.LockWait)
	}
	if err != nil {
		eng.close()
		return nil, stateError(err)
	}
	d := &Daemon{log: o.Log, opt: o, eng: eng, st: st, started: time.Now(), served: file}
	g := newGraph()
	// The same text is the same revision; any other is a new one.
	if r := st.Revision(); r.Revision > 0 {
		if g.revision = r.Revision; r.Sum == sum(text) {
			g.revision--
		}
	}
	d.events.init(g.revision + 1)
	d.comings.init(g.revision + 1)
	d.comings.limit = maxSessionEvents
	d.cur.Store(g)
	if err := d.atts.load(st.Attachments(), func(path string, err error) {
		o.Log.Error("the journal of an attachment cannot be read: what it has set up stays until somebody removes it by hand", "file", path, "err", err)
	}); err != nil {
		eng.close()
		_ = st.Close()
		return nil, stateError(err)
	}
	eng.observe(d.stateEvent)
	eng.remember(func(disk string) scsi.Memory { return st.Memory(disk) })
	d.write.Lock()
	defer d.write.Unlock()
	if _, err := d.apply(file, text, cfg, ApplyOptions{}, nil, deadline); err != nil {
		d.closed = true
		eng.close()
		_ = st.Close()
		return nil, err
	}
	o.Parking.settle()
	if o.Legacy != nil {
		st.Sign()
		d.log.Info("took over", "from", o.Legacy.l.PID, "pause", o.Legacy.pause())
		d.opt.Legacy = nil
		if c, ok := eng.(*core); ok {
			c.legacy = nil
		}
	}
	return d, nil
}

func stateError(err error) error {
	e := &Error{Code: CodeInternal, Message: err.Error(), Err: err}
	var se *state.Error
	if errors.As(err, &se) {
		e.Object, e.Message, e.Hint = "state "+se.Path, se.Msg, se.Hint
		if se.Err != nil && !errors.Is(err, state.ErrInUse) {
			e.Message += ": " + cause(se.Err)
		}
	}
	switch {
	case errors.Is(err, state.ErrInUse):
		e.Code = CodeInUse
	case errors.Is(err, os.ErrPermission):
		e.Code = CodeDenied
	}
	return Errors{e}
}

// cause is an error without the path that its message names anyway.
func cause(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err.Error()
	}
	return err.Error()
}

// Result is what Apply did, or would do.
type Result struct {
	DryRun   bool            `json:"dryRun"`
	Revision uint64          `json:"revision"`
	Changes  []config.Change `json:"changes"`
	Warnings []string        `json:"warnings"`
}

// ApplyOptions say how a configuration is put into force.
type ApplyOptions struct {
	// DryRun tells what would be done; files and addresses are not tried.
	DryRun bool
	// Force ends what initiators use: targets and LUNs that are not in the new
	// configuration, disks that have to be closed to become what it says; and it
	// cuts stores that are to be smaller.
	Force bool
	// Save has the served file take the text over; its earlier content is kept.
	Save bool
	// Revision is what the configuration in force must be at; 0: any.
	Revision uint64
}

// Apply makes the daemon serve the configuration in text, which came from file
// (for messages). What the two configurations have in common is not touched. On an
// error nothing has changed, except where the error says so.
func (d *Daemon) Apply(file string, text []byte, o ApplyOptions) (*Result, error) {
	var e config.Editor
	cfg, err := e.Parse(file, text)
	if err != nil {
		return nil, AsErrors(err)
	}
	d.write.Lock()
	defer d.write.Unlock()
	if d.closed || d.closing.Load() {
		return nil, errClosing()
	}
	if g := d.cur.Load(); o.Revision != 0 && o.Revision != g.revision {
		return nil, revisionError("configuration", g.revision, o.Revision)
	}
	r, err := d.change(file, text, cfg, o, false)
	if err == nil && !o.DryRun {
		d.editor = e // the next change may be an Edit
	}
	return r, err
}

// change applies or tells what it would do. d.write is held. edit: text is what is
// in force with some changes, so the served file must have what is in force.
func (d *Daemon) change(file string, text []byte, cfg *config.Config, o ApplyOptions, edit bool) (*Result, error) {
	g := d.cur.Load()
	if o.DryRun {
		p, err := makePlan(g, cfg, d.eng.sessions(), o.Force)
		if err != nil {
			return nil, err
		}
		return result(p, config.Diff(g.cfg, cfg), true, g.revision), nil
	}
	var s *staged
	if o.Save {
		var expect []byte
		if edit {
			expect = g.text
		}
		var err error
		if s, err = d.stage(g, text, expect); err != nil {
			return nil, err
		}
		defer s.abort()
		file = d.served // where the text stands now
	}
	return d.apply(file, text, cfg, o, s, time.Time{})
}

func errClosing() error {
	return Errors{{Code: CodeUnavailable, Message: "vtgt is ending", Hint: "try again when it runs again"}}
}

func result(p *plan, changes []config.Change, dryRun bool, revision uint64) *Result {
	r := &Result{DryRun: dryRun, Revision: revision, Changes: changes, Warnings: p.warnings}
	if !p.old.running {
		// Settings are not a change from anything.
		r.Changes = slices.DeleteFunc(slices.Clone(r.Changes), func(c config.Change) bool { return c.Kind == "setting" })
	}
	if r.Changes == nil {
		r.Changes = []config.Change{}
	}
	if r.Warnings == nil {
		r.Warnings = []string{}
	}
	return r
}

// Close ends the daemon: no new connections, sessions closed, stores flushed, all
// released, within Options.CloseTime. The error tells what did not end in time; then its
// locks are held until the process ends. Close is idempotent.
func (d *Daemon) Close() error {
	d.closing.Store(true)
	deadline := time.Now().Add(d.opt.CloseTime - d.opt.CloseTime/10)
	left := func() time.Duration { return max(time.Until(deadline), 50*time.Millisecond) }

	// An Apply under way may wait for commands that never end.
	for !d.write.TryLock() {
		if time.Now().After(deadline) {
			return Errors{{Code: CodeTimeout, Message: "a configuration is still being applied", Hint: "look at the devices below the disks that it removes"}}
		}
		time.Sleep(5 * time.Millisecond)
	}
	defer d.write.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	g := d.cur.Load()
	var bad collect
	for a, p := range g.portals {
		if err := p.close(); err != nil {
			d.log.Warn("closing a portal", "portal", a, "err", err)
		}
	}
	// Half of the time for initiators and their commands, half for the stores.
	stopping := left() / 2
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, t := range g.targets {
		for _, x := range t.exports {
			if x.ring == nil {
				continue
			}
			wg.Go(func() {
				err := x.obj.close(stopping)
				mu.Lock()
				bad.add(err)
				mu.Unlock()
			})
		}
	}
	err := d.eng.stop(stopping)
	wg.Wait()
	bad.add(err)
	for _, t := range g.targets {
		wg.Go(func() {
			err := d.closeTarget(t, min(left(), time.Second))
			mu.Lock()
			bad.add(err)
			mu.Unlock()
		})
	}
	wg.Wait()
	stuck := false
	for _, k := range g.disks {
		wg.Go(func() {
			err := d.closeDisk(k, left())
			mu.Lock()
			stuck = stuck || err != nil
			bad.add(err)
			mu.Unlock()
		})
	}
	wg.Wait()
	if !stuck {
		// With operations still in the kernel the loops must stay.
		d.eng.close()
	}
	bad.add(d.st.Close())
	return bad.err()
}

// closeTarget unmaps what is left and frees the target.
func (d *Daemon) closeTarget(t *target, deadline time.Duration) error {
	var bad collect
	for _, x := range t.exports {
		bad.add(x.obj.close(deadline))
	}
	for _, l := range t.cfg.LUNs {
		bad.add(t.obj.unmapLUN(l.LUN, deadline))
	}
	t.obj.close()
	return bad.err()
}

// closeDisk flushes and closes, at most for deadline in all.
func (d *Daemon) closeDisk(k *disk, deadline time.Duration) error {
	end := time.Now().Add(deadline)
	if !k.obj.status().readOnly {
		// Leave a part of the time for the close itself. What was not
		// flushed is in the page cache still and was promised to nobody.
		if err := k.obj.flush(deadline * 3 / 4); err != nil {
			d.log.Warn("disk was not flushed", "disk", k.cfg.Name, "err", err)
		}
	}
	return k.obj.close(max(time.Until(end), 50*time.Millisecond))
}

// Status describes the daemon.
func (d *Daemon) Status() Status {
	g := d.cur.Load()
	s := Status{
		State: "running", PID: os.Getpid(), Started: d.started, Revision: g.revision, Applied: g.applied,
		ConfigFile: g.file, StateDir: d.st.Path(), Disks: len(g.disks), Targets: len(g.targets), Portals: g.addresses(), Traffic: d.eng.traffic(),
	}
	if d.closing.Load() {
		s.State = "closing"
	}
	return s
}

// addresses are the portals as bound, in the order of the configuration.
func (g *graph) addresses() []string {
	out := []string{}
	for _, a := range g.cfg.ISCSI.Portals {
		if p, ok := g.portals[a]; ok {
			out = append(out, p.addr())
		}
	}
	return out
}

// Config is the configuration in force.
func (d *Daemon) Config() ConfigText {
	g := d.cur.Load()
	return ConfigText{File: g.file, Revision: g.revision, Text: string(g.text)}
}

// Disks describes the disks in the order of the configuration.
func (d *Daemon) Disks() []DiskStatus {
	g := d.cur.Load()
	out := []DiskStatus{}
	places := placesOf(g.cfg)
	for i := range g.cfg.Disks {
		c := &g.cfg.Disks[i]
		k := g.disks[c.Name]
		if k == nil {
			continue
		}
		st := k.obj.status()
		out = append(out, DiskStatus{
			Name: c.Name, Store: c.Store, Size: st.size, BlockSize: c.BlockSize, PhysicalBlockSize: c.PhysicalBlockSize,
			Cache: string(c.Cache), Thin: st.thin, ReadOnly: st.readOnly || c.ReadOnly, Shared: c.Shared, OnError: string(c.OnError),
			Serial: k.id.Serial, NAA: k.id.NAA, LUNs: append([]string{}, places[c.Name]...), Stats: st.stats,
			State: st.state, Error: st.err, Since: st.since, Held: st.held, Space: st.space, Revision: g.revs["disk "+c.Name],
			Reservations: describeReservations(k.obj),
		})
	}
	return out
}

// Targets describes the targets in the order of the configuration.
func (d *Daemon) Targets() []TargetStatus {
	g := d.cur.Load()
	count := d.sessionCounts()
	out := []TargetStatus{}
	for i := range g.cfg.Targets {
		c := &g.cfg.Targets[i]
		t := TargetStatus{Name: c.Name, ALUA: string(c.ALUA.State()), LUNs: []LUNStatus{}, Sessions: count[c.Name], Revision: g.revs["target "+c.Name]}
		if o := g.targets[c.Name]; o != nil {
			t.PortGroup = o.group
		}
		if c.ISCSI != nil {
			t.IQN, t.Alias = c.ISCSI.IQN, c.ISCSI.Alias
		}
		if c.VHost != nil {
			t.Socket = c.VHost.Socket
		}
		if c.VIO != nil {
			t.VIO = c.VIO.Socket
		}
		if c.Xen != nil {
			t.Xen = c.Xen.String()
		}
		for _, l := range c.LUNs {
			s := LUNStatus{LUN: l.LUN, Disk: l.Disk, ReadOnly: l.ReadOnly, VHostTarget: int(l.Address.VHostTarget), Revision: g.revs["lun "+lunName(c.Name, l.LUN)]}
			if c.VIO != nil {
				id, lun, _ := l.VIO()
				s.VIOID, s.VIOLUN = int(id), int(lun)
			}
			if c.Xen != nil {
				a, _ := l.Xen()
				s.Xen = a.String()
			}
			if k := g.disks[l.Disk]; k != nil {
				st := k.obj.status()
				s.Size, s.ReadOnly = st.size, l.ReadOnly || st.readOnly || k.cfg.ReadOnly
			}
			t.LUNs = append(t.LUNs, s)
		}
		sort.Slice(t.LUNs, func(i, j int) bool { return t.LUNs[i].LUN < t.LUNs[j].LUN })
		out = append(out, t)
	}
	return out
}

// Exports describes the exports in the order of the configuration.
func (d *Daemon) Exports() []ExportStatus {
	g := d.cur.Load()
	count := d.sessionCounts()
	out := []ExportStatus{}
	for i := range g.cfg.Targets {
		c := &g.cfg.Targets[i]
		t := g.targets[c.Name]
		if t == nil {
			continue
		}
		for _, kind := range kinds() {
			x := t.exports[kind]
			if x == nil {
				continue
			}
			e := ExportStatus{Kind: kind, Target: c.Name, RelativePort: x.relID, Sessions: count[kind+" "+c.Name]}
			if kind == kindISCSI {
				e.Addresses = g.addresses()
				for _, l := range c.LUNs {
					if k := g.disks[l.Disk]; k != nil {
						e.Stuck += k.obj.status().stats.Stuck
					}
				}
			}
			x.obj.describe(&e)
			out = append(out, e)
		}
	}
	return out
}

// Sessions describes who is logged in, ordered by target and initiator.
func (d *Daemon) Sessions() []Session {
	ss := d.eng.sessions()
	if ss == nil {
		ss = []Session{}
	}
	sort.SliceStable(ss, func(i, j int) bool {
		a, b := &ss[i], &ss[j]
		if a.Target != b.Target {
			return a.Target < b.Target
		}
		if a.Initiator != b.Initiator {
			return a.Initiator < b.Initiator
		}
		if a.TSIH != b.TSIH {
			return a.TSIH < b.TSIH
		}
		if a.VHostTarget != b.VHostTarget {
			return a.VHostTarget < b.VHostTarget
		}
		return a.VIOID < b.VIOID
	})
	return ss
}

// sessionCounts counts by target, and by "KIND TARGET".
func (d *Daemon) sessionCounts() map[string]int {
	m := map[string]int{}
	for _, s := range d.eng.sessions() {
		if !s.Discovery {
			m[s.Target]++
			m[s.Kind+" "+s.Target]++
		}
	}
	return m
}
