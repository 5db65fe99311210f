package vhost

import (
	"bytes"
	"testing"

	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/vhost/proto"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

var styles = map[string]vhosttest.Style{"7.2": vhosttest.QEMU72, "10.0": vhosttest.QEMU10}

// TestSession plays the life of a guest: several starts and stops (SeaBIOS, Linux, a
// reset), data that lasts over them, and over the connection.
func TestSession(t *testing.T) {
	for name, style := range styles {
		t.Run(name, func(t *testing.T) {
			f := newHouse(t).export("vm1")
			want := bytes.Repeat([]byte{0x5a, 1, 2, 3}, 1024)
			for life := range 2 {
				c := f.dial(vhosttest.Options{Style: style, Queues: 4})
				for cycle := range 3 {
					if err := c.Start(); err != nil {
						t.Fatal(err)
					}
					if life == 0 {
						f.ready(c)
					}
					if life+cycle == 0 {
						if r, err := c.Request(3).Exec(vhosttest.LUN(0, 0), rw(true, 8, 8), want, nil); err != nil || r.Status != 0 {
							t.Fatalf("write: %+v, %v", r, err)
						}
					}
					got := make([]byte, len(want))
					if r, err := c.Request(cycle).Exec(vhosttest.LUN(0, 0), rw(false, 8, 8), nil, got); err != nil || r.Status != 0 || !bytes.Equal(got, want) {
						t.Fatalf("life %d, cycle %d: %+v, %v", life, cycle, r, err)
					}
					st := f.Status()
					if st.Started != 6 || st.Enabled != 6 || st.Regions != 2 || st.Connected.IsZero() || st.Failed != nil || len(st.Features) == 0 {
						t.Errorf("while it runs: %+v", st)
					}
					if err := c.Stop(); err != nil {
						t.Fatal(err)
					}
					if cycle == 1 {
						if err := c.Reset(); err != nil {
							t.Fatal(err)
						}
						if err := c.Start(); err != nil {
							t.Fatal(err)
						}
						f.ready(c)
						if err := c.Stop(); err != nil {
							t.Fatal(err)
						}
					}
				}
				c.Disconnect()
				f.settles("the end of the connection", func(st Status) bool { return st.Connected.IsZero() && st.Queues == 0 })
			}
			st := f.Status()
			if n := st.Counters; n.Connections != 2 || n.Violations != 0 || n.UnknownMessages != 0 || n.Resets != 2 || n.Requests == 0 || n.Starts == 0 {
				t.Errorf("%+v", n)
			}
			if st.Refused != "" || st.Failed != nil {
				t.Errorf("%+v", st)
			}
			for i, want := range []string{"up pid", "pid", "up pid", "pid"} {
				if got := <-f.ups; len(got) < len(want) || got[:len(want)] != want {
					t.Errorf("OnConnect %d: %q", i, got)
				}
			}
		})
	}
}

// TestManyRings has as many rings as the protocol can give eventfds to.
func TestManyRings(t *testing.T) {
	hosttest.Descriptors(t, 2048)
	f := newHouse(t).export("vm1")
	const n = proto.MaxVringFD - requestQueue
	c := f.boot(vhosttest.Options{Style: vhosttest.QEMU10, Queues: n, Size: 8, Table: 4, Scratch: 4096})
	for i := 0; i < n; i += 23 {
		if r, err := c.Request(i).Exec(vhosttest.LUN(0, 0), make([]byte, 6), nil, nil); err != nil || r.Response != 0 {
			t.Fatalf("queue %d: %+v, %v", i, r, err)
		}
	}
	if st := f.Status(); st.Started != proto.MaxVringFD || st.Enabled != proto.MaxVringFD {
		t.Errorf("%d rings started, %d enabled", st.Started, st.Enabled)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if st := f.Status(); st.Started != 0 || st.Failed != nil {
		t.Errorf("%d rings run after Stop: %v", st.Started, st.Failed)
	}
}
