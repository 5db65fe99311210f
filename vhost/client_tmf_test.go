package vhost_test

import (
	"errors"
	"testing"
	"time"

	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// held is requests that the store holds.
type held struct {
	*rig
	c    *vhosttest.Client
	reqs []*vhosttest.Request
	of   []*vhosttest.Queue
}

// hold sends n READs, in turn by each queue, to lun, and waits until the store has them.
func hold(r *rig, c *vhosttest.Client, lun [8]byte, d *disk, n int) *held {
	r.Helper()
	h := &held{rig: r, c: c}
	for i := range c.Requests() {
		good(r, c.Request(i), lun, make([]byte, 6), nil, nil)
	}
	at, err := c.Mem.Alloc(512*n, 512)
	r.ok(err)
	before := len(d.hold.Held())
	for i := range n {
		q := c.Request(i % c.Requests())
		x := &vhosttest.Request{LUN: lun, Tag: uint64(1000 + i), In: []vhosttest.Buf{{Addr: at + uint64(512*i), Len: 512}}}
		x.SetCDB(read10(uint32(i), 1)...)
		r.ok(q.Submit(x))
		q.Kick()
		h.reqs, h.of = append(h.reqs, x), append(h.of, q)
	}
	d.hold.Wait(r, before+n)
	return h
}

// back wants request i answered by now, with one of the responses.
func (h *held) back(i int, responses ...byte) {
	h.Helper()
	// The answer to the function has been seen: no waiting.
	if err := h.of[i].Await(h.reqs[i], time.Nanosecond); err != nil {
		h.Errorf("command %d did not come back before the function's answer: %v", i, err)
		return
	}
	for _, w := range responses {
		if h.reqs[i].Response == w {
			return
		}
	}
	h.Errorf("command %d: %s; want response %v", i, outcome(h.reqs[i]), responses)
}

// stays wants request i still out.
func (h *held) stays(i int) {
	h.Helper()
	if err := h.of[i].Await(h.reqs[i], time.Nanosecond); err == nil {
		h.Errorf("command %d came back: %s", i, outcome(h.reqs[i]))
	} else if !errors.Is(err, vhosttest.ErrTimeout) {
		h.Error(err)
	}
}

// TestClientTMF: every function on commands that the store holds. What it ends comes
// back before its answer.
func TestClientTMF(t *testing.T) {
	const aborted, reset = vhosttest.RespAborted, vhosttest.RespReset
	for _, x := range []struct {
		name     string
		subtype  uint32
		tag      uint64
		response byte
		ends     []bool // of commands 1000, 1001, 1002
	}{
		{"ABORT TASK", vhosttest.AbortTask, 1001, 0, []bool{false, true, false}},
		{"ABORT TASK, none", vhosttest.AbortTask, 77, 0, []bool{false, false, false}},
		{"ABORT TASK SET", vhosttest.AbortTaskSet, 0, 0, []bool{true, true, true}},
		{"CLEAR TASK SET", vhosttest.ClearTaskSet, 0, 0, []bool{true, true, true}},
		{"LOGICAL UNIT RESET", vhosttest.LogicalUnitReset, 0, 0, []bool{true, true, true}},
		{"I_T NEXUS RESET", vhosttest.NexusReset, 0, 0, []bool{true, true, true}},
		{"QUERY TASK", vhosttest.QueryTask, 1002, vhosttest.RespFunctionSucceeded, []bool{false, false, false}},
		{"QUERY TASK, none", vhosttest.QueryTask, 77, 0, []bool{false, false, false}},
		{"QUERY TASK SET", vhosttest.QueryTaskSet, 0, vhosttest.RespFunctionSucceeded, []bool{false, false, false}},
		{"CLEAR ACA", vhosttest.ClearACA, 0, vhosttest.RespFunctionRejected, []bool{false, false, false}},
		{"unknown", 8, 0, vhosttest.RespFunctionRejected, []bool{false, false, false}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, rigOptions{hold: true, maps: []mapping{{0, 0, 0}, {0, 1, 1}}})
			c := r.dial(vhosttest.Options{Queues: 2})
			h := hold(r, c, lun0, r.disk(0), 3)
			other := hold(r, c, vhosttest.LUN(0, 1), r.disk(1), 1)
			resp, err := c.TMF(x.subtype, lun0, x.tag)
			r.ok(err)
			if resp != x.response {
				t.Errorf("response %d, want %d", resp, x.response)
			}
			left := 0
			for i, ends := range x.ends {
				if ends {
					h.back(i, aborted, reset)
				} else {
					h.stays(i)
					left++
				}
			}
			if x.subtype == vhosttest.NexusReset {
				other.back(0, aborted, reset)
			} else {
				other.stays(0)
			}
			for i, op := range r.disk(0).hold.Wait(t, left) {
				op.Go()
				_ = i
			}
			for _, op := range r.disk(1).hold.Held() {
				op.Go()
			}
			for i, ends := range x.ends {
				if !ends {
					r.ok(h.of[i].Await(h.reqs[i], 0))
					if h.reqs[i].Response != 0 || h.reqs[i].Status != 0 {
						t.Errorf("command %d: %s", i, outcome(h.reqs[i]))
					}
				}
			}
			// The device goes on, with a unit attention after a reset.
			y := command(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
			if _, asc := y.SenseCode(); (x.subtype == vhosttest.LogicalUnitReset || x.subtype == vhosttest.NexusReset) && asc>>8 != 0x29 {
				t.Errorf("after the reset: %s", outcome(y))
			}
			good(t, c.Request(1), lun0, make([]byte, 6), nil, nil)
		})
	}
}

