package sys

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func unixPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err = l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// TestRights passes descriptors: all arrive, closed on exec; those that the buffer has
// no room for do not, and that is said.
func TestRights(t *testing.T) {
	a, b := unixPair(t)
	efd, err := NewEventfd()
	if err != nil {
		t.Fatal(err)
	}
	defer Close(efd)
	mfd, err := NewMemfd("rights", 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(mfd)
	if !IsEventfd(efd) || IsEventfd(mfd) {
		t.Error("an eventfd is not told from a memfd")
	}
	for _, room := range []int{2, 8} {
		for n := 0; n <= 4; n++ {
			fds := []int{efd, mfd, efd, mfd}[:n]
			if _, _, err := a.WriteMsgUnix([]byte{1}, Rights(fds...), nil); err != nil {
				t.Fatal(err)
			}
			buf, oob := make([]byte, 8), make([]byte, RightsSpace(room))
			_, on, flags, _, err := b.ReadMsgUnix(buf, oob)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseRights(nil, oob[:on], flags)
			if want := min(n, room); len(got) != want || (err == ErrTruncated) != (n > room) {
				t.Errorf("%d of %d: %v, %v", n, room, got, err)
			}
			for i, fd := range got {
				if f, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); f&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor %d is not closed on exec", fd)
				}
				if IsEventfd(fd) != (i%2 == 0) {
					t.Errorf("descriptor %d of %d is another one", i, n)
				}
				Close(fd)
			}
		}
	}
}

func TestPeerCred(t *testing.T) {
	a, _ := unixPair(t)
	rc, err := a.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	pid, uid, err := PeerCred(rc)
	if err != nil || pid != os.Getpid() || uid != os.Getuid() {
		t.Errorf("pid %d, uid %d, %v", pid, uid, err)
	}
}

func TestSealSize(t *testing.T) {
	fd, err := NewMemfd("sealed", 8192)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	if err := SealSize(fd); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, 4096, 16384} {
		if Ftruncate(fd, n) == nil {
			t.Errorf("truncated to %d", n)
		}
	}
}
