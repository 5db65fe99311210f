package guesttest

import (
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An sg3Case is a program of sg3-utils (or cat) and what it has to say about a disk. The cases
// are in testdata/sg3, one file a subject; a line begins with
//
//	$ a program and its arguments
//	< what it reads, as bytes below
//	? its exit status; 0 where there is none
//	= bytes of its output (of the hex dump, where it was asked for one), in hex; NN*3 is
//	  NN three times, .. any byte, 'text' ASCII
//	| a line of its output, all of which has to be given (but for empty lines); alone: it
//	  has none
//	~ what has to be in one line of its output
//	@ transports that the case is for; both where there is none
//	# a comment; so is what follows a # in bytes
//
// {NAME} is a variable of the run, {NAME+N} a number that is N more. Runs of blanks in
// text are one, and * is any text.
type sg3Case struct {
	at     string // file:line
	args   []string
	input  string
	status int
	bytes  string
	lines  []string
	whole  bool // lines is all
	only   []string
}

// sg3Cases reads all files, in the order of their names.
func sg3Cases(t *testing.T) []sg3Case {
	t.Helper()
	names, err := filepath.Glob("testdata/sg3/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no cases", err)
	}
	var cs []sg3Case
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		here := len(cs)
		for i, l := range strings.Split(string(b), "\n") {
			at := fmt.Sprintf("%s:%d", name, i+1)
			if l == "" || l[0] == '#' {
				continue
			}
			text := strings.TrimSpace(l[1:])
			if l[0] == '$' {
				cs = append(cs, sg3Case{at: at, args: strings.Fields(text)})
				continue
			}
			if len(cs) == here {
				t.Fatal(at, ": no program yet")
			}
			c := &cs[len(cs)-1]
			switch l[0] {
			case '?':
				if c.status, err = strconv.Atoi(text); err != nil {
					t.Fatal(at, err)
				}
			case '<':
				c.input = text
			case '=':
				text, _, _ = strings.Cut(text, "#")
				c.bytes += " " + text
			case '|', '~':
				c.whole = l[0] == '|'
				if text != "" {
					c.lines = append(c.lines, text)
				}
			case '@':
				c.only = strings.Fields(text)
			default:
				t.Fatal(at, ": unknown line")
			}
		}
	}
	return cs
}

var sg3Variable = regexp.MustCompile(`\{([a-z]+)(\+[0-9]+)?\}`)

// expand puts in the variables.
func (c *sg3Case) expand(t *testing.T, text string, vars map[string]string) string {
	t.Helper()
	return sg3Variable.ReplaceAllStringFunc(text, func(s string) string {
		m := sg3Variable.FindStringSubmatch(s)
		v, ok := vars[m[1]]
		if !ok {
			t.Fatalf("%s: no variable %s", c.at, s)
		}
		if m[2] == "" {
			return v
		}
		n, err := strconv.ParseUint(v, 16, 64)
		more, err2 := strconv.ParseUint(m[2][1:], 10, 64)
		if err != nil || err2 != nil {
			t.Fatalf("%s: %s with %q", c.at, s, v)
		}
		return strconv.FormatUint(n+more, 16)
	})
}

var sg3Token = regexp.MustCompile(`'[^']*'|(?:[0-9a-f]{2}|\.\.)+(?:\*[0-9]+)?|\S+`)

// parseBytes makes a pattern of the text: a value for each byte, -1 is any.
func parseBytes(text string) (want []int, err error) {
	for _, tok := range sg3Token.FindAllString(text, -1) {
		if tok[0] == '\'' {
			for _, c := range []byte(tok[1 : len(tok)-1]) {
				want = append(want, int(c))
			}
			continue
		}
		digits, times, repeated := strings.Cut(tok, "*")
		n := 1
		if repeated {
			if n, err = strconv.Atoi(times); err != nil {
				return nil, err
			}
		}
		var one []int
		for ; digits != ""; digits = digits[min(2, len(digits)):] {
			if strings.HasPrefix(digits, "..") {
				one = append(one, -1)
				continue
			}
			b, err := hex.DecodeString(digits[:min(2, len(digits))])
			if err != nil {
				return nil, fmt.Errorf("%q: %w", tok, err)
			}
			one = append(one, int(b[0]))
		}
		want = append(want, slices.Repeat(one, n)...)
	}
	return want, nil
}

