package iu

import "encoding/binary"

// Lengths of descriptors, bytes.
const (
	DescLen         = 16 // memory descriptor
	IndirectHeadLen = 20 // an indirect descriptor before its list
)

// Segment is a memory descriptor: a piece of the initiator's memory (SRP r16a §5.6.2).
type Segment struct {
	Addr uint64
	Key  uint32 // memory handle
	Len  uint32 // bytes
}

// Decode reads a segment from b, at least DescLen bytes.
func (s *Segment) Decode(b []byte) {
	s.Addr = binary.BigEndian.Uint64(b)
	s.Key = binary.BigEndian.Uint32(b[8:])
	s.Len = binary.BigEndian.Uint32(b[12:16])
}

// Encode writes s to b, at least DescLen bytes.
func (s Segment) Encode(b []byte) {
	binary.BigEndian.PutUint64(b, s.Addr)
	binary.BigEndian.PutUint32(b[8:], s.Key)
	binary.BigEndian.PutUint32(b[12:16], s.Len)
}

// wraps tells whether the segment reaches over the end of the address space.
func (s *Segment) wraps() bool { return s.Len != 0 && s.Addr+uint64(s.Len-1) < s.Addr }

// Data is one direction's buffer descriptor in an SRP_CMD.
type Data struct {
	Format Format
	// Len is the number of bytes that the initiator has or takes.
	Len uint32
	// List are the descriptors in the unit, DescLen bytes each: the whole list
	// unless External. It points into the unit.
	List []byte
	// Table is the memory that holds the list of an indirect descriptor; its
	// length is a multiple of DescLen.
	Table Segment
}

// External tells whether the list is in the initiator's memory (Table): the part that
// is in the unit does not hold all of it.
func (d *Data) External() bool { return d.Format == Indirect && int(d.Table.Len) > len(d.List) }

// parse reads the descriptor of format f at the front of b and gives what follows.
func (d *Data) parse(b []byte, f Format, count, max int) ([]byte, error) {
	*d = Data{Format: f}
	switch f {
	case NoData:
		return b, nil
	case Direct:
		if len(b) < DescLen {
			return b, ErrShort
		}
		d.List = b[:DescLen:DescLen]
		d.Len = binary.BigEndian.Uint32(b[12:])
		return b[DescLen:], nil
	case Indirect:
		n := IndirectHeadLen + count*DescLen
		if len(b) < n {
			return b, ErrShort
		}
		d.Table.Decode(b)
		d.Len = binary.BigEndian.Uint32(b[16:])
		d.List = b[IndirectHeadLen:n:n]
		switch {
		case d.Table.Len%DescLen != 0, int(d.Table.Len) < len(d.List), d.Table.wraps():
			return b, ErrDescriptor
		case int64(d.Table.Len)/DescLen > int64(max):
			return b, ErrTooMany
		}
		return b[n:], nil
	}
	return b, ErrFormat
}

// Segments appends to dst the segments of list (DescLen bytes each: Data.List, or the
// table that was fetched) that hold the first total bytes. The last one is cut, what
// comes behind it is left alone, empty ones are left out.
func Segments(dst []Segment, list []byte, total uint32) ([]Segment, error) {
	left := total
	for ; left > 0; list = list[DescLen:] {
		if len(list) < DescLen {
			return dst, ErrLength
		}
		var s Segment
		s.Decode(list)
		if s.wraps() {
			return dst, ErrDescriptor
		}
		if s.Len == 0 {
			continue
		}
		s.Len = min(s.Len, left)
		left -= s.Len
		dst = append(dst, s)
	}
	return dst, nil
}
