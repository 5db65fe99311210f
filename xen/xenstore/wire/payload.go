package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Strings is a payload of strings, each ended by a NUL.
func Strings(list ...string) []byte {
	var b []byte
	for _, s := range list {
		b = append(append(b, s...), 0)
	}
	return b
}

// Pair is the payload of WRITE: a path ended by a NUL, and a value that is not.
func Pair(path, value string) []byte {
	return append(append([]byte(path), 0), value...)
}

// ErrForm: a payload that is not made as its type demands.
var ErrForm = errors.New("xenstore payload of an unexpected form")

// ParseStrings divides a payload of strings that are each ended by a NUL.
func ParseStrings(b []byte) ([]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[len(b)-1] != 0 {
		return nil, ErrForm
	}
	return strings.Split(string(b[:len(b)-1]), "\x00"), nil
}

// ParsePair divides the payload of WRITE.
func ParsePair(b []byte) (path, value string, err error) {
	path, value, ok := strings.Cut(string(b), "\x00")
	if !ok {
		return "", "", ErrForm
	}
	return path, value, nil
}

// ParseEvent decodes a WATCH_EVENT: the path that changed and the watch's token. More
// strings may follow; they are ignored, as the protocol says.
func ParseEvent(b []byte) (path, token string, err error) {
	l, err := ParseStrings(b)
	if err != nil || len(l) < 2 {
		return "", "", ErrForm
	}
	return l[0], l[1], nil
}

// ParsePart decodes an answer to DIRECTORY_PART: the directory's generation, the
// children that fitted, and whether they were the last.
func ParsePart(b []byte) (gen string, names []string, last bool, err error) {
	l, err := ParseStrings(b)
	if err != nil || len(l) == 0 {
		return "", nil, false, ErrForm
	}
	gen, names = l[0], l[1:]
	if n := len(names); n > 0 && names[n-1] == "" {
		names, last = names[:n-1], true
	}
	for _, s := range names {
		if s == "" {
			return "", nil, false, ErrForm
		}
	}
	return gen, names, last, nil
}

// An Access is what a domain may do with a node.
type Access byte

// The accesses, by their letters on the wire.
const (
	None      Access = 'n'
	ReadOnly  Access = 'r'
	WriteOnly Access = 'w'
	Both      Access = 'b'
)

// A Perm is an entry of a node's permissions. The first of them names the owner, who
// may do everything, and says what domains that have no entry may do.
type Perm struct {
	Access Access
	Domain uint32
}

// String is the entry as it stands on the wire: "r3".
func (p Perm) String() string {
	return string(rune(p.Access)) + strconv.FormatUint(uint64(p.Domain), 10)
}

// ParsePerm decodes an entry.
func ParsePerm(s string) (Perm, error) {
	if len(s) < 2 {
		return Perm{}, ErrForm
	}
	switch a := Access(s[0]); a {
	case None, ReadOnly, WriteOnly, Both:
		n, err := strconv.ParseUint(s[1:], 10, 32)
		if err != nil || s[1] == '+' {
			return Perm{}, ErrForm
		}
		return Perm{a, uint32(n)}, nil
	}
	return Perm{}, ErrForm
}

// CheckPath says what is wrong with an absolute path: it begins with a slash, does not
// end with one, has no empty component, and is of letters, digits and "-/_@" alone.
// The special paths of watches ("@releaseDomain") pass.
func CheckPath(p string) error {
	switch {
	case p == "/":
		return nil
	case p == "" || p[0] != '/' && p[0] != '@', strings.HasSuffix(p, "/"), strings.Contains(p, "//"):
		return fmt.Errorf("xenstore path %q: it is not absolute, or has an empty component", p)
	case len(p) > MaxPath:
		return fmt.Errorf("xenstore path of %d bytes: the most is %d", len(p), MaxPath)
	}
	for i := range len(p) {
		c := p[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-/_@", c) >= 0) {
			return fmt.Errorf("xenstore path %q: character %q is not allowed", p, c)
		}
	}
	return nil
}