// TestClientTMFNobody: functions on what is not there.
func TestClientTMFNobody(t *testing.T) {
	r := newRig(t, rigOptions{maps: []mapping{{0, 0, 0}, {3, 0, 1}}})
	c := r.dial(vhosttest.Options{})
	for _, x := range []struct {
		lun  [8]byte
		want []byte
	}{
		{vhosttest.LUN(1, 0), []byte{vhosttest.RespBadTarget}},
		{vhosttest.LUN(0, 9), []byte{vhosttest.RespIncorrectLUN, vhosttest.RespBadTarget}},
		{[8]byte{1, 0, 0xc0, 9}, []byte{vhosttest.RespIncorrectLUN, vhosttest.RespBadTarget}},
		{[8]byte{9, 0}, []byte{vhosttest.RespIncorrectLUN, vhosttest.RespBadTarget}},
		{vhosttest.LUN(3, 0), []byte{0}},
	} {
		got, err := c.TMF(vhosttest.LogicalUnitReset, x.lun, 0)
		r.ok(err)
		ok := false
		for _, w := range x.want {
			ok = ok || got == w
		}
		if !ok {
			t.Errorf("LOGICAL UNIT RESET of % x: response %d, want one of %v", x.lun, got, x.want)
		}
	}
	// Notifications: nobody has any.
	for _, subscribe := range []bool{false, true} {
		actual, resp, err := c.AsyncNotification(subscribe, lun0, 0xfe)
		r.ok(err)
		if actual != 0 || resp != 0 {
			t.Errorf("AN, subscribe %v: events %#x, response %d", subscribe, actual, resp)
		}
	}
	if _, resp, err := c.AsyncNotification(false, vhosttest.LUN(1, 0), 0xfe); err != nil || resp != vhosttest.RespBadTarget {
		t.Errorf("AN query of a target that is not there: response %d, %v", resp, err)
	}
}

// TestClientTMFWaits: the answer comes when the store has let go, not before.
func TestClientTMFWaits(t *testing.T) {
	r := newRig(t, rigOptions{hold: true})
	c := r.dial(vhosttest.Options{})
	h := hold(r, c, lun0, r.disk(0), 1)
	r.disk(0).hold.SetDeaf(true)
	x, err := c.StartTMF(vhosttest.LogicalUnitReset, lun0, 0)
	r.ok(err)
	if _, err := c.AwaitControl(x, 50*time.Millisecond); !errors.Is(err, vhosttest.ErrTimeout) {
		t.Errorf("a reset was answered while the store has a command: %v", err)
	}
	h.stays(0)
	r.disk(0).hold.Held()[0].Go()
	b, err := c.AwaitControl(x, 0)
	r.ok(err)
	if b[0] != 0 {
		t.Errorf("response %d", b[0])
	}
	h.back(0, vhosttest.RespAborted, vhosttest.RespReset)
}

// TestClientTMFDeadline: with a store that never lets go the function fails at the
// deadline, and the command comes back when it can.
func TestClientTMFDeadline(t *testing.T) {
	r := newRig(t, rigOptions{hold: true, deadline: 100 * time.Millisecond})
	c := r.dial(vhosttest.Options{})
	h := hold(r, c, lun0, r.disk(0), 1)
	r.disk(0).hold.SetDeaf(true)
	resp, err := c.TMF(vhosttest.AbortTask, lun0, 1000)
	r.ok(err)
	if resp != vhosttest.RespFailure {
		t.Errorf("response %d, want FAILURE", resp)
	}
	h.stays(0)
	r.disk(0).hold.Held()[0].Go()
	r.ok(h.of[0].Await(h.reqs[0], 0))
	t.Log(outcome(h.reqs[0]))
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
}

// TestClientControlShort: requests of the control queue in any layout, too short, of
// unknown kinds.
func TestClientControlShort(t *testing.T) {
	r := newRig(t, rigOptions{})
	c := r.dial(vhosttest.Options{})
	body := make([]byte, 24)
	body[4] = vhosttest.QueryTaskSet
	lun := lun0
	copy(body[8:], lun[:])
	at, err := c.Mem.Alloc(64, 64)
	r.ok(err)
	copy(c.Mem.At(at, 24), body)
	q := c.Control()
	for i := 1; i < 24; i++ {
		x := &vhosttest.Request{Raw: true, Out: []vhosttest.Buf{{Addr: at, Len: uint32(i)}, {Addr: at + uint64(i), Len: uint32(24 - i)}}, In: []vhosttest.Buf{{Addr: at + 32, Len: 1}}}
		c.Mem.At(at+32, 1)[0] = 0xee
		r.ok(q.Do(x))
		if got := c.Mem.At(at+32, 1)[0]; got != 0 || x.Written != 1 {
			t.Errorf("split at %d: response %d, %d bytes", i, got, x.Written)
		}
	}
	body[0] = 9
	x, err := c.StartControl(body, 5)
	r.ok(err)
	b, err := c.AwaitControl(x, 0)
	r.ok(err)
	t.Logf("type 9: % x", b)
	good(t, c.Request(0), lun0, make([]byte, 6), nil, nil)
}
