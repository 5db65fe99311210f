package handover

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/tempotest"
)

func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	a, b = NewConn(x), NewConn(y)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestFrame: a block and more descriptors than one message takes arrive in order, and
// each can be taken once.
func TestFrame(t *testing.T) {
	hosttest.Descriptors(t, 1024)
	a, b := pair(t)
	var s Set
	defer s.Close()
	const n = 3*group + 7
	for i := range n {
		fd, err := sys.NewMemfd("test", int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if k, err := s.Add(fd); err != nil || k != i {
			t.Fatal(k, err)
		}
		sys.Close(fd)
	}
	if i, err := s.Add(-1); i != None || err != nil {
		t.Error(i, err)
	}
	block := bytes.Repeat([]byte("block"), 100_000)
	sent := make(chan error, 1)
	go func() { sent <- a.Send(7, block, &s, tempotest.Patience) }()
	k, got, g, err := b.Recv(tempotest.Patience)
	if err != nil || k != 7 || !bytes.Equal(got, block) || g.Len() != n {
		t.Fatal(k, len(got), err)
	}
	defer g.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for i := n - 1; i >= 0; i-- {
		fd, err := g.Take(i)
		if err != nil {
			t.Fatal(err)
		}
		var st sys.FileStat
		if err := sys.Fstat(fd, &st); err != nil || st.Size != int64(i+1) {
			t.Errorf("descriptor %d has %d bytes: %v", i, st.Size, err)
		}
		sys.Close(fd)
		if _, err := g.Take(i); err == nil {
			t.Error("taken twice")
		}
	}
	if _, err := g.Take(n); err == nil {
		t.Error("more than there are")
	}
	if fd, err := g.Take(None); fd != -1 || err != nil {
		t.Error(fd, err)
	}
}

// TestAnswered: who sends a frame without a block has sent it when the other side has
// read it, which may answer and end at once.
func TestAnswered(t *testing.T) {
	for range 300 {
		a, b := pair(t)
		ended := make(chan error, 1)
		go func() {
			_, _, _, err := b.Recv(tempotest.Patience)
			if err == nil {
				err = b.Send(2, nil, nil, tempotest.Patience)
			}
			b.Close()
			ended <- err
		}()
		if err := a.Send(1, nil, nil, tempotest.Patience); err != nil {
			t.Fatal(err)
		}
		if k, _, _, err := a.Recv(tempotest.Patience); err != nil || k != 2 {
			t.Fatal(k, err)
		}
		a.Close()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// TestCut: an end in the middle is an error and leaves no descriptor behind.
func TestCut(t *testing.T) {
	h := header{1, 2, 4}.encode()
	before := descriptors(t)
	for n := range len(h) + 1 {
		a, b := pair(t)
		a.c.Write(h[:n])
		if n == len(h) {
			a.c.WriteMsgUnix([]byte{'f'}, sys.Rights(0), nil)
		}
		a.Close()
		if _, _, _, err := b.Recv(tempotest.Patience); err == nil {
			t.Errorf("%d bytes are a frame", n)
		}
		b.Close()
	}
	if n := descriptors(t); n > before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(es)
}

func TestHeader(t *testing.T) {
	h := header{3, 5, 1000}
	b := h.encode()
	want := [headerLen]byte{'v', 't', 'g', 't', 'H', 'A', 'N', 'D', 3, 0, 0, 0, 5, 0, 0, 0, 0xe8, 3}
	if b != want {
		t.Errorf("% x", b)
	}
	if g, err := parseHeader(&b); err != nil || g != h {
		t.Error(g, err)
	}
}

func FuzzHeader(f *testing.F) {
	b := header{3, 5, 1000}.encode()
	f.Add(b[:])
	f.Add(bytes.Repeat([]byte{0xff}, headerLen))
	f.Fuzz(func(t *testing.T, in []byte) {
		var b [headerLen]byte
		copy(b[:], in)
		h, err := parseHeader(&b)
		if err == nil && (h.encode() != b || h.len > maxBlock || h.fds > maxFDs) {
			t.Errorf("%+v of % x", h, b)
		}
	})
}
