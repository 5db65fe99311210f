package chap

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a CHAP secret. Whatever prints, logs or marshals it gets a placeholder;
// string(s) is the secret itself.
type Secret string

const redacted = "(secret)"

// String is a placeholder.
func (Secret) String() string { return redacted }

// GoString is a placeholder.
func (Secret) GoString() string { return redacted }

// Format writes a placeholder for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is a placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText makes a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Credential is a name with the secret that proves it.
type Credential struct {
	User   string
	Secret Secret
}

// Format writes the name alone, for every verb: package fmt does not ask a Secret
// behind a pointer in a structure how it wants to look. An Account looks the same.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.User+" "+redacted) }

// Account is one initiator user, and what the target answers where that user asks it
// to prove itself; Mutual is nil where it cannot.
type Account struct {
	Credential
	Mutual *Credential
}

// Lengths of secrets, bytes. RFC 7143 §12.1.3.1 asks for 96 random bits at least, and
// some initiators refuse others than 12 to 16 bytes.
const (
	MinSecret = 12
	MaxSecret = 255
)

// MaxUser is the longest user name, bytes (RFC 7143 §6.1).
const MaxUser = 255

// Errors of [Check].
var (
	ErrNoUser     = errors.New("a CHAP user without a name")
	ErrUser       = errors.New("a CHAP user name that is too long or does not print")
	ErrNoSecret   = errors.New("a CHAP secret is empty")
	ErrLongSecret = errors.New("a CHAP secret is longer than 255 bytes")
	ErrTwice      = errors.New("a CHAP user stands twice")
	ErrSame       = errors.New("one CHAP secret serves both directions")
)

// Check judges accounts that are to serve together. A secret that serves both
// directions, of whichever users, is refused: an initiator could send the target's
// challenge back to it (RFC 7143 §12.1.3.1).
func Check(as []Account) error {
	seen := make(map[string]bool)
	for i := range as {
		a := &as[i]
		if err := a.check(); err != nil {
			return err
		}
		if seen[a.User] {
			return fmt.Errorf("%w: %q", ErrTwice, a.User)
		}
		seen[a.User] = true
		if a.Mutual == nil {
			continue
		}
		if err := a.Mutual.check(); err != nil {
			return err
		}
		for j := range as {
			if as[j].Secret == a.Mutual.Secret {
				return fmt.Errorf("%w: that of %q and that of %q", ErrSame, as[j].User, a.Mutual.User)
			}
		}
	}
	return nil
}

func (c *Credential) check() error {
	switch {
	case c.User == "":
		return ErrNoUser
	case CheckUser(c.User) != nil:
		return ErrUser
	case c.Secret == "":
		return fmt.Errorf("%w: that of %q", ErrNoSecret, c.User)
	case len(c.Secret) > MaxSecret:
		return fmt.Errorf("%w: that of %q", ErrLongSecret, c.User)
	}
	return nil
}

// CheckUser judges a user name: what a text key can carry.
func CheckUser(s string) error {
	if s == "" {
		return ErrNoUser
	}
	if len(s) > MaxUser {
		return ErrUser
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == 0xfffd {
			return ErrUser
		}
	}
	return nil
}
