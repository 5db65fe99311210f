package scsiprop

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/vtgt/vtgt/scsi"
)

// sense is key<<16 | ASC<<8 | ASCQ, 0 for none, of sense data in either format, with
// the INFORMATION field.
func sense(t *scsi.Task) (code int, info uint64, hasInfo bool) {
	s := t.Sense[:t.SenseLen]
	switch {
	case len(s) < 8:
		return 0, 0, false
	case s[0]&0x7f == 0x72:
		code = int(s[1]&15)<<16 | int(s[2])<<8 | int(s[3])
		for d := s[8:]; len(d) >= 2; d = d[2+int(d[1]):] {
			if d[0] == 0 {
				info, hasInfo = binary.BigEndian.Uint64(d[4:]), d[2]&0x80 != 0
			}
		}
		return code, info, hasInfo
	}
	return int(s[2]&15)<<16 | int(s[12])<<8 | int(s[13]), uint64(binary.BigEndian.Uint32(s[3:])), s[0]&0x80 != 0
}

// Sense codes that a test may meet.
const (
	miscompare = 0x0e1d00
	outOfRange = 0x052100
	uaKey      = 0x06
	// copyAborted is a key, too: COPY ABORTED.
	copyAborted = 0x0a
)

// A command is one with what its outcome means.
type command struct {
	name string
	cdb  []byte
	out  []byte
	room int // of Data-In, bytes
	// writes tells that it changes the medium: an error of the store, or an abort,
	// leaves it in doubt.
	writes bool
	// meant are the facts when it ends with GOOD; doubt when nobody can tell.
	meant, doubt []fact
	// read tells what the data of a GOOD read mean.
	read func(in []byte) ([]fact, error)
	// differs tells what a MISCOMPARE with its INFORMATION means; nil: there must be
	// none.
	differs func(info uint64) ([]fact, error)
	// want is the outcome of commands that must fail: sense code; 0: GOOD.
	want int
	// met: CONDITION MET is as good as GOOD.
	met bool
	lun uint16
	// copies: it may end with COPY ABORTED where its blocks are in doubt.
	copies bool
}

// maker makes random commands for one client.
type maker struct {
	rand *rand.Rand
	id   uint64
	seq  uint64
	// seen is what anybody last saw in each block: what is compared with.
	seen *[all]atomic.Uint64
}

// next is a word that nobody has written before: the client and a number.
func (m *maker) next() uint64 {
	m.seq++
	return m.id<<40 | m.seq
}

// span picks a range, most of it where everybody goes.
func (m *maker) span(most int) (lba, n int) {
	n = 1 + m.rand.IntN(most)
	if m.rand.IntN(3) > 0 {
		return m.rand.IntN(8), n
	}
	return m.rand.IntN(blocks - n + 1), n
}

func cdb10(op byte, flags byte, lba, n int) []byte {
	c := make([]byte, 10)
	c[0], c[1] = op, flags
	binary.BigEndian.PutUint32(c[2:], uint32(lba))
	binary.BigEndian.PutUint16(c[7:], uint16(n))
	return c
}

func cdb12(op byte, flags byte, lba, n int) []byte {
	c := make([]byte, 12)
	c[0], c[1] = op, flags
	binary.BigEndian.PutUint32(c[2:], uint32(lba))
	binary.BigEndian.PutUint32(c[6:], uint32(n))
	return c
}

func cdb16(op byte, flags byte, lba, n int) []byte {
	c := make([]byte, 16)
	c[0], c[1] = op, flags
	binary.BigEndian.PutUint64(c[2:], uint64(lba))
	binary.BigEndian.PutUint32(c[10:], uint32(n))
	return c
}

// sized is a command in one of its lengths: 10, 12 and 16 bytes, and 6 where six is
// not zero and nothing is set that it lacks.
func (m *maker) sized(six, ten, twelve, sixteen, flags byte, lba, n int) []byte {
	switch k := m.rand.IntN(4); {
	case k == 0 && six != 0 && flags == 0:
		return []byte{six, 0, byte(lba >> 8), byte(lba), byte(n), 0}
	case k == 1 && twelve != 0:
		return cdb12(twelve, flags, lba, n)
	case k == 2:
		return cdb16(sixteen, flags, lba, n)
	}
	return cdb10(ten, flags, lba, n)
}

