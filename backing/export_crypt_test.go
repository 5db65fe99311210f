package backing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/vtgt/vtgt/internal/loop"
)

// UserKeys are the keys of a key file.
type UserKeys []cryptUserKey

// ParseKeys reads the text of a key file.
func ParseKeys(t testing.TB, text string) UserKeys {
	k, err := parseKeyFile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ParseKeyFile checks what comes of any text.
func ParseKeyFile(t testing.TB, b []byte) {
	k, err := parseKeyFile(b)
	if err == nil && (len(k) == 0 || len(k) > cryptSlots) {
		t.Errorf("%d keys", len(k))
	}
}

// NewCrypt puts encryption before lower.
func NewCrypt(lower Store, k UserKeys, g *loop.Group, create bool) (Store, error) {
	return newCrypt("test", lower, k, g, nil, create)
}

// SampleHeader is a whole header.
func SampleHeader(seq uint64) []byte {
	h, _ := newCryptHeader([]cryptUserKey{{1}, {2}})
	h.seq = seq
	b := make([]byte, cryptHeadLen)
	h.encode(b)
	return b
}

// DecodeHeader decodes b, with the right checksum too.
func DecodeHeader(t testing.TB, b []byte) {
	if len(b) >= cryptHeadLen {
		b = bytes.Clone(b[:cryptHeadLen])
		sum := sha256.Sum256(b[:cryptSumOff])
		copy(b[cryptSumOff:], sum[:])
	}
	h, err := decodeCryptHeader(b)
	if err != nil {
		return
	}
	out := make([]byte, cryptHeadLen)
	h.encode(out)
	again, err := decodeCryptHeader(out)
	if err != nil || again != h {
		t.Errorf("comes back as %+v, %v", again, err)
	}
	if _, err := h.open([]cryptUserKey{{9}}); err == nil {
		t.Error("opened by a key that it does not know")
	}
}

// CheckXTS compares with vector 10 of IEEE 1619-2007, annex B.
func CheckXTS(t testing.TB) {
	key, _ := hex.DecodeString("27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592")
	want, _ := hex.DecodeString("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b")
	b := make([]byte, 2*cryptSector)
	for i := range b {
		b[i] = byte(i)
	}
	plain := bytes.Clone(b)
	c := newCryptCipher(key)
	encryptSectors(c, b, 0xfe)
	if !bytes.Equal(b[cryptSector:][:len(want)], want) {
		t.Errorf("sector ffh is %x…, want %x…", b[cryptSector:][:len(want)], want)
	}
	decryptSectors(c, b, 0xfe)
	if !bytes.Equal(b, plain) {
		t.Error("it does not come back")
	}
}
