package qemutest

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/tempotest"
)

func TestConversation(t *testing.T) {
	m := boot(t, true)
	l := m.serve()
	h := l.hello
	if h.Major != 1 || h.Minor != 0 || h.Unit != unit || h.Liobn != unit || h.MaxData != wire.MaxData || h.Window != 0x10000000 ||
		h.Name != "lpar1" || h.UUID != [16]byte{0: 0x6f, 1: 0x1c, 15: 0xcd} || h.State&wire.Served != 0 {
		t.Errorf("%+v", h)
	}
	var events []wire.Event
	if e := l.entry(&events); e != 0xc001<<48 {
		t.Fatalf("%#x instead of INIT", e)
	}
	if h.State&wire.Registered == 0 {
		if last := events[len(events)-1]; last.Kind != wire.EventRegistered || last.QueueSize != ringLen || last.Queue != 0 || last.Epoch+1 != l.epoch {
			t.Errorf("%+v; INIT in epoch %d", events, l.epoch)
		}
	}
	l.echo(0xc002 << 48)

	// Memory: within pages and across them.
	for _, n := range []int{1, 7, 4096, 12288, 40000} {
		p := bytes.Repeat([]byte{byte(n), 1, 2, 3}, n)[:n]
		if s := l.store(0x3003, p); s != wire.OK {
			t.Fatalf("WRITE of %d: %v", n, s)
		}
		if s, got := l.read(0x3003, uint32(n)); s != wire.OK || !bytes.Equal(got, p) {
			t.Fatalf("READ of %d: %v, %d bytes", n, s, len(got))
		}
	}
	for _, x := range []struct {
		what string
		got  wire.Status
		want wire.Status
	}{
		{"READ beyond what is mapped", first(l.read(unmapped*4096, 16)), wire.Address},
		{"READ that ends there", first(l.read(unmapped*4096-8, 16)), wire.Address},
		{"READ beyond the window", first(l.read(1<<40, 16)), wire.Address},
		{"READ that wraps", first(l.read(1<<64-8, 16)), wire.Address},
		{"WRITE where nothing is mapped", l.store(unmapped*4096, make([]byte, 16)), wire.Address},
		{"WRITE of what is to be read only", l.store(readOnly*4096, make([]byte, 16)), wire.Address},
		{"READ of what is to be read only", first(l.read(readOnly*4096, 16)), wire.OK},
		{"READ of nothing", first(l.read(0x3000, 0)), wire.Parameter},
		{"READ of too much", first(l.read(0x3000, wire.MaxData+1)), wire.Parameter},
		{"an entry that is none", l.send(0x0101<<48, 0), wire.Parameter},
	} {
		if x.got != x.want {
			t.Errorf("%s: %v, want %v", x.what, x.got, x.want)
		}
	}
	l.echo(0x8001 << 48)

	// A chain: what is behind a failure does not happen; the next chain does.
	b := append(wire.AppendWrite(nil, wire.Quiet|wire.Link, l.epoch, 100, 0x3000, 1), 1)
	b = append(wire.AppendWrite(b, wire.Quiet|wire.Link, l.epoch, 101, unmapped*4096, 1), 1)
	b = wire.AppendRead(b, wire.Link, l.epoch, 102, 0x3000, 1)
	b = wire.AppendSend(b, wire.Quiet, l.epoch, 103, entryOf(0x8002<<48, 0))
	b = append(wire.AppendWrite(b, wire.Quiet|wire.Link, l.epoch, 104, 0x3000, 1), 1)
	b = wire.AppendSend(b, wire.Quiet|wire.Link, l.epoch, 105, entryOf(0x8003<<48, 0))
	b = wire.AppendRead(b, 0, l.epoch, 106, 0x3000, 1)
	l.write(b)
	for id, want := range map[uint64]wire.Status{101: wire.Address} {
		if s, _ := l.answer(id); s != want {
			t.Errorf("%d: %v, want %v", id, s, want)
		}
	}
	for _, id := range []uint64{102, 103} {
		if s, _ := l.answer(id); s != wire.Skipped {
			t.Errorf("%d: %v, want skipped", id, s)
		}
	}
	sawEcho := false
	for {
		f := l.next()
		if f.Type == wire.TypeCRQ {
			if e, _ := wire.ParseCRQ(f); be(e[:]) != 0x8003<<48 {
				t.Errorf("%x was sent", e)
			}
			sawEcho = true
			continue
		}
		if f.ID != 106 || wire.Status(f.Code) != wire.OK || !bytes.Equal(f.Payload, []byte{1}) {
			t.Errorf("%+v", f)
		}
		break
	}
	if !sawEcho {
		if e := l.entry(); e != 0x8003<<48 {
			t.Errorf("%#x", e)
		}
	}
	// An older epoch.
	l.epoch--
	for what, s := range map[string]wire.Status{"READ": first(l.read(0x3000, 1)), "WRITE": l.store(0x3000, []byte{9}), "SEND": l.send(0x8004<<48, 0)} {
		if s != wire.Stale {
			t.Errorf("%s of an older epoch: %v", what, s)
		}
	}
	l.epoch++
	if s, p := l.read(0x3000, 1); s != wire.OK || p[0] != 1 {
		t.Errorf("%v, % x", s, p)
	}
}

