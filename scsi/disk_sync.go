package scsi

import "github.com/vtgt/vtgt/backing"

// SYNCHRONIZE CACHE(10) and (16) (SBC-3 §5.26, §5.27) and PRE-FETCH(10) and (16)
// (§5.9, §5.10).

// runSyncCache makes everything that was acknowledged stable, whatever the range.
// With IMMED too the answer waits for it: an earlier GOOD could only hide an
// error.
func runSyncCache(t *Task) {
	if _, _, ok := t.extent(); !ok {
		return
	}
	if !t.unit.volatileCache() {
		t.good()
		return
	}
	t.store(backing.Sync, 0, 0, 0, nil, writeDone)
}

// maxPreFetch is how much of the host's memory one PRE-FETCH may ask for, bytes.
const maxPreFetch = 16 << 20

// runPreFetch reads the blocks where the store keeps what was read in memory. The
// answer is CONDITION MET when all of them are there and GOOD when they are not:
// there are too many, or the store keeps nothing. IMMED makes no difference: an
// earlier answer could only be less sure.
func runPreFetch(t *Task) {
	lba, n, ok := t.extent()
	if !ok {
		return
	}
	if !t.unit.info().Cached {
		t.good()
		return
	}
	bs := t.blockLen()
	d := &t.disk
	d.pos = int64(lba) * bs
	d.end = d.pos + min(int64(n)*bs, maxPreFetch)
	if d.pos == d.end {
		t.finish(StatusConditionMet)
		return
	}
	b := t.buf(int(min(d.end-d.pos, t.stepLen())))
	if b == nil {
		return
	}
	d.tmp = b
	t.store1(backing.Read, 0, d.pos, b, preFetchStep)
}

func preFetchStep(t *Task) {
	if !t.stored() {
		return
	}
	d := &t.disk
	d.pos += t.op.Len
	if d.pos < d.end {
		t.store1(backing.Read, 0, d.pos, d.tmp[:min(d.end-d.pos, int64(len(d.tmp)))], preFetchStep)
		return
	}
	if _, n := t.lbaRange(); n > uint64(maxPreFetch/t.blockLen()) {
		t.good()
		return
	}
	t.finish(StatusConditionMet)
}
