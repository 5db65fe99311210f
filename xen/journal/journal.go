package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/xen/vscsiif"
)

// Size is how many bytes a journal has.
const Size = 8192

// An Identity is whose journal it is: a journal of another ring must not be used.
type Identity struct {
	Domain, Device uint32
	RingRef, Port  uint32   // the front end's ring-ref and event-channel
	Boot           [16]byte // of this host
}

// The layout: magic 0:8; domain 8, device 12, ring-ref 16, port 20; boot 24:16; cons 40;
// next 44; shown 48; entries from 64 on, each state 0, request index 4, response index
// 8, request 16:252.
const (
	offID    = 8
	offCons  = 40
	offNext  = 44
	offShown = 48
	offList  = 64

	entryLen = 272
	entState = 0
	entReq   = 4
	entRsp   = 8
	entBody  = 16
)

const magic = 0x314e4a5847545601 // "\x01VTGXJN1"

// The states of an entry.
const (
	free      = 0
	taken     = 1
	answering = 2
)

// ErrOther: the journal is of another ring, or none.
var ErrOther = errors.New("the journal is not of this ring")

// Journal is a journal of at most vscsiif.Entries requests. It belongs to one
// goroutine.
type Journal struct {
	a     gmem.Area
	cons  uint32
	next  uint32
	used  uint32 // entries, by bit
	shown []int  // entries whose answers wait to be shown
}

func area(b []byte) (gmem.Area, error) {
	if len(b) < Size {
		return gmem.Area{}, fmt.Errorf("a journal of %d bytes instead of %d", len(b), Size)
	}
	return gmem.NewArea(b[:Size], 8)
}

func entry(i int) int { return offList + i*entryLen }

func (id *Identity) append(dst []byte) []byte {
	le := binary.LittleEndian
	for _, v := range []uint32{id.Domain, id.Device, id.RingRef, id.Port} {
		dst = le.AppendUint32(dst, v)
	}
	return append(dst, id.Boot[:]...)
}

// New begins a journal in b for a ring of which cons requests were taken and answered.
func New(b []byte, id Identity, cons uint32) (*Journal, error) {
	a, err := area(b)
	if err != nil {
		return nil, err
	}
	a.Put64(0, 0)
	for i := range vscsiif.Entries {
		a.Store32(entry(i)+entState, free)
	}
	copy(b[offID:], id.append(nil))
	a.Store32(offCons, cons)
	a.Store32(offNext, cons)
	a.Store32(offShown, cons)
	j := &Journal{a: a, cons: cons, next: cons, shown: make([]int, 0, vscsiif.Entries)}
	j.setMagic(magic)
	return j, nil
}

// setMagic makes the journal valid, or not: its second half last.
func (j *Journal) setMagic(v uint64) {
	j.a.Store32(4, uint32(v>>32))
	j.a.Store32(0, uint32(v))
}

// Forget makes the journal one of no ring.
func (j *Journal) Forget() { j.setMagic(0) }

// A Lost is a request that was taken and not answered.
type Lost struct {
	Entry   int
	Request vscsiif.Request
}

// Open takes up the journal in b of ring id, whose page says rspProd responses: cons and
// prod are the ring's indices, list what was taken and not answered, in the order in
// which it was taken. The bytes in b are our own, but a front end may have written
// rspProd: it is believed where it is one that can be.
func Open(b []byte, id Identity, rspProd uint32) (j *Journal, cons, prod uint32, list []Lost, err error) {
	a, err := area(b)
	if err != nil {
		return nil, 0, 0, nil, err
	}
	le := binary.LittleEndian
	if a.Load64(0) != magic || string(b[offID:offCons]) != string(id.append(nil)) {
		return nil, 0, 0, nil, ErrOther
	}
	cons = a.Load32(offCons)
	next, shown := a.Load32(offNext), a.Load32(offShown)
	if next-shown > vscsiif.Entries || cons-next > vscsiif.Entries {
		return nil, 0, 0, nil, fmt.Errorf("%w: it says %d taken, %d answered, %d shown", ErrOther, cons, next, shown)
	}
	if rspProd-shown > next-shown {
		return nil, 0, 0, nil, fmt.Errorf("the front end says that it was given %d responses: it was given %d to %d", rspProd, shown, next)
	}
	// A ring holds no more: neither does a journal that is whole say so.
	if cons-rspProd > vscsiif.Entries {
		return nil, 0, 0, nil, fmt.Errorf("%w: it says %d taken, of which the front end has %d answers", ErrOther, cons, rspProd)
	}
	j = &Journal{a: a, cons: cons, next: rspProd, shown: make([]int, 0, vscsiif.Entries)}
	type at struct {
		Lost
		req uint32
	}
	var found []at
	for i := range vscsiif.Entries {
		o := entry(i)
		st, req, rsp := a.Load32(o+entState), a.Load32(o+entReq), a.Load32(o+entRsp)
		if st != taken && st != answering || // free, or nonsense
			int32(req-cons) >= 0 || // never counted: the ring has it still
			st == answering && int32(rsp-rspProd) < 0 { // shown
			a.Store32(o+entState, free)
			continue
		}
		l := at{req: req}
		l.Entry = i
		for k := 0; k < vscsiif.RequestLen; k += 4 {
			le.PutUint32(l.Request[k:], a.Load32(o+entBody+k))
		}
		a.Store32(o+entState, taken)
		j.used |= 1 << i
		found = append(found, l)
	}
	if uint32(len(found)) > cons-rspProd {
		return nil, 0, 0, nil, fmt.Errorf("%w: %d requests without an answer, but %d can be", ErrOther, len(found), cons-rspProd)
	}
	slices.SortFunc(found, func(x, y at) int { return int(int32(x.req - y.req)) })
	for _, l := range found {
		list = append(list, l.Lost)
	}
	a.Store32(offNext, rspProd)
	a.Store32(offShown, rspProd)
	return j, cons, rspProd, list, nil
}

// Take notes a request that was taken from the ring, and returns its entry. There are
// never more than vscsiif.Entries.
func (j *Journal) Take(q *vscsiif.Request) int {
	i := 0
	for j.used&(1<<i) != 0 {
		i++
	}
	j.used |= 1 << i
	o := entry(i)
	for k := 0; k < vscsiif.RequestLen; k += 4 {
		j.a.Put32(o+entBody+k, binary.LittleEndian.Uint32(q[k:]))
	}
	j.a.Put32(o+entReq, j.cons)
	j.a.Store32(o+entState, taken)
	j.cons++
	j.a.Store32(offCons, j.cons)
	return i
}

// Answer notes that the next response is the one to entry i: before it is written.
func (j *Journal) Answer(i int) {
	o := entry(i)
	j.a.Put32(o+entRsp, j.next)
	j.a.Store32(o+entState, answering)
	j.next++
	j.a.Store32(offNext, j.next)
	j.shown = append(j.shown, i)
}

// Shown notes that all answers have been shown to the front end.
func (j *Journal) Shown() {
	if len(j.shown) == 0 {
		return
	}
	j.a.Store32(offShown, j.next)
	for _, i := range j.shown {
		j.Drop(i)
	}
	j.shown = j.shown[:0]
}

// Drop forgets entry i: its request will never be answered.
func (j *Journal) Drop(i int) {
	j.a.Store32(entry(i)+entState, free)
	j.used &^= 1 << i
}
