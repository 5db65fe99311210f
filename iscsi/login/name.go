package login

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest iSCSI name, bytes (RFC 7143 §4.2.7.1).
const MaxName = 223

// NormalizeName checks an iSCSI name of our own giving (a target's, from the
// configuration) by RFC 7143 §4.2.7 and returns it as it compares and goes on the
// wire: in lower case. The three forms are
//
//	iqn.yyyy-mm.reversed.domain[:anything]   §4.2.7.4
//	eui.16 hexadecimal digits                §4.2.7.5
//	naa.16 or 32 hexadecimal digits          §4.2.7.6
//
// Letters outside ASCII are taken as they are, in lower case: compatibility forms
// are not folded.
func NormalizeName(s string) (string, error) {
	fail := func(format string, a ...any) (string, error) {
		return "", fmt.Errorf("iSCSI name %q: "+format, append([]any{clip(s)}, a...)...)
	}
	n, err := foldName(s)
	if err != nil {
		return fail("%w", err)
	}
	for _, r := range n {
		if r < 0x80 && !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == ':') ||
			r >= 0x80 && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
			return fail("%q is not allowed; use letters, digits, '-', '.' and ':'", r)
		}
	}
	kind, rest, _ := strings.Cut(n, ".")
	switch kind {
	case "iqn":
		// yyyy-mm.domain[:string]
		date, tail, ok := strings.Cut(rest, ".")
		if !ok || !validDate(date) {
			return fail(`"iqn." is followed by a year and month, as in iqn.2026-11.org.example:disk1`)
		}
		domain, _, colon := strings.Cut(tail, ":")
		if domain == "" || strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || strings.Contains(domain, "..") {
			return fail("a reversed domain name follows the date, as in iqn.2026-11.org.example:disk1")
		}
		if colon && strings.HasSuffix(tail, ":") {
			return fail("something has to follow the ':'")
		}
	case "eui":
		if len(rest) != 16 || !isHex(rest) {
			return fail(`"eui." is followed by 16 hexadecimal digits`)
		}
	case "naa":
		if len(rest) != 16 && len(rest) != 32 || !isHex(rest) {
			return fail(`"naa." is followed by 16 or 32 hexadecimal digits`)
		}
	default:
		return fail(`it begins with "iqn.", "eui." or "naa.", as in iqn.2026-11.org.example:disk1`)
	}
	return n, nil
}

// PeerName normalises a name that a peer gave. It is lenient where peers are known
// to be careless (underscores, names without a type): what is refused is empty, too
// long, not UTF-8, or could be mistaken for something else where the name becomes
// part of a port name, a log line or a list.
func PeerName(s string) (string, error) {
	n, err := foldName(s)
	if err != nil {
		return "", err
	}
	for _, r := range n {
		if r == ',' || !unicode.IsPrint(r) {
			return "", errNameChar
		}
	}
	return n, nil
}

var (
	errNameEmpty = errors.New("it is empty")
	errNameLong  = fmt.Errorf("it is longer than %d bytes", MaxName)
	errNameUTF8  = errors.New("it is not valid UTF-8")
	errNameChar  = errors.New("it contains a comma or something that does not print")
)

func foldName(s string) (string, error) {
	switch {
	case s == "":
		return "", errNameEmpty
	case len(s) > MaxName:
		return "", errNameLong
	case !utf8.ValidString(s):
		return "", errNameUTF8
	}
	n := strings.ToLower(s)
	// Folding may lengthen letters outside ASCII.
	if len(n) > MaxName {
		return "", errNameLong
	}
	return n, nil
}

func validDate(d string) bool {
	if len(d) != 7 || d[4] != '-' {
		return false
	}
	for i, c := range []byte(d) {
		if i != 4 && (c < '0' || c > '9') {
			return false
		}
	}
	m := d[5:]
	return m >= "01" && m <= "12"
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// clip bounds what a message quotes of a peer's or user's string.
func clip(s string) string {
	if len(s) > 64 {
		return s[:61] + "..."
	}
	return s
}
