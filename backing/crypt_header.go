package backing

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/xts"
)

// The format of encrypted: stores is docs/encrypted.md. Numbers are big-endian.

const (
	cryptHeadLen  = 4096    // one copy of the header
	cryptDataOff  = 1 << 20 // where sector 0 is
	cryptSector   = 512
	cryptVersion  = 1
	cryptXTS      = 1 // AES-256-XTS
	cryptMagic    = "VTGTCRYP"
	cryptSlots    = 8
	cryptSlotOff  = 64
	cryptSlotLen  = 128
	cryptSumOff   = cryptHeadLen - sha256.Size
	cryptKeyLen   = 64 // of the data key: two keys of AES-256
	cryptUserLen  = 32 // of a key in a key file
	cryptWrapped  = 1  // state of a slot: AES-256-GCM
	cryptNonceLen = 12
)

// cryptUserKey is a key of a key file: it wraps data keys.
type cryptUserKey [cryptUserLen]byte

// id tells which slot a key opens.
func (k *cryptUserKey) id() (id [16]byte) {
	h := sha256.New()
	h.Write([]byte("vtgt key id"))
	h.Write(k[:])
	copy(id[:], h.Sum(nil))
	return id
}

func (k *cryptUserKey) aead() cipher.AEAD {
	b, err := aes.NewCipher(k[:])
	if err == nil {
		var g cipher.AEAD
		if g, err = cipher.NewGCM(b); err == nil {
			return g
		}
	}
	panic(err) // the length of the key is right
}

// cryptSlot is a key slot: the data key, wrapped by one user key.
type cryptSlot struct {
	used    bool
	id      [16]byte
	nonce   [cryptNonceLen]byte
	wrapped [cryptKeyLen + 16]byte
}

// cryptHeader is a header.
type cryptHeader struct {
	seq   uint64
	uuid  [16]byte
	slots [cryptSlots]cryptSlot
}

// fixed is the part of the header that never changes, which wrapped keys are bound to.
func (h *cryptHeader) fixed() []byte {
	b := make([]byte, 0, 44)
	b = append(b, cryptMagic...)
	b = binary.BigEndian.AppendUint32(b, cryptVersion)
	b = binary.BigEndian.AppendUint32(b, cryptSector)
	b = binary.BigEndian.AppendUint64(b, cryptDataOff)
	b = append(b, h.uuid[:]...)
	return binary.BigEndian.AppendUint32(b, cryptXTS)
}

// encode fills b, cryptHeadLen bytes.
func (h *cryptHeader) encode(b []byte) {
	clear(b)
	copy(b, h.fixed()[:24])
	binary.BigEndian.PutUint64(b[24:], h.seq)
	copy(b[32:], h.uuid[:])
	binary.BigEndian.PutUint32(b[48:], cryptXTS)
	for i := range h.slots {
		s := &h.slots[i]
		if !s.used {
			continue
		}
		p := b[cryptSlotOff+i*cryptSlotLen:]
		binary.BigEndian.PutUint32(p, cryptWrapped)
		copy(p[8:], s.id[:])
		copy(p[24:], s.nonce[:])
		copy(p[36:], s.wrapped[:])
	}
	sum := sha256.Sum256(b[:cryptSumOff])
	copy(b[cryptSumOff:], sum[:])
}

// errCryptBlank: there is no header.
var errCryptBlank = errors.New("it has no header of an encrypted store")

