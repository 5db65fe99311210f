package pdu

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of text (RFC 7143 §6.1).
const (
	// MaxKey is the longest key name, bytes.
	MaxKey = 63
	// MaxValue is the longest value that a key may have unless its own
	// definition says otherwise, bytes.
	MaxValue = 255
	// MaxLongValue bounds the encoded form of a binary value (CHAP and the
	// like), bytes: 1024 bytes in hexadecimal with its prefix.
	MaxLongValue = 2*1024 + 2
	// MaxText bounds one whole negotiation text, bytes; what an authentication
	// exchange must be able to take (§6.1).
	MaxText = 64 << 10
	// MaxKeys bounds the number of pairs in one text. Chapter 13 and the login
	// keys make about 40; an initiator may add some of its own.
	MaxKeys = 128
)

// Errors of [ParseText].
var (
	ErrTextTooLong  = errors.New("text is longer than 64 KiB")
	ErrTooManyKeys  = errors.New("text has too many keys")
	ErrNoDelimiter  = errors.New("text does not end with a null byte")
	ErrNoEquals     = errors.New("a key without '='")
	ErrBadKey       = errors.New("a key name that RFC 7143 §6.1 does not allow")
	ErrValueTooLong = errors.New("a value that is too long")
)

// KeyValue is one key=value pair. The value is as sent: it may be a list with
// commas.
type KeyValue struct{ Key, Value string }

func (kv KeyValue) String() string { return kv.Key + "=" + kv.Value }

// List splits the value of a list-of-values key at its commas.
func (kv KeyValue) List() []string { return strings.Split(kv.Value, ",") }

// ParseText reads key=value pairs, each ended by a null byte, in their order.
// Further null bytes between and behind pairs are ignored: several initiators pad
// with them. The strings are copies.
func ParseText(b []byte) ([]KeyValue, error) {
	if len(b) > MaxText {
		return nil, ErrTextTooLong
	}
	var kvs []KeyValue
	for len(b) > 0 {
		item, rest, ended := bytes.Cut(b, []byte{0})
		if !ended {
			return nil, ErrNoDelimiter
		}
		b = rest
		if len(item) == 0 {
			continue
		}
		if len(kvs) == MaxKeys {
			return nil, ErrTooManyKeys
		}
		k, v, ok := bytes.Cut(item, []byte{'='})
		if !ok {
			return nil, ErrNoEquals
		}
		if !validKey(k) {
			return nil, ErrBadKey
		}
		if len(v) > MaxLongValue {
			return nil, ErrValueTooLong
		}
		kvs = append(kvs, KeyValue{string(k), string(v)})
	}
	return kvs, nil
}

// validKey checks a key-name: a standard-label of §6.1, and '#', which the public
// extension keys of RFC 3720 begin with ("X#"). A label should begin with a capital
// letter, but iSCSIProtocolLevel (§13.24) does not.
func validKey(k []byte) bool {
	if len(k) == 0 || len(k) > MaxKey || (k[0]|0x20) < 'a' || (k[0]|0x20) > 'z' {
		return false
	}
	for _, c := range k {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '-', c == '+', c == '@', c == '_', c == '#':
		default:
			return false
		}
	}
	return true
}

// AppendText appends key=value and its null byte.
func AppendText(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// AppendTexts appends pairs.
func AppendTexts(b []byte, kvs ...KeyValue) []byte {
	for _, kv := range kvs {
		b = AppendText(b, kv.Key, kv.Value)
	}
	return b
}

// Errors of the value readers.
var (
	ErrNotBoolean = errors.New(`not "Yes" or "No"`)
	ErrNotNumber  = errors.New("not a decimal or hexadecimal constant below 2**64")
	ErrNotRange   = errors.New("not a numeric range (low~high)")
	ErrNotBinary  = errors.New("not a hexadecimal, base64 or (up to 64 bits) decimal constant")
)

// ParseBool reads a boolean-value: exactly "Yes" or "No".
func ParseBool(s string) (bool, error) {
	switch s {
	case "Yes":
		return true, nil
	case "No":
		return false, nil
	}
	return false, ErrNotBoolean
}

// FormatBool makes "Yes" or "No".
func FormatBool(v bool) string {
	if v {
		return "Yes"
	}
	return "No"
}

func hexPrefix(s string) bool {
	return len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X')
}

func base64Prefix(s string) bool {
	return len(s) > 2 && s[0] == '0' && (s[1] == 'b' || s[1] == 'B')
}

// ParseNumber reads a numerical-value: a decimal constant without needless leading
// zeros, or a hexadecimal constant (0x…), below 2**64.
func ParseNumber(s string) (uint64, error) {
	base, digits := 10, s
	if hexPrefix(s) {
		base, digits = 16, s[2:]
	} else if len(s) > 1 && s[0] == '0' {
		return 0, ErrNotNumber
	}
	// strconv takes signs and, in base 0 only, underscores: digits alone here.
	if digits == "" || digits[0] == '+' || digits[0] == '-' {
		return 0, ErrNotNumber
	}
	v, err := strconv.ParseUint(digits, base, 64)
	if err != nil {
		return 0, ErrNotNumber
	}
	return v, nil
}

// ParseRange reads a numeric-range, two numerical-values with a tilde between.
func ParseRange(s string) (low, high uint64, err error) {
	l, h, ok := strings.Cut(s, "~")
	if !ok {
		return 0, 0, ErrNotRange
	}
	if low, err = ParseNumber(l); err != nil {
		return 0, 0, ErrNotRange
	}
	if high, err = ParseNumber(h); err != nil || high < low {
		return 0, 0, ErrNotRange
	}
	return low, high, nil
}

// ParseBinary reads a regular- or large-binary-value of at most max bytes (§6.1):
// 0x and hexadecimal digits (an odd number of them has a zero in front), 0b and
// base64, or a decimal constant of up to 64 bits, which gives the fewest bytes.
func ParseBinary(s string, max int) ([]byte, error) {
	var b []byte
	var err error
	switch {
	case len(s) > MaxLongValue:
		return nil, ErrValueTooLong
	case hexPrefix(s):
		d := s[2:]
		if len(d)%2 != 0 {
			d = "0" + d
		}
		b, err = hex.DecodeString(d)
	case base64Prefix(s):
		// StdEncoding skips line breaks, which are no part of a value.
		if strings.ContainsAny(s, "\r\n") {
			return nil, ErrNotBinary
		}
		b, err = base64.StdEncoding.Strict().DecodeString(s[2:])
	default:
		var v uint64
		v, err = ParseNumber(s)
		for ; v > 0; v >>= 8 {
			b = append([]byte{byte(v)}, b...)
		}
		if err == nil && b == nil {
			b = []byte{0}
		}
	}
	if err != nil {
		return nil, ErrNotBinary
	}
	if len(b) > max {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrValueTooLong, len(b), max)
	}
	return b, nil
}

// FormatBinary makes a hexadecimal constant of b.
func FormatBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }
