package vring

import (
	"errors"

	"github.com/vtgt/vtgt/internal/gmem"
)

// A Chain is one request's buffers. It is embedded in the front end's own request
// and reused: after some use it allocates nothing. The zero value is ready.
//
// Out and In are guest memory of the generation that the ring worked on when the
// chain was popped (gmem.Pin), valid until that request drops it. Buffers of one
// chain may overlap, and drivers do that for good reasons (one page of zeroes
// written many times); what comes of overlapping buffers to write is the guest's
// affair, and none of ours.
type Chain struct {
	Head uint16
	Out  [][]byte // for the device to read, in order
	In   [][]byte // for the device to write, in order

	bufs [][]byte // Out and In are its two parts
}

// Grow makes room for n pieces, so that later use needs no more.
func (c *Chain) Grow(n int) {
	if cap(c.bufs) < n {
		c.bufs = make([][]byte, 0, n)
	}
}

// Forget drops the references to guest memory and keeps the room.
func (c *Chain) Forget() {
	if len(c.bufs) == 3 { // header, response, data: in the place of a call
		b := (*[3][]byte)(c.bufs)
		b[0], b[1], b[2] = nil, nil, nil
	} else {
		clear(c.bufs)
	}
	c.bufs, c.Out, c.In = c.bufs[:0], nil, nil
}

// walk is the state of reading one chain.
type walk struct {
	r     *Ring
	c     *Chain
	total uint64
	out   int // pieces to read
	write bool
}

// load reads the chain at head into c.
func (r *Ring) load(head uint16, c *Chain) error {
	w := walk{r: r, c: c}
	c.Head = head
	c.bufs, c.Out, c.In = c.bufs[:0], nil, nil
	if err := w.table(r.desc, r.size, int(head), true); err != nil {
		return err
	}
	c.Out, c.In = c.bufs[:w.out:w.out], c.bufs[w.out:len(c.bufs):len(c.bufs)]
	return nil
}

func (w *walk) fail(k Kind, i int, v uint64) error {
	return &Violation{Kind: k, Head: int(w.c.Head), Index: i, Value: v}
}

// table follows a chain from entry i of a table of n descriptors.
func (w *walk) table(t gmem.Area, n, i int, direct bool) error {
	// A chain visits an entry once: one that is longer than its table loops.
	most := min(n, w.r.limit)
	for seen := 1; seen <= most; seen++ {
		var d desc
		d.lo, d.hi = t.Load128(i * descBytes)
		if d.flags()&DescIndirect != 0 {
			switch {
			case !w.r.indirect:
				return w.fail(IndirectOff, i, uint64(d.flags()))
			case !direct:
				return w.fail(IndirectNested, i, uint64(d.flags()))
			case d.flags()&DescNext != 0:
				return w.fail(IndirectNext, i, uint64(d.flags()))
			}
			// DescWrite is without meaning here (§2.7.5.3.2).
			return w.indirect(d, i)
		}
		if err := w.buffer(d, i); err != nil {
			return err
		}
		if d.flags()&DescNext == 0 {
			return nil
		}
		if i = int(d.next()); i >= n {
			return w.fail(NextRange, i, uint64(n))
		}
	}
	if most == n {
		return w.fail(Loop, i, uint64(n+1))
	}
	return w.fail(TooLong, i, uint64(most+1))
}

func (w *walk) indirect(d desc, i int) error {
	n := int(d.len() / descBytes)
	switch {
	case d.len()%descBytes != 0 || n == 0:
		return w.fail(IndirectLength, i, uint64(d.len()))
	case n > w.r.limit:
		return w.fail(TooLong, i, uint64(n))
	}
	b, err := w.r.mem.Slice(d.addr(), uint64(d.len()))
	if err != nil {
		return &Violation{Kind: Address, Head: int(w.c.Head), Index: i, Value: d.addr(), Err: err}
	}
	t, err := gmem.NewArea(b, 1) // any address: no alignment is demanded
	if err != nil {
		return &Violation{Kind: Address, Head: int(w.c.Head), Index: i, Value: d.addr(), Err: err}
	}
	if w.r.pk != nil {
		return w.row(t, n)
	}
	return w.table(t, n, 0, false)
}

func (w *walk) buffer(d desc, i int) error {
	n := uint64(d.len())
	if n == 0 {
		return w.fail(Empty, i, d.addr())
	}
	write := d.flags()&DescWrite != 0
	if w.write && !write {
		return w.fail(Order, i, uint64(d.flags()))
	}
	w.write = write
	if w.total += n; w.total > 1<<32 {
		return w.fail(TooBig, i, w.total)
	}
	c := w.c
	if b, ok := w.r.mem.Piece(d.addr(), n); ok && len(c.bufs) < w.r.pieces {
		c.bufs = append(c.bufs, b)
	} else if err := w.pieces(d, i); err != nil {
		return err
	}
	if !write {
		w.out = len(c.bufs)
	}
	return nil
}

// pieces appends a buffer that lies in more than one region, or says what is wrong.
func (w *walk) pieces(d desc, i int) (err error) {
	if w.c.bufs, err = w.r.mem.Append(w.c.bufs, d.addr(), uint64(d.len()), w.r.pieces); err != nil {
		k := Address
		if errors.Is(err, gmem.ErrPieces) {
			k = TooLong
		}
		err = &Violation{Kind: k, Head: int(w.c.Head), Index: i, Value: d.addr(), Err: err}
	}
	return err
}
