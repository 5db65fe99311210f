package scsi

import "encoding/binary"

// The parameter list of EXTENDED COPY(LID1): SPC-4 §6.4.3 to §6.4.5.

// What the copy manager takes (RECEIVE COPY OPERATING PARAMETERS).
const (
	maxCopyTargets    = 8
	maxCopySegments   = 64
	maxCopyDescLen    = 4096    // of all descriptors, bytes
	maxCopySegmentLen = 1 << 28 // bytes
)

const (
	copyHeaderLen   = 16
	copyTargetLen   = 32
	copyTargetIdent = 0xe4 // identification descriptor
	copyBlocks      = 0x02 // block device to block device
	copyBytesOffset = 0x0a // the same with byte counts and offsets
)

// Values of LIST ID USAGE.
const (
	listIDHold    = 0
	listIDDiscard = 2
	listIDNone    = 3
)

// copyTarget is a decoded CSCD descriptor. Offsets are bytes of the parameter list.
type copyTarget struct {
	at int
	// pdt is the PERIPHERAL DEVICE TYPE.
	pdt byte
	// code, kind and id are the designator: CODE SET, ASSOCIATION with DESIGNATOR TYPE,
	// DESIGNATOR.
	code, kind byte
	id         []byte
	pad        bool
	blockSize  uint32 // DISK BLOCK LENGTH
}

// copySegment is a decoded segment descriptor.
type copySegment struct {
	at       int
	kind     byte
	dc       bool
	src, dst uint16 // indexes
	// blocks (copyBlocks) of the source, or of the destination where dc; or bytes.
	n              uint32
	srcLBA, dstLBA uint64
	// offsets in bytes behind the LBAs.
	srcOff, dstOff uint16
}

// copyParams is a decoded parameter list.
type copyParams struct {
	id       byte
	usage    byte
	targets  []copyTarget
	segments []copySegment
}

// decodeCopy decodes b, which must not change any more and is kept in part. s has a Key
// where the list is refused.
func decodeCopy(b []byte) (p copyParams, s Sense) {
	short := Sense{Key: IllegalRequest, ASC: ASCParamListLengthError}
	if len(b) < copyHeaderLen || len(b) > copyHeaderLen+maxCopyDescLen {
		return p, short
	}
	p.id = b[0]
	p.usage = b[1] >> 3 & 3
	targets := int(binary.BigEndian.Uint16(b[2:]))
	segments := int64(binary.BigEndian.Uint32(b[8:]))
	inline := binary.BigEndian.Uint32(b[12:])
	switch {
	case p.usage == 1:
		return p, InvalidParamField(1, 4)
	case p.usage == listIDNone && p.id != 0:
		return p, InvalidParamField(0, 7)
	case inline != 0:
		return p, Sense{Key: IllegalRequest, ASC: ascInlineDataExceeded}
	case int64(targets)+segments > int64(len(b)-copyHeaderLen):
		return p, short
	case targets%copyTargetLen != 0:
		return p, InvalidParamField(2, 7)
	}
	at := copyHeaderLen
	for end := at + targets; at < end; at += copyTargetLen {
		d := b[at : at+copyTargetLen]
		if d[0] != copyTargetIdent {
			return p, Sense{Key: IllegalRequest, ASC: ascUnknownTargetType}
		}
		if len(p.targets) == maxCopyTargets {
			return p, Sense{Key: IllegalRequest, ASC: ascTooManyTargets}
		}
		n := int(d[7])
		if n > 20 {
			return p, InvalidParamField(at+7, 7)
		}
		p.targets = append(p.targets, copyTarget{
			at: at, pdt: d[1] & 0x1f,
			code: d[4] & 0x0f, kind: d[5] & 0x3f, id: d[8 : 8+n : 8+n],
			pad: d[28]&0x04 != 0, blockSize: uint32(d[29])<<16 | uint32(d[30])<<8 | uint32(d[31]),
		})
	}
	for end := at + int(segments); at < end; {
		d := b[at:end]
		if len(d) < 4 {
			return p, short
		}
		n := 4 + int(binary.BigEndian.Uint16(d[2:]))
		g := copySegment{at: at, kind: d[0], dc: d[1]&0x02 != 0}
		var want int
		switch g.kind {
		case copyBlocks:
			want = 28
		case copyBytesOffset:
			want = 32
		default:
			return p, Sense{Key: IllegalRequest, ASC: ascUnknownSegmentType}
		}
		if n != want {
			return p, InvalidParamField(at+2, 7)
		}
		if len(d) < n {
			return p, short
		}
		if len(p.segments) == maxCopySegments {
			return p, Sense{Key: IllegalRequest, ASC: ascTooManySegments}
		}
		g.src, g.dst = binary.BigEndian.Uint16(d[4:]), binary.BigEndian.Uint16(d[6:])
		g.srcLBA, g.dstLBA = binary.BigEndian.Uint64(d[12:]), binary.BigEndian.Uint64(d[20:])
		if g.kind == copyBlocks {
			g.n = uint32(binary.BigEndian.Uint16(d[10:]))
		} else {
			g.n = binary.BigEndian.Uint32(d[8:])
			g.srcOff, g.dstOff = binary.BigEndian.Uint16(d[28:]), binary.BigEndian.Uint16(d[30:])
		}
		p.segments = append(p.segments, g)
		at += n
	}
	return p, Sense{}
}

