package agent

import "encoding/binary"

// Pattern fills b with the bytes that belong at byte offset off (a multiple of 8)
// of the pattern seed: each 8-byte word tells where it belongs, so that a block
// in the wrong place is seen.
func Pattern(b []byte, seed uint64, off int64) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], mix(seed^uint64(off+int64(i))))
	}
}

// mix is the finisher of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
