package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/iscsi"
	"github.com/vtgt/vtgt/iscsi/login"
	"github.com/vtgt/vtgt/scsi"
)

// What INQUIRY says of every disk (SPC-4 §6.6.2).
const (
	vendor   = "VTGT"
	product  = "VIRTUAL DISK"
	revision = "0001"
)

// core is the engine: one group of loops, one iSCSI server on it.
type core struct {
	log   *slog.Logger
	group *loop.Group
	srv   *iscsi.Server
	open  func(spec string, o backing.Options) (backing.Store, error)

	mu    sync.Mutex
	names map[string]string // target names by iSCSI name
	space spaceWatch
	// vhosts are the vhost-user exports that were started.
	rings map[ringSessions]bool
	// xen is made when a target has an export to a Xen domain.
	xen xenHost
	// files were handed over; inherited are those of them that listen.
	files     []*os.File
	inherited inherited
	legacy    *Legacy // nil but while a daemon is being taken over
	parking   *Parking
	// tell hears of changes of state, see engine.observe.
	tell func(kind, name, detail string)
	// memory is what a disk keeps over restarts, see engine.remember.
	memory func(disk string) scsi.Memory
}

func (c *core) observe(f func(kind, name, detail string)) { c.tell = f }

func (c *core) remember(of func(disk string) scsi.Memory) { c.memory = of }

func newEngine(cfg *config.Config, o *Options) (engine, error) {
	log, files := o.Log, append(o.Inherited, o.Legacy.inherited()...)
	g, err := loop.NewGroup(loop.Config{Loops: cfg.Loops, Slabs: slab.New(int64(cfg.Memory)), Log: log})
	if err != nil {
		closeFiles(files)
		return nil, &Error{Code: CodeInternal, Object: "loops", Message: "cannot be started: " + err.Error(), Hint: "look at the limits of processes, threads and open files (ulimit -a)", Err: err}
	}
	c := &core{
		tell: func(string, string, string) {},
		log:  log, group: g, names: map[string]string{}, rings: map[ringSessions]bool{}, open: o.Open,
		files: files, inherited: inherit(files), legacy: o.Legacy, parking: o.Parking,
	}
	c.xen.init(c, cfg, o)
	c.space.start(o.spaceTick, o.space)
	c.srv = iscsi.NewServer(iscsi.Config{Group: g, Log: log, OnSession: c.session, Limits: iscsi.Limits{
		PingInterval: cfg.ISCSI.PingInterval, PingTimeout: cfg.ISCSI.PingTimeout,
		LoginTimeout: cfg.ISCSI.LoginTimeout, Sessions: cfg.ISCSI.MaxSessions,
	}})
	if c.open == nil {
		c.open = backing.Open
	}
	return c, nil
}

// session tells of sessions that come and go.
func (c *core) session(up bool, target, initiator, peer string) {
	c.mu.Lock()
	if n := c.names[target]; n != "" {
		target = n
	}
	c.mu.Unlock()
	what := "logged out of"
	if up {
		what = "logged in to"
	}
	c.tell(kindSession, initiator, what+" target "+target+" from "+peer)
}

// unit is a diskObject.
type unit struct {
	name string
	c    *core
	st   backing.Store
	u    *scsi.Unit

	stopWatch func()
	told      struct {
		sync.Mutex
		last *backing.Info
	}
}

