package scsitest

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/slab"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
)

// patience bounds every wait of this package.
const patience = tempotest.Patience

// Rig is a unit with targets, nexuses and loops around it.
type Rig struct {
	TB    testing.TB
	Group *loop.Group
	Slabs *slab.Pool
	Unit  *scsi.Unit
	// Dump, when set, logs what is under way; called when a wait has no end.
	Dump func()

	mu      sync.Mutex
	targets []*scsi.Target
}

// NewRig makes a unit of 512-byte blocks, one that is shared, over st. Rig.Close
// closes all of it, st excepted.
func NewRig(tb testing.TB, g *loop.Group, st backing.Store, c scsi.UnitConfig) *Rig {
	tb.Helper()
	if c.Name == "" {
		c.Name = "disk"
	}
	c.Shared = true
	u, err := scsi.NewUnit(c, st)
	if err != nil {
		tb.Fatal(err)
	}
	return &Rig{TB: tb, Group: g, Slabs: g.Slabs(), Unit: u}
}

// Target makes a target that has the unit as LUN lun, with one port.
func (r *Rig) Target(name string, lun uint16) (*scsi.Target, *scsi.Port) {
	r.TB.Helper()
	tg := scsi.NewTarget(scsi.TargetConfig{Name: name})
	if err := tg.Map(lun, r.Unit, scsi.MapOptions{}); err != nil {
		r.TB.Fatal(err)
	}
	r.mu.Lock()
	r.targets = append(r.targets, tg)
	n := len(r.targets)
	r.mu.Unlock()
	return tg, tg.NewPort(scsi.PortConfig{RelID: uint16(n), Protocol: 5, Name: "iqn.2026-11.org.vtgt:" + name + ",t,0x0001", DeviceName: "iqn.2026-11.org.vtgt:" + name})
}

// Close closes targets and unit; no task may be left.
func (r *Rig) Close() {
	r.TB.Helper()
	for _, tg := range r.targets {
		r.Wait("target's close", func(done func(int)) { tg.Close(patience/2, done) })
	}
	r.Wait("unit's close", func(done func(int)) { r.Unit.Close(patience/2, done) })
	if n := r.Slabs.Used(); n != 0 {
		r.TB.Errorf("%d bytes of slab memory are still in use", n)
	}
	if s := r.Unit.Stats(); s.InFlight != 0 || s.Waiting != 0 || s.Stuck != 0 {
		r.TB.Errorf("after the close %d tasks are in flight, %d wait, %d are stuck", s.InFlight, s.Waiting, s.Stuck)
	}
}

// published waits until counters show all that has ended: Done comes before they are
// lowered and published.
func (r *Rig) published() {
	for _, l := range r.Group.Loops() {
		l.Do(func() {})
		l.Do(func() {})
	}
}

// Wait waits for the done of an operation and wants no task stuck.
func (r *Rig) Wait(what string, start func(done func(stuck int))) {
	r.TB.Helper()
	ch := make(chan int, 1)
	start(func(n int) { ch <- n })
	select {
	case n := <-ch:
		if n != 0 {
			r.TB.Errorf("%s: %d tasks stuck", what, n)
		}
	case <-time.After(patience):
		r.dump()
		r.TB.Fatalf("%s: no end", what)
	}
}

// bounded runs f, which may hang: then the test fails and says what f was.
func bounded(tb testing.TB, what string, f func()) {
	tb.Helper()
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		f()
	}()
	select {
	case <-ch:
	case <-time.After(patience):
		b := make([]byte, 1<<20)
		tb.Errorf("%s: no end; all goroutines:\n%s", what, b[:runtime.Stack(b, true)])
	}
}