// data are n blocks of new words, with the facts that k makes of them.
func (m *maker) data(lba, n int, k kind) (b []byte, facts []fact) {
	b = make([]byte, n*blockSize)
	for i := range n {
		w := m.next()
		putWord(b[i*blockSize:], w)
		facts = append(facts, fact{lba: lba + i, kind: k, w: w})
	}
	return b, facts
}

func doubt(facts []fact, k kind) []fact {
	d := append([]fact(nil), facts...)
	for i := range d {
		d[i].kind = k
	}
	return d
}

// whole are facts about blocks that all get, or have, the word w.
func whole(lba, n int, k kind, w uint64) (facts []fact) {
	for i := range n {
		facts = append(facts, fact{lba: lba + i, kind: k, w: w})
	}
	return facts
}

// make makes a random command.
func (m *maker) make() *command {
	dpoFUA := byte(m.rand.IntN(4)) << 3
	if m.rand.IntN(2) == 0 {
		dpoFUA = 0
	}
	switch m.rand.IntN(30) {
	case 0, 1, 2, 3, 4, 5:
		lba, n := m.span(4)
		return m.readOf(m.sized(0x08, 0x28, 0xa8, 0x88, dpoFUA, lba, n), lba, n)
	case 6, 7, 8, 9:
		lba, n := m.span(4)
		c := &command{name: "WRITE", writes: true, cdb: m.sized(0x0a, 0x2a, 0xaa, 0x8a, dpoFUA, lba, n)}
		c.out, c.meant = m.data(lba, n, write)
		c.doubt = doubt(c.meant, maybeWrite)
		return c
	case 10, 11, 12:
		return m.compareAndWrite()
	case 13, 14:
		lba, n := m.span(3)
		c := &command{name: "ORWRITE", writes: true, cdb: cdb16(0x8b, dpoFUA, lba, n)}
		c.out, c.meant = m.data(lba, n, or)
		c.doubt = doubt(c.meant, maybeOr)
		return c
	case 15:
		lba, n := m.span(4)
		c := &command{name: "WRITE AND VERIFY", writes: true, cdb: m.sized(0, 0x2e, 0xae, 0x8e, byte(m.rand.IntN(2))<<1, lba, n)}
		c.out, c.meant = m.data(lba, n, write)
		c.doubt = doubt(c.meant, maybeWrite)
		// Another may have written in between; what was to be written was.
		c.differs = func(info uint64) ([]fact, error) { return c.meant, inSpan(info, lba, n) }
		return c
	case 16:
		return m.writeSame()
	case 17:
		return m.unmap()
	case 18, 19:
		return m.verify()
	case 20:
		return m.lbaStatus()
	case 21:
		lba, n := m.span(8)
		if m.rand.IntN(2) == 0 {
			return &command{name: "PRE-FETCH", cdb: m.sized(0, 0x34, 0, 0x90, byte(m.rand.IntN(2))<<1, lba, n), met: true}
		}
		return &command{name: "SYNCHRONIZE CACHE", writes: true, cdb: m.sized(0, 0x35, 0, 0x91, byte(m.rand.IntN(2))<<1, lba, n)}
	case 22:
		return m.beyond()
	case 23, 24:
		lba, n := m.span(4)
		// TRANSFER LENGTH has two bytes, behind ATOMIC BOUNDARY.
		c := &command{name: "WRITE ATOMIC", writes: true, cdb: cdb16(0x9c, dpoFUA, lba, n)}
		c.out, c.meant = m.data(lba, n, write)
		c.doubt = doubt(c.meant, maybeWrite)
		return c
	case 25, 26, 27:
		return m.copy()
	case 28:
		lba := m.rand.IntN(others)
		n := 1 + m.rand.IntN(others-lba)
		if m.rand.IntN(2) == 0 {
			return m.readOther(lba, n)
		}
		c := &command{name: "WRITE to the other", lun: 1, writes: true, cdb: cdb10(0x2a, 0, lba, n)}
		c.out, c.meant = m.data(blocks+lba, n, write)
		c.doubt = doubt(c.meant, maybeWrite)
		return c
	}
	return m.other()
}

// readOther reads the unit at LUN 1.
func (m *maker) readOther(lba, n int) *command {
	c := m.readOf(cdb10(0x28, 0, lba, n), blocks+lba, n)
	c.lun = 1
	return c
}