func (c *core) openDisk(d *config.Disk, id state.Disk, wait time.Duration) (diskObject, error) {
	cache, err := backing.ParseCache(string(d.Cache))
	if err != nil {
		return nil, &Error{Code: CodeInvalid, Object: "disk " + d.Name, Message: err.Error(), Err: err}
	}
	log := c.log.With("disk", d.Name)
	o := backing.Options{
		Size: int64(d.Size), Create: d.Create, ReadOnly: d.ReadOnly, Cache: cache, Claimed: d.Claim,
		LockWait: wait, Group: c.group, Log: log,
		Migratable:    d.Migratable,
		AtomicLogSize: int64(d.AtomicLog), AtomicMax: atomicBlocks * d.BlockSize, KeyFile: d.KeyFile,
	}
	if o.AtomicLog, err = c.atomicLog(d); err != nil {
		return nil, storeError(d.Name, err)
	}
	var saved *scsi.SavedUnit
	if k, err := c.legacy.disk(d, &o); err != nil {
		return nil, storeError(d.Name, err)
	} else if k != nil {
		saved = k.Unit
	}
	st, err := c.open(d.Store, o)
	if err != nil {
		return nil, storeError(d.Name, err)
	}
	info := st.Info()
	if rest := info.Size % int64(d.BlockSize); rest != 0 {
		_ = st.Close()
		return nil, &Error{Code: CodeInvalid, Object: "disk " + d.Name,
			Message: fmt.Sprintf("%s: its size of %d bytes is not a multiple of the block size %d: the last %d bytes would belong to no block", d.Store, info.Size, d.BlockSize, rest),
			Hint:    fmt.Sprintf("write another blockSize, or make the store %d bytes longer", int64(d.BlockSize)-rest)}
	}
	u, err := scsi.NewUnit(scsi.UnitConfig{
		Name: d.Name, Vendor: vendor, Product: product, Revision: revision,
		Serial: id.Serial, NAA: id.NAA64(),
		BlockSize: d.BlockSize, PhysicalBlockSize: d.PhysicalBlockSize,
		ReadOnly: d.ReadOnly || info.ReadOnly, Removable: d.Removable,
		// What is not written is not discarded either: a read-only disk is as
		// thin as its user says.
		Thin:   d.Thin && (info.DiscardGranularity > 0 || info.ReadOnly),
		Shared: d.Shared, SetAccess: d.ExplicitALUA,
		OnError: onError(d.OnError),
		OnState: func(s scsi.UnitState) {
			if s.Stopped {
				c.tell("disk", d.Name, "stopped: "+s.Err.Error())
			} else {
				c.tell("disk", d.Name, "running")
			}
		},
		Memory: c.memoryOf(d), Saved: saved, Migratable: d.Migratable,
		Group: c.group, SanitizeSpeed: int64(d.SanitizeSpeed),
		Log: log,
	}, st)
	if err != nil {
		_ = st.Close()
		return nil, &Error{Code: CodeInvalid, Object: "disk " + d.Name, Message: strings.TrimPrefix(err.Error(), "disk "+d.Name+": "), Err: err}
	}
	k := &unit{name: d.Name, c: c, st: st, u: u}
	k.told.last = info
	c.space.add(k)
	k.stopWatch = st.Watch(func(*backing.Info) { k.storeChanged() })
	return k, nil
}

// storeChanged tells what is new about the store.
func (k *unit) storeChanged() {
	k.told.Lock()
	defer k.told.Unlock()
	was, is := k.told.last, k.st.Info()
	k.told.last = is
	if is.Size != was.Size {
		k.c.tell("disk", k.name, fmt.Sprintf("size %s -> %s", config.Size(was.Size), config.Size(is.Size)))
	}
	if is.Latched && !was.Latched {
		k.c.tell("disk", k.name, "latched: a sync failed, writes are refused until it is resumed")
	}
	if was.Latched && !is.Latched {
		k.c.tell("disk", k.name, "re-opened")
	}
}

// storeError is what a store's failure is to the user of a disk.
func storeError(disk string, err error) *Error {
	e := &Error{Code: CodeInternal, Object: "disk " + disk, Message: err.Error(), Err: err}
	var oe *backing.OpenError
	if errors.As(err, &oe) {
		e.Code = CodeInvalid
		e.Message, e.Hint = oe.Spec+": "+oe.Problem, oe.Hint
	}
	switch {
	case errors.Is(err, backing.ErrInUse):
		e.Code = CodeInUse
	case errors.Is(err, fs.ErrNotExist):
		e.Code = CodeNotFound
	case errors.Is(err, fs.ErrPermission):
		e.Code = CodeDenied
	case errors.Is(err, backing.ErrNotSupported):
		e.Code = CodeNotSupported
	}
	return e
}