// closeAll closes a store and then its loops; in a test that has failed it does
// not: what it left behind may never end.
func closeAll(tb testing.TB, st backing.Store, g *loop.Group) {
	tb.Helper()
	if tb.Failed() {
		return
	}
	bounded(tb, "the store's close", func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	bounded(tb, "the loops' close", g.Close)
}

// dump logs what hangs. What is asked for it may hang too: then the stacks say
// where.
func (r *Rig) dump() {
	ch := make(chan struct{})
	go func() {
		defer close(ch)
		st := r.Unit.Stats()
		r.TB.Logf("in flight %d, waiting %d, held %d, stuck %d", st.InFlight, st.Waiting, st.Held, st.Stuck)
		if r.Dump != nil {
			r.Dump()
		}
	}()
	select {
	case <-ch:
	case <-time.After(5 * time.Second):
		b := make([]byte, 1<<20)
		r.TB.Logf("no answer; all goroutines:\n%s", b[:runtime.Stack(b, true)])
	}
}

// Initiator is a front end that runs one command at a time and waits for it, for
// tests that are written as a sequence. It has one nexus and one lane.
type Initiator struct {
	TB    testing.TB
	Nexus *scsi.Nexus
	Lane  *scsi.Lane
	LUN   scsi.LUN

	done   chan *scsi.Task
	mu     sync.Mutex
	events []scsi.Event
	tag    uint64
	busy   map[*scsi.Task]int // tasks by how often Done came too little
}

// NewInitiator attaches an initiator to p, with a lane on l.
func NewInitiator(tb testing.TB, p *scsi.Port, id scsi.InitiatorID, l *loop.Loop, lun uint16) *Initiator {
	tb.Helper()
	i := &Initiator{TB: tb, LUN: scsi.EncodeLUN(lun), done: make(chan *scsi.Task, 256)}
	var err error
	if i.Nexus, err = p.Attach(id, i); err != nil {
		tb.Fatal(err)
	}
	if i.Lane, err = i.Nexus.Lane(l); err != nil {
		tb.Fatal(err)
	}
	return i
}

// Done is FrontEnd's.
func (i *Initiator) Done(t *scsi.Task) {
	i.count(t, -1)
	i.done <- t
}

// count notes a Submit (1) or a Done (-1).
func (i *Initiator) count(t *scsi.Task, n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy == nil {
		i.busy = make(map[*scsi.Task]int)
	}
	i.busy[t] += n
	if i.busy[t] == 0 {
		delete(i.busy, t)
	}
}

// missing lists the tasks that have not ended.
func (i *Initiator) missing() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var b strings.Builder
	for t := range i.busy {
		fmt.Fprintf(&b, "\n  task %d: CDB % x, %v", t.Tag, t.CDB[:10], t.Attr)
	}
	return b.String()
}

// Event is FrontEnd's.
func (i *Initiator) Event(e scsi.Event) {
	i.mu.Lock()
	i.events = append(i.events, e)
	i.mu.Unlock()
}

// TransportID is FrontEnd's: an iSCSI name.
func (i *Initiator) TransportID(dst []byte) int { return transportID(dst, i.Nexus.ID()) }

// transportID is the TransportID of an iSCSI initiator port (SPC-4 §7.6.4.6).
func transportID(dst []byte, id scsi.InitiatorID) int {
	n := copy(dst[4:], id)
	n = max((n+4)&^3, 20)
	dst[0] = 0x05
	if strings.Contains(string(id), ",i,0x") {
		dst[0] |= 0x40
	}
	binary.BigEndian.PutUint16(dst[2:], uint16(n))
	return 4 + n
}

// Events gives and forgets the events so far.
func (i *Initiator) Events() []scsi.Event {
	i.mu.Lock()
	defer i.mu.Unlock()
	e := i.events
	i.events = nil
	return e
}

// Start submits a command without waiting for it.
func (i *Initiator) Start(attr scsi.TaskAttr, cdb []byte, out []byte, room int) *scsi.Task {
	i.TB.Helper()
	i.tag++
	t := &scsi.Task{LUN: i.LUN, Tag: i.tag, Attr: attr, CDBLen: uint8(max(len(cdb), 16))}
	copy(t.CDB[:], cdb)
	if out != nil {
		t.DataOut = [][]byte{out}
	}
	if room > 0 {
		t.DataIn = [][]byte{make([]byte, room)}
	}
	i.count(t, 1)
	i.Lane.Loop().Do(func() {
		i.Lane.Submit(t)
		i.Lane.Kick()
	})
	return t
}

// Ended waits for the next Done.
func (i *Initiator) Ended() *scsi.Task {
	i.TB.Helper()
	select {
	case t := <-i.done:
		return t
	case <-time.After(patience):
		i.TB.Fatalf("no Done; initiator %s waits for%s", i.Nexus.ID(), i.missing())
		return nil
	}
}