func (m *maker) readOf(cdb []byte, lba, n int) *command {
	return &command{name: "READ", cdb: cdb, room: n * blockSize, read: func(in []byte) (facts []fact, err error) {
		if len(in) != n*blockSize {
			return nil, fmt.Errorf("%d bytes for %d blocks", len(in), n)
		}
		for i := range n {
			w, ok := word(in[i*blockSize:])
			if !ok {
				return nil, fmt.Errorf("block %d is torn: % x … % x", lba+i, in[i*blockSize:][:8], in[i*blockSize:][504:512])
			}
			m.seen[lba+i].Store(w)
			facts = append(facts, fact{lba: lba + i, kind: equal, w: w})
		}
		return facts, nil
	}}
}

func (m *maker) compareAndWrite() *command {
	lba, n := m.span(1 + m.rand.IntN(3))
	c := &command{name: "COMPARE AND WRITE", writes: true, cdb: cdb16(0x89, 0, lba, 0)}
	c.cdb[13] = byte(n)
	old := make([]byte, n*blockSize)
	now, facts := m.data(lba, n, swap)
	for i := range facts {
		facts[i].old = m.seen[lba+i].Load()
		putWord(old[i*blockSize:], facts[i].old)
	}
	c.out, c.meant, c.doubt = append(old, now...), facts, doubt(facts, maybeSwap)
	c.differs = func(info uint64) (seen []fact, err error) {
		if info >= uint64(n*blockSize) {
			return nil, fmt.Errorf("offset %d behind the %d bytes compared", info, n*blockSize)
		}
		k := int(info) / blockSize
		for i := range k {
			seen = append(seen, fact{lba: lba + i, kind: equal, w: facts[i].old})
		}
		return append(seen, fact{lba: lba + k, kind: notEqual, w: facts[k].old}), nil
	}
	return c
}

// writeSame: of a pattern, of zeros, with UNMAP, and to the end.
func (m *maker) writeSame() *command {
	lba, n := m.span(6)
	w := m.next()
	c := &command{name: "WRITE SAME", writes: true, out: make([]byte, blockSize)}
	asked := n
	if m.rand.IntN(8) == 0 {
		asked, n = 0, blocks-lba
	}
	var flags byte
	switch m.rand.IntN(4) {
	case 0: // zeros
		w = 0
	case 1: // UNMAP
		w, flags = 0, 0x08
	}
	putWord(c.out, w)
	if m.rand.IntN(2) == 0 {
		c.cdb = cdb10(0x41, flags, lba, asked)
	} else {
		if w == 0 && m.rand.IntN(2) == 0 {
			flags |= 0x01 // NDOB
			c.out = nil
		}
		c.cdb = cdb16(0x93, flags, lba, asked)
	}
	c.meant = whole(lba, n, write, w)
	c.doubt = whole(lba, n, maybeWrite, w)
	return c
}

func (m *maker) unmap() *command {
	k := 1 + m.rand.IntN(3)
	p := make([]byte, 8+16*k)
	binary.BigEndian.PutUint16(p, uint16(len(p)-2))
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-8))
	c := &command{name: "UNMAP", writes: true, cdb: cdb10(0x42, 0, 0, len(p)), out: p}
	for i := range k {
		lba, n := m.span(3)
		binary.BigEndian.PutUint64(p[8+16*i:], uint64(lba))
		binary.BigEndian.PutUint32(p[16+16*i:], uint32(n))
		c.meant = append(c.meant, whole(lba, n, write, 0)...)
	}
	c.doubt = doubt(c.meant, maybeWrite)
	return c
}

func (m *maker) verify() *command {
	lba, n := m.span(4)
	c := &command{name: "VERIFY"}
	words := make([]uint64, n)
	bytchk := byte([]int{0, 1, 1, 3}[m.rand.IntN(4)])
	switch bytchk {
	case 1:
		c.out = make([]byte, n*blockSize)
		for i := range n {
			words[i] = m.seen[lba+i].Load()
			putWord(c.out[i*blockSize:], words[i])
		}
	case 3:
		c.out = make([]byte, blockSize)
		w := m.seen[lba].Load()
		putWord(c.out, w)
		for i := range n {
			words[i] = w
		}
	}
	c.cdb = m.sized(0, 0x2f, 0xaf, 0x8f, bytchk<<1, lba, n)
	if bytchk == 0 {
		return c
	}
	for i, w := range words {
		c.meant = append(c.meant, fact{lba: lba + i, kind: equal, w: w})
	}
	c.differs = func(info uint64) (seen []fact, err error) {
		if err := inSpan(info, lba, n); err != nil {
			return nil, err
		}
		k := int(info) - lba
		return append(append(seen, c.meant[:k]...), fact{lba: lba + k, kind: notEqual, w: words[k]}), nil
	}
	return c
}

