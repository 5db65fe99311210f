package vhost_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/handover/handovertest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// crashRig is a daemon in a process of its own and a machine that stays when it dies.
type crashRig struct {
	testing.TB
	conf childConfig
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	c    *vhosttest.Client

	scratch uint64 // for data of a single command

	parent *handovertest.Parent // nil: the machine reconnects
	notify string
}

func newCrashRig(t testing.TB, o vhosttest.Options) *crashRig {
	t.Helper()
	o.Style = vhosttest.QEMU10
	return newParkRig(t, o, false)
}

// newParkRig is newCrashRig, with a parent that keeps the machine's connection.
func newParkRig(t testing.TB, o vhosttest.Options, parks bool) *crashRig {
	t.Helper()
	dir := t.TempDir()
	r := &crashRig{TB: t, conf: childConfig{Socket: filepath.Join(dir, "s"), Disk: filepath.Join(dir, "disk"), State: dir}}
	f, err := os.Create(r.conf.Disk)
	r.ok(err)
	r.ok(f.Truncate(diskBytes))
	if r.conf.Parks = parks; parks {
		r.notify = filepath.Join(dir, "notify")
		r.parent = handovertest.New(t, r.notify)
	}
	r.ok(f.Close())
	r.start()
	t.Cleanup(func() {
		if r.c != nil {
			if err := r.c.Close(); err != nil {
				t.Error(err)
			}
		}
		r.in.Close()
		if err := r.cmd.Wait(); err != nil {
			t.Errorf("the daemon's last process: %v", err)
		}
	})
	o.Timeout = patience
	r.c, err = vhosttest.Dial(r.conf.Socket, o)
	r.ok(err)
	r.ok(r.c.Start())
	for i := range r.c.Requests() {
		good(t, r.c.Request(i), lun0, make([]byte, 6), nil, nil)
	}
	return r
}

