package scsi

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// unhex turns hex digits with blanks and comments (from # to the end of a line)
// into bytes.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	return unhexF(t, s)
}

func unhexF(t testing.TB, s string) []byte {
	t.Helper()
	var d strings.Builder
	for _, line := range strings.Split(s, "\n") {
		line, _, _ = strings.Cut(line, "#")
		for _, f := range strings.Fields(line) {
			d.WriteString(f)
		}
	}
	b, err := hex.DecodeString(d.String())
	if err != nil {
		t.Fatalf("bad hex in the test: %v", err)
	}
	return b
}

func wantBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\ngot\n%swant\n%s", what, hex.Dump(got), hex.Dump(want))
	}
}
