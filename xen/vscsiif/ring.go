package vscsiif

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/internal/gmem"
)

// Entries is how many slots a page has: the largest power of two that fits behind the
// header of 64 bytes.
const Entries = 16

// Offsets in the page (struct vscsiif_sring).
const (
	offReqProd  = 0
	offReqEvent = 4
	offRspProd  = 8
	offRspEvent = 12
	offSlots    = 64
)

// ErrOverflow: the front end announces more requests than the ring has slots, or fewer
// than it has announced before. Nothing in the ring can be believed any more.
var ErrOverflow = errors.New("the front end announces more requests than its ring holds")

// Ring is the back end's side of a ring. It belongs to one goroutine.
type Ring struct {
	a    gmem.Area
	cons uint32 // requests taken
	prod uint32 // responses written
	done uint32 // of these, shown to the front end
}

// NewRing is the ring in page, of which cons requests have been taken and prod
// responses shown: 0 and 0 for a new one.
func NewRing(page []byte, cons, prod uint32) (*Ring, error) {
	if len(page) < PageSize {
		return nil, fmt.Errorf("a ring of %d bytes", len(page))
	}
	a, err := gmem.NewArea(page[:PageSize], 16)
	if err != nil {
		return nil, fmt.Errorf("the ring's page: %w", err)
	}
	if cons-prod > Entries {
		return nil, ErrOverflow
	}
	return &Ring{a, cons, prod, prod}, nil
}

// Indices are what a front end's page says: requests announced, responses shown.
func Indices(page []byte) (reqProd, rspProd uint32, err error) {
	r, err := NewRing(page, 0, 0)
	if err != nil {
		return 0, 0, err
	}
	return r.a.Load32(offReqProd), r.a.Load32(offRspProd), nil
}

// Cons is the number of requests taken, Prod of responses written, both modulo 2^32.
func (r *Ring) Cons() uint32 { return r.cons }

// Prod: see Cons.
func (r *Ring) Prod() uint32 { return r.prod }

// More tells whether there are requests to take.
func (r *Ring) More() (bool, error) {
	n := r.a.Load32(offReqProd) // once
	// Every request has a slot until it is answered.
	if n-r.prod > Entries || n-r.prod < r.cons-r.prod {
		return false, ErrOverflow
	}
	return n != r.cons, nil
}

// Pop copies the next request; false: there is none.
func (r *Ring) Pop(q *Request) (bool, error) {
	if more, err := r.More(); !more {
		return false, err
	}
	off := offSlots + int(r.cons%Entries)*SlotLen
	for i := 0; i < SlotLen; i += 4 {
		binary.LittleEndian.PutUint32(q[i:], r.a.Load32(off+i))
	}
	r.cons++
	return true, nil
}

// Push writes a response, which Publish shows. There is one for each request taken at
// most; more are our own fault, and panic.
func (r *Ring) Push(p *Response) {
	if r.cons == r.prod {
		panic("vscsiif: a response without a request")
	}
	off := offSlots + int(r.prod%Entries)*SlotLen
	for i := 0; i < SlotLen; i += 4 {
		r.a.Put32(off+i, binary.LittleEndian.Uint32(p[i:]))
	}
	r.prod++
}

// Publish shows what was pushed and tells whether the front end wants to be notified.
// What rsp_event says is the front end's affair: a lie costs it notifications.
func (r *Ring) Publish() (notify bool) {
	old := r.done
	if r.prod == old {
		return false
	}
	r.done = r.prod
	r.a.Store32(offRspProd, r.prod)
	return r.prod-r.a.Load32(offRspEvent) < r.prod-old
}

// EnableNotify asks for a notification of the next request, and tells whether one came
// before that could be seen.
func (r *Ring) EnableNotify() (more bool, err error) {
	r.a.Store32(offReqEvent, r.cons+1)
	return r.More()
}
