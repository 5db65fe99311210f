package daemon

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// lpar plays the QEMU device of a pSeries guest.
type lpar struct {
	*testing.T
	nc  net.Conn
	buf []byte
}

func newLPAR(t *testing.T, socket string) *lpar {
	t.Helper()
	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(tempotest.Patience))
	l := &lpar{T: t, nc: nc}
	h := wire.Hello{Major: wire.Major, MaxData: wire.MaxData, Unit: 0x71000002, Name: "lpar1"}
	l.write(h.Append(nil))
	if f := l.frame(); f.Type != wire.TypeHello|wire.Reply || f.Code != 0 {
		t.Fatalf("%+v", f)
	}
	return l
}

func (l *lpar) write(b []byte) {
	l.Helper()
	if _, err := l.nc.Write(b); err != nil {
		l.Fatal(err)
	}
}

// frame reads one of the server's.
func (l *lpar) frame() wire.Frame {
	l.Helper()
	for {
		f, n, err := wire.Split(l.buf, wire.Server)
		if err != nil {
			l.Fatal(err)
		}
		if n > 0 {
			l.buf = l.buf[n:]
			return f
		}
		b := make([]byte, 4096)
		k, err := l.nc.Read(b)
		if err != nil {
			l.Fatal(err)
		}
		l.buf = append(l.buf, b[:k]...)
	}
}

// TestVIO: a pSeries guest comes and goes, what is known of it is shown, ids come and go
// while it runs, and what would take its disks away is refused.
func TestVIO(t *testing.T) {
	w := newWorld(t)
	one := filepath.Join(w.dir, "one")
	text := func(luns, more string) []byte {
		return w.config(fmt.Sprintf("disks:\n- {name: a, store: \"mem:\", size: 1MiB}\n- {name: b, store: \"mem:\", size: 1MiB}\n"+
			"targets:\n- {name: one, luns: [%s], vio: {socket: %q%s}}\n", luns, one, more))
	}
	d := w.start(text("{lun: 0, disk: a}", ""))
	e := w.export(d, "one", kindVIO)
	if e.State != "listening" || e.Addresses[0] != one || e.RelativePort == 0 || e.VIO.Initiator == "" || e.VIO.RequestLimit < 128 || e.VIO.Client != "no client" {
		t.Errorf("%+v %+v", e, e.VIO)
	}
	l := newLPAR(t, one)
	l.write(wire.AppendCRQ(nil, 1, &[16]byte{0xc0, 1}))
	if f := l.frame(); f.Type != wire.TypeSend || f.Payload[0] != 0xc0 || f.Payload[1] != 2 || f.Epoch != 1 {
		t.Errorf("%+v", f)
	}
	e = w.export(d, "one", kindVIO)
	if v := e.VIO; e.State != "connected" || v.PID != os.Getpid() || v.Name != "lpar1" || v.Unit != 0x71000002 || v.Client != "connected" || e.Sessions != 1 {
		t.Errorf("%+v %+v", e, v)
	}
	ss := d.Sessions()
	if len(ss) != 1 || ss[0].Kind != kindVIO || ss[0].Target != "one" {
		t.Errorf("%+v", ss)
	}
	// Another id, another mode: at once. Another way to say what it is: not while it runs.
	const two = "{lun: 0, disk: a}, {lun: 1, disk: b, address: {vio: {id: 3}}}"
	if _, err := d.Apply("f.yaml", text(two, ", mode: \"0666\""), ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(one); err != nil || fi.Mode() != fs.ModeSocket|0o666 {
		t.Error(fi, err)
	}
	if ids := w.export(d, "one", kindVIO).VIO.IDs; fmt.Sprint(ids) != "[0 3]" || len(d.Sessions()) != 2 {
		t.Errorf("ids %v, %d sessions", ids, len(d.Sessions()))
	}
	if ts := d.Targets(); ts[0].VIO != one || ts[0].LUNs[1].VIOID != 3 {
		t.Errorf("%+v", ts)
	}
	if _, err := d.Apply("f.yaml", text(two, ", mode: \"0666\", aix: true"), ApplyOptions{}); err == nil {
		t.Error("what the guest knows its disks by changes under it")
	}
	l.nc.Close()
	if !tempotest.Settles(func() bool { return w.export(d, "one", kindVIO).State == "listening" }) {
		t.Error("still connected")
	}
	if _, err := d.Apply("f.yaml", text(two, ", mode: \"0666\", aix: true"), ApplyOptions{}); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(one); err == nil {
		t.Error("the socket is still there")
	}
}
