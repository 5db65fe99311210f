package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// faulty is a daemon with two disks in files, a of LUN 0 and b of LUN 1, that fail on
// command, and one initiator.
type faulty struct {
	t *testing.T
	d *Daemon
	c *iscsitest.Conn

	mu     sync.Mutex
	faults map[string]*backingtest.Fault // by store
	// syncErr is what the next fdatasync of a's file gives; once, as the kernel
	// does it.
	syncErr atomic.Pointer[error]
	syncs   atomic.Int64

	events chan Event
}

func newFaulty(t *testing.T, keys string) *faulty {
	t.Helper()
	w := newWorld(t)
	pa, pb := w.file("a.img", 1<<20), w.file("b.img", 1<<20)
	f := &faulty{t: t, faults: map[string]*backingtest.Fault{}, events: make(chan Event, 100)}
	text := w.config(fmt.Sprintf("disks: [{name: a, store: \"file:%s\"%s}, {name: b, store: \"file:%s\"%s}]\ntargets:\n- {name: one, luns: [{lun: 0, disk: a}, {lun: 1, disk: b}], iscsi: {iqn: %s}}\n", pa, keys, pb, keys, iqn1))
	f.d = w.startWith(text, Options{Open: func(spec string, o backing.Options) (backing.Store, error) {
		if strings.HasSuffix(spec, "a.img") {
			o.Fdatasync = func(fd int) error {
				f.syncs.Add(1)
				if e := f.syncErr.Swap(nil); e != nil {
					return *e
				}
				return syscall.Fdatasync(fd)
			}
		}
		st, err := backing.Open(spec, o)
		if err != nil {
			return nil, err
		}
		x := backingtest.NewFault(st)
		f.mu.Lock()
		f.faults[strings.TrimSuffix(spec[strings.LastIndexByte(spec, '/')+1:], ".img")] = x
		f.mu.Unlock()
		return x, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = f.d.Events(ctx, 0, true, func(es []Event) error {
			for _, e := range es {
				if e.Kind != kindSession {
					f.events <- e
				}
			}
			return nil
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-f.events // the sync
	f.c = dial(t, f.d, iqn1, host)
	for lun := range uint16(2) {
		for range 4 {
			f.run(iscsitest.Command{LUN: lun, CDB: make([]byte, 6)})
		}
	}
	return f
}

func (f *faulty) fault(disk string) *backingtest.Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults[disk]
}

// run gives key<<16 | ASC and ASCQ, 0 for GOOD.
func (f *faulty) run(c iscsitest.Command) int {
	f.t.Helper()
	k, err := f.c.Run(&c)
	if err != nil {
		f.t.Fatal(err)
	}
	return sense(k)
}

func sense(k *iscsitest.Task) int {
	if k.Status == 0 {
		return 0
	}
	key, asc := iscsitest.Sense(k.Sense)
	return int(key)<<16 | int(asc)
}

func (f *faulty) want(what string, c iscsitest.Command, sense int) {
	f.t.Helper()
	if s := f.run(c); s != sense {
		f.t.Errorf("%s: %06x, want %06x", what, s, sense)
	}
}

func (f *faulty) start(c iscsitest.Command) *iscsitest.Task {
	f.t.Helper()
	k, err := f.c.Start(&c)
	if err != nil {
		f.t.Fatal(err)
	}
	return k
}

func (f *faulty) wait(what string, k *iscsitest.Task, want int) {
	f.t.Helper()
	if err := f.c.Wait(k); err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
	if s := sense(k); s != want {
		f.t.Errorf("%s: %06x, want %06x", what, s, want)
	}
}

// silent checks that nothing comes for a time.
func (f *faulty) silent(d time.Duration) {
	f.t.Helper()
	was := f.c.Timeout
	f.c.Timeout = d
	err := f.c.Pump()
	f.c.Timeout = was
	if !iscsitest.IsTimeout(err) {
		f.t.Errorf("something came: %v", err)
	}
}

func (f *faulty) disk(name string) DiskStatus {
	f.t.Helper()
	for _, k := range f.d.Disks() {
		if k.Name == name {
			return k
		}
	}
	f.t.Fatal("no disk", name)
	return DiskStatus{}
}

// stopped waits until n commands are held, and then says how the disk is.
func (f *faulty) stopped(name string, n int) DiskStatus {
	f.t.Helper()
	var k DiskStatus
	if !tempotest.Settles(func() bool { k = f.disk(name); return k.State == "stopped" && k.Held == n }) {
		f.t.Fatalf("%+v, want %d commands held", k, n)
	}
	return k
}

func (f *faulty) event(disk, detail string) {
	f.t.Helper()
	select {
	case e := <-f.events:
		if e.Action != ActionState || e.Kind != "disk" || e.Name != disk || !strings.Contains(e.Detail, detail) {
			f.t.Errorf("event %+v, want %q of disk %s", e, detail, disk)
		}
	case <-time.After(tempotest.Patience):
		f.t.Fatalf("no event %q of disk %s", detail, disk)
	}
}

func (f *faulty) resume(disk string) {
	f.t.Helper()
	if _, err := f.d.Resume(disk); err != nil {
		f.t.Fatal(err)
	}
}

func blocks(b byte, n int) []byte { return bytes.Repeat([]byte{b}, 512*n) }

func wr(lun uint16, lba byte, data []byte) iscsitest.Command {
	return iscsitest.Command{LUN: lun, CDB: []byte{0x2a, 0, 0, 0, 0, lba, 0, 0, byte(len(data) / 512), 0}, Out: data}
}

func fua(c iscsitest.Command) iscsitest.Command { c.CDB[1] |= 8; return c }

func rd10(lun uint16, lba byte) iscsitest.Command {
	return iscsitest.Command{LUN: lun, CDB: []byte{0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0}, In: 512}
}

func syncCache(lun uint16) iscsitest.Command {
	return iscsitest.Command{LUN: lun, CDB: []byte{0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
}

func (f *faulty) wantBlock(what string, lun uint16, lba, b byte) {
	f.t.Helper()
	c := rd10(lun, lba)
	k, err := f.c.Run(&c)
	if err != nil || k.Status != 0 || !bytes.Equal(k.In, blocks(b, 1)) {
		f.t.Errorf("%s: LUN %d block %d: %v, status %v, data right %v", what, lun, lba, err, k.Status, bytes.Equal(k.In, blocks(b, 1)))
	}
}

// senseWriteError is MEDIUM ERROR, WRITE ERROR.
const senseWriteError = 0x30c00

// A sync that failed once is told to every later one until the operator has seen to
// the store: what was written before it may be lost, and the kernel says so once only.
func TestLatch(t *testing.T) {
	f := newFaulty(t, "")
	f.want("write", wr(0, 1, blocks(1, 1)), 0)
	f.want("sync", syncCache(0), 0)
	f.want("write", wr(0, 1, blocks(2, 1)), 0)
	var e error = syscall.EIO
	f.syncErr.Store(&e)
	f.want("the sync that fails", syncCache(0), senseWriteError)
	f.event("a", "latched")
	calls := f.syncs.Load()
	for range 3 {
		f.want("sync", syncCache(0), senseWriteError)
		f.want("write", wr(0, 3, blocks(3, 1)), senseWriteError)
		f.want("FUA write", fua(wr(0, 3, blocks(3, 1))), senseWriteError)
		f.want("SYNCHRONIZE CACHE(16)", iscsitest.Command{CDB: append([]byte{0x91}, make([]byte, 15)...)}, senseWriteError)
	}
	if f.syncs.Load() != calls {
		t.Error("the kernel was asked again: it may have said that all is well")
	}
	f.wantBlock("latched", 0, 1, 2)
	f.wantBlock("latched", 0, 3, 0)
	if k := f.disk("a"); k.State != "latched" {
		t.Errorf("%+v", k)
	}
	// A session that comes finds the same, the other disk does not know.
	two, err := tryDial(f.d, iqn1, host+"-x")
	if err == nil {
		two.Close()
		t.Error("a second name at disks that are not shared")
	}
	f.want("write of the other disk", fua(wr(1, 1, blocks(9, 1))), 0)
	f.want("sync of the other disk", syncCache(1), 0)
	if k := f.disk("b"); k.State != "running" {
		t.Errorf("%+v", k)
	}

	f.resume("a")
	f.event("a", "re-opened")
	if k := f.disk("a"); k.State != "running" {
		t.Errorf("%+v", k)
	}
	f.want("write after resume", wr(0, 3, blocks(4, 1)), 0)
	f.want("FUA write after resume", fua(wr(0, 4, blocks(5, 1))), 0)
	f.want("sync after resume", syncCache(0), 0)
	if f.syncs.Load() == calls {
		t.Error("no sync after resume")
	}
	f.wantBlock("after resume", 0, 3, 4)
	f.wantBlock("after resume", 0, 4, 5)
}

// The same while the disk is to stop at errors: the sync waits, and is not said to be
// well when the disk goes on.
func TestLatchStops(t *testing.T) {
	f := newFaulty(t, ", onError: stop")
	f.want("write", wr(0, 1, blocks(2, 1)), 0)
	var e error = syscall.EIO
	f.syncErr.Store(&e)
	k := f.start(syncCache(0))
	if s := f.stopped("a", 1); s.Error == "" || !strings.Contains(s.Error, syscall.EIO.Error()) {
		t.Errorf("%+v", s)
	}
	later := f.start(wr(0, 2, blocks(3, 1)))
	f.stopped("a", 2)
	f.silent(50 * time.Millisecond)
	f.resume("a")
	f.wait("the sync that failed", k, senseWriteError)
	f.wait("the write behind it", later, 0)
	f.want("sync after resume", syncCache(0), 0)
	f.wantBlock("after resume", 0, 2, 3)
}

// A full file system is told as what it is, once for each write that needs space, and
// does nobody else harm.
func TestNoSpace(t *testing.T) {
	f := newFaulty(t, "")
	f.fault("a").Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Off: 8 * 512, Len: 8 * 512, Err: syscall.ENOSPC})
	f.want("before it", wr(0, 1, blocks(1, 1)), 0)
	for range 2 {
		// DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
		f.want("no space", wr(0, 8, blocks(8, 1)), 0x72707)
		f.want("no space, FUA", fua(wr(0, 9, blocks(8, 1))), 0x72707)
	}
	f.want("another place", wr(0, 2, blocks(2, 1)), 0)
	f.want("sync", syncCache(0), 0)
	f.wantBlock("same disk", 0, 2, 2)
	f.want("another disk", fua(wr(1, 8, blocks(8, 1))), 0)
	f.want("another disk's sync", syncCache(1), 0)
	f.wantBlock("another disk", 1, 8, 8)
	for _, n := range []string{"a", "b"} {
		if k := f.disk(n); k.State != "running" {
			t.Errorf("%+v", k)
		}
	}
	if n := f.disk("a").Stats.Errors["data-protect"]; n != 4 {
		t.Errorf("%d errors counted, want 4", n)
	}
	f.fault("a").Clear()
	f.want("space again", wr(0, 8, blocks(7, 1)), 0)
	f.wantBlock("space again", 0, 8, 7)
	select {
	case e := <-f.events:
		t.Errorf("%+v", e)
	default:
	}
}

// onError: stop keeps errors from the initiator: it waits until somebody has seen to
// the cause.
func TestStop(t *testing.T) {
	for _, x := range []struct {
		policy string
		err    error
	}{{"stop", syscall.EIO}, {"stop", syscall.ENOSPC}, {"enospc-stop", syscall.ENOSPC}} {
		t.Run(x.policy+" "+x.err.Error(), func(t *testing.T) {
			f := newFaulty(t, ", onError: "+x.policy)
			f.fault("a").Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Count: 1, Err: x.err})
			k := f.start(wr(0, 1, blocks(1, 1)))
			st := f.stopped("a", 1)
			if !strings.Contains(st.Error, x.err.Error()) || st.Since == nil || time.Since(*st.Since) > time.Hour {
				t.Errorf("%+v", st)
			}
			f.event("a", "stopped: "+x.err.Error())
			ordered := rd10(0, 1)
			ordered.Attr = pdu.AttrOrdered
			rd := f.start(ordered)
			f.stopped("a", 2)
			f.silent(50 * time.Millisecond)
			f.want("another disk", fua(wr(1, 1, blocks(9, 1))), 0)
			f.want("a command that needs no store", iscsitest.Command{CDB: []byte{0x12, 0, 0, 0, 36, 0}, In: 36}, 0)

			// An operator who was too quick.
			f.fault("a").Clear()
			f.fault("a").Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Count: 1, Err: x.err})
			f.resume("a")
			f.event("a", "running")
			f.event("a", "stopped")
			f.silent(50 * time.Millisecond)

			f.resume("a")
			f.event("a", "running")
			f.wait("the held write", k, 0)
			f.wait("the read behind it", rd, 0)
			f.wantBlock("after resume", 0, 1, 1)
			if k := f.disk("a"); k.State != "running" || k.Held != 0 || k.Error != "" || k.Since != nil {
				t.Errorf("%+v", k)
			}
		})
	}
}

