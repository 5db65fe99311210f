package handover_test

import (
	"os"
	"testing"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/sys"
)

// FuzzParked: whatever stands in a parcel, it is a state or it is not.
func FuzzParked(f *testing.F) {
	whole := []byte("vtgtPARK\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00")
	f.Add(whole, 2)
	f.Add(whole, 1)
	f.Add(whole[:31], 2)
	f.Fuzz(func(t *testing.T, h []byte, n int) {
		if len(h) > 64 {
			h = h[:64]
		}
		block, err := sys.NewMemfd("block", 3)
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close(block)
		fds := make([]int, uint(n)%5)
		for i := range fds {
			fds[i] = block
		}
		p, err := sys.NewParcel(h, fds)
		if err != nil {
			t.Fatal(err)
		}
		found, rest := handover.Parked([]*os.File{os.NewFile(uintptr(p), "vtgt-park-k-0")})
		if len(found)+len(rest) != 1 {
			t.Fatalf("%v, %q", found, rest)
		}
		for _, x := range found {
			if len(x.Block) > 3 || x.Set.Len() != len(fds)-1 {
				t.Errorf("%d bytes with %d descriptors", len(x.Block), x.Set.Len())
			}
			x.Set.Close()
		}
	})
}
