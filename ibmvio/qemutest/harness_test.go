package qemutest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// vm is a pseries machine that runs the client, and the socket that its adapter looks
// for.
type vm struct {
	testing.TB
	path string // of the socket
	ln   *net.UnixListener
	mon  net.Conn
	rd   *bufio.Reader
	log  string
	pid  int
}

// library gives the device, made by `make qemu-vio`.
func library(t testing.TB) string {
	t.Helper()
	if os.Getenv("VTGT_VIO") == "" {
		t.Skip("drives qemu-system-ppc64: VTGT_VIO=1, or make test-vio")
	}
	all, _ := filepath.Glob("../../.cache/qemu-vio/*/vtgt-vscsi.so")
	if len(all) == 0 {
		t.Fatal("there is no vtgt-vscsi.so below .cache/qemu-vio: run make qemu-vio")
	}
	p, err := filepath.Abs(all[len(all)-1])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// boot starts a machine with the client; with listen false nobody is at the socket yet.
func boot(t testing.TB, listen bool) *vm {
	t.Helper()
	client := filepath.Join(t.TempDir(), "client")
	if err := os.WriteFile(client, program(), 0o600); err != nil {
		t.Fatal(err)
	}
	return machine(t, listen, "-name", "lpar1", "-uuid", "6f1c0000-0000-0000-0000-0000000000cd",
		"-M", "pseries,x-vof=on,"+caps, "-m", "256", "-kernel", client)
}

// caps are what TCG cannot give to a pseries machine.
const caps = "cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"

// machine starts QEMU with an adapter.
func machine(t testing.TB, listen bool, args ...string) *vm {
	t.Helper()
	so := library(t)
	dir, err := os.MkdirTemp("", "vtgt-vio-") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &vm{TB: t, path: filepath.Join(dir, "s"), log: filepath.Join(dir, "log")}
	if listen {
		m.listen()
	}
	log, err := os.Create(m.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("qemu-system-ppc64", append([]string{"-cpu", "power9", "-accel", "tcg", "-nodefaults", "-display", "none", "-vga", "none",
		"-qmp", "unix:" + filepath.Join(dir, "qmp") + ",server=on,wait=off",
		"-device", fmt.Sprintf("vtgt-vscsi,path=%s,reg=%#x", m.path, unit)}, args...)...)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+so)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("QEMU: %s", m.said())
		}
	})
	if !tempotest.Settles(func() bool { m.mon, err = net.Dial("unix", filepath.Join(dir, "qmp")); return err == nil }) {
		t.Fatalf("QEMU does not start: %v\n%s", err, m.said())
	}
	t.Cleanup(func() { m.mon.Close() })
	m.rd = bufio.NewReader(m.mon)
	m.qmp(`{"execute": "qmp_capabilities"}`)
	return m
}

func (m *vm) listen() {
	m.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.path, Net: "unix"})
	if err != nil {
		m.Fatal(err)
	}
	m.ln = ln
	m.Cleanup(func() { ln.Close() })
}

func (m *vm) said() string {
	b, _ := os.ReadFile(m.log)
	return string(b)
}

// qmp makes a request of QEMU's main loop: that it is answered shows that nothing
// blocks that.
func (m *vm) qmp(q string) json.RawMessage {
	m.Helper()
	_ = m.mon.SetDeadline(time.Now().Add(tempotest.Patience))
	if _, err := m.mon.Write([]byte(q + "\n")); err != nil {
		m.Fatal(err)
	}
	for {
		line, err := m.rd.ReadBytes('\n')
		if err != nil {
			m.Fatalf("%s: %v", q, err)
		}
		var r struct{ Return, Error json.RawMessage }
		if err := json.Unmarshal(line, &r); err != nil {
			m.Fatal(err)
		}
		if r.Error != nil {
			m.Fatalf("%s: %s", q, r.Error)
		}
		if r.Return != nil {
			return r.Return
		}
	}
}

// resident is QEMU's memory, bytes.
func (m *vm) resident() int64 {
	m.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.pid))
	if err != nil {
		m.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		m.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

var hexWord = regexp.MustCompile(`: 0x([0-9a-f]+)`)

// beat is how often the client has looked at its queue: it grows while the VM lives.
func (m *vm) beat() string {
	m.Helper()
	out := m.qmp(fmt.Sprintf(`{"execute": "human-monitor-command", "arguments": {"command-line": "xp /1gx %#x"}}`, ring+beatOffset))
	f := hexWord.FindSubmatch(out)
	if f == nil {
		m.Fatalf("xp: %s", out)
	}
	return string(f[1])
}

// lives checks that the client runs on and the main loop answers.
func (m *vm) lives() {
	m.Helper()
	was := m.beat()
	tempotest.Wait(m, "the client runs", func() bool { return m.beat() != was })
}

// link is a connection as the server has it.
type link struct {
	*vm
	nc    net.Conn
	buf   []byte
	hello wire.Hello
	epoch uint32
	id    uint64
}

// accept takes the device's connection and its greeting.
func (m *vm) accept() *link {
	m.Helper()
	_ = m.ln.SetDeadline(time.Now().Add(tempotest.Patience))
	nc, err := m.ln.AcceptUnix()
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { nc.Close() })
	l := &link{vm: m, nc: nc}
	f := l.next()
	if l.hello, err = wire.ParseHello(f); err != nil {
		m.Fatal(err)
	}
	l.epoch = f.Epoch
	return l
}

