package chap

import (
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"fmt"
	"strconv"
)

// Algorithm is a hash by its number in CHAP_A.
type Algorithm uint8

// The algorithms.
const (
	MD5     Algorithm = 5
	SHA1    Algorithm = 6
	SHA256  Algorithm = 7
	SHA3256 Algorithm = 8
)

// Algorithms are those that this process may use, the strongest first.
func Algorithms() []Algorithm {
	if fips140.Enabled() {
		return []Algorithm{SHA3256, SHA256}
	}
	return []Algorithm{SHA3256, SHA256, SHA1, MD5}
}

func (a Algorithm) String() string {
	switch a {
	case MD5:
		return "MD5"
	case SHA1:
		return "SHA1"
	case SHA256:
		return "SHA-256"
	case SHA3256:
		return "SHA3-256"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Number is the algorithm as CHAP_A has it.
func (a Algorithm) Number() string { return strconv.Itoa(int(a)) }

// Size is the length of a response, bytes; 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case MD5:
		return md5.Size
	case SHA1:
		return sha1.Size
	case SHA256, SHA3256:
		return sha256.Size
	}
	return 0
}

// Response is the hash of identifier, secret and challenge one behind the other
// (RFC 1994 §4.1); nil for an unknown algorithm.
func Response(a Algorithm, id byte, secret Secret, challenge []byte) []byte {
	b := make([]byte, 0, 1+len(secret)+len(challenge))
	b = append(b, id)
	b = append(b, string(secret)...)
	b = append(b, challenge...)
	defer clear(b)
	switch a {
	case MD5:
		d := md5.Sum(b)
		return d[:]
	case SHA1:
		d := sha1.Sum(b)
		return d[:]
	case SHA256:
		d := sha256.Sum256(b)
		return d[:]
	case SHA3256:
		d := sha3.Sum256(b)
		return d[:]
	}
	return nil
}
