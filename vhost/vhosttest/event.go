package vhosttest

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Events, VIRTIO 1.2 §5.6.6.3.
const (
	EventNone           = 0
	EventTransportReset = 1
	EventAsyncNotify    = 2
	EventParamChange    = 3
	EventsMissed        = 0x8000_0000
)

// Reasons of a transport reset.
const (
	ReasonHardReset = 0
	ReasonRescan    = 1
	ReasonRemoved   = 2
)

const eventBytes = 16

// An Event is what the device tells by the event queue.
type Event struct {
	Event  uint32
	LUN    [8]byte
	Reason uint32
}

func (e Event) String() string {
	return fmt.Sprintf("event %#x, LUN %x, reason %#x", e.Event, e.LUN, e.Reason)
}

// Events is the event queue. It belongs to one goroutine.
type Events struct {
	q    *Queue
	at   uint64
	mem  []byte
	reqs []Request
	free []int
}

func (e *Events) init() error {
	size := e.q.c.o.Size
	if e.mem == nil {
		a, err := e.q.c.Mem.Alloc(eventBytes*size, pageBytes)
		if err != nil {
			return err
		}
		e.at, e.mem = a, e.q.c.Mem.At(a, eventBytes*size)
	}
	e.reqs, e.free = make([]Request, size), nil
	for i := range size {
		e.reqs[i] = Request{Raw: true, Tag: uint64(i), In: []Buf{{Addr: e.at + uint64(eventBytes*i), Len: eventBytes}}}
		e.free = append(e.free, i)
	}
	return nil
}

// Queue is the virtqueue.
func (e *Events) Queue() *Queue { return e.q }

// Post gives the device n buffers; Linux gives 8.
func (e *Events) Post(n int) error {
	for range n {
		if len(e.free) == 0 {
			return ErrFull
		}
		i := e.free[0]
		if err := e.q.Submit(&e.reqs[i]); err != nil {
			return err
		}
		e.free = e.free[1:]
	}
	e.q.Kick()
	return nil
}

// Wait waits for an event, at most d (0: Options.Timeout). Its buffer does not go back.
func (e *Events) Wait(d time.Duration) (Event, error) {
	r, err := e.q.Wait(d)
	if err != nil {
		return Event{}, err
	}
	b := e.mem[eventBytes*r.Tag:][:eventBytes]
	if r.Written != eventBytes {
		return Event{}, fmt.Errorf("event queue: %d bytes written", r.Written)
	}
	ev := Event{Event: binary.LittleEndian.Uint32(b), Reason: binary.LittleEndian.Uint32(b[12:])}
	copy(ev.LUN[:], b[4:])
	e.free = append(e.free, int(r.Tag))
	return ev, nil
}