// serve accepts and welcomes.
func (m *vm) serve() *link {
	m.Helper()
	l := m.accept()
	l.write(wire.AppendWelcome(nil))
	return l
}

func (l *link) write(b []byte) {
	l.Helper()
	_ = l.nc.SetWriteDeadline(time.Now().Add(tempotest.Patience))
	if _, err := l.nc.Write(b); err != nil {
		l.Fatal(err)
	}
}

// frame reads one; nil: the device has closed.
func (l *link) frame() *wire.Frame {
	l.Helper()
	_ = l.nc.SetReadDeadline(time.Now().Add(tempotest.Patience))
	for {
		f, n, err := wire.Split(l.buf, wire.Device)
		if err != nil {
			l.Fatal(err)
		}
		if n > 0 {
			l.buf = l.buf[n:]
			return &f
		}
		b := make([]byte, 64<<10)
		k, err := l.nc.Read(b)
		l.buf = append(l.buf[:len(l.buf):len(l.buf)], b[:k]...)
		if k > 0 {
			continue
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			l.Fatal("nothing comes from the device")
		}
		return nil
	}
}

func (l *link) next() wire.Frame {
	l.Helper()
	f := l.frame()
	if f == nil {
		l.Fatalf("the device has closed; QEMU: %s", l.said())
	}
	return *f
}

// closed waits until the device closes.
func (l *link) closed() {
	l.Helper()
	for l.frame() != nil {
	}
	l.nc.Close()
}

// entry waits for a CRQ frame and takes its epoch; events on the way are remembered.
func (l *link) entry(events ...*[]wire.Event) uint64 { l.Helper(); return be(l.whole(events...)) }

// whole is entry with all 16 bytes.
func (l *link) whole(events ...*[]wire.Event) []byte {
	l.Helper()
	for {
		f := l.next()
		switch f.Type {
		case wire.TypeCRQ:
			l.epoch = f.Epoch
			return f.Payload
		case wire.TypeEvent:
			e, err := wire.ParseEvent(f)
			if err != nil {
				l.Fatal(err)
			}
			l.epoch = f.Epoch
			for _, to := range events {
				*to = append(*to, e)
			}
		default:
			l.Fatalf("%v, status %v", f.Type, wire.Status(f.Code))
		}
	}
}

func be(b []byte) (v uint64) {
	for _, c := range b[:8] {
		v = v<<8 | uint64(c)
	}
	return v
}

// up serves, and answers the client's INIT: from then on it echoes.
func (m *vm) up() *link {
	m.Helper()
	l := m.serve()
	if e := l.entry(); e != 0xc001<<48 {
		m.Fatalf("%#x instead of INIT", e)
	}
	return l
}

// entryOf makes an entry.
func entryOf(hi, lo uint64) *[wire.EntryLen]byte {
	var e [wire.EntryLen]byte
	for i := range 8 {
		e[i], e[8+i] = byte(hi>>(56-8*i)), byte(lo>>(56-8*i))
	}
	return &e
}

// answer waits for the answer to the request id; entries that come meanwhile are lost.
func (l *link) answer(id uint64) (wire.Status, []byte) {
	l.Helper()
	for {
		f := l.next()
		if f.Type&wire.Reply != 0 {
			if f.ID != id {
				l.Fatalf("an answer to %d instead of %d: %v", f.ID, id, wire.Status(f.Code))
			}
			return wire.Status(f.Code), f.Payload
		}
	}
}

func (l *link) read(ioba uint64, n uint32) (wire.Status, []byte) {
	l.Helper()
	l.id++
	l.write(wire.AppendRead(nil, 0, l.epoch, l.id, ioba, n))
	return l.answer(l.id)
}

func (l *link) store(ioba uint64, p []byte) wire.Status {
	l.Helper()
	l.id++
	l.write(append(wire.AppendWrite(nil, 0, l.epoch, l.id, ioba, uint32(len(p))), p...))
	s, _ := l.answer(l.id)
	return s
}

func (l *link) send(hi, lo uint64) wire.Status {
	l.Helper()
	l.id++
	l.write(wire.AppendSend(nil, 0, l.epoch, l.id, entryOf(hi, lo)))
	s, _ := l.answer(l.id)
	return s
}

// echo sends an entry, which the client sends back; its INIT and events may come before.
func (l *link) echo(hi uint64) {
	l.Helper()
	send := func() { l.write(wire.AppendSend(nil, wire.Quiet, l.epoch, 0, entryOf(hi, 42))) }
	send()
	for {
		f := l.next()
		if f.Type&wire.Reply != 0 {
			if s := wire.Status(f.Code); s != wire.Stale {
				l.Fatal(s)
			}
			send() // it was of the epoch before
			continue
		}
		l.epoch = f.Epoch
		if f.Type != wire.TypeCRQ {
			continue
		}
		switch e := be(f.Payload); e {
		case hi:
			return
		case 0xc001 << 48:
		default:
			l.Fatalf("%#x came back as %#x", hi, e)
		}
	}
}

func (m *vm) wantSaid(text string) {
	m.Helper()
	tempotest.Wait(m, "QEMU says "+text, func() bool { return strings.Contains(m.said(), text) })
}