// segmentSense is COPY ABORTED with a pointer to byte at of the segment descriptor.
func segmentSense(asc ASC, at int) Sense {
	s := Sense{Key: CopyAborted, ASC: asc, SKS: fieldPointer(0x80, at, -1)}
	s.SKS[0] |= 0x20 // SD
	return s
}

// names reports whether the descriptor names u, by one of the designators that VPD page
// 83h has for the unit itself.
func (c *copyTarget) names(u *Unit) bool {
	switch {
	case c.code == codeBinary && c.kind == assocUnit|designatorNAA:
		return len(c.id) == 8 && binary.BigEndian.Uint64(c.id) == u.conf.NAA
	case c.code == codeASCII && c.kind == assocUnit|designatorT10:
		return string(c.id) == string(t10Designator(&u.conf))
	}
	return false
}

// find is the LUN that the descriptor names among those that the nexus sees.
func (c *copyTarget) find(luns []Mapping) (e copyEnd, ok bool) {
	for i := range luns {
		if c.names(luns[i].Unit) {
			return copyEnd{unit: luns[i].Unit, lun: luns[i].LUN}, true
		}
	}
	return e, false
}

// resolve makes ranges of the segments, as initiators that see luns may have them
// copied. What is wrong with a segment is told when the copy comes to it; with a
// descriptor at once: s has a Key then.
func (p *copyParams) resolve(luns []Mapping) (rs []copyRange, s Sense) {
	type target struct {
		copyEnd
		ok bool
	}
	ts := make([]target, len(p.targets))
	for i := range p.targets {
		c := &p.targets[i]
		if ts[i].copyEnd, ts[i].ok = c.find(luns); ts[i].ok && c.pdt == pdtDisk && int(c.blockSize) != ts[i].unit.blockSize {
			return nil, InvalidParamField(c.at+29, 7)
		}
	}
	rs = make([]copyRange, len(p.segments))
	for i := range p.segments {
		g, r := &p.segments[i], &rs[i]
		for _, e := range []struct {
			index uint16
			at    int
			end   *copyEnd
			lba   uint64
			off   uint16
			offAt int
		}{{g.src, 4, &r.src, g.srcLBA, g.srcOff, 28}, {g.dst, 6, &r.dst, g.dstLBA, g.dstOff, 30}} {
			switch {
			case int(e.index) >= len(ts):
				r.bad = segmentSense(ascUnreachableTarget, e.at)
			case p.targets[e.index].pdt != pdtDisk:
				r.bad = segmentSense(ascWrongTargetType, e.at)
			case !ts[e.index].ok:
				r.bad = segmentSense(ascUnreachableTarget, e.at)
			case e.off != 0:
				// DATA SEGMENT GRANULARITY says that there is nothing below a block.
				r.bad = segmentSense(ascInexactSegment, e.offAt)
			default:
				*e.end = ts[e.index].copyEnd
				bs := uint64(e.end.unit.blockSize)
				if e.lba > e.end.unit.blocks() {
					r.bad = Sense{Key: CopyAborted, ASC: ascCopyAborted}
				} else {
					e.end.off = int64(e.lba * bs)
				}
			}
			if r.bad.Key != NoSense {
				break
			}
		}
		if r.bad.Key != NoSense {
			continue
		}
		r.n = int64(g.n)
		if g.kind == copyBlocks {
			if g.dc {
				r.n *= int64(r.dst.unit.blockSize)
			} else {
				r.n *= int64(r.src.unit.blockSize)
			}
		}
		switch {
		case r.n > maxCopySegmentLen:
			r.bad = segmentSense(ASCInvalidFieldInParamList, 8)
		case r.n%int64(r.src.unit.blockSize) != 0, r.n%int64(r.dst.unit.blockSize) != 0:
			r.bad = segmentSense(ascInexactSegment, 8)
		}
	}
	return rs, Sense{}
}
