package scsi

import "github.com/vtgt/vtgt/internal/prefetch"

// Near is where the data of the READ or WRITE in t lie, from its LUN and CDB alone, if
// its unit's store keeps them in memory: for carriers that have something else to do
// before they submit t. Empty: elsewhere, or it is another command. It promises
// nothing, neither that t will run nor that it will find its data there.
func (ln *Lane) Near(t *Task) prefetch.Span {
	if !ln.near {
		return prefetch.Span{}
	}
	n, ok := t.LUN.Number()
	if !ok || int(n) >= len(ln.byLUN) {
		return prefetch.Span{}
	}
	lu := ln.byLUN[n]
	if lu == nil || lu.near == nil {
		return prefetch.Span{}
	}
	switch t.CDB[0] {
	case 0x08, 0x28, 0xa8, 0x88: // READ(6), (10), (12), (16)
	case 0x0a, 0x2a, 0xaa, 0x8a: // WRITE
	default:
		return prefetch.Span{}
	}
	lba, blocks := t.lbaRange()
	if !inRange(lba, blocks, lu.unit.blocks()) {
		return prefetch.Span{}
	}
	bs := int64(lu.unit.blockSize)
	return lu.near.Near(int64(lba)*bs, int64(blocks)*bs)
}
