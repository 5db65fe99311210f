package daemon

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// roomy is a store whose file system is said to have some room.
type roomy struct {
	backing.Store
	avail *atomic.Int64
}

func (r roomy) Space() (backing.Space, error) {
	return backing.Space{Available: r.avail.Load(), Total: 100 << 30}, nil
}

// TestSpace: the real file system's numbers come through, and an initiator hears once
// that the room falls below the threshold.
func TestSpace(t *testing.T) {
	w := newWorld(t)
	p := w.file("a.img", 1<<20)
	var avail atomic.Int64
	avail.Store(50 << 30)
	d := w.startWith(w.config("disks: [{name: a, store: \"file:"+p+"\"}]\ntargets:\n- {name: one, luns: [{lun: 0, disk: a}], iscsi: {iqn: "+iqn1+"}}\n"),
		Options{spaceTick: 5 * time.Millisecond, open: func(spec string, o backing.Options) (backing.Store, error) {
			st, err := backing.Open(spec, o)
			if err != nil {
				return nil, err
			}
			s, err := backing.SpaceOf(st)
			if err != nil || s.Total <= 0 || s.Available <= 0 || s.Available > s.Total {
				t.Errorf("the real file system: %+v, %v", s, err)
			}
			return roomy{st, &avail}, nil
		}})
	c := dial(t, d, iqn1, host)
	run := func() int {
		t.Helper()
		k, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)})
		if err != nil {
			t.Fatal(err)
		}
		return sense(k)
	}
	for run() != 0 {
	}
	until := time.Now().Add(30 * time.Second)
	wait := func(want int) {
		t.Helper()
		for {
			got := run()
			if got == want {
				return
			}
			if got != 0 || time.Now().After(until) {
				t.Fatalf("%06x, want %06x", got, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	avail.Store(5 << 30)
	wait(0x063807)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_ = d.Events(ctx, SinceAll, true, func(es []Event) error {
		for _, e := range es {
			if strings.Contains(e.Detail, "low on room: its file system has 5GiB left") {
				cancel()
			}
		}
		return nil
	})
	if ctx.Err() != context.Canceled {
		t.Error("no event")
	}
	// Once for each time.
	for range 50 {
		time.Sleep(time.Millisecond)
		if got := run(); got != 0 {
			t.Fatalf("again: %06x", got)
		}
	}
}
