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

// runPreFetch only checks: what is worth caching the store knows better. GOOD
// rather than CONDITION MET: not all of it is in the cache.
func runPreFetch(t *Task) {
	if _, _, ok := t.extent(); ok {
		t.good()
	}
}
