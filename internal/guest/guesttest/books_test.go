package guesttest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/iscsi/iscsitest"

	"github.com/vtgt/vtgt/internal/guest/ledger"
)

const crashIQN = "iqn.2026-11.org.vtgt:crash"

// promise is one way in which a disk makes data stable, with a disk of its own: the
// sync of one must not do the work of another.
type promise struct {
	name     string
	cache    string
	mode     ledger.Mode
	volatile bool // WCE
	block    bool // a block device where there is one to be had
}

var promises = []promise{
	{name: "wb-fua", cache: "writeback", mode: ledger.FUA, volatile: true},
	{name: "wb-sync", cache: "writeback", mode: ledger.Sync, volatile: true},
	{name: "wt", cache: "writethrough", mode: ledger.Through},
	{name: "direct-fua", cache: "direct", mode: ledger.FUA, volatile: true},
	{name: "direct-sync", cache: "direct", mode: ledger.Sync, volatile: true},
	{name: "block-sync", cache: "writeback", mode: ledger.Sync, volatile: true, block: true},
	{name: "block-direct", cache: "direct", mode: ledger.FUA, volatile: true, block: true},
	{name: "atomic", cache: "writeback", mode: ledger.Atomic, volatile: true},
}

// atomicLUN is the promise of WRITE ATOMIC.
func atomicLUN() int {
	return slices.IndexFunc(promises, func(p promise) bool { return p.mode == ledger.Atomic })
}

// crashBooks has a book for each promise; the promise's index is its LUN. The slots are
// far enough apart that most writes allocate blocks of a sparse file: then the file's
// own metadata must be stable too.
func crashBooks(seed uint64) []*ledger.Ledger {
	var out []*ledger.Ledger
	for i, p := range promises {
		c := ledger.Config{Name: p.name, LUN: uint16(i), Mode: p.mode, Slots: 600, Stride: 61, Count: 3, Batch: 4, Run: seed + uint64(i)}
		if p.mode == ledger.Atomic {
			c.Slots, c.Stride, c.Count = 60, 131, 128 // many sectors, of which a cut may leave some
		}
		out = append(out, ledger.New(c, seed))
	}
	return out
}

// crashConfig is a configuration with all promises, and extra disks more, which make
// identities. store names the store of a promise.
func crashConfig(store func(i int, p promise) string, extra int) string {
	var disks, luns []string
	for i, p := range promises {
		disks = append(disks, fmt.Sprintf("  - {name: %s, store: %q, cache: %s, %s}\n", p.name, store(i, p), p.cache, crashSize(store(i, p), p)))
		luns = append(luns, fmt.Sprintf("{lun: %d, disk: %s}", i, p.name))
	}
	disks = append(disks, "  - {name: fence, store: \"mem:\", size: 1MiB, shared: true}\n")
	for i := range extra {
		disks = append(disks, fmt.Sprintf("  - {name: extra%d, store: \"null:\", size: 1MiB}\n", i))
	}
	return "disks:\n" + strings.Join(disks, "") + "targets:\n  - name: crash\n    luns: [" + strings.Join(luns, ", ") + "]\n    iscsi: {iqn: \"" + crashIQN + "\"}\n" +
		"  - name: fence\n    luns: [{lun: 0, disk: fence}]\n    iscsi: {iqn: \"" + fenceIQN + "\"}\n"
}

func crashSize(store string, p promise) string {
	if p.mode == ledger.Atomic {
		return "size: 8MiB, create: true, atomicLog: 1MiB" // the log is beside it
	}
	if strings.HasPrefix(store, "file:") {
		return "size: 20MiB, create: true"
	}
	return "create: false"
}

// connect logs in to the crash target; isid tells sessions of one initiator apart.
func connect(addr string, isid byte) (*iscsitest.Conn, error) {
	c, err := iscsitest.Dial(addr)
	if err != nil {
		return nil, err
	}
	c.Timeout = patience
	err = c.Login(iscsitest.Login{InitiatorName: initiatorName, TargetName: crashIQN, ISID: [6]byte{0x80, 0, 1, 0, 0, isid}})
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// writers write into their books until stop or the end of the target.
type writers struct {
	stop chan struct{}
	errs chan error
	n    int
}

func startWriters(t *testing.T, addr string, books []*ledger.Ledger) *writers {
	t.Helper()
	w := &writers{stop: make(chan struct{}), errs: make(chan error, len(books)), n: len(books)}
	for i, b := range books {
		c, err := connect(addr, byte(i+1))
		if err != nil {
			close(w.stop)
			t.Fatal(err)
		}
		go func() {
			defer c.Close()
			w.errs <- b.Write(c, w.stop)
		}()
	}
	return w
}

// wait ends them after the target has died. An answer other than GOOD is an error; the
// end of the connection is not.
func (w *writers) wait(t *testing.T) {
	t.Helper()
	close(w.stop)
	for range w.n {
		select {
		case err := <-w.errs:
			var se *ledger.StatusError
			if errors.As(err, &se) || errors.Is(err, iscsitest.ErrTarget) {
				t.Errorf("before the crash: %v", err)
			}
		case <-time.After(2 * patience):
			t.Fatal("a writer hangs")
		}
	}
}

// busy waits until each book has n more acknowledgements than before.
func busy(t *testing.T, w *writers, books []*ledger.Ledger, before []int, n int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		slow := ""
		for i, b := range books {
			if a := b.Acks() - before[i]; a < n {
				slow += fmt.Sprintf(" %s: %d of %d", b.Name(), a, n)
			}
		}
		if slow == "" {
			return
		}
		select {
		case err := <-w.errs:
			t.Fatalf("a writer ended: %v", err)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("too slow:%s", slow)
		}
	}
}

func acks(books []*ledger.Ledger) []int {
	var out []int
	for _, b := range books {
		out = append(out, b.Acks())
	}
	return out
}

// checkBooks reads everything back; the result has one error or nil for each book.
func checkBooks(t *testing.T, addr string, books []*ledger.Ledger) []error {
	t.Helper()
	c, err := connect(addr, 99)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out []error
	for _, b := range books {
		if err := ledger.Clear(c, b.LUN()); err != nil {
			t.Fatal(err)
		}
		err := b.Check(ledger.FromLUN(c, b.LUN()))
		var lost *ledger.LostError
		if err != nil && !errors.As(err, &lost) {
			t.Fatal(err)
		}
		out = append(out, err)
	}
	return out
}

// checkPolicy wants the unit to say what the configuration does.
func checkPolicy(t *testing.T, addr string) {
	t.Helper()
	c, err := connect(addr, 98)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i, p := range promises {
		if err := ledger.Clear(c, uint16(i)); err != nil {
			t.Fatal(err)
		}
		if v, err := ledger.VolatileCache(c, uint16(i)); err != nil || v != p.volatile {
			t.Errorf("%s: WCE is %v, %v", p.name, v, err)
		}
	}
}
