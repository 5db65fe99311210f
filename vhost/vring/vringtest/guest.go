package vringtest

import (
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/vhost/vring"
)

// UserBase is how far a Guest's addresses in the front end's process lie above its
// guest physical ones.
const UserBase = 0x7f00_0000_0000

// A Guest is one region of memory as a virtual machine shares it: a memfd, mapped
// for the device through gmem and a second time for the driver.
type Guest struct {
	FD    int
	Base  uint64 // guest physical address
	Mem   []byte // the driver's view
	Space *gmem.Space
	Map   *gmem.Map
}

// NewGuest makes a guest of n bytes of memory at base. When the test ends its
// generation is retired and its Space must close: whoever pins it lets go before.
func NewGuest(tb testing.TB, base uint64, n int) *Guest {
	tb.Helper()
	fd, err := sys.NewMemfd("guest", int64(n))
	if err != nil {
		tb.Fatal(err)
	}
	g := &Guest{FD: fd, Base: base, Space: gmem.NewSpace()}
	if g.Mem, err = sys.MapShared(fd, 0, n); err != nil {
		tb.Fatal(err)
	}
	g.Map, err = g.Space.Map([]gmem.Region{{Guest: base, Size: uint64(n), User: base + UserBase, FD: fd}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		done := make(chan struct{})
		g.Map.Retire(func() { close(done) })
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			tb.Error("guest memory is still pinned")
			return
		}
		if err := g.Space.Close(); err != nil {
			tb.Error(err)
		}
		if err := sys.Unmap(g.Mem); err != nil {
			tb.Error(err)
		}
		if err := sys.Close(g.FD); err != nil {
			tb.Error(err)
		}
	})
	return g
}

// Truncate shortens the guest's file to n bytes, under everybody's feet.
func (g *Guest) Truncate(tb testing.TB, n int64) {
	tb.Helper()
	if err := sys.Ftruncate(g.FD, n); err != nil {
		tb.Fatal(err)
	}
}

// At is the driver's view of n bytes at guest address a.
func (g *Guest) At(a uint64, n int) []byte { return g.Mem[a-g.Base:][:n:n] }

// Holds tells whether the guest has n bytes at address a.
func (g *Guest) Holds(a uint64, n int) bool {
	return n >= 0 && a >= g.Base && a-g.Base <= uint64(len(g.Mem)) && uint64(n) <= uint64(len(g.Mem))-(a-g.Base)
}

// Parts are the device's view of a ring that a Driver of layout l drives.
func (g *Guest) Parts(tb testing.TB, l Layout) vring.Parts {
	tb.Helper()
	p, err := vring.UserParts(g.Map, l.Size, l.Desc+UserBase, l.Avail+UserBase, l.Used+UserBase)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}
