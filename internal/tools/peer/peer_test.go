package peer

import (
	"os"
	"testing"
	"time"
)

func TestParseStatm(t *testing.T) {
	got, err := parseStatm("1000 25 3 4 0 5 0\n")
	if err != nil || got != 25*int64(os.Getpagesize()) {
		t.Errorf("got %d, %v; want 25 pages", got, err)
	}
	for _, bad := range []string{"", "42", "42 x"} {
		if _, err := parseStatm(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

// TestProcessCPU: the clock of our own process advances with what it does.
func TestProcessCPU(t *testing.T) {
	first, err := ProcessCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := first + 2*time.Millisecond; ; {
		now, err := ProcessCPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now < first {
			t.Fatalf("%v after %v", now, first)
		}
		if now >= end {
			return
		}
	}
}
