// Package ledger writes blocks to a logical unit, keeps a book of what the target
// acknowledged as stable, and finds out after a crash whether all of it is there.
//
// Every sector says which write it is from (number, place, checksum). A slot of the
// book must hold the last write that was acknowledged as stable or a later one that was
// under way; an older one, a torn one or nothing at all is a lost acknowledgement.
//
// Standards: SBC-3 §5.36 WRITE (10) with FUA, §5.25 SYNCHRONIZE CACHE (10).
package ledger
