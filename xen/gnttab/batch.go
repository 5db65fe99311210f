package gnttab

import (
	"encoding/binary"
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// opLen is the length of struct gntdev_grant_copy_segment: source and destination, 8
// bytes each (an address, or reference 4, offset 2, domain 2), length 2, flags 2,
// status 2, padding 2.
const opLen = 24

// GNTCOPY_* of xen/include/public/grant_table.h: which of the two is a reference.
const (
	sourceGref = 1
	destGref   = 2
)

// A Status is how one grant operation ended (GNTST_*).
type Status int16

// OK is success.
const OK Status = 0

func (s Status) String() string {
	switch s {
	case OK:
		return "okay"
	case -1:
		return "general error"
	case -2:
		return "bad domain"
	case -3:
		return "bad grant reference"
	case -8:
		return "permission denied"
	case -9:
		return "bad page"
	case -10:
		return "bad copy argument"
	}
	return fmt.Sprintf("status %d", int16(s))
}

// A Batch is copies for one call. The zero value is ready; it lives on the heap, and is
// used again after Reset.
type Batch struct {
	n     int
	ops   []byte
	local [][]byte // keeps the buffers alive
	arg   [16]byte
}

// Reset empties the batch.
func (b *Batch) Reset() {
	clear(b.local)
	b.n, b.ops, b.local = 0, b.ops[:0], b.local[:0]
}

// Len is the number of copies.
func (b *Batch) Len() int { return b.n }

func appendGref(dst []byte, domid uint16, s Segment) []byte {
	ne := binary.NativeEndian
	return ne.AppendUint16(ne.AppendUint16(ne.AppendUint32(dst, s.Ref), s.Off), domid)
}

// Get adds a copy of s of domain domid to local, which has s.Len bytes.
func (b *Batch) Get(domid uint16, s Segment, local []byte) {
	b.ops = appendGref(b.ops, domid, s)
	b.ops = binary.NativeEndian.AppendUint64(b.ops, sys.Address(local))
	b.end(s, local, sourceGref)
}

// Put adds a copy of local to s.
func (b *Batch) Put(domid uint16, s Segment, local []byte) {
	b.ops = binary.NativeEndian.AppendUint64(b.ops, sys.Address(local))
	b.ops = appendGref(b.ops, domid, s)
	b.end(s, local, destGref)
}

func (b *Batch) end(s Segment, local []byte, flags uint16) {
	ne := binary.NativeEndian
	b.ops = ne.AppendUint16(b.ops, s.Len)
	b.ops = ne.AppendUint16(b.ops, flags)
	b.ops = ne.AppendUint32(b.ops, 0)
	b.local = append(b.local, local[:s.Len])
	b.n++
}

// Op is copy i, for Tables: put tells its direction.
func (b *Batch) Op(i int) (domid uint16, s Segment, local []byte, put bool) {
	ne := binary.NativeEndian
	o := b.ops[i*opLen:]
	g := o[:8]
	if put = ne.Uint16(o[18:]) == destGref; put {
		g = o[8:16]
	}
	return ne.Uint16(g[6:]), Segment{ne.Uint32(g), ne.Uint16(g[4:]), ne.Uint16(o[16:])}, b.local[i], put
}

// SetStatus is copy i's outcome, for Tables.
func (b *Batch) SetStatus(i int, s Status) {
	binary.NativeEndian.PutUint16(b.ops[i*opLen+20:], uint16(s))
}

// Failed is the first copy that failed; i < 0: none has.
func (b *Batch) Failed() (i int, s Status) {
	for i := range b.n {
		if s := Status(binary.NativeEndian.Uint16(b.ops[i*opLen+20:])); s != OK {
			return i, s
		}
	}
	return -1, OK
}
