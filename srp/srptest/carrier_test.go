package srptest

import (
	"testing"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
)

func TestCarrierMem(t *testing.T) {
	Run(t, Config{Carrier: NewCarrier, New: New, Open: func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
		return backing.Open("mem:", backing.Options{Size: size, Group: g})
	}})
}

func TestCarrierFile(t *testing.T) {
	Run(t, Config{Carrier: NewCarrier, New: New, Open: func(tb testing.TB, g *loop.Group, size int64) (backing.Store, error) {
		return backing.Open("file:"+tb.TempDir()+"/disk", backing.Options{Size: size, Create: true, Group: g})
	}})
}