func (r *crashRig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// start starts a process.
func (r *crashRig) start() {
	r.Helper()
	conf, err := json.Marshal(r.conf)
	r.ok(err)
	exe, err := os.Executable()
	r.ok(err)
	r.cmd = exec.Command(exe)
	r.cmd.Env = append(os.Environ(), childEnv+"="+string(conf))
	if r.parent != nil {
		r.parent.Prepare(r.cmd, r.notify)
	}
	r.cmd.Stderr = os.Stderr
	r.in, err = r.cmd.StdinPipe()
	r.ok(err)
	out, err := r.cmd.StdoutPipe()
	r.ok(err)
	r.out = bufio.NewReader(out)
	r.ok(r.cmd.Start())
	r.says("ready")
}

func (r *crashRig) says(want string) {
	r.Helper()
	if s, err := r.out.ReadString('\n'); s != want+"\n" {
		r.Fatalf("the daemon says %q, %v; want %q", s, err, want)
	}
}

// arm has the process die at the n-th time that it gets to point.
func (r *crashRig) arm(point string, n int) {
	r.Helper()
	fmt.Fprintf(r.in, "%s %d\n", point, n)
	r.says("armed")
}

// died waits for the process's end by kill -9.
func (r *crashRig) died() {
	r.Helper()
	done := make(chan error, 1)
	go func() { done <- r.cmd.Wait() }()
	select {
	case err := <-done:
		if err == nil || err.Error() != "signal: killed" {
			r.Errorf("the daemon ended by itself: %v", err)
		}
	case <-time.After(patience):
		_ = r.cmd.Process.Kill()
		r.Error("the daemon has not got to the point at which it is to die")
	}
	r.in.Close()
}

// again starts the next process and reconnects the machine.
func (r *crashRig) again() {
	r.Helper()
	r.start()
	if r.parent == nil {
		r.ok(r.c.Reconnect())
	}
}

// points are those around a command, in the order in which it gets to them.
var (
	ringPoints  = []string{"answered", "linked", "staged", "published", "cleared", "settled"}
	writePoints = slices.Concat([]string{"taken", "marked", "before-write", "after-write"}, ringPoints)
	readPoints  = slices.Concat([]string{"taken", "marked", "before-read", "after-read"}, ringPoints)
	casPoints   = slices.Concat([]string{"taken", "marked", "before-read", "after-read", "before-write", "after-write"}, ringPoints)
	outPoints   = slices.Concat([]string{"taken", "marked", "saving", "saved"}, ringPoints)
)

// lost tells whether a command that the daemon does not repeat is answered UNIT
// ATTENTION 29h/00h when it dies at a point: from the mark on until the driver has been
// shown the answer.
func lost(point string) bool {
	switch point {
	case "taken", "published", "cleared", "settled":
		return false
	}
	return true
}

// effect tells whether the command has had its effect by then.
func effect(point string) bool {
	switch point {
	case "taken", "marked", "before-read", "after-read", "before-write", "saving":
		return false
	}
	return true
}

// quiet wants no further answer on any queue.
func (r *crashRig) quiet() {
	r.Helper()
	for i := range r.c.Requests() {
		q := r.c.Request(i)
		if x, err := q.Wait(5 * time.Millisecond); x != nil || err == nil {
			r.Errorf("queue %d: an answer too many, %v", i, err)
		}
		if q.Out() != 0 {
			r.Errorf("queue %d: %d requests without an answer", i, q.Out())
		}
	}
	entry := 16
	if r.c.Features&vhosttest.FeatureRingPacked != 0 {
		entry = 32
	}
	for i, b := range r.c.InflightBytes() {
		stride := len(r.c.InflightBytes()) / (2 + r.c.Options().Queues)
		if at := i % stride; b != 0 && at >= 16 && (at-16)%entry == 0 && i/stride >= 2 {
			r.Errorf("ring %d, entry %d is marked with nothing in flight", i/stride, (at-16)/entry)
		}
	}
}

// TestClientCrash kills the daemon at every point on a command's way and starts it
// again under the same machine: each command is answered once, by the rule.
func TestClientCrash(t *testing.T) {
	t.Run("COMPARE AND WRITE", crashCompareAndWrite)
	t.Run("two COMPARE AND WRITE", crashPair)
	t.Run("PERSISTENT RESERVE OUT", crashReserve)
	t.Run("WRITE", func(t *testing.T) { crashPlain(t, true) })
	t.Run("READ", func(t *testing.T) { crashPlain(t, false) })
	t.Run("LOGICAL UNIT RESET", crashControl)
	t.Run("event", crashEvent)
}

// crashRounds is how often the daemon dies under load: VTGT_CRASH_ROUNDS, else 6 times.
func crashRounds(t *testing.T) int {
	s := os.Getenv("VTGT_CRASH_ROUNDS")
	if s == "" {
		return 6
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal("VTGT_CRASH_ROUNDS:", err)
	}
	return n
}

// TestClientCrashLoad kills the daemon at random moments under a verifying load on
// several queues, with COMPARE AND WRITE on another: no request is lost, none is
// answered twice, no block is other than what was written, and each COMPARE AND WRITE
// happens once or not at all.
func TestClientCrashLoad(t *testing.T) {
	crashLoad(t, newCrashRig(t, vhosttest.Options{Queues: 3}))
}

func crashLoad(t *testing.T, r *crashRig) {
	const lba = (diskBytes - 4096) / 512
	q := r.c.Request(2)
	v := uint64(1)
	good(t, q, lun0, write10(lba, 1), block(v), nil)
	l := load(lun0)
	l.Blocks, l.NQ, l.Retry = diskBytes/4096-1, 2, true
	r.ok(l.Start(r.c))
	defer func() {
		l.Stop()
		_, _ = l.Wait()
	}()
	rng := rand.New(rand.NewPCG(1, 2))
	points := append([]string{"before-read", "after-read", "before-write", "after-write"}, casPoints...)
	var lostOnes, rounds int
	for rounds = range crashRounds(t) {
		p := points[rng.IntN(len(points))]
		r.arm(p, 1+rng.IntN(2000))
		dead := make(chan struct{})
		go func() { r.died(); close(dead) }()
		// Increments, until the daemon dies under one of them.
		var x *vhosttest.Request
		for down := false; !down; {
			if x == nil {
				x, _ = r.on(q, scsitest.CompareAndWrite(lba, 1), append(block(v), block(v+1)...), 0)
			}
			err := q.Await(x, time.Millisecond)
			if err == nil && x.Status == 0 && x.Response == 0 {
				v++
				x = nil
			} else if err == nil {
				check(t, x, 6, 0x2900)
				x = nil
			} else if !errors.Is(err, vhosttest.ErrTimeout) {
				t.Fatal(err)
			}
			select {
			case <-dead:
				down = true
			default:
			}
		}
		r.again()
		got := make([]byte, 512)
		ran := x == nil
		if x != nil {
			r.ok(q.Await(x, 0))
			ran = x.Status == 0 && x.Response == 0
			if ran {
				v++
			} else {
				check(t, x, 6, 0x2900)
				lostOnes++
			}
		}
		good(t, q, lun0, read10(lba, 1), nil, got)
		switch {
		case bytes.Equal(got, block(v)):
		case !ran && bytes.Equal(got, block(v+1)):
			v++
		default:
			t.Fatalf("round %d, died at %s: after %d increments (the last has run: %v) the block holds something else", rounds, p, v, ran)
		}
		n := l.Done()
		if !tempotest.Settles(func() bool { return l.Done() >= n+200 }) {
			l.Stop()
			_, err := l.Wait()
			t.Fatalf("round %d, died at %s: the load stands still: %v", rounds, p, err)
		}
	}
	l.Stop()
	res, err := l.Wait()
	r.ok(err)
	r.quiet()
	t.Logf("%d deaths, %d requests, %d increments, %d of them lost", rounds+1, res.Requests, v-1, lostOnes)
}

// block is a block that holds v, and nothing else than one such block.
func block(v uint64) []byte {
	b := make([]byte, 512)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], v*0x9e3779b97f4a7c15+uint64(i))
	}
	return b
}

