package main

import (
	"bytes"
	"context"
	be "encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// soakEnv is how long sessions come and go, in seconds; `make soak` sets it.
const soakEnv = "VTGT_SCSITEST_SECONDS"

func rw10(op byte, lba uint32, blocks int) []byte {
	b := []byte{op, 0, 0, 0, 0, 0, 0, byte(blocks >> 8), byte(blocks), 0}
	be.BigEndian.PutUint32(b[2:], lba)
	return b
}

// visit logs in as initiator port i, moves a little data, and leaves in one of several
// ways.
func visit(portal string, i int, rnd *rand.Rand) error {
	c, err := iscsitest.Dial(portal)
	if err != nil {
		return err
	}
	defer c.Close()
	l := iscsitest.Login{InitiatorName: testHost, TargetName: testIQN, ISID: [6]byte{0x80, 0, 0, 2, byte(i >> 8), byte(i)},
		DataDigest: rnd.IntN(2) == 0, HeaderDigest: rnd.IntN(2) == 0}
	if err := c.Login(l); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	for range 1 + rnd.IntN(4) {
		n := 1 + rnd.IntN(300)
		cmd := &iscsitest.Command{CDB: rw10(0x28, uint32(rnd.IntN(1000)), n), In: n * 512}
		if rnd.IntN(2) == 0 {
			cmd = &iscsitest.Command{CDB: rw10(0x2a, uint32(4096+rnd.IntN(1000)), n), Out: make([]byte, n*512)}
		}
		if _, err := c.Run(cmd); err != nil {
			return fmt.Errorf("command: %w", err)
		}
	}
	switch rnd.IntN(3) {
	case 0: // gone without a word
	case 1: // in the midst of a write
		_, _ = c.Start(&iscsitest.Command{CDB: rw10(0x2a, 4096, 2000), Out: make([]byte, 2000*512), HoldR2T: true})
	default:
		if r, err := c.Logout(pdu.LogoutCloseSession, 0); err != nil || r != pdu.LogoutSuccess {
			return fmt.Errorf("logout: %v %w", r, err)
		}
	}
	return nil
}

// verify writes and reads back until stop is closed.
func verify(c *iscsitest.Conn, stop <-chan struct{}) (rounds int, worst time.Duration, err error) {
	rnd := rand.New(rand.NewPCG(3, 4))
	data := make([]byte, 64<<10)
	for {
		select {
		case <-stop:
			return rounds, worst, nil
		default:
		}
		n := (1 + rnd.IntN(128)) * 512
		for i := range data[:n] {
			data[i] = byte(rnd.Uint32())
		}
		lba := uint32(65536 + rnd.IntN(60000))
		begin := time.Now()
		for _, cmd := range []*iscsitest.Command{
			{CDB: rw10(0x2a, lba, n/512), Out: data[:n]}, {CDB: rw10(0x28, lba, n/512), In: n},
		} {
			k, err := c.Run(cmd)
			if err != nil {
				return rounds, worst, err
			}
			if k.Status != 0 || cmd.In > 0 && !bytes.Equal(k.In, data[:n]) {
				return rounds, worst, fmt.Errorf("status %#02x, sense % x, data equal %v", k.Status, k.Sense, bytes.Equal(k.In, data[:n]))
			}
		}
		worst = max(worst, time.Since(begin))
		rounds++
	}
}

// rss is the resident memory of a process, bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// 200 sessions come and go while one client verifies data: no error; and afterwards the
// daemon takes no more than before.
func TestSessionsComeAndGo(t *testing.T) {
	d := 5 * time.Second
	if testing.Short() {
		d = 2 * time.Second
	}
	if s := os.Getenv(soakEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(soakEnv, err)
		}
		d = time.Duration(n) * time.Second
	}
	w := newWorld(t)
	// However slow the machine, who logs in gets in.
	w.replace("iscsi: {portals", "iscsi: {loginTimeout: 5m, pingTimeout: 5m, portals")
	s := w.serve()
	c := api.NewClient(w.socket)
	defer c.Close()
	foot := func() *api.Footprint {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
		defer cancel()
		f, err := c.Footprint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	steady := login(t, w.portal, testIQN)
	for range 4 {
		if _, err := steady.Run(&iscsitest.Command{CDB: make([]byte, 6)}); err != nil {
			t.Fatal(err)
		}
	}
	crowd := func(d time.Duration) (int64, error) {
		var visits atomic.Int64
		var wg sync.WaitGroup
		var mu sync.Mutex
		var failed error
		end := time.Now().Add(d)
		for i := range 200 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 9))
				for time.Now().Before(end) {
					time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
					if err := visit(w.portal, i, rnd); err != nil {
						mu.Lock()
						failed = errors.Join(failed, fmt.Errorf("session %d: %w", i, err))
						mu.Unlock()
						return
					}
					visits.Add(1)
				}
			})
		}
		wg.Wait()
		return visits.Load(), failed
	}
	var rounds int
	var worst time.Duration
	work := func(d time.Duration) (visits int64) {
		t.Helper()
		stop := make(chan struct{})
		var verr error
		var wg sync.WaitGroup
		wg.Go(func() { rounds, worst, verr = verify(steady, stop) })
		visits, err := crowd(d)
		close(stop)
		wg.Wait()
		if err != nil {
			t.Error(err)
		}
		if verr != nil || rounds == 0 {
			t.Errorf("the steady client, round %d: %v", rounds, verr)
		}
		return visits
	}
	// All of it once, so that what is made at first need is there, and tables and
	// free lists have the size that this many sessions want, however slow the
	// machine.
	for range 2 {
		work(time.Second)
	}
	time.Sleep(time.Second)
	before := foot()
	rssBefore := rss(t, s.cmd.Process.Pid)
	visits := work(d)
	// What ends by itself has time for that.
	var after *api.Footprint
	var rssAfter int64
	var bad string
	for end := time.Now().Add(tempotest.Patience); ; time.Sleep(time.Second) {
		after, bad = foot(), ""
		rssAfter = rss(t, s.cmd.Process.Pid)
		for _, x := range []struct {
			name           string
			was, is, slack int64
		}{
			{"goroutines", int64(before.Goroutines), int64(after.Goroutines), 2},
			{"descriptors", int64(before.Descriptors), int64(after.Descriptors), 0},
			{"maps", int64(before.Maps), int64(after.Maps), 16}, // heap arenas come and stay; a leak would be hundreds
			{"bytes of payload buffers", before.MemoryUsed, after.MemoryUsed, 0},
			{"bytes of heap", int64(before.HeapBytes), int64(after.HeapBytes), 768 << 10},
			{"objects", int64(before.HeapObjects), int64(after.HeapObjects), 2000},
			{"bytes resident", rssBefore, rssAfter, 16 << 20},
		} {
			if raceDetector && (x.name == "bytes resident" || x.name == "maps") {
				continue // the detector's own: it maps shadow memory as it goes
			}
			if x.is > x.was+x.slack {
				bad += fmt.Sprintf("%s: %d, were %d\n", x.name, x.is, x.was)
			}
		}
		if bad == "" || time.Now().After(end) {
			break
		}
	}
	if bad != "" {
		t.Error("more than before:\n" + bad)
	}
	t.Logf("%d sessions, %d rounds verified, slowest %v\nbefore %+v rss %d KiB\nafter  %+v rss %d KiB", visits, rounds, worst, *before, rssBefore>>10, *after, rssAfter>>10)
	steady.Close()
	s.stop()
}
