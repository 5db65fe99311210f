package backing

import (
	"testing"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/sys"
)

// WithIntentLog puts a log before data. open and drop are intentOptions'; off leaves
// out what makes Writes atomic.
func WithIntentLog(data Store, g *loop.Group, max int, size int64, open func(size int64) (Store, error), drop func() error, off bool) (Store, error) {
	return withIntentLog(data, g, nil, intentOptions{id: intentID{1}, max: max, size: size, open: open, drop: drop, off: off}, false)
}

// CoarseDirect makes a direct store work in blocks of n bytes, as one on a
// device with such blocks does.
func CoarseDirect(st Store, n int) {
	s := st.(*fileStore)
	s.memAlign, s.offAlign = 512, n
}

// FileID is the identity of the file at path in its log.
func FileID(t testing.TB, path string) [16]byte {
	d := &desc{}
	if err := sys.Stat(path, &d.st); err != nil {
		t.Fatal(err)
	}
	s := &fileStore{d: d}
	d.refs.Store(2)
	return s.intentID()
}

// RestoreEntry writes the header of a slot, whose data are there.
func RestoreEntry(slot []byte, seq uint64, off int64, n int, id [16]byte) {
	e := intentEntry{seq: seq, off: off, n: n, sum: sumIntent(slot[intentHead : intentHead+n]), id: id}
	e.encode(slot)
}

// DecodeLog decodes b as a superblock and as a slot.
func DecodeLog(t testing.TB, b []byte) {
	for _, old := range []bool{false, true} {
		if e, ok := decodeIntentEntry(b, old); ok && (e.n <= 0 || e.n > len(b)-intentHead || e.off < 0) {
			t.Errorf("an entry of %d bytes in a slot of %d", e.n, len(b))
		}
	}
	if len(b) >= intentCount {
		if s, blank, err := decodeIntentSuper(b); err == nil && !blank && (s.size() <= intentHead || s.slot > intentHead+intentMax) {
			t.Errorf("a log of %d bytes", s.size())
		}
	}
}