// None checks that no task ends within d.
func (i *Initiator) None(d time.Duration) {
	i.TB.Helper()
	select {
	case t := <-i.done:
		i.TB.Fatalf("task %d (CDB % x) ended with %v, aborted %v", t.Tag, t.CDB[:10], t.Status, t.Aborted)
	case <-time.After(d):
	}
}

// Do runs a SIMPLE command to its end.
func (i *Initiator) Do(cdb []byte, out []byte, room int) *scsi.Task {
	i.TB.Helper()
	t := i.Start(scsi.Simple, cdb, out, room)
	if e := i.Ended(); e != t {
		i.TB.Fatalf("task %d ended instead of %d", e.Tag, t.Tag)
	}
	return t
}

// ClearUA runs TEST UNIT READY until no unit attention is left.
func (i *Initiator) ClearUA() {
	i.TB.Helper()
	for range 10 {
		if t := i.Do(make([]byte, 6), nil, 0); t.Status == scsi.StatusGood {
			return
		}
	}
	i.TB.Fatal("unit attentions without end")
}

// Manage runs a task management function to its answer.
func (i *Initiator) Manage(f scsi.TMFunc, tag uint64, deadline time.Duration) scsi.TMResponse {
	i.TB.Helper()
	m, ch := i.StartManage(f, tag, deadline)
	select {
	case <-ch:
	case <-time.After(patience):
		i.TB.Fatalf("%v: no answer; initiator %s waits for%s", f, i.Nexus.ID(), i.missing())
	}
	return m.Response
}

// StartManage starts a task management function; ch is closed at its answer.
func (i *Initiator) StartManage(f scsi.TMFunc, tag uint64, deadline time.Duration) (m *scsi.TMF, ch chan struct{}) {
	ch = make(chan struct{})
	m = &scsi.TMF{Func: f, LUN: i.LUN, Tag: tag, Lane: i.Lane, Deadline: deadline, Done: func(*scsi.TMF) { close(ch) }}
	i.Lane.Loop().Do(func() { i.Nexus.Manage(m) })
	return m, ch
}

// SenseOf decodes key and additional sense code of a task's sense data.
func SenseOf(t *scsi.Task) (scsi.SenseKey, scsi.ASC) {
	s := t.Sense[:]
	switch {
	case t.SenseLen == 0:
		return 0, 0
	case s[0]&0x7f >= 0x72:
		return scsi.SenseKey(s[1] & 15), scsi.ASC(s[2])<<8 | scsi.ASC(s[3])
	}
	return scsi.SenseKey(s[2] & 15), scsi.ASC(s[12])<<8 | scsi.ASC(s[13])
}

// CDB10 is a 10-byte CDB with a logical block address and a length.
func CDB10(op byte, lba uint32, n uint16) []byte {
	c := make([]byte, 10)
	c[0] = op
	binary.BigEndian.PutUint32(c[2:], lba)
	binary.BigEndian.PutUint16(c[7:], n)
	return c
}

// controlMode is the parameter list of MODE SELECT(6) with the Control mode page
// (SPC-4 §7.5.8) of a disk.
func controlMode(dSense, tas bool) []byte {
	p := []byte{0, 0, 0, 0, 0x0a, 10, 0x02, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0}
	if dSense {
		p[6] |= 0x04
	}
	if tas {
		p[9] |= 0x40
	}
	return p
}

// CompareAndWrite is the CDB of COMPARE AND WRITE (SBC-3 §5.2) for n blocks.
func CompareAndWrite(lba uint64, n byte) []byte {
	c := make([]byte, 16)
	c[0] = 0x89
	binary.BigEndian.PutUint64(c[2:], lba)
	c[13] = n
	return c
}

// proutCDB and proutList are a PERSISTENT RESERVE OUT (SPC-4 §6.16).
func proutCDB(sa, typ byte) []byte { return []byte{0x5f, sa, typ, 0, 0, 0, 0, 0, 24, 0} }

func proutList(key, saKey uint64) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint64(b, key)
	binary.BigEndian.PutUint64(b[8:], saKey)
	return b
}