// on submits a single command with data on q and gives it.
func (r *crashRig) on(q *vhosttest.Queue, cdb, out []byte, room int) (*vhosttest.Request, []byte) {
	r.Helper()
	if r.scratch == 0 {
		var err error
		r.scratch, err = r.c.Mem.Alloc(8192, 4096)
		r.ok(err)
	}
	at := r.scratch
	x := &vhosttest.Request{LUN: lun0, Tag: at}
	x.SetCDB(cdb...)
	if len(out) > 0 {
		copy(r.c.Mem.At(at, len(out)), out)
		x.Out = []vhosttest.Buf{{Addr: at, Len: uint32(len(out))}}
	}
	if room > 0 {
		x.In = []vhosttest.Buf{{Addr: at + 4096, Len: uint32(room)}}
	}
	r.ok(q.Submit(x))
	q.Kick()
	return x, r.c.Mem.At(at+4096, 4096)[:room]
}

// crashed runs cdb into a crash at point and gives its answer, from whichever process.
func (r *crashRig) crashed(point string, cdb, out []byte, room int) (*vhosttest.Request, []byte) {
	r.Helper()
	r.arm(point, 1)
	x, in := r.on(r.c.Request(0), cdb, out, room)
	r.died()
	r.again()
	r.ok(r.c.Request(0).Await(x, 0))
	r.quiet()
	return x, in
}

// rule checks the answer of a command that is not repeated, and tells whether the
// command has had its effect.
func (r *crashRig) rule(point string, x *vhosttest.Request) (done bool) {
	r.Helper()
	switch {
	case point == "taken" && x.Status != 0:
		// To the next process it is a new command, maybe the first one that hears
		// that the target has started.
		check(r, x, 6, 0x2900)
		return false
	case lost(point):
		check(r, x, 6, 0x2900)
		return effect(point)
	}
	if x.Response != 0 || x.Status != 0 {
		r.Error(outcome(x))
	}
	return true
}

