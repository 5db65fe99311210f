package scsiprop

import (
	"encoding/binary"
)

// Copies go between certain blocks only, in pairs: what a block holds depends on its
// partner then, so that the histories of both are one, and a search for an order of more
// than two blocks would take too long.

const (
	// others is the size of the unit at LUN 1.
	others = 8
	// all are the blocks of both units; those of LUN 1 come last.
	all = blocks + others
)

// spans are where copies go, in both directions: n blocks from a on, and from b on.
var spans = []struct{ a, b, n int }{
	{40, 44, 4},         // within the unit
	{36, blocks, 4},     // to the other, and back
	{14, blocks + 6, 2}, // the same, next to where everybody goes
	{2, blocks + 4, 2},  // and there, see copy
}

// partner is the block that lba is copied to and from; lba: there is none.
func partner(lba int) int {
	for _, s := range spans {
		if k := lba - s.a; k >= 0 && k < s.n {
			return s.b + k
		}
		if k := lba - s.b; k >= 0 && k < s.n {
			return s.a + k
		}
	}
	return lba
}

// nameOf is the NAA designator of the unit at a LUN.
func nameOf(lun int) uint64 { return 0x3000_0000_0000_0010 + uint64(lun) }

// copy is an EXTENDED COPY(LID1) (SPC-4 §6.4) of one segment, block to block.
func (m *maker) copy() *command {
	// Where everybody goes two clients copy, not all 16: what each copy may have read,
	// times what each other one may have, made the search for an order take minutes.
	some := len(spans)
	if m.id%8 != 1 {
		some--
	}
	s := spans[m.rand.IntN(some)]
	k := m.rand.IntN(s.n)
	n := 1 + m.rand.IntN(s.n-k)
	from, to := s.a+k, s.b+k
	if m.rand.IntN(2) == 0 {
		from, to = to, from
	}
	c := &command{name: "EXTENDED COPY", writes: true, copies: true, out: make([]byte, 16+2*32+28)}
	p := c.out
	p[1] = 3 << 3 // the list has no identifier
	binary.BigEndian.PutUint16(p[2:], 2*32)
	binary.BigEndian.PutUint32(p[8:], 28)
	for lun := range 2 {
		d := p[16+32*lun:]
		d[0], d[4], d[5], d[7] = 0xe4, 1, 3, 8
		binary.BigEndian.PutUint64(d[8:], nameOf(lun))
		d[30] = blockSize >> 8
	}
	seg := p[16+2*32:]
	seg[0], seg[3] = 0x02, 24
	seg[5], seg[7] = byte(from/blocks), byte(to/blocks)
	binary.BigEndian.PutUint16(seg[10:], uint16(n))
	binary.BigEndian.PutUint64(seg[12:], uint64(from%blocks))
	binary.BigEndian.PutUint64(seg[20:], uint64(to%blocks))
	c.cdb = make16(0x83, 0, len(p))
	client := int(m.id) - 1
	for i := range n {
		read := fact{lba: from + i, kind: copyRead, client: client}
		c.meant = append(c.meant, read, fact{lba: to + i, kind: copyWrite, client: client})
		c.doubt = append(c.doubt, read, fact{lba: to + i, kind: maybeCopy, client: client})
	}
	return c
}
