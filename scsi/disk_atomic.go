package scsi

import "github.com/vtgt/vtgt/backing"

// WRITE ATOMIC(16) (SBC-4 §5.44). That no other command sees a part of it is the range
// table's (cmdRange); that a crash leaves all of it or nothing is the store's.

// maxAtomicBlocks is MAXIMUM ATOMIC TRANSFER LENGTH where the store can do as much.
const maxAtomicBlocks = 256

// maxAtomic is the longest WRITE ATOMIC in blocks; 0: there is none.
func maxAtomic(bs int64, i *backing.Info) uint64 {
	return min(maxAtomicBlocks, uint64(i.AtomicMax)/uint64(bs))
}

func runWriteAtomic(t *Task) {
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	bs := t.blockLen()
	if n > maxAtomic(bs, t.unit.info()) {
		t.check(InvalidCDBField(12, 7))
		return
	}
	size := int64(n) * bs
	if !t.exactData(size) {
		// A part of it would not be what was asked for.
		t.check(wrongDataLength)
		return
	}
	t.Want = size
	if n == 0 {
		t.good()
		return
	}
	t.store(backing.Write, t.rwFlags()|backing.Atomic, int64(lba)*bs, size, t.DataOut, writeDone)
}