func (k *unit) status() diskState {
	c := k.u.Config()
	s := k.u.Stats()
	out := diskState{
		size: k.u.Capacity(), readOnly: c.ReadOnly, thin: c.Thin,
		stats: UnitStats{
			Reads: s.Reads, Writes: s.Writes, Others: s.Others, ReadBytes: s.ReadBytes, WrittenBytes: s.WriteBytes,
			Aborted: s.Aborted, Conflicts: s.Conflicts, InFlight: s.InFlight, Waiting: s.Waiting, Stuck: s.Stuck,
			Latency: s.Latency[:], LatencySum: s.LatencySum,
		},
	}
	out.state = "running"
	if backing.StatsOf(k.st).Latched {
		out.state = "latched"
	}
	if o, ok := k.u.MediumOperation(); ok && out.state == "running" {
		out.state = fmt.Sprintf("%s %d%%", o.Name, o.Percent)
		if o.Failed {
			out.state = o.Name + " failed"
		}
	}
	if s, ok := k.u.Space(); ok {
		out.space = &SpaceStatus{Used: s.Used, Available: s.Available, Total: s.Total}
	}
	if st := k.u.State(); st.Stopped {
		out.state, out.err, out.since, out.held = "stopped", st.Err.Error(), &st.Since, st.Held
	}
	for key, n := range s.Errors {
		if n == 0 {
			continue
		}
		if out.stats.Errors == nil {
			out.stats.Errors = map[string]uint64{}
		}
		out.stats.Errors[senseKeyName(scsi.SenseKey(key))] += n
	}
	return out
}

// senseKeyName is the name of a sense key as a label.
func senseKeyName(k scsi.SenseKey) string {
	names := [16]string{
		scsi.NoSense: "no-sense", scsi.RecoveredError: "recovered-error", scsi.NotReady: "not-ready", scsi.MediumError: "medium-error",
		scsi.HardwareError: "hardware-error", scsi.IllegalRequest: "illegal-request", scsi.UnitAttention: "unit-attention",
		scsi.DataProtect: "data-protect", scsi.BlankCheck: "blank-check", scsi.CopyAborted: "copy-aborted",
		scsi.AbortedCommand: "aborted-command", scsi.Miscompare: "miscompare", scsi.Completed: "completed",
	}
	if n := names[k&0xf]; n != "" {
		return n
	}
	return fmt.Sprintf("%xh", uint8(k))
}

func (k *unit) resize(size int64) error {
	// Whether it may be cut was asked before.
	if err := k.u.Resize(size, true); err != nil {
		return &Error{Code: CodeInvalid, Object: "disk " + k.name, Message: fmt.Sprintf("cannot have the size %s: %v", config.Size(size), trimDisk(k.name, err)), Hint: "make room, or put the old size back", Err: err}
	}
	return nil
}

// onError is the word of the configuration for the core.
func onError(p config.OnError) scsi.OnError {
	v, _ := scsi.ParseOnError(string(p)) // validated before
	return v
}

func (k *unit) setShared(on bool) error {
	err := k.u.SetShared(on)
	var se *scsi.SharingError
	if errors.As(err, &se) {
		return sharingError("disk "+k.name, se)
	}
	return err
}

func (k *unit) setOnError(p config.OnError) { k.u.SetOnError(onError(p)) }

func (k *unit) setSanitizeSpeed(s config.Size) { k.u.SetSanitizeSpeed(int64(s)) }

func (k *unit) resume() error {
	latched := backing.StatsOf(k.st).Latched
	if latched {
		if err := k.st.Reopen(); err != nil {
			e := storeError(k.name, err)
			if e.Hint == "" {
				e.Hint = "the disk refuses writes still; see to its store, then resume it again"
			}
			return e
		}
	}
	if err := k.u.Resume(); err != nil {
		return &Error{Code: CodeInternal, Object: "disk " + k.name, Message: trimDisk(k.name, err), Hint: "see to its store, then resume it again", Err: err}
	}
	return nil
}

// trimDisk is an error without the name that its object says.
func trimDisk(name string, err error) string {
	return strings.TrimPrefix(err.Error(), "disk "+name+": ")
}