// repeated checks the answer of a command that is repeated, and tells whether it has
// run.
func (r *crashRig) repeated(point string, x *vhosttest.Request) bool {
	r.Helper()
	if point == "taken" && x.Status != 0 {
		check(r, x, 6, 0x2900)
		return false
	}
	if x.Response != 0 || x.Status != 0 {
		r.Error(outcome(x))
	}
	return true
}

func crashCompareAndWrite(t *testing.T) {
	r := newCrashRig(t, vhosttest.Options{})
	q := r.c.Request(0)
	const lba = 40
	v := uint64(1)
	good(t, q, lun0, write10(lba, 1), block(v), nil)
	for _, p := range casPoints {
		t.Run(p, func(t *testing.T) {
			r.TB = t
			x, _ := r.crashed(p, scsitest.CompareAndWrite(lba, 1), append(block(v), block(v+1)...), 0)
			done := r.rule(p, x)
			got := make([]byte, 512)
			good(t, q, lun0, read10(lba, 1), nil, got)
			want := v
			if done {
				want++
			}
			if !bytes.Equal(got, block(want)) {
				t.Errorf("the block is not what the command makes of it (it has had its effect: %v)", want != v)
			}
			for v = 1; v < 100 && !bytes.Equal(got, block(v)); {
				v++
			}
		})
	}
	r.TB = t
}

// crashPair has two commands in flight: the unit attention that a restart brings anyway
// answers one of them at most.
func crashPair(t *testing.T) {
	r := newCrashRig(t, vhosttest.Options{})
	q := r.c.Request(0)
	at, err := r.c.Mem.Alloc(4096, 4096)
	r.ok(err)
	lbas := [2]uint32{48, 56}
	v := [2]uint64{1, 1}
	for i, lba := range lbas {
		good(t, q, lun0, write10(lba, 1), block(v[i]), nil)
	}
	for _, p := range casPoints[1:] {
		t.Run(p, func(t *testing.T) {
			r.TB = t
			n := 2
			if p == "published" || p == "settled" {
				n = 1 // once for a batch, which may be both
			}
			r.arm(p, n)
			var x [2]*vhosttest.Request
			for i := range x {
				a := at + uint64(1024*i)
				copy(r.c.Mem.At(a, 1024), append(block(v[i]), block(v[i]+1)...))
				x[i] = &vhosttest.Request{LUN: lun0, Tag: uint64(i), Out: []vhosttest.Buf{{Addr: a, Len: 1024}}}
				x[i].SetCDB(scsitest.CompareAndWrite(uint64(lbas[i]), 1)...)
				r.ok(q.Submit(x[i]))
			}
			q.Kick()
			r.died()
			var early [2]bool
			for i := range x {
				early[i] = q.Await(x[i], time.Nanosecond) == nil
				if early[i] && (x[i].Response != 0 || x[i].Status != 0) {
					t.Errorf("command %d: %s", i, outcome(x[i]))
				}
			}
			r.again()
			for i := range x {
				if !early[i] {
					r.ok(q.Await(x[i], 0))
					check(t, x[i], 6, 0x2900)
				}
				got := make([]byte, 512)
				good(t, q, lun0, read10(lbas[i], 1), nil, got)
				switch {
				case bytes.Equal(got, block(v[i]+1)):
					v[i]++
				case early[i] || !bytes.Equal(got, block(v[i])):
					t.Errorf("command %d: the block is not what it makes of it, answered before the end: %v", i, early[i])
				}
			}
			r.quiet()
		})
	}
	r.TB = t
}

func crashReserve(t *testing.T) {
	r := newCrashRig(t, vhosttest.Options{})
	q := r.c.Request(0)
	key := uint64(0x1000)
	// REGISTER AND IGNORE EXISTING KEY, with APTPL.
	register := func(k uint64) []byte {
		b := make([]byte, 24)
		binary.BigEndian.PutUint64(b[8:], k)
		b[20] = 1
		return b
	}
	out := []byte{0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0}
	good(t, q, lun0, out, register(key), nil)
	for _, p := range outPoints {
		t.Run(p, func(t *testing.T) {
			r.TB = t
			x, _ := r.crashed(p, out, register(key+1), 0)
			done := r.rule(p, x)
			keys := make([]byte, 64)
			good(t, q, lun0, []byte{0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0}, nil, keys)
			want := key
			if done {
				want++
			}
			if n := binary.BigEndian.Uint32(keys[4:]); n != 8 || binary.BigEndian.Uint64(keys[8:]) != want {
				t.Errorf("READ KEYS: % x; want one key, %#x", keys[:24], want)
			}
			key = binary.BigEndian.Uint64(keys[8:])
		})
	}
	r.TB = t
}

