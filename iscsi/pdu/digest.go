package pdu

import (
	"encoding/binary"
	"hash/crc32"
)

// DigestLen is the length of a header or data digest in bytes.
const DigestLen = 4

// castagnoli is a constant in all but name: hash/crc32 has no constant tables.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Digest is the CRC32C digest (RFC 7143 §13.1) of a segment given in pieces:
//
//	d := pdu.Digest(0, bhs[:])
//	d = pdu.Digest(d, ahs)
//
// A header digest covers BHS and AHS, a data digest the data with their padding.
func Digest(d uint32, b []byte) uint32 { return crc32.Update(d, castagnoli, b) }

// DigestPad continues a digest over the padding of n bytes of data, zero bytes.
func DigestPad(d uint32, n int) uint32 {
	var zero [3]byte
	return crc32.Update(d, castagnoli, zero[:Pad(n)])
}

// PutDigest writes d to the first four bytes of b in the order of the wire: the
// least significant byte first, which annex A.4's examples show.
func PutDigest(b []byte, d uint32) { binary.LittleEndian.PutUint32(b, d) }

// ReadDigest reads a digest from the first four bytes of b.
func ReadDigest(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
