package guesttest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/iscsi/iscsitest"

	"github.com/vtgt/vtgt/internal/guest/ledger"
)

const crashIQN = "iqn.2026-11.org.vtgt:crash"

// crashDisks is a configuration with a disk of each write policy; DIR is where the
// images are. More disks and LUNs can follow.
const crashDisks = `disks:
  - {name: wb, store: "file:DIR/wb.img", size: 64MiB, create: true, cache: writeback}
  - {name: wt, store: "file:DIR/wt.img", size: 64MiB, create: true, cache: writethrough}
  - {name: direct, store: "file:DIR/direct.img", size: 64MiB, create: true, cache: direct}
%s
targets:
  - name: crash
    luns: [{lun: 0, disk: wb}, {lun: 1, disk: wt}, {lun: 2, disk: direct}]
    iscsi: {iqn: "` + crashIQN + `"}
`

// policy says which LUN of crashDisks has a volatile write cache.
var policy = []struct {
	lun      uint16
	name     string
	volatile bool
}{{0, "writeback", true}, {1, "writethrough", false}, {2, "direct", true}}

// crashBooks has a book for each promise that a disk of crashDisks makes. The slots
// are far enough apart that most writes allocate blocks of the sparse file: then the
// file's own metadata must be stable too.
func crashBooks(seed uint64) []*ledger.Ledger {
	const half = 32 << 20 / ledger.SectorSize // blocks
	var out []*ledger.Ledger
	for i, c := range []ledger.Config{
		{Name: "writeback", LUN: 0, Mode: ledger.FUA},
		{Name: "writeback", LUN: 0, Mode: ledger.Sync, First: half},
		{Name: "writethrough", LUN: 1, Mode: ledger.Through},
		{Name: "direct", LUN: 2, Mode: ledger.FUA},
		{Name: "direct", LUN: 2, Mode: ledger.Sync, First: half},
	} {
		c.Slots, c.Stride, c.Count, c.Batch, c.Run = 900, 61, 3, 4, seed+uint64(i)
		out = append(out, ledger.New(c, seed))
	}
	return out
}

// connect logs in to the crash target; isid tells sessions of one initiator apart.
func connect(addr string, isid byte) (*iscsitest.Conn, error) {
	c, err := iscsitest.Dial(addr)
	if err != nil {
		return nil, err
	}
	c.Timeout = 30 * time.Second // TCG on a busy machine
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
		case <-time.After(time.Minute):
			t.Fatal("a writer hangs")
		}
	}
}

// busy waits until each book has n more acknowledgements than before.
func busy(t *testing.T, w *writers, books []*ledger.Ledger, before []int, n int) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
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
	for _, p := range policy {
		if err := ledger.Clear(c, p.lun); err != nil {
			t.Fatal(err)
		}
		if v, err := ledger.VolatileCache(c, p.lun); err != nil || v != p.volatile {
			t.Errorf("%s: WCE is %v, %v", p.name, v, err)
		}
	}
}

// crashConfig is crashDisks with n more disks, which make identities.
func crashConfig(n int) string {
	var more strings.Builder
	for i := range n {
		fmt.Fprintf(&more, "  - {name: extra%d, store: \"null:\", size: 1MiB}\n", i)
	}
	return fmt.Sprintf(crashDisks, strings.TrimSuffix(more.String(), "\n"))
}