// compareBytes says where got is not what want allows.
func compareBytes(got []byte, want []int) error {
	for i := range min(len(got), len(want)) {
		if want[i] >= 0 && got[i] != byte(want[i]) {
			return fmt.Errorf("byte %d is %02x, not %02x", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d bytes, not %d", len(got), len(want))
	}
	return nil
}

// A line of the dumps that sg3-utils make: offset, sixteen bytes, sometimes their text.
var sg3Dump = regexp.MustCompile(`(?m)^ *[0-9a-f]{2,} {3,5}((?:[0-9a-f]{2} {0,2})+)`)

// dumped are the bytes of a hex dump.
func dumped(out string) []byte {
	var s strings.Builder
	for _, m := range sg3Dump.FindAllStringSubmatch(out, -1) {
		s.WriteString(strings.ReplaceAll(m[1], " ", ""))
	}
	b, _ := hex.DecodeString(s.String()) // the expression sees to pairs of digits
	return b
}

// plain makes each run of blanks one.
func plain(s string) string { return strings.Join(strings.Fields(s), " ") }

// like reports whether s is what pattern says.
func like(pattern, s string) bool {
	// Only the asterisk means something to users of this.
	pattern = strings.NewReplacer(`\`, `\\`, `[`, `\[`, `?`, `\?`, "/", "\x00").Replace(pattern)
	ok, err := path.Match(pattern, strings.ReplaceAll(s, "/", "\x00"))
	return ok && err == nil
}

// check compares what the program answered with what it should have.
func (c *sg3Case) check(t *testing.T, vars map[string]string, out []byte, status int) {
	t.Helper()
	var wrong []string
	add := func(f string, a ...any) { wrong = append(wrong, fmt.Sprintf(f, a...)) }
	if status != c.status {
		add("exit status %d, not %d", status, c.status)
	}
	if c.bytes != "" {
		want, err := parseBytes(c.expand(t, c.bytes, vars))
		if err != nil {
			t.Fatal(c.at, err)
		}
		got := out
		if c.args[0] == "sg_raw" || slices.ContainsFunc(c.args, func(a string) bool { return strings.HasPrefix(a, "-H") }) {
			got = dumped(string(out))
		}
		if err := compareBytes(got, want); err != nil {
			add("%v: % x", err, got[:min(len(got), 512)])
		}
	}
	var lines []string
	for _, l := range strings.Split(string(out), "\n") {
		if l = plain(l); l != "" {
			lines = append(lines, l)
		}
	}
	for i, l := range c.lines {
		l = plain(c.expand(t, l, vars))
		switch {
		case !c.whole:
			if !slices.ContainsFunc(lines, func(s string) bool { return like("*"+l+"*", s) }) {
				add("no line %q", l)
			}
		case len(wrong) > 0:
		case i >= len(lines):
			add("the line %q is missing", l)
		case !like(l, lines[i]):
			add("line %d is %q, not %q", i+1, lines[i], l)
		}
	}
	if c.whole && len(lines) > len(c.lines) {
		add("%d lines, not %d; the next is %q", len(lines), len(c.lines), lines[len(c.lines)])
	}
	if len(wrong) > 0 {
		text := string(out[:min(len(out), 4096)])
		if c.bytes != "" && c.lines == nil && status == c.status {
			text = ""
		}
		t.Errorf("%s: %s\n  %s\n%s", c.at, strings.Join(c.args, " "), strings.Join(wrong, "\n  "), text)
	}
}

// What the cases are checked with finds what is wrong.
func TestSG3Script(t *testing.T) {
	want, err := parseBytes(" 00 b0 003c ..ff 00*3 'AB' 0102*2")
	if err != nil || len(want) != 15 || want[4] != -1 || want[9] != 'A' || want[14] != 2 {
		t.Fatal(want, err)
	}
	got := make([]byte, len(want))
	for i, w := range want {
		got[i] = byte(w)
	}
	if err := compareBytes(got, want); err != nil {
		t.Error(err)
	}
	if compareBytes(got[:14], want) == nil || compareBytes(append(got, 0), want) == nil {
		t.Error("another length is the same")
	}
	for i := range got {
		got[i]++
		if err := compareBytes(got, want); (err == nil) != (want[i] < 0) {
			t.Errorf("byte %d: %v", i, err)
		}
		got[i]--
	}
	for _, bad := range []string{"0", "0g", "xyz", "00*"} {
		if _, err := parseBytes(bad); err == nil {
			t.Errorf("%q are bytes", bad)
		}
	}
	if b := dumped(" 00     00 1f 9d b0 ea 01 00 00  41 41 41 41 41 41 41 41    ........AAAAAAAA\n 10     ff\nPR generation=0x0\n"); len(b) != 17 || b[1] != 0x1f || b[16] != 0xff {
		t.Errorf("% x", b)
	}
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{{"a*c", "a b/c", true}, {"a*c", "a b", false}, {"[x] 1?", "[x] 1?", true}, {"[x] 1?", "x 12", false}, {"a", "ab", false}} {
		if like(c.pattern, c.s) != c.want {
			t.Errorf("%q like %q: not %v", c.s, c.pattern, c.want)
		}
	}
}
