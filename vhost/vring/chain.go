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

// walk is the reading of one chain: first all its descriptors, each once, then the
// buffers that they name.
type walk struct {
	r    *Ring
	head int    // -1: not known
	ds   []desc // what was read; next is the place in its table
}

func (r *Ring) walk(head int) walk { return walk{r: r, head: head, ds: r.ds[:0]} }

// load reads the chain at head into c.
func (r *Ring) load(head uint16, c *Chain) error {
	w := r.walk(int(head))
	c.Head = head
	if err := w.table(r.desc, r.size, int(head), true); err != nil {
		return err
	}
	return w.buffers(c)
}

func (w *walk) fail(k Kind, i int, v uint64) error {
	return &Violation{Kind: k, Head: w.head, Index: i, Value: v}
}

// note takes d, which stood at i of its table.
func (w *walk) note(d desc, i int) {
	w.ds = append(w.ds, desc{d.lo, d.hi&(1<<48-1) | uint64(i)<<48})
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
		w.note(d, i)
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
	b, ok := w.r.near.Piece(d.addr(), uint64(d.len()))
	if !ok {
		var err error
		if b, err = w.r.mem.Slice(d.addr(), uint64(d.len())); err != nil {
			return &Violation{Kind: Address, Head: w.head, Index: i, Value: d.addr(), Err: err}
		}
	}
	t, err := gmem.NewArea(b, 1) // any address: no alignment is demanded
	if err != nil {
		return &Violation{Kind: Address, Head: w.head, Index: i, Value: d.addr(), Err: err}
	}
	if w.r.pk != nil {
		return w.row(t, n)
	}
	return w.table(t, n, 0, false)
}

// buffers makes the chain of what was read.
func (w *walk) buffers(c *Chain) error {
	w.r.ds = w.ds
	bufs, out, err := w.translate(c.bufs[:0])
	c.bufs = bufs
	if err != nil {
		c.Out, c.In = nil, nil
		return err
	}
	c.Out, c.In = bufs[:out:out], bufs[out:len(bufs):len(bufs)]
	return nil
}

// translate appends the buffers to bufs; the first out are to be read.
func (w *walk) translate(bufs [][]byte) (_ [][]byte, out int, err error) {
	r := w.r
	var total uint64
	write := false
	for _, d := range w.ds {
		n := uint64(d.len())
		if n == 0 {
			return bufs, 0, w.fail(Empty, int(d.next()), d.addr())
		}
		was := write
		if write = d.flags()&DescWrite != 0; was && !write {
			return bufs, 0, w.fail(Order, int(d.next()), uint64(d.flags()))
		}
		if total += n; total > 1<<32 {
			return bufs, 0, w.fail(TooBig, int(d.next()), total)
		}
		if b, ok := r.near.Piece(d.addr(), n); ok && len(bufs) < r.pieces {
			bufs = append(bufs, b)
		} else if bufs, err = r.far(bufs, d.addr(), n); err != nil {
			k := Address
			if errors.Is(err, gmem.ErrPieces) {
				k = TooLong
			}
			return bufs, 0, &Violation{Kind: k, Head: w.head, Index: int(d.next()), Value: d.addr(), Err: err}
		}
		if !write {
			out = len(bufs)
		}
	}
	return bufs, out, nil
}

// far is where the region that the last buffer lay in does not hold this one.
func (r *Ring) far(bufs [][]byte, a, n uint64) ([][]byte, error) {
	r.near = r.mem.Window(a)
	return r.mem.Append(bufs, a, n, r.pieces)
}
