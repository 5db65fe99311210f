package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Spelled in pieces, so that this file does not find itself.
var (
	leftover = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	foreign  = regexp.MustCompile(`(^|[\s"'` + "`" + `(=:])/(wo` + `rk|ro` + `ot|ho` + `me/[a-z]+|tm` + `p/vt)/`)
)

// checkLeftovers: no notes to ourselves and no paths of one machine in what is
// committed. What is not done belongs in an issue, and in the documentation as a limit.
func checkLeftovers(t *tree) {
	for _, f := range t.files {
		leftovers(t, f.path, f.src)
	}
	for _, p := range t.text {
		src, err := os.ReadFile(filepath.Join(t.root, filepath.FromSlash(p)))
		if err == nil && !strings.ContainsRune(string(src[:min(len(src), 512)]), 0) {
			leftovers(t, p, src)
		}
	}
}

func leftovers(t *tree, p string, src []byte) {
	for i, l := range strings.Split(string(src), "\n") {
		if m := leftover.FindString(l); m != "" {
			t.report(p, i+1, "leftovers", "%s: do it, or open an issue and state the limit", m)
		}
		if m := foreign.FindString(l); m != "" {
			t.report(p, i+1, "leftovers", "%s…: a path of one machine", strings.TrimSpace(m))
		}
	}
}
