package backing_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
)

// Benchmark4K is random 4 KiB transfers through a Queue on a loop. The files'
// cache was filled by 4 KiB writes: overwriting one that large writes filled
// costs ten times as much on ext4 with large folios.
func Benchmark4K(b *testing.B) {
	for _, s := range []struct {
		name  string
		spec  string
		tmpfs bool
		cache backing.Cache
	}{
		{"null", "null:", false, 0}, {"mem", "mem:", false, 0},
		{"file", "file:", false, backing.Writeback}, {"tmpfs", "file:", true, backing.Writeback},
		{"direct", "file:", false, backing.Direct},
	} {
		for _, op := range []struct {
			name string
			kind backing.Kind
		}{{"read", backing.Read}, {"write", backing.Write}} {
			for _, depth := range []struct {
				name string
				n    int
			}{{"1", 1}, {"32", 32}} {
				b.Run(s.name+"/"+op.name+"/depth="+depth.name, func(b *testing.B) {
					g, err := loop.NewGroup(loop.Config{Loops: 1})
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(g.Close)
					spec := s.spec
					if spec == "file:" {
						dir := b.TempDir()
						if s.tmpfs {
							dir = tmpfs(b)
						}
						spec += fill4K(b, filepath.Join(dir, "disk"))
					}
					st := open(b, spec, backing.Options{Size: backingtest.Size, Cache: s.cache, Group: g})
					d := driver(b, st, g)
					b.Cleanup(func() { closeAll(b, st, d) })
					if err := backingtest.Transfers(d, op.kind, 0, depth.n, 2000); err != nil {
						b.Fatal(err)
					}
					b.SetBytes(4096)
					b.ReportAllocs()
					b.ResetTimer()
					if err := backingtest.Transfers(d, op.kind, 0, depth.n, b.N); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

func fill4K(b testing.TB, path string) string {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4096)
	for range backingtest.Size / 4096 {
		if _, err := f.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return path
}
