package backing

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// sealedBlocks is n blocks of 512 bytes that each end with their CRC32C, as those of
// file systems and databases do.
func sealedBlocks(n int, fill byte) []byte {
	b := bytes.Repeat([]byte{fill}, 512*n)
	for i := range n {
		k := b[512*i : 512*(i+1)]
		k[0] = byte(i)
		binary.LittleEndian.PutUint32(k[508:], crc32.Checksum(k[:508], castagnoli))
	}
	return b
}

// A slot in which the power has left blocks of an earlier write is empty, also where each
// block has a checksum of its own.
func TestIntentEntryTorn(t *testing.T) {
	const n = 128
	slot := append(make([]byte, intentHead), sealedBlocks(n, 0x5a)...)
	RestoreEntry(slot, 7, 512*77, 512*n, intentID{1})
	e, ok := decodeIntentEntry(slot, false)
	if !ok || e.seq != 7 || e.off != 512*77 || e.n != 512*n || e.id != (intentID{1}) {
		t.Fatalf("%+v, %v", e, ok)
	}
	before := sealedBlocks(n, 0x11)
	for i := range n {
		torn := bytes.Clone(slot)
		copy(torn[intentHead+512*i:], before[512*i:512*(i+1)])
		if _, ok := decodeIntentEntry(torn, false); ok {
			t.Fatalf("with block %d of an earlier write it is taken for whole", i)
		}
	}
}

// A log of version 1 is understood, and only as one.
func TestIntentEntryOld(t *testing.T) {
	data := bytes.Repeat([]byte("vtgt"), 256)
	slot := append(make([]byte, intentHead), data...)
	e := intentEntry{seq: 7, off: 512, n: len(data), id: intentID{1}}
	e.encode(slot)
	binary.BigEndian.PutUint32(slot[28:], crc32.Checksum(data, castagnoli))
	sealHead(slot)
	if e, ok := decodeIntentEntry(slot, true); !ok || e.off != 512 {
		t.Errorf("%+v, %v", e, ok)
	}
	if _, ok := decodeIntentEntry(slot, false); ok {
		t.Error("a slot of version 1 is taken for one of version 2")
	}
	head := make([]byte, intentHead)
	s := intentSuper{slot: intentHead + 512, slots: 3}
	s.encode(head)
	for v, want := range map[uint32]string{1: "old", 2: "new", 3: "unknown"} {
		binary.BigEndian.PutUint32(head[8:], v)
		sealHead(head)
		got := "new"
		d, _, err := decodeIntentSuper(head)
		if err != nil {
			got = "unknown"
		} else if d.old {
			got = "old"
		}
		if got != want {
			t.Errorf("version %d is %s", v, got)
		}
	}
}