func first(s wire.Status, _ []byte) wire.Status { return s }

// TestClientAgain: the client registers anew, and frees its queue.
func TestClientAgain(t *testing.T) {
	m := boot(t, true)
	l := m.up()
	for range 3 {
		was := l.epoch
		l.write(wire.AppendSend(nil, wire.Quiet, l.epoch, 0, entryOf(doRegister<<48, 0)))
		var es []wire.Event
		if e := l.entry(&es); e != 0xc001<<48 {
			t.Fatalf("%#x instead of INIT", e)
		}
		if len(es) != 2 || es[0].Kind != wire.EventFreed || es[0].QueueSize != 0 || es[0].Epoch != was+1 ||
			es[1].Kind != wire.EventRegistered || es[1].QueueSize != ringLen || es[1].Epoch != was+2 || l.epoch != was+3 {
			t.Fatalf("%+v, INIT in %d, before: %d", es, l.epoch, was)
		}
		l.echo(0xc002 << 48)
	}
	l.write(wire.AppendSend(nil, wire.Quiet, l.epoch, 0, entryOf(doFree<<48, 0)))
	f := l.next()
	if e, err := wire.ParseEvent(f); err != nil || e.Kind != wire.EventFreed {
		t.Fatalf("%+v, %v", e, err)
	}
	l.epoch = f.Epoch
	for what, s := range map[string]wire.Status{"READ": first(l.read(0x3000, 1)), "WRITE": l.store(0x3000, []byte{9}), "SEND": l.send(0x8004<<48, 0)} {
		if s != wire.Closed {
			t.Errorf("%s without a queue: %v", what, s)
		}
	}
}

// TestFull: a client that looks at nothing has room for as many entries as its queue
// has, and none is lost.
func TestFull(t *testing.T) {
	m := boot(t, true)
	l := m.up()
	if s := l.send(doHold<<48, 0); s != wire.OK {
		t.Fatal(s)
	}
	n := uint64(0)
	for ; n < 1000; n++ {
		if s := l.send(0x8001<<48|n, 0); s == wire.Full {
			break
		} else if s != wire.OK {
			t.Fatal(s)
		}
	}
	// The client may or may not have freed the entry that told it to hold.
	if n != ringLen/16 && n != ringLen/16-1 {
		t.Errorf("%d entries until the queue was full", n)
	}
	if s := l.store(holdOffset, []byte{1, 0, 0, 0, 0, 0, 0, 0}); s != wire.OK {
		t.Fatal(s)
	}
	for i := range n {
		if e := l.entry(); e != 0x8001<<48|i {
			t.Fatalf("entry %d: %#x", i, e)
		}
	}
	l.echo(0x8001 << 48)
}

// TestServerAgain: servers come and go; the client goes on, and HELLO tells how it is.
func TestServerAgain(t *testing.T) {
	m := boot(t, false)
	m.lives2()
	m.listen()
	l := m.accept()
	if l.hello.State != wire.Registered || l.hello.QueueSize != ringLen {
		t.Errorf("a client that no server has seen: %+v", l.hello)
	}
	l.write(wire.AppendWelcome(nil))
	if e := l.entry(); e != 0xc001<<48 { // it has tried all the time
		t.Fatalf("%#x", e)
	}
	for range 3 {
		l.nc.Close()
		l = m.serve()
		if l.hello.State != wire.Registered|wire.Served {
			t.Errorf("%+v", l.hello)
		}
		l.echo(0xff06 << 48)
	}
	// A file that is no socket, then nothing: it goes on trying.
	l.nc.Close()
	m.ln.Close()
	m.lives()
	m.listen()
	m.serve().echo(0xff06 << 48)
}

