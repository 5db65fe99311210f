package config

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// libraryTree is what the YAML library makes of text that is one document.
func libraryTree(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := safeDecode(dec, &doc); err != nil {
		return nil, err
	}
	if err := safeDecode(dec, &more); err != io.EOF {
		return nil, fmt.Errorf("more than one document: %v", err)
	}
	return &doc, nil
}

// differ says where two trees do, but for comments.
func differ(got, want *yaml.Node) string {
	if got.Kind != want.Kind || got.Style != want.Style || got.Tag != want.Tag || got.Value != want.Value || got.Anchor != want.Anchor ||
		got.Line != want.Line || got.Column != want.Column || len(got.Content) != len(want.Content) {
		g, w := *got, *want
		g.Content, w.Content, w.HeadComment, w.LineComment, w.FootComment = nil, nil, "", "", ""
		return fmt.Sprintf("got  %+v (%d)\nwant %+v (%d)", g, len(got.Content), w, len(want.Content))
	}
	for i := range got.Content {
		if s := differ(got.Content[i], want.Content[i]); s != "" {
			return s
		}
	}
	return ""
}

// samePlain checks that parsePlain reads text as the library does, if it does.
func samePlain(t *testing.T, text []byte) (known bool) {
	t.Helper()
	got := parsePlain(text)
	if got == nil {
		return false
	}
	want, err := libraryTree(text)
	if err != nil {
		t.Fatalf("the library refuses what was read: %v\n%q", err, text)
	}
	if s := differ(got, want); s != "" {
		t.Fatalf("%s\nof %q", s, text)
	}
	return true
}

// Configurations as people and vtgt itself write them are known.
func TestPlain(t *testing.T) {
	known := []string{editBase, string(many(3)),
		"version: 1", "version: 1\n\n\n", "# a\n\nversion: 1 # b\n# c", "  version: 1\n  disks: []\n", "version: 1\ndisks:\ntargets: {}\n",
		"disks:\n- name: a\n  size: 1GiB\n-  name: b\n   thin: true\n\n- {name: c}\nstate: /x\n",
		"disks:\n  - name: a # größer — ja\n    store: file:/a b.img\n",
		"iscsi:\n  portals:\n    - 127.0.0.1:3260\n    - \"[::1]:3260\" # six\n  discovery:\n   chap: {user: u, secretFile: /x}\n",
		"a: 0\nb: 017\nc: 0x10\nd: 1.5\ne: 1e3\nf: 2026-11-22\ng: 12345678901234567890\nh: .5\ni: ~x\n"[:len("a: 0\nb: 017\nc: 0x10\nd: 1.5\ne: 1e3\nf: 2026-11-22\ng: 12345678901234567890\nh: .5\n")],
		"a: yes\nb: no\nc: True\nd: NULL\ne: n\nf: Infinity\ng: 1_000\nh: 0o17\nnull: 1\ntrue: 2\n",
		"a: [1, b, 'c', \"d\", [], {}, [ x ], { y: z }]\nb: {c: [d, e], f: {g: h}, i: j k}\n",
		"a:\n  - b:\n      - c: 1\n        d:\n        - e\n    f: g\n  - h\ni:\n",
	}
	for _, s := range known {
		if !samePlain(t, []byte(s)) {
			t.Errorf("is left to the library: %q", s)
		}
	}
	// Others are not, whatever the library makes of them.
	for _, s := range []string{
		"", "# nothing\n", "a", "- a\n", "{a: b}\n", "--- \na: 1\n", "a: 1\n---\nb: 2\n", "a: 1\n...\n", "%YAML 1.1\na: 1\n",
		"a: b\n  c\n", "a: 'b\n  c'\n", "a: |\n  b\n", "a: >\n  b\n", "a: \"\\t\"\n", "a: 'it''s'\n", "a: &x b\n", "a: *x\n", "a: !!str 1\n",
		"a:\tb\n", "a: b\r\n", "a: ü\n", "ü: a\n", "\ufeffa: 1\n", "a: b # \u2028\n", "a: b: c\n", "a: b:\n", "a: [b,\n c]\n", "a: {b}\n", "a: {b: }\n", "a: [b,]\n", "a: {\"b\":c}\n",
		"a: 1\n  b: 2\n", "  a: 1\nb: 2\n", "a:\n    b: 1\n  c: 2\n", "a:\n- b\n c: 1\n", "a:\n  - b\n - c\n", "a: 1\n- b\n", "a:\n-\n  b: 1\n", "a:\n- - b\n", "? a\n: b\n", "a: b #", "a: b#c\n",
		"a: [" + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "]\n", "a: [b] c\n", "a: {b: c}d\n", "a: \"b\"c\n", "a: \"b\"#c\n",
		"<<: {a: 1}\n", "a: ~\n", "a: -1\n", "a: {b: c, }\n", "a:b\n",
	} {
		if samePlain(t, []byte(s)) && s != "a: b #" {
			t.Errorf("is not left to the library: %q", s)
		}
	}
	files, _ := filepath.Glob("testdata/*.yaml")
	more, _ := filepath.Glob("../examples/*.yaml")
	for _, f := range append(files, more...) {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: known %v", f, samePlain(t, b))
	}
}