// decodeCryptHeader reads one copy.
func decodeCryptHeader(b []byte) (h cryptHeader, err error) {
	if len(b) < cryptHeadLen || isZero(b[:cryptHeadLen]) {
		return h, errCryptBlank
	}
	b = b[:cryptHeadLen]
	if string(b[:8]) != cryptMagic {
		return h, errCryptBlank
	}
	if sum := sha256.Sum256(b[:cryptSumOff]); !bytes.Equal(sum[:], b[cryptSumOff:]) {
		return h, errors.New("the checksum of its header is wrong")
	}
	h.seq = binary.BigEndian.Uint64(b[24:])
	copy(h.uuid[:], b[32:])
	if !bytes.Equal(b[:24], h.fixed()[:24]) || binary.BigEndian.Uint32(b[48:]) != cryptXTS {
		return h, fmt.Errorf("its header has version %d, sectors of %d bytes, data from %d on and cipher %d, which this vtgt does not know",
			binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint32(b[48:]))
	}
	for i := range h.slots {
		p := b[cryptSlotOff+i*cryptSlotLen:]
		s := &h.slots[i]
		switch st := binary.BigEndian.Uint32(p); st {
		case 0:
		case cryptWrapped:
			s.used = true
			copy(s.id[:], p[8:])
			copy(s.nonce[:], p[24:])
			copy(s.wrapped[:], p[36:])
		default:
			return h, fmt.Errorf("key slot %d has state %d, which this vtgt does not know", i, st)
		}
	}
	return h, nil
}

// add puts the data key, wrapped by k, into slot i.
func (h *cryptHeader) add(i int, k *cryptUserKey, data []byte) {
	s := &h.slots[i]
	s.used, s.id = true, k.id()
	_, _ = rand.Read(s.nonce[:]) // never fails
	k.aead().Seal(s.wrapped[:0], s.nonce[:], data, h.fixed())
}

// open unwraps the data key by one of keys.
func (h *cryptHeader) open(keys []cryptUserKey) ([]byte, error) {
	known := false
	for i := range keys {
		id := keys[i].id()
		for j := range h.slots {
			s := &h.slots[j]
			if !s.used || s.id != id {
				continue
			}
			known = true
			if data, err := keys[i].aead().Open(nil, s.nonce[:], s.wrapped[:], h.fixed()); err == nil {
				return data, nil
			}
		}
	}
	if known {
		return nil, errors.New("the key slot of the key file's key is damaged")
	}
	return nil, errors.New("no key of the key file opens it")
}

// next is the header that follows h, with another data key in slots for keys.
func (h *cryptHeader) next(keys []cryptUserKey) (cryptHeader, []byte) {
	n := cryptHeader{seq: h.seq + 1, uuid: h.uuid}
	data := make([]byte, cryptKeyLen)
	_, _ = rand.Read(data)
	for i := range keys {
		n.add(i, &keys[i], data)
	}
	return n, data
}

// newCryptHeader is that of a new store.
func newCryptHeader(keys []cryptUserKey) (cryptHeader, []byte) {
	var h cryptHeader
	_, _ = rand.Read(h.uuid[:])
	return h.next(keys)
}

// newCryptCipher is the cipher of a data key.
func newCryptCipher(data []byte) *xts.Cipher {
	c, err := xts.NewCipher(aes.NewCipher, data)
	if err != nil {
		panic(err) // the length of the key is right
	}
	return c
}

// EncryptedHeader is how much longer the file of an encrypted: store is than the store,
// bytes.
const EncryptedHeader = cryptDataOff

// CheckKeyFile tells what is wrong with the key file at path.
func CheckKeyFile(path string) error {
	_, err := readKeyFile(path)
	return err
}

// maxKeyFile bounds a key file, bytes.
const maxKeyFile = 4096

// readKeyFile reads the keys of the file at path: lines of 64 hexadecimal digits; empty
// lines and those that begin with # do not count.
func readKeyFile(path string) ([]cryptUserKey, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	if m := fi.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("others may read or write it (mode %04o): chmod 600 it", m)
	}
	if fi.Size() > maxKeyFile {
		return nil, fmt.Errorf("it has %d bytes, more than a key file", fi.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKeyFile(b)
}

func parseKeyFile(b []byte) (keys []cryptUserKey, err error) {
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var k cryptUserKey
		if n, err := hex.Decode(k[:], []byte(line)[:min(len(line), 2*cryptUserLen)]); err != nil || n != cryptUserLen || len(line) != 2*cryptUserLen {
			return nil, fmt.Errorf("line %d is not a key of 64 hexadecimal digits", i+1)
		}
		if len(keys) == cryptSlots {
			return nil, fmt.Errorf("it holds more than %d keys", cryptSlots)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key")
	}
	return keys, nil
}