// flusher is one Sync of a store from outside a lane.
type flusher struct {
	op   backing.Op
	done chan struct{}
}

func (f *flusher) OpDone(*backing.Op) { close(f.done) }

func (k *unit) flush(deadline time.Duration) error {
	if !k.st.Info().Stable {
		return nil // what is lost at the end anyway
	}
	l := k.c.group.Pick()
	q, err := k.st.Queue(l)
	if err != nil {
		return err
	}
	f := &flusher{done: make(chan struct{})}
	f.op.Kind, f.op.Owner = backing.Sync, f
	closed := make(chan struct{})
	if !l.Do(func() {
		if q.Submit(&f.op) {
			close(f.done)
		}
		q.Kick()
		q.Close(func() { close(closed) })
	}) {
		return errors.New("the loop has ended")
	}
	t := time.NewTimer(deadline)
	defer t.Stop()
	for _, c := range []chan struct{}{f.done, closed} {
		select {
		case <-c:
		case <-t.C:
			return fmt.Errorf("the store did not flush within %v", deadline.Round(time.Millisecond))
		}
	}
	return f.op.Err
}

func (k *unit) close(deadline time.Duration) error {
	end := time.Now().Add(deadline)
	k.stopWatch()
	k.c.space.remove(k)
	if n := await(deadline, func(done func(int)) error { k.u.Close(deadline, done); return nil }); n != 0 {
		return &Error{Code: CodeTimeout, Object: "disk " + k.name, Message: fmt.Sprintf("%d commands did not leave the store within %v", n, deadline.Round(time.Millisecond)),
			Hint: "look at the device below; the store stays locked until they end"}
	}
	closed := make(chan error, 1)
	go func() { closed <- k.st.Close() }()
	t := time.NewTimer(max(time.Until(end), 50*time.Millisecond))
	defer t.Stop()
	select {
	case err := <-closed:
		if err != nil {
			return storeError(k.name, err)
		}
		return nil
	case <-t.C:
		return &Error{Code: CodeTimeout, Object: "disk " + k.name, Message: "its store did not close in time", Hint: "look at the device below; the store stays locked until it does"}
	}
}

// await turns a call that reports by done into one that waits. It is done's number,
// or 1 where done did not come although deadline has long passed.
func await(deadline time.Duration, f func(done func(int)) error) int {
	ch := make(chan int, 1)
	if f(func(n int) { ch <- n }) != nil {
		return 0 // nothing to wait for
	}
	t := time.NewTimer(deadline + 500*time.Millisecond)
	defer t.Stop()
	select {
	case n := <-ch:
		return n
	case <-t.C:
		return 1
	}
}

// targetUnit is a targetObject.
type targetUnit struct {
	c      *core
	name   string
	tg     *scsi.Target
	access atomic.Pointer[access]
	iscsi  atomic.Pointer[iscsiExport] // nil: none
	// holding is of migratable disks.
	holding holding
}

func (c *core) newTarget(t *config.Target, group uint16) (targetObject, error) {
	return &targetUnit{c: c, name: t.Name, tg: scsi.NewTarget(scsi.TargetConfig{
		Name: t.Name, Group: group, Access: accessState(t.ALUA), Log: c.log.With("target", t.Name),
	})}, nil
}

// accessState is the word of the configuration for the core.
func accessState(a config.ALUA) scsi.AccessState {
	s, _ := scsi.ParseAccessState(string(a)) // validated before
	return s
}

func (o *targetUnit) setALUA(s config.ALUA, deadline time.Duration) error {
	n := await(deadline, func(done func(int)) error { o.tg.SetAccess(accessState(s), deadline, done); return nil })
	if n != 0 {
		return &Error{Code: CodeTimeout, Object: "target " + o.name, Message: fmt.Sprintf("is %s, but %d commands that came before did not leave the store within %v", s.State(), n, deadline.Round(time.Millisecond)), Hint: "look at the devices below its disks: until they end, what they write may still land"}
	}
	return nil
}

