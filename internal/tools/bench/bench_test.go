package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/sys"
)

func TestParseBusy(t *testing.T) {
	got, err := parseBusy("cpu  100 20 30 99999 888 1 2 3 0 0\ncpu0 1 2 3\n")
	if err != nil || got != 1560*time.Millisecond {
		t.Errorf("got %v, %v; want 1.56s: idle and iowait are not busy", got, err)
	}
	if _, err := parseBusy("intr 1 2"); err == nil {
		t.Error("no error for a foreign line")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func rate(n int) sample { return sample{Requests: n, Seconds: 1, CPUMicros: 1e6 / float64(n)} }

// TestRatios: neighbours are compared, so a machine that slows down for both does not
// show.
func TestRatios(t *testing.T) {
	a := []sample{rate(200), rate(20), rate(150)}
	b := []sample{rate(100), rate(10), rate(50)}
	if got := ratios(a, b, iops); got != (spread{2, 2, 3}) {
		t.Errorf("got %v, want 2 (2 to 3)", got)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		median  float64
		atLeast bool
		want    string
	}{{0.4, false, met}, {0.41, false, missed}, {0.4, true, met}, {0.39, true, missed}, {0, false, missed}} {
		if g := judge("x", spread{Median: c.median}, 0.4, c.atLeast, false); g.Outcome != c.want {
			t.Errorf("%v: %s, want %s", c, g.Outcome, c.want)
		}
	}
}

// TestGoals: what was not measured, or needs processors that are not there, is skipped
// and never met; a client that was the limit is named.
func TestGoals(t *testing.T) {
	b := &bench{o: options{cores: 2}, res: &result{Rows: []row{{Table: "x", Load: "l", Client: ours, Order: []string{"vtgt", "tgtd"},
		Samples: map[string][]sample{"vtgt": {{Requests: 10, Seconds: 1, Client: 0.99}}, "tgtd": {rate(1)}}}}}}
	x := test{table: "x", load: "l", client: ours, against: "tgtd", get: iops, limit: 2, atLeast: true, peerLimited: true}
	if g := b.check(x); g.Outcome != met || g.Why != "client-bound" {
		t.Errorf("%+v", g)
	}
	x.cores = 4
	if g := b.check(x); g.Outcome != skipped {
		t.Errorf("%+v", g)
	}
	for _, g := range b.goals() {
		if g.Outcome != skipped {
			t.Errorf("nothing was measured, and yet: %+v", g)
		}
	}
}

func TestMarkdown(t *testing.T) {
	r := &result{Machine: "m", Setup: "i", Targets: map[string]string{"vtgt": "v1"},
		Rows: []row{
			{Table: "iSCSI, file", Load: cell{true, 4096, 32}.String(), Client: ours, Bytes: 4096, Order: []string{"vtgt", "tgtd"}, Samples: map[string][]sample{
				"vtgt": {{Requests: 1000, Seconds: 1, CPUMicros: 5, Client: 0.99}, {Requests: 1100, Seconds: 1, CPUMicros: 5, Client: 0.99}},
				"tgtd": {{Requests: 500, Seconds: 1, CPUMicros: 10}, {Requests: 900, Seconds: 1, CPUMicros: 10}},
			}},
			{Table: "iSCSI, file", Load: "z", Client: ours, Skipped: "fewer than 4 cores"},
		},
		Goals: []goal{{Name: "g", Limit: "<= 1x", Value: 0.5, Outcome: met, Noisy: true}, {Name: "h", Outcome: skipped, Why: "no"}}}
	var out strings.Builder
	r.markdown(&out)
	for _, want := range []string{"| 4k d32 write | own client | vtgt | 1.1k (1.0k–1.1k) | 4 |", "| 0.50 (0.50–0.50) |", "client-bound vtgt",
		"noisy tgtd (spread 57%)", "SKIPPED: fewer than 4 cores", "SKIPPED: no", "met, noisy", "Too noisy to conclude"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	cols := 0
	for _, l := range strings.Split(out.String(), "\n") {
		n := strings.Count(l, "|")
		switch {
		case n == 0:
			cols = 0
		case cols == 0:
			cols = n
		case n != cols:
			t.Errorf("%d columns, the table has %d: %s", n, cols, l)
		}
	}
}

// TestExchange: our initiator against the bare exchange, over several rounds of one
// connection.
func TestExchange(t *testing.T) {
	mem, err := exchangeMemory(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.MapRelease(mem)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		rc, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			ended <- err
			return
		}
		fd, err := sys.DupSocket(rc)
		nc.Close()
		if err == nil {
			err = exchangeTCP(fd, mem)
			sys.Close(fd)
		}
		ended <- err
	}()
	i, err := dialExchange(l.Addr().String(), int64(len(mem)), cell{false, exchangeBytes, 200}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n, _, _, _, err := crowd{i}.run(time.Millisecond)
		if err != nil || n < 200 {
			t.Fatalf("%d requests, %v", n, err)
		}
	}
	i.close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestBareRing: the bare ring answers every request once.
func TestBareRing(t *testing.T) {
	b, err := newBareRing()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	done := make(chan struct{})
	go func() {
		b.device()
		close(done)
	}()
	for range 3 {
		if n, _, err := b.drive(32, time.Millisecond); n < 32 || err != nil {
			t.Errorf("%d requests, %v", n, err)
		}
	}
	b.stop.Store(true)
	<-done
}