func inSpan(info uint64, lba, n int) error {
	if info < uint64(lba) || info >= uint64(lba+n) {
		return fmt.Errorf("INFORMATION %d: the command has blocks %d to %d", info, lba, lba+n-1)
	}
	return nil
}

// lbaStatus: what is deallocated reads zero.
func (m *maker) lbaStatus() *command {
	lba := m.rand.IntN(blocks)
	c := &command{name: "GET LBA STATUS", cdb: cdb16(0x9e, 0x12, lba, 8+16*blocks), room: 8 + 16*blocks}
	c.read = func(in []byte) (facts []fact, err error) {
		if len(in) < 24 || binary.BigEndian.Uint32(in) != uint32(len(in)-4) {
			return nil, fmt.Errorf("header % x", in[:min(8, len(in))])
		}
		at := lba
		for d := in[8:]; len(d) >= 16; d = d[16:] {
			if got := binary.BigEndian.Uint64(d); got != uint64(at) {
				return nil, fmt.Errorf("descriptor for block %d, want %d", got, at)
			}
			n := int(binary.BigEndian.Uint32(d[8:]))
			if n == 0 || n > blocks-at || d[12] > 1 {
				return nil, fmt.Errorf("descriptor % x", d[:16])
			}
			if d[12] == 1 {
				facts = append(facts, whole(at, n, equal, 0)...)
			}
			at += n
		}
		return facts, nil
	}
	return c
}

// beyond leaves the medium.
func (m *maker) beyond() *command {
	n := 1 + m.rand.IntN(4)
	lba := blocks - m.rand.IntN(n)
	b := make([]byte, 2*n*blockSize)
	switch m.rand.IntN(4) {
	case 0:
		return &command{name: "READ beyond", cdb: m.sized(0x08, 0x28, 0xa8, 0x88, 0, lba, n), room: n * blockSize, want: outOfRange}
	case 1:
		return &command{name: "WRITE beyond", cdb: m.sized(0x0a, 0x2a, 0xaa, 0x8a, 0, lba, n), out: b[:n*blockSize], want: outOfRange}
	case 2:
		return &command{name: "VERIFY beyond", cdb: m.sized(0, 0x2f, 0xaf, 0x8f, 2, lba, n), out: b[:n*blockSize], want: outOfRange}
	}
	c := cdb16(0x89, 0, lba, 0)
	c[13] = byte(n)
	return &command{name: "COMPARE AND WRITE beyond", cdb: c, out: b, want: outOfRange}
}

// other commands, which only must not be harmed.
func (m *maker) other() *command {
	switch m.rand.IntN(5) {
	case 0:
		return &command{name: "TEST UNIT READY", cdb: make([]byte, 6)}
	case 1:
		return &command{name: "INQUIRY", cdb: []byte{0x12, 0, 0, 0, 96, 0}, room: 96}
	case 2:
		return &command{name: "MODE SENSE", cdb: []byte{0x1a, 0, 0x3f, 0, 255, 0}, room: 255}
	case 3:
		return &command{name: "REPORT LUNS", cdb: []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, room: 256}
	}
	return &command{name: "READ CAPACITY", cdb: make16(0x9e, 0x10, 32), room: 32, read: func(in []byte) ([]fact, error) {
		if len(in) != 32 || binary.BigEndian.Uint64(in) != blocks-1 || binary.BigEndian.Uint32(in[8:]) != blockSize {
			return nil, fmt.Errorf("% x", in)
		}
		return nil, nil
	}}
}

func make16(op, sa byte, alloc int) []byte {
	c := make([]byte, 16)
	c[0], c[1] = op, sa
	binary.BigEndian.PutUint32(c[10:], uint32(alloc))
	return c
}