func (o *targetUnit) mapLUN(l config.LUN, d diskObject, readOnly bool) error {
	m := scsi.MapOptions{ReadOnly: readOnly, Visible: o.visible(l.LUN), Address: l.Address}
	u := d.(*unit).u
	// Held before the virtual machine hears of it.
	if err := o.mapped(u); err != nil {
		return mapError(lunName(o.name, l.LUN), err)
	}
	if err := o.tg.Map(l.LUN, u, m); err != nil {
		o.unmapped()
		return mapError(lunName(o.name, l.LUN), err)
	}
	return nil
}

// mapError is a mapping's failure.
func mapError(lun string, err error) error {
	var se *scsi.SharingError
	if errors.As(err, &se) {
		return sharingError("lun "+lun, se)
	}
	return &Error{Code: CodeInternal, Object: "lun " + lun, Message: err.Error(), Err: err}
}

// sharingError says who stands in the way of a disk that is not shared.
func sharingError(object string, se *scsi.SharingError) *Error {
	return &Error{Code: CodeBusy, Object: object, Err: se,
		Message: notSharedMessage(object, se.Disk, []string{se.Holder, se.Initiator}), Hint: notSharedHint}
}

func (o *targetUnit) unmapLUN(lun uint16, deadline time.Duration) error {
	if n := await(deadline, func(done func(int)) error { return o.tg.Unmap(lun, deadline, done) }); n != 0 {
		return &Error{Code: CodeTimeout, Object: "LUN " + lunName(o.name, lun), Message: fmt.Sprintf("%d commands did not leave the store within %v", n, deadline.Round(time.Millisecond)), Hint: "look at the device below the disk"}
	}
	o.unmapped()
	return nil
}

func (o *targetUnit) remapLUN(lun uint16, readOnly bool, deadline time.Duration) error {
	var err error
	n := await(deadline, func(done func(int)) error {
		err = o.tg.Remap(lun, scsi.MapOptions{ReadOnly: readOnly, Visible: o.visible(lun)}, deadline, done)
		return err
	})
	if err != nil {
		return mapError(lunName(o.name, lun), err)
	}
	if n != 0 {
		return &Error{Code: CodeTimeout, Object: "LUN " + lunName(o.name, lun), Message: fmt.Sprintf("%d commands did not leave the store within %v", n, deadline.Round(time.Millisecond)), Hint: "look at the device below the disk"}
	}
	return nil
}

func (o *targetUnit) close() {
	await(time.Second, func(done func(int)) error { o.tg.Close(time.Second, done); return nil })
}

// portal is a portalObject: bound first, accepting later.
type portal struct {
	c  *core
	ln net.Listener
	p  *iscsi.Portal
}

func (c *core) listen(addr string) (portalObject, error) {
	if ln := c.legacy.portal(addr); ln != nil {
		return &portal{c: c, ln: ln}, nil
	}
	if ln := c.inherited.find(addr); ln != nil {
		return &portal{c: c, ln: ln}, nil
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err == nil {
		return &portal{c: c, ln: ln}, nil
	}
	e := &Error{Code: CodeInvalid, Object: "portal " + addr, Message: err.Error(), Hint: "give it as ADDRESS:PORT", Err: err}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(addr)
		e.Code, e.Message, e.Hint = CodeInUse, "the port is in use by another program", "stop that program (ss -ltnp 'sport = :"+port+"' shows it), or choose another port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Code, e.Message, e.Hint = CodeNotFound, "this host does not have the address", "choose one that \"ip address\" shows, or 0.0.0.0 or [::] for all"
	case errors.Is(err, fs.ErrPermission):
		e.Code, e.Message, e.Hint = CodeDenied, "the system does not allow this port", "choose a port from 1024 up (iSCSI's is 3260)"
	}
	return nil, e
}

func (p *portal) addr() string { return p.ln.Addr().String() }

func (p *portal) start() (err error) {
	p.p, err = p.c.srv.Serve(p.ln)
	return err
}

