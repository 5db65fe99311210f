package vhost_test

import (
	"errors"
	"testing"
	"time"

	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

func (r *rig) event(c *vhosttest.Client, want vhosttest.Event) {
	r.Helper()
	got, err := c.Events().Wait(0)
	r.ok(err)
	if got != want {
		r.Errorf("%v, want %v", got, want)
	}
}

func (r *rig) quiet(c *vhosttest.Client) {
	r.Helper()
	if e, err := c.Events().Wait(30 * time.Millisecond); !errors.Is(err, vhosttest.ErrTimeout) {
		r.Errorf("%v, %v; want nothing", e, err)
	}
}

// unmap takes a LUN away and waits for the end of that.
func (r *rig) unmap(tg *scsi.Target, lun uint16) {
	r.Helper()
	ch := make(chan int, 1)
	r.ok(tg.Unmap(lun, patience, func(n int) { ch <- n }))
	select {
	case n := <-ch:
		if n != 0 {
			r.Errorf("%d stuck", n)
		}
	case <-time.After(patience):
		r.Fatal("Unmap has no end")
	}
}

// TestClientEvents: LUNs that come, go and change their size.
func TestClientEvents(t *testing.T) {
	r := newRig(t, rigOptions{maps: []mapping{{0, 0, 0}, {2, 0, 1}}})
	c := r.dial(vhosttest.Options{})
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	good(t, c.Request(0), vhosttest.LUN(2, 0), make([]byte, 6), nil, nil)
	r.ok(c.Events().Post(8))
	r.quiet(c)
	tg := r.exports[0].targets[2]
	lun := vhosttest.LUN(2, 300)
	r.ok(tg.Map(300, r.disk(2).unit, scsi.MapOptions{}))
	r.event(c, vhosttest.Event{Event: vhosttest.EventTransportReset, LUN: lun, Reason: vhosttest.ReasonRescan})
	good(t, c.Request(0), lun, make([]byte, 6), nil, nil)
	r.ok(r.disk(2).unit.Resize(2*diskBytes, false))
	r.event(c, vhosttest.Event{Event: vhosttest.EventParamChange, LUN: lun, Reason: 0x2a | 0x09<<8})
	r.unmap(tg, 300)
	r.event(c, vhosttest.Event{Event: vhosttest.EventTransportReset, LUN: lun, Reason: vhosttest.ReasonRemoved})
	check(t, command(t, c.Request(0), lun, make([]byte, 6), nil, nil), 5, 0x2500)
	// The target's other LUN is told too.
	check(t, command(t, c.Request(0), vhosttest.LUN(2, 0), make([]byte, 6), nil, nil), 6, 0x3f0e)
	r.quiet(c)
}

// TestClientEventsOff: what the guest's driver has not asked for is not sent.
func TestClientEventsOff(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{Features: vhosttest.FeatureVersion1 | vhosttest.FeatureIndirect})
	r.ok(c.Events().Post(8))
	tg := r.exports[0].targets[0]
	r.ok(tg.Map(3, r.disk(2).unit, scsi.MapOptions{}))
	r.ok(r.disk(2).unit.Resize(2*diskBytes, false))
	r.unmap(tg, 3)
	r.quiet(c)
}

// TestClientEventsMissed: events for which the driver had no buffer.
func TestClientEventsMissed(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{})
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
	tg := r.exports[0].targets[0]
	for range 60 {
		r.ok(tg.Map(1, r.disk(1).unit, scsi.MapOptions{}))
		r.unmap(tg, 1)
	}
	missed, n := 0, 0
	next := func() vhosttest.Event {
		r.ok(c.Events().Post(1))
		e, err := c.Events().Wait(patience)
		r.ok(err)
		if n++; n > 121 || e.Event&^vhosttest.EventsMissed != vhosttest.EventTransportReset {
			t.Fatalf("event %d: %v", n, e)
		}
		if e.Event&vhosttest.EventsMissed != 0 {
			missed++
		}
		return e
	}
	// As many wait for buffers as may at all; when they are gone, the last of the 120
	// find room, however late the device gets to them.
	for range 64 {
		next()
	}
	if missed == 0 {
		t.Error("120 events without buffers, and none says that some were missed")
	}
	// Later ones are told as they are.
	r.ok(tg.Map(7, r.disk(1).unit, scsi.MapOptions{}))
	for late := (vhosttest.Event{Event: vhosttest.EventTransportReset, LUN: vhosttest.LUN(0, 7), Reason: vhosttest.ReasonRescan}); ; {
		if e := next(); e == late {
			break
		} else if e.LUN == late.LUN {
			t.Fatalf("%v, want %v", e, late)
		}
	}
}

// TestClientEventsStop: event buffers are the driver's again after a stop.
func TestClientEventsStop(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{})
	base := c.Events().Queue().Base()
	r.ok(c.Events().Post(8))
	r.ok(c.Stop())
	if q := c.Events().Queue(); q.Base() != base {
		t.Errorf("the event queue began at %#x and stopped at %#x: buffers were taken that no event needed", base, q.Base())
	}
	// What happens while the machine stands still is told when it goes on, also
	// where nothing was told before.
	tg := r.exports[0].targets[0]
	r.ok(tg.Map(4, r.disk(3).unit, scsi.MapOptions{}))
	r.ok(c.Start())
	r.event(c, vhosttest.Event{Event: vhosttest.EventTransportReset, LUN: vhosttest.LUN(0, 4), Reason: vhosttest.ReasonRescan})
	r.ok(tg.Map(3, r.disk(2).unit, scsi.MapOptions{}))
	r.event(c, vhosttest.Event{Event: vhosttest.EventTransportReset, LUN: vhosttest.LUN(0, 3), Reason: vhosttest.ReasonRescan})
	// A driver that begins anew looks by itself.
	r.ok(c.Stop())
	r.unmap(tg, 3)
	r.ok(c.Reset())
	r.ok(c.Start())
	r.ok(c.Events().Post(8))
	r.quiet(c)
}
