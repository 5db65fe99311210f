package leaktest_test

import (
	"os"
	"testing"

	"github.com/vtgt/vtgt/internal/leaktest"
	"github.com/vtgt/vtgt/internal/tempotest"
)

func TestCheck(t *testing.T) {
	m := leaktest.Now(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if n := leaktest.FDs(t); leaktest.Now(t) == m {
		t.Errorf("%d descriptors, one more than before, are not seen", n)
	}
	f.Close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { <-stop; close(stopped) }()
	if leaktest.Now(t) == m {
		t.Error("a goroutine is not seen")
	}
	close(stop)
	tempotest.Recv(t, stopped, "the goroutine")
	m.Check(t)
}