// lives2 is lives for a client that cannot send yet.
func (m *vm) lives2() {
	m.Helper()
	time.Sleep(300 * time.Millisecond)
	m.qmp(`{"execute": "query-status"}`)
}

// TestSilentServer: a server that takes the connection and says nothing, and one that
// stops in the midst of everything, hold nobody up.
func TestSilentServer(t *testing.T) {
	m := boot(t, true)
	l := m.accept()
	time.Sleep(300 * time.Millisecond)
	m.qmp(`{"execute": "query-status"}`)
	l.write(wire.AppendWelcome(nil))
	if e := l.entry(); e != 0xc001<<48 {
		t.Fatalf("%#x", e)
	}
	// Requests whose answers nobody takes: QEMU stops reading them, and lives.
	const n = 64
	go func() {
		for i := range uint64(n) {
			b := wire.AppendRead(nil, 0, l.epoch, 1000+i, 0x3000, 14*4096)
			for range 15 {
				b = wire.AppendRead(b, 0, l.epoch, 1000+i, 0x3000, 14*4096)
			}
			_ = l.nc.SetWriteDeadline(time.Now().Add(tempotest.Patience))
			if _, err := l.nc.Write(b); err != nil {
				return
			}
		}
	}()
	time.Sleep(500 * time.Millisecond)
	for range 20 {
		m.lives()
	}
	for i := range uint64(n) {
		for range 16 {
			if s, p := l.answer(1000 + i); s != wire.OK || len(p) != 14*4096 {
				t.Fatalf("%d: %v, %d bytes", i, s, len(p))
			}
		}
	}
	l.echo(0x8001 << 48)
	// An echo loop that nobody reads: the client's entries wait, then the hypercall
	// says closed, and nothing stands still but the client.
	for i := range 255 {
		l.write(wire.AppendSend(nil, wire.Quiet, l.epoch, 0, entryOf(0x8001<<48|uint64(i), 0)))
	}
	m.qmp(`{"execute": "query-status"}`)
	for i := range 255 {
		if e := l.entry(); e != 0x8001<<48|uint64(i) {
			t.Fatalf("%d: %#x", i, e)
		}
	}
}

// TestFlood: a client that sends without end, to a server that takes nothing for a
// while, is held back; nothing is lost, and QEMU keeps within bounds.
func TestFlood(t *testing.T) {
	m := boot(t, true)
	l := m.up()
	before := m.resident()
	l.write(wire.AppendSend(nil, wire.Quiet, l.epoch, 0, entryOf(doFlood<<48, 0)))
	time.Sleep(500 * time.Millisecond)
	for range 10 {
		m.qmp(`{"execute": "query-status"}`)
	}
	if d := m.resident() - before; d > 64<<20 {
		t.Errorf("QEMU took %d bytes more", d)
	}
	for i := range uint64(200_000) {
		f := l.next()
		if e, err := wire.ParseCRQ(f); err != nil || be(e[:]) != doFlood<<48 || be(e[8:]) != i+1 {
			t.Fatalf("entry %d: %x, %v", i, e, err)
		}
	}
}

// TestChurn: news without end that nobody takes ends the connection.
func TestChurn(t *testing.T) {
	m := boot(t, true)
	l := m.up()
	before := m.resident()
	l.write(wire.AppendSend(nil, wire.Quiet, l.epoch, 0, entryOf(doChurn<<48, 0)))
	_ = m.ln.SetDeadline(time.Now().Add(tempotest.Patience))
	nc, err := m.ln.Accept() // the next one: the device has left this
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	m.qmp(`{"execute": "query-status"}`)
	if d := m.resident() - before; d > 64<<20 {
		t.Errorf("QEMU took %d bytes more", d)
	}
	l.closed()
}