// enospc-stop does not stop at anything else, and the policy changes while it runs.
func TestStopPolicy(t *testing.T) {
	f := newFaulty(t, ", onError: enospc-stop")
	f.fault("a").Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Err: syscall.EIO})
	f.want("write", wr(0, 1, blocks(1, 1)), senseWriteError)
	text := f.d.Config().Text
	if _, err := apply(f.d, []byte(strings.ReplaceAll(text, "enospc-stop", "stop"))); err != nil {
		t.Fatal(err)
	}
	k := f.start(wr(0, 1, blocks(1, 1)))
	f.stopped("a", 1)
	// A disk that is stopped is resumed by hand only.
	if _, err := apply(f.d, []byte(text)); err != nil {
		t.Fatal(err)
	}
	f.stopped("a", 1)
	f.fault("a").Clear()
	f.resume("a")
	f.wait("the held write", k, 0)
}

// An initiator gets rid of a command that is held.
func TestStopAbort(t *testing.T) {
	f := newFaulty(t, ", onError: stop")
	f.fault("a").Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Err: syscall.EIO})
	k := f.start(wr(0, 1, blocks(1, 1)))
	f.stopped("a", 1)
	later := f.start(rd10(0, 1))
	f.stopped("a", 2)
	for i, task := range []*iscsitest.Task{k, later} {
		if r, err := f.c.TMF(pdu.AbortTask, 0, task, true); err != nil || r != pdu.TMFComplete {
			t.Fatalf("ABORT TASK: %v %v", r, err)
		}
		f.c.Forget(task)
		f.stopped("a", 1-i)
	}
	k = f.start(wr(0, 1, blocks(1, 1)))
	f.stopped("a", 1)
	if r, err := f.c.TMF(pdu.LogicalReset, 0, nil, true); err != nil || r != pdu.TMFComplete {
		t.Fatalf("LOGICAL UNIT RESET: %v %v", r, err)
	}
	f.c.Forget(k)
	f.fault("a").Clear()
	f.resume("a")
	f.silent(20 * time.Millisecond)
	for f.run(iscsitest.Command{CDB: make([]byte, 6)}) != 0 {
	}
	f.want("write after resume", wr(0, 1, blocks(3, 1)), 0)
	f.wantBlock("after resume", 0, 1, 3)
}

// What is held does not hold up the end, nor a removal by force.
func TestStopClose(t *testing.T) {
	f := newFaulty(t, ", onError: stop")
	for _, n := range []string{"a", "b"} {
		f.fault(n).Inject(backingtest.Rule{Kinds: backingtest.KindSet(backing.Write), Err: syscall.EIO})
	}
	for i := range byte(8) {
		f.start(wr(uint16(i%2), i, blocks(1, 1)))
	}
	f.stopped("a", 4)
	f.stopped("b", 4)
	text := strings.Replace(f.d.Config().Text, ", {lun: 1, disk: b}", "", 1)
	_, err := apply(f.d, []byte(text))
	wantBusy(t, err, "lun one/1: is in use by "+host)
	begin := time.Now()
	if _, err := f.d.Apply("f.yaml", []byte(text), ApplyOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > f.d.opt.DrainTime/4 {
		t.Errorf("the removal took %v", took)
	}
	begin = time.Now()
	if err := f.d.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > f.d.opt.CloseTime/4 {
		t.Errorf("Close took %v", took)
	}
	if _, err := f.d.Resume("a"); err == nil || !errors.As(err, new(Errors)) {
		t.Error(err)
	}
}