func (p *portal) close() error {
	err := p.ln.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *core) sessions() []Session {
	in := c.srv.Sessions()
	out := append(make([]Session, 0, len(in)), c.ringSessions()...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range in {
		s := &in[i]
		conns := make([]Connection, len(s.Connections))
		for j, x := range s.Connections {
			conns[j] = Connection{CID: x.CID, Local: x.Portal, Remote: x.Peer, Loop: s.Loop,
				HeaderDigest: digest(x.HeaderDigest), DataDigest: digest(x.DataDigest), Commands: x.Traffic.Commands}
		}
		out = append(out, Session{
			Kind: "iscsi", Target: c.names[s.Target], IQN: s.Target, Initiator: s.Initiator, Alias: s.InitiatorAlias,
			ISID: hex.EncodeToString(s.ISID[:]), TSIH: s.TSIH, Params: params(&s.Params),
			Connections: conns,
			Since:       s.Since, Commands: s.Traffic.Commands, BytesIn: s.Traffic.BytesIn, BytesOut: s.Traffic.BytesOut,
		})
	}
	return out
}

// ringSessions has nexuses of virtual machines.
type ringSessions interface{ sessions() []Session }

// ringSessions are the nexuses of virtual machines.
func (c *core) ringSessions() (out []Session) {
	c.mu.Lock()
	xs := slices.Collect(maps.Keys(c.rings))
	c.mu.Unlock()
	for _, x := range xs {
		out = append(out, x.sessions()...)
	}
	return out
}

// digest is the value of the two digest keys.
func digest(on bool) string {
	if on {
		return "CRC32C"
	}
	return "None"
}

// params are negotiated values under the names and in the words of RFC 7143 §13.
func params(p *login.Params) map[string]string {
	yes := func(b bool) string {
		if b {
			return "Yes"
		}
		return "No"
	}
	return map[string]string{
		"AuthMethod":                   p.AuthMethod,
		"CHAP_N":                       p.AuthUser,
		"HeaderDigest":                 digest(p.HeaderDigest),
		"DataDigest":                   digest(p.DataDigest),
		"InitialR2T":                   yes(p.InitialR2T),
		"ImmediateData":                yes(p.ImmediateData),
		"MaxRecvDataSegmentLength":     fmt.Sprint(p.MaxRecvDataSegmentLength),
		"MaxRecvDataSegmentLengthPeer": fmt.Sprint(p.MaxXmitDataSegmentLength),
		"MaxBurstLength":               fmt.Sprint(p.MaxBurstLength),
		"FirstBurstLength":             fmt.Sprint(p.FirstBurstLength),
		"MaxOutstandingR2T":            fmt.Sprint(p.MaxOutstandingR2T),
		"MaxConnections":               fmt.Sprint(p.MaxConnections),
		"DefaultTime2Wait":             fmt.Sprint(p.DefaultTime2Wait),
		"DefaultTime2Retain":           fmt.Sprint(p.DefaultTime2Retain),
		"ErrorRecoveryLevel":           fmt.Sprint(p.ErrorRecoveryLevel),
		"DataPDUInOrder":               yes(p.DataPDUInOrder),
		"DataSequenceInOrder":          yes(p.DataSequenceInOrder),
	}
}

func (c *core) traffic() Traffic {
	s := c.srv.Stats()
	slabs := c.group.Slabs()
	return Traffic{
		Sessions: s.Sessions, Discoveries: s.Discoveries, HalfOpen: s.HalfOpen, Logins: s.Logins,
		Commands: s.Traffic.Commands, BytesIn: s.Traffic.BytesIn, BytesOut: s.Traffic.BytesOut,
		PDUsIn: s.Traffic.PDUsIn, PDUsOut: s.Traffic.PDUsOut, Complaints: s.Complaints,
		MemoryUsed: slabs.Used(), MemoryLimit: slabs.Limit(), Loops: len(c.group.Loops()),
	}
}

func (c *core) stop(deadline time.Duration) error {
	if err := c.srv.Close(deadline); err != nil {
		return &Error{Code: CodeTimeout, Object: "iscsi", Message: err.Error(), Err: err}
	}
	return nil
}

func (c *core) close() {
	c.space.stop()
	_ = c.srv.Close(0)
	c.group.Close()
	closeFiles(c.files)
}

func (c *core) alive() {
	for _, l := range c.group.Loops() {
		l.Do(func() {})
	}
}