// TestBadServer: whoever breaks a rule is left, with a word why; another may come.
func TestBadServer(t *testing.T) {
	m := boot(t, true)
	for _, x := range []struct {
		name    string
		welcome bool
		b       []byte
	}{
		{"refusal", false, wire.AppendRefusal(nil)},
		{"no welcome", false, wire.AppendRead(nil, 0, 0, 1, 0, 1)},
		{"another version", false, func() []byte { b := wire.AppendWelcome(nil); b[wire.HeaderLen+1] = 2; return b }()},
		{"unknown frame", true, func() []byte { b := wire.AppendRead(nil, 0, 0, 1, 0, 1); b[5] = 99; return b }()},
		{"unknown flag", true, wire.AppendRead(nil, 4, 0, 1, 0, 1)},
		{"too long", true, append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 20)...)},
		{"a second welcome", true, wire.AppendWelcome(nil)},
	} {
		l := m.accept()
		if x.welcome {
			l.write(wire.AppendWelcome(nil))
		}
		l.write(x.b)
		l.closed()
		m.qmp(`{"execute": "query-status"}`)
	}
	m.wantSaid("vtgt-vscsi: " + m.path + ": the server refuses us")
	l := m.serve()
	l.echo(0x8001 << 48)
	if n := strings.Count(m.said(), "\n"); n > 8 {
		t.Errorf("%d lines:\n%s", n, m.said())
	}
}

// TestReset: the machine is reset under way.
func TestReset(t *testing.T) {
	m := boot(t, true)
	l := m.up()
	was := l.epoch
	m.qmp(`{"execute": "system_reset"}`)
	var es []wire.Event
	for {
		if e := l.entry(&es); e == 0xc001<<48 {
			break
		}
	}
	var kinds []wire.EventKind
	for _, e := range es {
		if e.Kind != wire.EventPaused && e.Kind != wire.EventRunning {
			kinds = append(kinds, e.Kind)
		}
	}
	if len(kinds) < 2 || kinds[len(kinds)-2] != wire.EventReset || kinds[len(kinds)-1] != wire.EventRegistered || l.epoch <= was+1 {
		t.Errorf("%v, epoch %d, was %d", kinds, l.epoch, was)
	}
	l.echo(0xc002 << 48)
}

// TestPaused: a VM that does not run keeps its memory and its queue as they are.
func TestPaused(t *testing.T) {
	m := boot(t, true)
	l := m.up()
	if s := l.store(0x3000, []byte{1}); s != wire.OK {
		t.Fatal(s)
	}
	m.qmp(`{"execute": "stop"}`)
	if e, err := wire.ParseEvent(l.next()); err != nil || e.Kind != wire.EventPaused {
		t.Fatalf("%+v, %v", e, err)
	}
	l.write(append(wire.AppendWrite(nil, 0, l.epoch, 7, 0x3000, 1), 2))
	time.Sleep(100 * time.Millisecond)
	out := m.qmp(`{"execute": "human-monitor-command", "arguments": {"command-line": "xp /1bx 0x503000"}}`)
	if !bytes.Contains(out, []byte("0x01")) {
		t.Errorf("the memory of a paused VM: %s", out)
	}
	m.qmp(`{"execute": "cont"}`)
	if e, err := wire.ParseEvent(l.next()); err != nil || e.Kind != wire.EventRunning {
		t.Fatalf("%+v, %v", e, err)
	}
	if s, _ := l.answer(7); s != wire.OK {
		t.Error(s)
	}
	if s, p := l.read(0x3000, 1); s != wire.OK || p[0] != 2 {
		t.Errorf("%v % x", s, p)
	}
	// A server that comes meanwhile.
	m.qmp(`{"execute": "stop"}`)
	l.nc.Close()
	l = m.serve()
	if l.hello.State != wire.Registered|wire.Served|wire.Paused {
		t.Errorf("%+v", l.hello)
	}
	m.qmp(`{"execute": "cont"}`)
	l.echo(0xff06 << 48)
}

// TestElsewhere: other programs do not notice the library.
func TestElsewhere(t *testing.T) {
	so := library(t)
	for _, args := range [][]string{{"sh", "-c", "echo fine"}, {"qemu-img", "--version"}, {"qemu-system-x86_64", "--version"}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			continue
		}
		c := exec.Command(args[0], args[1:]...)
		c.Env = append(c.Environ(), "LD_PRELOAD="+so)
		if out, err := c.CombinedOutput(); err != nil || strings.Contains(string(out), "vtgt") {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
}
