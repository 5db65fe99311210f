package vhost

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/leaktest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/scsi/scsitest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// house is a daemon in small: exports of disks in memory. At its end it looks for what
// was left.
type house struct {
	testing.TB
	group *loop.Group
	log   logBuffer
	pins  bool // held stores say that they do direct I/O
	plain bool // no store holds requests
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) has(s string) bool { return l.count(s) > 0 }

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// guestMaps counts this process's mappings of memfds and of reserved addresses.
func guestMaps() (n int) {
	b, _ := os.ReadFile("/proc/self/maps")
	for l := range strings.Lines(string(b)) {
		if strings.Contains(l, "memfd:") {
			n++
		}
	}
	return n
}

func newHouse(tb testing.TB) *house {
	tb.Helper()
	before, maps := leaktest.Now(tb), guestMaps()
	h := &house{TB: tb}
	tb.Cleanup(func() {
		before.Check(tb)
		if !tempotest.Settles(func() bool { return guestMaps() <= maps }) {
			tb.Errorf("%d mappings left, had %d", guestMaps(), maps)
		}
	})
	var err error
	if h.group, err = loop.NewGroup(loop.Config{Loops: 2, Strict: true}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if n := h.group.Misuse(); n != 0 {
			tb.Errorf("%d misuses of loops", n)
		}
		h.group.Close()
	})
	return h
}

// flat is an export with one disk, served on a socket.
type flat struct {
	*Export
	h      *house
	socket string
	hold   *scsitest.HoldStore
	unit   *scsi.Unit
	target *scsi.Target
	ups    chan string
	stuck  int // what Close is to return
}

const flatSize = 8 << 20

func (h *house) export(name string, change ...func(*Config)) *flat {
	h.Helper()
	f := &flat{h: h, socket: filepath.Join(h.TempDir(), "s"), ups: make(chan string, 100)}
	st, err := backing.Open("mem:", backing.Options{Size: flatSize, Group: h.group})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { st.Close() })
	f.hold = &scsitest.HoldStore{Store: st}
	var store backing.Store = st
	c := Config{Name: name, Group: h.group, Initiator: [16]byte{1, 15: 2}, Log: slog.New(slog.NewTextHandler(&h.log, nil)),
		OnConnect: func(up bool, detail string) {
			if up {
				detail = "up " + detail
			}
			select {
			case f.ups <- detail:
			default:
			}
		}}
	for _, o := range change {
		o(&c)
	}
	if c.Deadline != 0 && !h.plain {
		store = f.hold // tests with a deadline hold requests
		if h.pins {
			store = pinStore{f.hold, true}
		}
	}
	f.unit, err = scsi.NewUnit(scsi.UnitConfig{Name: name, Vendor: "vtgt", Product: "disk", Revision: "1", Serial: name, BlockSize: 512, Thin: true}, store)
	if err != nil {
		h.Fatal(err)
	}
	f.target = scsi.NewTarget(scsi.TargetConfig{Name: name})
	if err := f.target.Map(0, f.unit, scsi.MapOptions{}); err != nil {
		h.Fatal(err)
	}
	if c.Targets == nil {
		c.Targets = []TargetPort{{0, f.target.NewPort(scsi.PortConfig{RelID: 1, Protocol: 4, Name: name, DeviceName: name})}}
	}
	c.Migratable = true
	if f.Export, err = NewExport(c); err != nil {
		h.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: f.socket, Net: "unix"})
	if err != nil {
		h.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	h.Cleanup(func() {
		if n := f.Close(tempotest.Patience); n != f.stuck {
			h.Errorf("%d requests stuck after Close, want %d", n, f.stuck)
		}
		if err := <-served; err != ErrClosed {
			h.Errorf("Serve: %v", err)
		}
		l.Close()
		done := make(chan int)
		f.target.Close(tempotest.Patience, func(n int) { done <- n })
		<-done
		f.unit.Close(tempotest.Patience, func(n int) { done <- n })
		<-done
	})
	return f
}

func (f *flat) dial(o vhosttest.Options) *vhosttest.Client {
	f.h.Helper()
	c, err := vhosttest.Dial(f.socket, o)
	if err != nil {
		f.h.Fatal(err)
	}
	f.h.Cleanup(func() { c.Close() })
	return c
}

// boot dials and starts the rings.
func (f *flat) boot(o vhosttest.Options) *vhosttest.Client {
	f.h.Helper()
	c := f.dial(o)
	if err := c.Start(); err != nil {
		f.h.Fatal(err)
	}
	f.ready(c)
	return c
}

// ready takes unit attentions.
func (f *flat) ready(c *vhosttest.Client) {
	f.h.Helper()
	for range 4 {
		r, err := c.Request(0).Exec(vhosttest.LUN(0, 0), make([]byte, 6), nil, nil)
		if err != nil {
			f.h.Fatal(err)
		}
		if r.Response == vhosttest.RespOK && r.Status == 0 {
			return
		}
	}
	f.h.Fatal("TEST UNIT READY fails")
}

// settles waits for a condition of the status.
func (f *flat) settles(what string, ok func(Status) bool) {
	f.h.Helper()
	var st Status
	if !tempotest.Settles(func() bool { st = f.Status(); return ok(st) }) {
		f.h.Fatalf("%s does not come: %+v", what, st)
	}
}

func rw(write bool, lba uint32, blocks uint16) []byte {
	c := []byte{0x28, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(blocks >> 8), byte(blocks), 0}
	if write {
		c[0] = 0x2a
	}
	return c
}
