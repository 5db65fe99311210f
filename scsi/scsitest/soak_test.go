package scsitest

import (
	"testing"

	"github.com/vtgt/vtgt/backing"
)

func memStore(tb testing.TB) backing.Store {
	st, err := backing.Open("mem:", backing.Options{Size: (soakSize + soakMore) * soakBlock})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	return st
}

func TestSoak(t *testing.T) { Soak(t, memStore(t), SoakOptions{}) }
