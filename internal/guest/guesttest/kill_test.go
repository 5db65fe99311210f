package guesttest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/guest/ledger"
)

// TestKilled kills vtgt with SIGKILL in the midst of writing and applying. The host
// keeps its page cache, so every write that was answered with GOOD must be there,
// stable or not; the next vtgt gets the locks that the dead one had, and has the
// identities that it gave away.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("crashes take a while: not with -short")
	}
	rng, seed := random(t)
	n := rounds(t, "VTGT_KILL_ROUNDS", 3)
	h := newHost(t)
	books := crashBooks(seed)
	store := func(_ int, p promise) string { return "file:" + filepath.Join(h.dir, p.name+".img") }
	// And what no power loss would spare: writes that nobody syncs.
	plain := ledger.New(ledger.Config{Name: "plain", LUN: 0, Mode: ledger.Through,
		First: 19 << 20 / ledger.SectorSize, Slots: 250, Stride: 7, Count: 2, Batch: 8, Run: seed + 100}, seed)
	books = append(books, plain)
	extra := 0
	h.write(h.config(crashConfig(store, extra)))
	h.start()
	checkPolicy(t, h.portal())
	known := map[string]api.Disk{}
	var hosts fence
	for round := range n {
		begin := time.Now()
		before := acks(books)
		w := startWriters(t, h.portal(), books)
		busy(t, w, books, before, 20)
		// Where it dies while it applies, the file has the new text already: the
		// next one serves it either way.
		extra++
		h.write(h.config(crashConfig(store, extra)))
		applied := make(chan error, 1)
		go func() {
			_, _, err := h.try("apply", "-f", h.conf)
			applied <- err
		}()
		inTime := rng.IntN(2) == 0
		if inTime {
			if err := <-applied; err != nil {
				t.Fatal(err)
			}
			for name, d := range h.disks() {
				known[name] = d
			}
		}
		hosts.ok(t, hosts.act(h.portal()))
		fenced, err := hosts.during(h.portal())
		hosts.ok(t, err)
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		h.kill()
		w.wait(t)
		<-fenced
		if !inTime {
			<-applied
		}
		h.start()
		for _, err := range checkBooks(t, h.portal(), books) {
			if err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if err := hosts.check(h.portal()); err != nil {
			t.Errorf("round %d: fence: %v", round, err)
		}
		now := h.disks()
		sameIdentities(t, known, now)
		if want := fmt.Sprintf("extra%d", extra-1); now[want].Serial == "" {
			t.Errorf("round %d: no disk %s", round, want)
		}
		t.Logf("round %d: %d writes acknowledged, %.1f s", round, sum(acks(books))-sum(before), time.Since(begin).Seconds())
		if t.Failed() {
			return
		}
	}
	h.stop()
	if n := len(leftovers(t, filepath.Join(h.dir, "state"))); n > 0 {
		t.Logf("%d temporary files are left in the state folder", n)
	}
	// The test can fail: a promise broken is a promise found broken.
	f, err := os.OpenFile(filepath.Join(h.dir, "wt.img"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 20<<20), 0); err != nil {
		t.Fatal(err)
	}
	h.start()
	for i, err := range checkBooks(t, h.portal(), books) {
		if lost := books[i].Name() == "wt"; lost != (err != nil) {
			t.Errorf("after the loss of writethrough's data: %s: %v", books[i].Name(), err)
		}
	}
}

// sameIdentities wants every known disk that is still configured to be who it was.
func sameIdentities(t *testing.T, known, now map[string]api.Disk) {
	t.Helper()
	for name, k := range known {
		d, ok := now[name]
		switch {
		case !ok:
			t.Errorf("disk %s is gone", name)
		case d.Serial != k.Serial || d.NAA != k.NAA:
			t.Errorf("disk %s was %s %s, is %s %s", name, k.Serial, k.NAA, d.Serial, d.NAA)
		}
	}
}

func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func sum(v []int) (n int) {
	for _, x := range v {
		n += x
	}
	return n
}
