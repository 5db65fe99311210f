package guesttest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
)

// scratch is the folder of what is made once for all tests.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vtgt-guest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// buildVtgt compiles the program under test, once: as it is released.
var buildVtgt = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "vtgt")
	return out, guest.GoBuild(out, "github.com/vtgt/vtgt/cmd/vtgt")
})

func vtgtBinary(t *testing.T) string {
	t.Helper()
	b, err := buildVtgt()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// buildHold compiles the program whose stores hold.
var buildHold = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "holdvtgt")
	return out, guest.GoBuild(out, "github.com/vtgt/vtgt/internal/guest/holdvtgt")
})

// wantGuest skips a test that boots a guest where none is wanted.
func wantGuest(t *testing.T) *guest.Cache {
	t.Helper()
	if os.Getenv("VTGT_GUEST") == "" {
		t.Skip("boots a guest: set VTGT_GUEST=1 (make test-guest does)")
	}
	c, err := guest.DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rounds reads a count from the environment.
func rounds(t *testing.T, name string, normal int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return normal
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a count", name, s)
	}
	return n
}

// random is the source of a test's random moments; the log tells how to repeat it.
func random(t *testing.T) (*rand.Rand, uint64) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("VTGT_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("VTGT_SEED: %v", err)
		}
		seed = v
	}
	t.Logf("VTGT_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0)), seed
}

// patience bounds every wait, for what hangs: a guest of TCG on a busy machine may take
// its time.
const patience = 5 * time.Minute

// poll tries f until it returns nil.
func poll(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}
