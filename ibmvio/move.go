package ibmvio

import (
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/srp/iu"
)

// maxOp is the longest piece that is moved by one operation, bytes.
const maxOp = 256 << 10

// Fetch is the Mover's.
func (t *target) Fetch(r *srp.Request) { t.a.move(r, false) }

// Store is the Mover's.
func (t *target) Store(r *srp.Request) { t.a.move(r, true) }

// move begins to move the data of r.
func (a *adapter) move(r *srp.Request, storing bool) {
	s := r.Own.(*part).s
	s.storing = storing
	d := s.data()
	if !d.External() {
		s.list(d.List)
		return
	}
	if s.table = a.loop.Slabs().Get(int(d.Table.Len)); s.table == nil {
		s.move(ErrRefused)
		return
	}
	s.begin(&s.tableOp, OpRead, d.Table.Addr, s.table.B[:d.Table.Len])
}

// data is the descriptor of what moves.
func (s *slot) data() *iu.Data {
	if s.storing {
		return &s.in
	}
	return &s.out
}

// tabled goes on when the list of descriptors was read.
func (s *slot) tabled() {
	if s.tableOp.Err != nil {
		s.move(s.tableOp.Err)
		return
	}
	s.list(s.table.B[:s.data().Table.Len])
}

// list begins the operations for the pieces that list describes.
func (s *slot) list(list []byte) {
	r := s.r
	n, bufs, kind := r.InLen, r.DataIn, OpWrite
	if !s.storing {
		n, bufs, kind = 0, r.DataOut, OpRead
		for _, b := range bufs {
			n += int64(len(b))
		}
	}
	var err error
	if s.segs, err = iu.Segments(s.segs[:0], list, s.data().Len); err != nil {
		s.move(err)
		return
	}
	s.moves = s.moves[:0]
	var buf []byte
	for i := range s.segs {
		for g := s.segs[i]; g.Len > 0 && n > 0; {
			if len(buf) == 0 {
				buf, bufs = bufs[0], bufs[1:]
			}
			k := int(min(int64(g.Len), int64(len(buf)), n, maxOp))
			s.moves = append(s.moves, Op{Kind: kind, Epoch: s.epoch, Link: true, Quiet: kind == OpWrite,
				Addr: g.Addr, Buf: buf[:k], Owner: s})
			buf = buf[k:]
			g.Addr, g.Len, n = g.Addr+uint64(k), g.Len-uint32(k), n-int64(k)
		}
	}
	if n > 0 || len(s.moves) == 0 {
		s.move(iu.ErrLength)
		return
	}
	last := &s.moves[len(s.moves)-1]
	last.Link, last.Quiet = false, false
	s.left, s.err = len(s.moves), nil
	for i := range s.moves {
		s.a.do(&s.moves[i])
	}
}

// moved is the end of a piece.
func (s *slot) moved(op *Op) {
	op.Buf = nil
	if op.Err != nil && (s.err == nil || s.err == ErrSkipped) {
		s.err = op.Err
	}
	if s.left--; s.left == 0 {
		s.move(s.err)
	}
}

// move ends the move.
func (s *slot) move(err error) {
	if s.table != nil {
		s.table.Free()
		s.table = nil
	}
	if err != nil && !s.dead() {
		s.a.count.MoveErrors.Add(1)
	}
	t := s.t
	if !t.kick {
		t.kick = true
		s.a.flushLater()
	}
	t.q.Moved(s.r, err)
}