// Lines put together at random: what the fuzzer's single bytes hardly come to.
// VTGT_PLAIN_ROUNDS texts are tried.
func TestPlainRandom(t *testing.T) {
	rounds := 20000
	if s := os.Getenv("VTGT_PLAIN_ROUNDS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	heads := []string{"", "", "a: ", "b: ", "c:", "- ", "- a: ", "- b:", "-  c: ", "- {a: ", "a: [", "a: {b: ", "- - ", "b: # x", "# x", "a-b: "}
	values := []string{"", "", "1", "017", "0x1f", "1e3", "1.5", "2026-11-22", "10GiB", "1TiB", "x", "x y", "x:y", "x #y", "x#y", "\"x\"", "'x'", "\"\"", "''", "[]", "{}", "[x, y]", "{a: x}", "{a: x, b: [y, 'z']}",
		"true", "no", "null", "Null", "~", ".5", "...", "/x/y", "_", "x@y=z%(1)+2", "x, y", "x]", "[x", "}", "]", "a: b", "-", "- x", "*a", "&a x", "!t x", "? x", "x  ", " x", "1_0", "12345678901234567890", "123456789012345678", "0", "00", "-1", "Infinity", "y", "12:30", "1:", "ö", "<<"}
	tails := []string{"", "", "", " # x", "#x", " ", "  # ö", "\t", "\r"}
	r := rand.New(rand.NewPCG(1, 2))
	known := 0
	var b strings.Builder
	for range rounds {
		b.Reset()
		for range 1 + r.IntN(6) {
			b.WriteString(strings.Repeat(" ", max(0, r.IntN(7)-3)))
			b.WriteString(heads[r.IntN(len(heads))])
			if r.IntN(3) > 0 {
				b.WriteString(values[r.IntN(len(values))])
			}
			if r.IntN(8) > 0 {
				b.WriteString(tails[r.IntN(3)])
			} else {
				b.WriteString(tails[r.IntN(len(tails))])
			}
			if r.IntN(20) > 0 {
				b.WriteByte('\n')
			}
		}
		if samePlain(t, []byte(b.String())) {
			known++
		}
	}
	if t.Logf("%d of %d texts are known", known, rounds); known < rounds/50 {
		t.Error("too few are known to tell anything")
	}
}

// What parsePlain takes for a document is what the library makes of it.
func FuzzPlain(f *testing.F) {
	f.Add([]byte(editBase))
	f.Add(many(2))
	f.Add([]byte("a:\n  - b:\n      - c: 1\n        d:\n        - e # x\n    f: g\n  - h\ni:\n"))
	f.Add([]byte("a: [1, b, 'c', \"d\", [], {}, [ x ], { y: z }]\nb: {c: [d, e], f: {g: h}, i: j k}\n"))
	f.Add([]byte("# größer — ja\na: yes # no\n\n\nb:\n# c\n  d: 0x10\n"))
	f.Add([]byte("a: ["))
	f.Add([]byte("a:\n- b: 2026-11-22\n  c: 1_0\n- d e:f/g\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) <= 4096 {
			samePlain(t, text)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := many(1000)
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if parsePlain(text) == nil {
				b.Fatal("not known")
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := libraryTree(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse("f", text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
