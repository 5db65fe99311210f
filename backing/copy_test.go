package backing_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
)

// copyPair are two files and queues into them.
type copyPair struct {
	st [2]backing.Store
	d  [2]*backingtest.Driver
}

func newCopyPair(t *testing.T, size int64, dirs [2]string, o backing.Options) *copyPair {
	t.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 1, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	p := &copyPair{}
	for i := range p.st {
		o := o
		o.Group, o.Size, o.Create = g, size, true
		p.st[i] = open(t, "file:"+filepath.Join(dirs[i], fmt.Sprintf("%d.img", i)), o)
		t.Cleanup(func() {
			if err := p.st[i].Close(); err != nil {
				t.Error(err)
			}
		})
		if p.d[i], err = backingtest.NewDriver(p.st[i], g.Loops()[0]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.d[i].Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p
}

// copy copies from file i to file j.
func (p *copyPair) copy(i, j int, from, to, n int64, fl backing.Flags) error {
	op := &backing.Op{Kind: backing.Copy, Flags: fl, Off: to, Len: n, Src: p.st[i], SrcOff: from}
	err := p.d[j].Do(op)
	if err == nil && op.N != n {
		return fmt.Errorf("N is %d of %d", op.N, n)
	}
	return err
}

// check compares a file with what it should hold.
func (p *copyPair) check(t *testing.T, i int, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := p.d[i].Read(0, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("file %d: other data", i)
	}
}

func TestCopy(t *testing.T) {
	xfs := func(t *testing.T) string { d, _ := backingtest.Reflink(t, 512<<20); return d }
	for _, c := range []struct {
		name  string
		dir   func(t *testing.T) string
		cache backing.Cache
	}{
		{"writeback", func(t *testing.T) string { return t.TempDir() }, backing.Writeback},
		{"writethrough", func(t *testing.T) string { return t.TempDir() }, backing.Writethrough},
		{"direct", func(t *testing.T) string { return t.TempDir() }, backing.Direct},
		{"tmpfs", func(t *testing.T) string { return tmpfs(t) }, backing.Writeback},
		{"shared", xfs, backing.Writeback},
		{"shared, direct", xfs, backing.Direct},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.dir(t)
			const size = 4 << 20
			p := newCopyPair(t, size, [2]string{dir, dir}, backing.Options{Cache: c.cache})
			model := [2][]byte{make([]byte, size), make([]byte, size)}
			r := rand.New(rand.NewPCG(7, 7))
			done, refused := 0, 0
			for range 50 {
				i, unit := r.IntN(2), int64(512)
				if r.IntN(2) == 0 {
					unit = 4096
				}
				at := func(n int64) int64 { return r.Int64N((size-n)/unit+1) * unit }
				n := (r.Int64N(size/2/unit) + 1) * unit
				switch r.IntN(3) {
				case 0:
					n = min(n, 64<<10)
					off := at(n)
					b := model[i][off : off+n]
					for k := range b {
						b[k] = byte(r.Uint32())
					}
					if err := p.d[i].Write(off, b, 0); err != nil {
						t.Fatal(err)
					}
				case 1:
					off := at(n)
					clear(model[i][off : off+n])
					if err := p.d[i].Zero(off, n, 0); err != nil {
						t.Fatal(err)
					}
				default:
					j := r.IntN(2)
					from, to := at(n), at(n)
					switch err := p.copy(i, j, from, to, n, backing.Flags(r.IntN(2))*backing.FUA); {
					case err == nil:
						copy(model[j][to:to+n], bytes.Clone(model[i][from:from+n]))
						done++
					case !errors.Is(err, backing.ErrNotSupported):
						t.Fatal(err)
					default:
						// Some of it may have been copied: the caller does it all.
						copy(model[j][to:to+n], bytes.Clone(model[i][from:from+n]))
						if err := p.d[j].Write(to, model[j][to:to+n], 0); err != nil {
							t.Fatal(err)
						}
						refused++
					}
				}
				p.check(t, 0, model[0])
				p.check(t, 1, model[1])
			}
			t.Logf("%d copied, %d refused", done, refused)
			if want := c.cache != backing.Direct || backingtest.Shares(t, dir); (done > 0) != want {
				t.Errorf("%d copied, %d refused", done, refused)
			}
		})
	}
}

func TestCopyRefused(t *testing.T) {
	dir := t.TempDir()
	p := newCopyPair(t, 1<<20, [2]string{dir, dir}, backing.Options{})
	other := newCopyPair(t, 1<<20, [2]string{tmpfs(t), t.TempDir()}, backing.Options{})
	for _, c := range []struct {
		name        string
		from, to, n int64
		fl          backing.Flags
		want        error
	}{
		{"beyond the source", 1 << 19, 0, 1<<19 + 4096, 0, backing.ErrRange},
		{"beyond the destination", 0, 1 << 19, 1<<19 + 4096, 0, backing.ErrRange},
		{"ahead of the source", -4096, 0, 4096, 0, backing.ErrRange},
		{"blocks of its own", 0, 0, 4096, backing.NoUnmap, backing.ErrNotSupported},
	} {
		if err := p.copy(0, 1, c.from, c.to, c.n, c.fl); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := p.copy(0, 0, 0, 4096, 8192, 0); !errors.Is(err, backing.ErrNotSupported) {
		t.Errorf("overlapping: %v", err)
	}
	if err := p.copy(0, 1, 0, 0, 0, 0); err != nil {
		t.Errorf("nothing: %v", err)
	}
	for _, src := range []backing.Store{nil, open(t, "mem:", backing.Options{Size: 1 << 20}), other.st[0]} {
		if err := p.d[1].Do(&backing.Op{Kind: backing.Copy, Len: 4096, Src: src}); !errors.Is(err, backing.ErrNotSupported) {
			t.Errorf("from %v: %v", src, err)
		}
	}
}
