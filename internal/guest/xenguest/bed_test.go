package xenguest

import (
	"os"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
)

func TestBed(t *testing.T) {
	if os.Getenv("VTGT_XEN") == "" {
		t.Skip("boots Xen in QEMU: VTGT_XEN=1, or make test-xen")
	}
	c, err := guest.DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	b, err := Start(Options{Cache: c, Kernel: k, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Kill()
	t.Logf("up after %v", time.Since(begin))
	d, err := b.Create("u1")
	if err != nil {
		t.Fatal(err, b.Console())
	}
	t.Logf("created after %v", time.Since(begin))
	if err := d.Unpause(5 * time.Minute); err != nil {
		t.Fatal(err, b.Console())
	}
	t.Logf("domain up after %v", time.Since(begin))
	s, err := d.Read("/proc/version")
	t.Log(s, err)
	if err := d.Destroy(); err != nil {
		t.Error(err)
	}
	t.Logf("done after %v", time.Since(begin))
}
