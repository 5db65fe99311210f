package peer

import (
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat("42 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 31 0 0 20 0 9 0")
	if err != nil || got != 2810*time.Millisecond {
		t.Errorf("got %v, %v; want 2.81s", got, err)
	}
	for _, bad := range []string{"", "42 (a) S 1", "42 (a) S 1 2 3 4 5 6 7 8 9 10 x 31"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}
