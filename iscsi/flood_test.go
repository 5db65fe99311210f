package iscsi

import (
	"bytes"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// from dials from a loopback address of its own.
func (r *rig) from(ip string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 3 * time.Second}
	return d.Dial("tcp4", r.addr())
}

// Half logins without end: some say nothing, some a byte now and then, some text
// without end. Sessions go on, others log in, memory stays bounded.
func TestHalfLoginFlood(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, limits: Limits{HalfOpen: 16, HalfOpenPerPeer: 8, LoginQueue: 32}})
	c := r.dial(r.login())
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var opened atomic.Int64
	for i := range 48 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			text := iscsitest.Login{InitiatorName: rigInitiator, TargetName: rigTarget}
			for {
				select {
				case <-stop:
					return
				default:
				}
				nc, err := r.from("127.0.0.2")
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				opened.Add(1)
				x := iscsitest.New(nc)
				x.Timeout = 100 * time.Millisecond
				switch i % 3 {
				case 0: // silent
				case 1: // a byte now and then
					p := text.Request(x, 1, pdu.OperationalNegotiation, pdu.FullFeaturePhase, nil)
					for _, b := range x.Encode(p, 0)[:20] {
						if _, err := nc.Write([]byte{b}); err != nil {
							break
						}
						time.Sleep(20 * time.Millisecond)
					}
				case 2: // text without end
					for n := range 300 {
						p := text.Request(x, 1, pdu.OperationalNegotiation, pdu.OperationalNegotiation, bytes.Repeat([]byte{'a' + byte(n%20)}, 8000))
						p.SetContinue(true)
						if x.Send(p) != nil {
							break
						}
					}
				}
				select {
				case <-stop:
				case <-time.After(300 * time.Millisecond):
				}
				nc.Close()
			}
		}()
	}
	logins := 0
	worst := time.Duration(0)
	peak := uint64(0)
	begun := time.Now()
	enough := func() bool {
		d := time.Since(begun)
		return d > time.Second && opened.Load() >= 100 && logins >= 10 || d > tempotest.Patience
	}
	for !enough() {
		data := random(8192)
		begin := time.Now()
		wantGood(t, c, start(t, c, write(0, data)))
		k := start(t, c, read(0, 16))
		wantGood(t, c, k)
		worst = max(worst, time.Since(begin))
		if !bytes.Equal(k.In, data) {
			t.Fatal("wrong data")
		}
		x, err := iscsitest.Dial(r.addr())
		if err != nil {
			t.Fatal(err)
		}
		l := r.login()
		l.ISID = [6]byte{0x80, 1}
		if err := x.Login(l); err != nil {
			t.Fatal("a login from elsewhere:", err)
		}
		x.Close()
		logins++
		st := r.srv.Stats()
		if st.HalfOpen > 16 || st.Waiting > 32 {
			t.Fatalf("%d half open, %d waiting", st.HalfOpen, st.Waiting)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
	}
	close(stop)
	wg.Wait()
	if opened.Load() < 100 || logins < 10 {
		t.Errorf("%d connections of the flood, %d logins", opened.Load(), logins)
	}
	// Half logins may take up to LoginTimeout: nobody waited for those.
	if worst > tempotest.Patience/2 {
		t.Error("a command took", worst)
	}
	// The flood's own side is in it too.
	if d := int64(peak) - int64(before.HeapInuse); d > 64<<20 {
		t.Errorf("%d bytes more of heap in use", d)
	}
	tempotest.Wait(t, "the flood is forgotten", func() bool {
		st := r.srv.Stats()
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		return st.HalfOpen == 0 && st.Waiting == 0 && len(r.srv.halfOpen.peers) == 0
	})
	t.Logf("%d half logins, %d logins, slowest command %v, heap +%d KiB", opened.Load(), logins, worst, (int64(peak)-int64(before.HeapInuse))>>10)
}

// Logins beyond the limits wait for their turn: none of a burst is lost.
func TestLoginBurst(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true, limits: Limits{HalfOpen: 4, HalfOpenPerPeer: 2}})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := r.session(i)
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
		}()
	}
	wg.Wait()
	if n := r.srv.Stats().Complaints["too-many-logins"]; n != 0 {
		t.Error(n, "were turned away")
	}
}
