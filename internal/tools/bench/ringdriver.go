package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/vhost/vhosttest"
	"github.com/vtgt/vtgt/vhost/vring"
)

// The places of a request, per head: its header and its response in slots of their own,
// as a driver's slab gives them.
const (
	reqSlot, respSlot = 64, 128
	dataSlot          = 4096
	tableSlots        = 8 // descriptors of room for each head's indirect table
)

// ringDriver is a virtio-scsi driver that polls and does the least that a driver must:
// for each 4 KiB request it writes the header, an indirect table of three descriptors
// (header, response, data) and a ring entry, and it looks at the response's status. It
// drives the device under test and the bare device alike, so that what they differ in
// is the device.
type ringDriver struct {
	size                     int
	desc, avail, used        gmem.Area
	table                    gmem.Area
	tableAt                  uint64
	req, resp                []byte
	reqAt, respAt, dataAt    uint64
	idx, last                uint16
	notify                   func() // the device wants a kick
	header                   [vhosttest.ReqBytes]byte
	write                    bool
	rng, first, blocks, tags uint64
	bad                      error
}

// memory is where a ring and its buffers lie.
type memory interface {
	At(a uint64, n int) []byte
	Alloc(n, align int) (uint64, error)
}

// newRingDriver takes over a ring that is empty and stands at index idx.
func newRingDriver(m memory, size int, desc, avail, used, tables uint64, idx uint16) (*ringDriver, error) {
	r := &ringDriver{size: size, idx: idx, last: idx, tableAt: tables, rng: 88172645463325252}
	var err error
	area := func(a uint64, n, align int) (x gmem.Area) {
		if err == nil {
			x, err = gmem.NewArea(m.At(a, n), align)
		}
		return x
	}
	alloc := func(n int) (a uint64) {
		if err == nil {
			a, err = m.Alloc(n, 4096)
		}
		return a
	}
	r.desc = area(desc, vring.DescSize(size), 16)
	r.avail = area(avail, vring.AvailSize(size), 2)
	r.used = area(used, vring.UsedSize(size), 4)
	r.table = area(tables, 16*tableSlots*size, 16)
	r.reqAt, r.respAt, r.dataAt = alloc(reqSlot*size), alloc(respSlot*size), alloc(dataSlot*size)
	if err != nil {
		return nil, err
	}
	r.req, r.resp = m.At(r.reqAt, reqSlot*size), m.At(r.respAt, respSlot*size)
	lun := vhosttest.LUN(0, 0)
	copy(r.header[:], lun[:])
	r.blocks = 1
	return r, nil
}

// aim says what part of the disk the requests go to, in blocks of 4 KiB, and what they
// do.
func (r *ringDriver) aim(first, blocks int, write bool) {
	r.first, r.blocks, r.write = uint64(first), uint64(blocks), write
	cdb := r.header[19:]
	clear(cdb)
	cdb[0], cdb[8] = 0x28, 8 // READ(10) of 8 blocks
	if write {
		cdb[0] = 0x2a
	}
}

// add makes the request of that head available with the next publication.
func (r *ringDriver) add(head int) {
	r.rng ^= r.rng << 13
	r.rng ^= r.rng >> 7
	r.rng ^= r.rng << 17
	lba := uint32((r.first + (r.rng>>16)%r.blocks) * 8)
	binary.BigEndian.PutUint32(r.header[21:], lba)
	r.tags++
	binary.LittleEndian.PutUint64(r.header[8:], r.tags)
	copy(r.req[reqSlot*head:], r.header[:])
	h, t := uint64(head), 16*tableSlots*head
	req, resp, data := r.reqAt+reqSlot*h, r.respAt+respSlot*h, r.dataAt+dataSlot*h
	put := func(i int, a uint64, n, flags, next uint64) {
		r.table.Put64(t+16*i, a)
		r.table.Put64(t+16*i+8, n|flags<<32|next<<48)
	}
	put(0, req, vhosttest.ReqBytes, vring.DescNext, 1)
	if r.write {
		put(1, data, dataSlot, vring.DescNext, 2)
		put(2, resp, vhosttest.RespBytes, vring.DescWrite, 0)
	} else {
		put(1, resp, vhosttest.RespBytes, vring.DescNext|vring.DescWrite, 2)
		put(2, data, dataSlot, vring.DescWrite, 0)
	}
	r.desc.Put64(16*head, r.tableAt+uint64(t))
	r.desc.Put64(16*head+8, 48|vring.DescIndirect<<32)
	r.resp[respSlot*head+11] = 0xff
	r.avail.Put16(4+2*(int(r.idx)&(r.size-1)), uint16(head))
	r.idx++
}

// publish shows the device what was added since index old.
func (r *ringDriver) publish(old uint16) {
	r.avail.Store32(0, uint32(r.idx)<<16)
	if event := r.used.Load16(4 + 8*r.size); r.idx-event-1 < r.idx-old && r.notify != nil {
		r.notify()
	}
}

// drive keeps depth requests going for d, and then takes what is under way.
func (r *ringDriver) drive(depth int, d time.Duration) (n int, took time.Duration, err error) {
	for k := range depth {
		r.add(k)
	}
	begin := time.Now()
	more := true
	r.publish(r.idx - uint16(depth))
	for looks := 0; ; looks++ {
		done := r.used.Load16(2)
		if done == r.last {
			// Where both threads share a processor they meet seldom.
			if looks&0xffff == 0 {
				if t := time.Since(begin); t >= d {
					more = false
					if t > d+runLimit {
						return n, t, errors.New("the device does not answer")
					}
				}
			}
			continue
		}
		old := r.idx
		for ; r.last != done; r.last++ {
			head := int(r.used.Load32(4+8*(int(r.last)&(r.size-1)))) & (r.size - 1)
			if s := r.resp[respSlot*head:]; s[10] != 0 || s[11] != 0 {
				return n, time.Since(begin), fmt.Errorf("response %d, status %#x", s[11], s[10])
			}
			n++
			if more {
				r.add(head)
			}
		}
		if r.idx != old {
			r.publish(old)
		} else if r.idx == r.last {
			return n, time.Since(begin), nil
		}
		if looks&63 == 0 && time.Since(begin) >= d {
			more = false
		}
	}
}
