package backing_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

func group(t testing.TB) *loop.Group {
	t.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 2, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func sparse(t testing.TB, path string, size int64) string {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

func driver(t testing.TB, st backing.Store, g *loop.Group) *backingtest.Driver {
	t.Helper()
	d, err := backingtest.NewDriver(st, g.Loops()[0])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closeAll(t testing.TB, st backing.Store, ds ...*backingtest.Driver) {
	t.Helper()
	for _, d := range ds {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

// TestOpenErrors: every refusal names the store and says what to do.
func TestOpenErrors(t *testing.T) {
	g := group(t)
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	sparse(t, at("empty"), 0)
	sparse(t, at("odd"), 1000)
	sparse(t, at("short"), 1<<20)
	sparse(t, at("unaligned"), 1<<20+512)
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec string
		o    backing.Options
		want string // in the message
		is   error
	}{
		{"file:" + at("none"), backing.Options{}, "truncate -s 10G " + at("none"), syscall.ENOENT},
		{"file:" + at("none"), backing.Options{Size: 1 << 20}, "truncate -s 1048576 ", syscall.ENOENT},
		{"file:" + at("none"), backing.Options{Create: true}, "set size:", syscall.ENOENT},
		{"file:" + at("none"), backing.Options{Create: true, Size: 1000}, "multiple of 512", nil},
		{"file:" + at("none"), backing.Options{Create: true, Size: 1 << 20, ReadOnly: true}, "read-only", nil},
		{"file:" + at("none/none"), backing.Options{Create: true, Size: 1 << 20}, "make the folder", syscall.ENOENT},
		{"file:" + at("empty"), backing.Options{}, "truncate -s 10G", nil},
		{"file:" + at("odd"), backing.Options{}, "truncate -s %512", nil},
		{"file:" + at("short"), backing.Options{Size: 2 << 20}, "truncate -s 2097152", nil},
		{"file:" + dir, backing.Options{}, "is a directory", nil},
		{"file:" + at("fifo"), backing.Options{}, "is a FIFO", nil},
		{"block:" + at("short"), backing.Options{}, "write file:" + at("short"), syscall.ENOTBLK},
		{"block:" + at("none"), backing.Options{}, "no such device", syscall.ENOENT},
		{"file:", backing.Options{}, "no path", nil},
		{"file", backing.Options{}, "no scheme", nil},
		{"nfs:/x", backing.Options{}, `unknown scheme "nfs"`, nil},
		{"mem:", backing.Options{}, "no size", nil},
		{"mem:", backing.Options{Size: 100}, "multiple of 512", nil},
		{"mem:", backing.Options{Size: -1}, "negative", nil},
		{"mem:5", backing.Options{Size: 512}, "nothing may follow", nil},
		{"mem:", backing.Options{Size: 1<<62 + 512}, "choose a smaller size", nil},
		{"null:", backing.Options{}, "no size", nil},
	} {
		c.o.Group = g
		st, err := backing.Open(c.spec, c.o)
		if err == nil {
			st.Close()
			t.Errorf("%s %+v: opened", c.spec, c.o)
			continue
		}
		var oe *backing.OpenError
		if !errors.As(err, &oe) || !strings.HasPrefix(err.Error(), c.spec+": ") || oe.Hint == "" {
			t.Errorf("%s: %v: want an OpenError that names the store and has a hint", c.spec, err)
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v: want %q in it", c.spec, err, c.want)
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v is not %v", c.spec, err, c.is)
		}
	}
	if names, _ := filepath.Glob(at("*")); len(names) != 5 {
		t.Errorf("refused opens left files: %v", names)
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	g := group(t)
	path := filepath.Join(t.TempDir(), "disk")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	stores := make([]backing.Store, 8)
	for i := range errs {
		wg.Go(func() {
			stores[i], errs[i] = backing.Open("file:"+path, backing.Options{Size: 1 << 20, Create: true, Group: g})
		})
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		switch {
		case err == nil:
			won++
			defer stores[i].Close()
		case !errors.Is(err, backing.ErrInUse):
			t.Errorf("opener %d: %v, want ErrInUse", i, err)
		}
	}
	if won > 1 {
		t.Errorf("%d openers won", won)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size() != 1<<20 || fi.Sys().(*syscall.Stat_t).Blocks > 16 {
		t.Errorf("the file: %v, %v", fi, err)
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestReadOnly(t *testing.T) {
	g := group(t)
	path := sparse(t, filepath.Join(t.TempDir(), "disk"), 1<<20)
	st := open(t, "file:"+path, backing.Options{ReadOnly: true, Group: g})
	d := driver(t, st, g)
	if !st.Info().ReadOnly {
		t.Error("Info.ReadOnly is false")
	}
	for _, err := range []error{d.Write(0, make([]byte, 512), 0), d.Zero(0, 512, 0), d.Discard(0, 512), st.Resize(512)} {
		if !errors.Is(err, backing.ErrReadOnly) {
			t.Errorf("%v, want ErrReadOnly", err)
		}
	}
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
	closeAll(t, st, d)
}

// TestSizeChange: growth and shrinkage from outside are seen.
func TestSizeChange(t *testing.T) {
	g := group(t)
	path := sparse(t, filepath.Join(t.TempDir(), "disk"), 1<<20)
	st := open(t, "file:"+path, backing.Options{Group: g})
	d := driver(t, st, g)
	sizes := make(chan int64, 10)
	stop := st.Watch(func(i *backing.Info) { sizes <- i.Size })
	want := func(n int64) {
		t.Helper()
		select {
		case got := <-sizes:
			if got != n || st.Info().Size != n {
				t.Fatalf("size %d, Info %d, want %d", got, st.Info().Size, n)
			}
		case <-time.After(tempotest.Patience):
			t.Fatalf("nobody told of size %d", n)
		}
	}
	if err := os.Truncate(path, 2<<20+100); err != nil {
		t.Fatal(err)
	}
	want(2 << 20) // what is below a block is nobody's
	if err := d.Write(2<<20-512, make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	// Before the change is seen: an error, not zeros, not a longer file.
	if err := d.Read(1<<20+512, make([]byte, 512)); st.Info().Size == 2<<20 && !errors.Is(err, syscall.EIO) {
		t.Errorf("read beyond the new end: %v, want EIO", err)
	}
	want(1 << 20)
	if err := d.Read(1<<20, make([]byte, 512)); !errors.Is(err, backing.ErrRange) {
		t.Errorf("read beyond the end: %v, want ErrRange", err)
	}
	if err := st.Resize(3 << 20); err != nil {
		t.Fatal(err)
	}
	want(3 << 20)
	if err := st.Resize(3<<20 + 1); !errors.Is(err, backing.ErrRange) {
		t.Errorf("Resize to an odd size: %v", err)
	}
	stop()
	if err := st.Resize(1 << 20); err != nil {
		t.Fatal(err)
	}
	if len(sizes) != 0 {
		t.Error("told after stop")
	}
	closeAll(t, st, d)
}

func TestMemResize(t *testing.T) {
	g := group(t)
	st := open(t, "mem:", backing.Options{Size: 1 << 20})
	d := driver(t, st, g)
	ones := bytes.Repeat([]byte{1}, 1<<20)
	if err := d.Write(0, ones, 0); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1<<19 + 512, 3 << 20} {
		if err := st.Resize(n); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 3<<20)
	if err := d.Read(0, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:1<<19+512], ones[:1<<19+512]) || bytes.Contains(got[1<<19+512:], []byte{1}) {
		t.Error("contents after shrinking and growing")
	}
	if err := st.Resize(1 << 50); !errors.Is(err, backing.ErrNotSupported) {
		t.Errorf("beyond the reservation: %v", err)
	}
	closeAll(t, st, d)
}

// TestCloseWithOpenQueue is the caller's bug; it must not hang or close.
func TestCloseWithOpenQueue(t *testing.T) {
	g := group(t)
	st := open(t, "file:"+sparse(t, filepath.Join(t.TempDir(), "disk"), 1<<20), backing.Options{Group: g})
	d := driver(t, st, g)
	if err := st.Close(); err == nil || !strings.Contains(err.Error(), "still open") {
		t.Errorf("Close with an open queue: %v", err)
	}
	if err := d.Read(0, make([]byte, 512)); err != nil {
		t.Error(err)
	}
	closeAll(t, st, d)
}

// TestNoLeaks: descriptors, memory and slabs are back after Close.
func TestNoLeaks(t *testing.T) {
	g := group(t)
	dir := t.TempDir()
	fds := func() int {
		l, _ := os.ReadDir("/proc/self/fd")
		return len(l)
	}
	maps := func() int {
		b, _ := os.ReadFile("/proc/self/maps")
		return bytes.Count(b, []byte("\n"))
	}
	round := func(i int) {
		for _, spec := range []string{"mem:", "file:" + filepath.Join(dir, fmt.Sprint("disk", i))} {
			for _, c := range []backing.Cache{backing.Writeback, backing.Direct} {
				st := open(t, spec, backing.Options{Size: 1 << 20, Create: true, Cache: c, Group: g})
				d := driver(t, st, g)
				if err := d.Write(1, make([]byte, 9000), 0); err != nil {
					t.Fatal(err)
				}
				if err := st.Reopen(); err != nil {
					t.Fatal(err)
				}
				if err := d.Read(1, make([]byte, 9000)); err != nil {
					t.Fatal(err)
				}
				closeAll(t, st, d)
			}
		}
	}
	round(0) // rings and workers come up
	round(1)
	f0, m0 := fds(), maps()
	for i := range 20 {
		round(i + 2)
	}
	// A round that kept one of each would have kept 80; threads that a busy machine
	// makes the runtime start have some, too.
	if !tempotest.Settles(func() bool { return fds() <= f0 && maps() <= m0+40 }) {
		t.Errorf("before and after: %d and %d descriptors, %d and %d mappings", f0, fds(), m0, maps())
	}
	if n := g.Slabs().Used(); n != 0 {
		t.Errorf("%d bytes of slabs in use", n)
	}
}
