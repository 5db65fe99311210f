package ibmvio

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/ibmvio/crq"
	"github.com/vtgt/vtgt/ibmvio/wire"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// FuzzClient has a client send any entries and units. Whatever came, the next client that
// begins anew is served.
func FuzzClient(f *testing.F) {
	const unitLen = 256
	seed := func(list ...string) (b []byte) {
		for _, s := range list {
			e := unhex(f, s)
			b = append(b, e[:16]...)
			b = append(b, byte(len(e)-16))
			b = append(b, e[16:]...)
		}
		return b
	}
	f.Add(seed("80010000003c0100000000000c010400" + "0000000000000000c0065603000000c000000100000000000006"))
	f.Add(seed("8001000000000040000000001e66dc88" + "020000000001000100000000000000010000000080000000000000000000000012000000240000000000000000000000000000001e66ecb80000000000000024"))
	f.Add(seed("80020000001e0100000000000c010100"+"0000000300000094b0015603000000c00000000000010968",
		"80020000001e0100000000000c010300"+"000000050000005c10055603000000c000000000000019fc", "800600f5000000001122334455667788"))
	f.Add(seed("8001000000000100000000000c010500"+"0200000000020002703e5503000000c0000000008000000000000000"+"00000000"+"28000000000000000200000000000000"+"000000000c010544"+"00000000"+"00000020"+"00000400"+
		"0000000000023000"+"00000000"+"00000200"+"0000000000023200"+"00000000"+"00000200",
		"80010000003c0100000000000c010700"+"010000000000000090485003000000c00000000080000000000000000000010090485003000000c0"))
	r := newRig(f, 16, false)
	r.put(0x23000, make([]byte, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		r.partition.TB = t
		begin := func() {
			r.call(crq.Message(crq.InitMsg, crq.Init))
			if !tempotest.Settles(func() bool {
				e, ok := r.take()
				return ok && e.Header() == crq.InitMsg
			}) {
				t.Fatal("INIT is not answered")
			}
		}
		begin()
		for n := 0; len(b) > 16 && n < 100; n++ {
			e := crq.Entry(b[:16])
			k := min(int(b[16]), len(b)-17)
			u := make([]byte, unitLen)
			copy(u, b[17:17+k])
			b = b[17+k:]
			if e.Header() == crq.InitMsg {
				continue
			}
			e[8], e[9] = 0, 0 // an address in reach
			if e.Pointer() < 1<<32 {
				e[11] |= 1
			}
			r.put(e.Pointer(), u)
			r.call(e)
		}
		begin()
		r.mu.Lock()
		for at := range r.partition.units {
			if at != 0x23000 {
				delete(r.partition.units, at)
			}
		}
		r.mu.Unlock()
	})
}

// FuzzSocket has a device send anything behind its HELLO. The next one is served.
func FuzzSocket(f *testing.F) {
	entry := [16]byte(crq.Message(crq.InitMsg, crq.Init))
	f.Add(wire.AppendCRQ(nil, 1, &entry))
	f.Add(wire.AppendReply(wire.AppendCRQ(nil, 1, &entry), wire.TypeSend, wire.OK, 1, 1, nil))
	f.Add(wire.AppendReply(nil, wire.TypeRead, wire.OK, 0, 1, make([]byte, 512)))
	ev := wire.Event{Kind: wire.EventRegistered, Epoch: 3, QueueSize: 4096}
	f.Add(ev.Append(nil))
	r := newRig(f, 16, false)
	e := exportOf(r.a, r.group)
	path := filepath.Join(f.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		f.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Serve(ln) }()
	f.Cleanup(func() { ln.Close(); <-done })
	f.Fuzz(func(t *testing.T, b []byte) {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		was := e.connections.Load()
		h := wire.Hello{Major: wire.Major, MaxData: wire.MaxData, State: wire.Registered, QueueSize: 4096}
		_, _ = nc.Write(append(h.Append(nil), b...))
		if !tempotest.Settles(func() bool { return e.connections.Load() > was }) {
			t.Fatal("not served")
		}
		nc.Close()
		if !tempotest.Settles(func() bool { return e.Status().Connected.IsZero() }) {
			t.Fatal("still connected")
		}
	})
}