func crashPlain(t *testing.T, write bool) {
	r := newCrashRig(t, vhosttest.Options{})
	q := r.c.Request(0)
	points := readPoints
	if write {
		points = writePoints
	}
	for i, p := range points {
		t.Run(p, func(t *testing.T) {
			r.TB = t
			lba := uint32(8 * i)
			got := make([]byte, 512)
			if write {
				x, _ := r.crashed(p, write10(lba, 1), block(uint64(i)), 0)
				if !r.repeated(p, x) {
					return
				}
				good(t, q, lun0, read10(lba, 1), nil, got)
			} else {
				good(t, q, lun0, write10(lba, 1), block(uint64(i)), nil)
				var x *vhosttest.Request
				x, got = r.crashed(p, read10(lba, 1), nil, 512)
				if !r.repeated(p, x) {
					return
				}
			}
			if !bytes.Equal(got, block(uint64(i))) {
				t.Error("what is read is not what was written")
			}
		})
	}
	r.TB = t
}

// crashControl dies with a task management function in flight: nothing is lost by doing
// it again.
func crashControl(t *testing.T) {
	r := newCrashRig(t, vhosttest.Options{})
	for _, p := range slices.Concat([]string{"taken", "marked"}, ringPoints) {
		t.Run(p, func(t *testing.T) {
			r.TB = t
			r.arm("control-"+p, 1)
			x, err := r.c.StartTMF(vhosttest.LogicalUnitReset, lun0, 0)
			r.ok(err)
			r.died()
			r.again()
			b, err := r.c.AwaitControl(x, 0)
			r.ok(err)
			if b[0] != 0 {
				t.Errorf("response %d", b[0])
			}
			if n := r.c.Control().Out(); n != 0 {
				t.Errorf("%d requests are out", n)
			}
			good(t, r.c.Request(0), lun0, make([]byte, 6), nil, nil)
		})
	}
	r.TB = t
}

// crashEvent dies while it tells of an event: the driver hears of it, or that it has
// missed something, and no buffer is lost.
func crashEvent(t *testing.T) {
	r := newCrashRig(t, vhosttest.Options{})
	r.ok(r.c.Events().Post(8))
	size := diskBytes
	for _, p := range slices.Concat([]string{"taken", "marked"}, ringPoints) {
		t.Run(p, func(t *testing.T) {
			r.TB = t
			r.arm("event-"+p, 1)
			size += 1 << 20
			fmt.Fprintf(r.in, "resize %d\n", size)
			r.died()
			r.again()
			// What was shown before the end comes first.
			told := false
			for !told {
				e, err := r.c.Events().Wait(0)
				r.ok(err)
				told = e.Event&vhosttest.EventsMissed != 0 || e == vhosttest.Event{Event: vhosttest.EventParamChange, LUN: lun0, Reason: 0x2a | 9<<8}
				r.ok(r.c.Events().Post(1))
			}
			good(t, r.c.Request(0), lun0, make([]byte, 6), nil, nil)
			for {
				if _, err := r.c.Events().Wait(20 * time.Millisecond); err != nil {
					break
				}
				r.ok(r.c.Events().Post(1))
			}
			if n := r.c.Events().Queue().Out(); n != 8 {
				t.Errorf("%d buffers are with the device, were 8", n)
			}
		})
	}
	r.TB = t
}

// TestClientCrashPacked is TestClientCrash with packed rings.
func TestClientCrashPacked(t *testing.T) {
	t.Setenv("VTGT_PACKED", "1")
	TestClientCrash(t)
}
