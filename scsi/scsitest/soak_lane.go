package scsitest

import (
	"encoding/binary"
	"fmt"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
)

// Handle is the lane's turn: submit what is free, sometimes a task management
// function.
func (ln *soakLane) Handle(*loop.Node) {
	s := ln.s
	if s.stop.Load() {
		if len(ln.free) == len(ln.all) && !ln.tmfBusy && !ln.stopped {
			ln.stopped = true
			s.idle.Add(1)
		}
		return
	}
	for n := len(ln.free); n > 0 && len(ln.free) > 0; n-- {
		// In the order of their ends, so that buffers stay closed for a while.
		r := ln.free[0]
		ln.free = ln.free[1:]
		ln.submit(r)
		if ln.rand.IntN(24) == 0 {
			ln.manage()
		}
	}
	ln.ln.Kick()
}

// submit sends a request of random kind.
func (ln *soakLane) submit(r *soakReq) {
	s := ln.s
	ln.tag++
	r.LUN, r.Tag = ln.lun, ln.tag
	r.DataIn, r.DataOut = nil, nil
	r.CDB = [scsi.MaxCDB]byte{}
	r.CDBLen = 16
	r.Attr = scsi.Simple
	switch ln.rand.IntN(24) {
	case 0:
		r.Attr = scsi.Ordered
	case 1:
		r.Attr = scsi.HeadOfQueue
	}
	r.lba = uint32(ln.rand.IntN(soakSize + soakMore))
	r.blocks = uint16(1 + ln.rand.IntN(soakMaxBlocks))
	switch k := ln.rand.IntN(16); {
	case k < 3 && !ln.counting:
		ln.count(r)
	case k < 9:
		if ln.rand.IntN(8) == 0 { // across the counter
			r.lba, r.blocks = counterLBA-2, 4
		}
		r.kind = reqRead
		copy(r.CDB[:], CDB10(0x28, r.lba, r.blocks))
		r.data = r.buf.Open(int(r.blocks) * soakBlock)
		clear(r.data)
		r.DataIn = r.split()
	case k < 13:
		r.kind = reqWrite
		if r.lba <= counterLBA && r.lba+uint32(r.blocks) > counterLBA {
			r.lba = counterLBA + 1
		}
		copy(r.CDB[:], CDB10(0x2a, r.lba, r.blocks))
		r.data = r.buf.Open(int(r.blocks) * soakBlock)
		for i := range int(r.blocks) {
			binary.BigEndian.PutUint64(r.data[i*soakBlock:], uint64(r.lba)+uint64(i))
		}
		r.DataOut = r.split()
	case k < 15:
		ln.medium(r)
	default:
		if ln.reserved || ln.rand.IntN(8) == 0 {
			ln.exclusive(r)
		} else {
			ln.other(r)
		}
	}
	r.busy = true
	s.tasks.Add(1)
	s.mu.Lock()
	s.clock++
	r.subFrom, r.subTo, r.ended = s.clock, 0, 0
	s.live[&r.data[0]] = r
	s.mu.Unlock()
	ln.ln.Submit(&r.Task)
	s.mu.Lock()
	s.clock++
	r.subTo = s.clock
	s.mu.Unlock()
}

// split gives the data in one or two buffers.
func (r *soakReq) split() [][]byte {
	if r.ln.rand.IntN(2) == 0 || len(r.data) < 2 {
		r.vec[0] = r.data
		return r.vec[:1]
	}
	n := 1 + r.ln.rand.IntN(len(r.data)-1)
	r.vec[0], r.vec[1] = r.data[:n:n], r.data[n:]
	return r.vec[:]
}

// count is the next step of an increment: a READ of the block, or the COMPARE AND
// WRITE of what was read.
func (ln *soakLane) count(r *soakReq) {
	ln.counting = true
	r.lba, r.blocks = counterLBA, 1
	if !ln.read || ln.unsure || ln.rand.IntN(3) == 0 {
		r.kind = reqCountRead
		copy(r.CDB[:], CDB10(0x28, counterLBA, 1))
		r.data = r.buf.Open(soakBlock)
		r.vec[0] = r.data
		r.DataIn = r.vec[:1]
		return
	}
	r.kind = reqCount
	copy(r.CDB[:], CompareAndWrite(counterLBA, 1))
	r.data = r.buf.Open(2 * soakBlock)
	was, now := r.data[:soakBlock], r.data[soakBlock:]
	copy(was, ln.known[:])
	copy(now, ln.known[:])
	binary.BigEndian.PutUint64(now, binary.BigEndian.Uint64(was)+1)
	own := 8 + 8*ln.id
	binary.BigEndian.PutUint64(now[own:], binary.BigEndian.Uint64(was[own:])+1)
	// The last bytes repeat the counter, so that half a block shows.
	binary.BigEndian.PutUint64(now[soakBlock-8:], binary.BigEndian.Uint64(now))
	r.vec[0] = r.data
	r.DataOut = r.vec[:1]
}

// medium is one of the commands that work on the medium in steps of their own. None
// changes what the other checks rely on: each block holds its own number or zeros.
func (ln *soakLane) medium(r *soakReq) {
	r.kind = reqMedium
	k := ln.rand.IntN(8)
	if k != 0 && k != 1 && r.lba <= counterLBA && r.lba+uint32(r.blocks) > counterLBA {
		r.lba = counterLBA + 1
	}
	n := int(r.blocks) * soakBlock
	fill := func(at int) {
		for i := range int(r.blocks) {
			binary.BigEndian.PutUint64(r.data[at+i*soakBlock:], uint64(r.lba)+uint64(i))
		}
	}
	switch k {
	case 0: // VERIFY(10) without data, the counter too
		copy(r.CDB[:], CDB10(0x2f, r.lba, r.blocks))
		r.data = r.buf.Open(soakBlock)
		return
	case 1: // ORWRITE(16) of zeros on the counter: nothing may be lost by it
		r.lba, r.blocks, n = counterLBA-1, 3, 3*soakBlock
		r.data = r.buf.Open(n)
		clear(r.data)
		r.cdb16(0x8b)
	case 2: // ORWRITE(16)
		r.data = r.buf.Open(n)
		clear(r.data)
		fill(0)
		r.cdb16(0x8b)
	case 3: // VERIFY(10) with data
		copy(r.CDB[:], CDB10(0x2f, r.lba, r.blocks))
		r.CDB[1] = 0x02
		r.data = r.buf.Open(n)
		clear(r.data)
		fill(0)
	case 4: // WRITE AND VERIFY(10)
		copy(r.CDB[:], CDB10(0x2e, r.lba, r.blocks))
		r.data = r.buf.Open(n)
		fill(0)
	case 5: // WRITE SAME(16) of zeros, by writing or by unmapping
		r.cdb16(0x93)
		r.CDB[1] = byte(ln.rand.IntN(2)) << 3
		r.data = r.buf.Open(soakBlock)
		clear(r.data)
	case 6: // UNMAP with two descriptors
		r.CDB[0], r.CDB[8] = 0x42, 8+2*16
		r.data = r.buf.Open(8 + 2*16)
		clear(r.data)
		binary.BigEndian.PutUint16(r.data[0:], 6+2*16)
		binary.BigEndian.PutUint16(r.data[2:], 2*16)
		for i, b := range []uint32{0, 1} {
			d := r.data[8+16*i:]
			binary.BigEndian.PutUint64(d, uint64(r.lba)+uint64(b))
			binary.BigEndian.PutUint32(d[8:], uint32(r.blocks)-b)
		}
	case 7: // COMPARE AND WRITE somewhere else, in two blocks
		r.blocks = 2
		if r.lba == counterLBA-1 {
			r.lba = counterLBA + 1
		}
		copy(r.CDB[:], CompareAndWrite(uint64(r.lba), 2))
		r.data = r.buf.Open(4 * soakBlock)
		clear(r.data)
		fill(2 * soakBlock)
		if ln.rand.IntN(2) == 0 {
			fill(0)
		}
	}
	r.DataOut = r.split()
}

// cdb16 makes a 16-byte CDB of r's range.
func (r *soakReq) cdb16(op byte) {
	r.CDB[0] = op
	binary.BigEndian.PutUint64(r.CDB[2:], uint64(r.lba))
	binary.BigEndian.PutUint32(r.CDB[10:], uint32(r.blocks))
}

// exclusive is one of the commands that run alone. A RESERVE is soon followed by a
// RELEASE on the same nexus.
func (ln *soakLane) exclusive(r *soakReq) {
	r.kind = reqOther
	r.data = r.buf.Open(64)
	clear(r.data)
	switch k := ln.rand.IntN(6); {
	case k > 3: // registrations come and go; one nexus ends the tasks of another
		key := uint64(ln.nx.id + 1)
		switch ln.rand.IntN(3) {
		case 0: // REGISTER AND IGNORE EXISTING KEY
			copy(r.CDB[:], proutCDB(6, 0))
			copy(r.data, proutList(0, key))
		case 1: // the same, to unregister
			copy(r.CDB[:], proutCDB(6, 0))
		case 2: // PREEMPT AND ABORT
			copy(r.CDB[:], proutCDB(5, 0))
			copy(r.data, proutList(key, 1+uint64(ln.rand.IntN(len(ln.s.nexus)))))
		}
		r.vec[0] = r.data[:24]
		r.DataOut = r.vec[:1]
	case ln.reserved: // RELEASE(6)
		ln.reserved = false
		r.CDB[0] = 0x17
	case k == 0: // RESERVE(6)
		ln.reserved = true
		r.CDB[0] = 0x16
	case k == 1: // START STOP UNIT, start
		r.CDB[0], r.CDB[4] = 0x1b, 1
	default: // MODE SELECT(6) of the Control mode page: D_SENSE and TAS change
		n := copy(r.data, controlMode(ln.rand.IntN(2) == 0, ln.rand.IntN(2) == 0))
		r.CDB[0], r.CDB[1], r.CDB[4] = 0x15, 0x10, byte(n)
		r.vec[0] = r.data[:n]
		r.DataOut = r.vec[:1]
	}
}

// other is one of the commands that do not move the medium's data.
func (ln *soakLane) other(r *soakReq) {
	r.kind = reqOther
	r.data = r.buf.Open(256)
	r.vec[0] = r.data
	switch ln.rand.IntN(5) {
	case 0: // TEST UNIT READY
	case 1: // INQUIRY
		r.CDB[0], r.CDB[4] = 0x12, 96
		r.DataIn = r.vec[:1]
	case 2: // READ CAPACITY(10)
		r.CDB[0] = 0x25
		r.DataIn = r.vec[:1]
	case 3: // SYNCHRONIZE CACHE(10)
		r.CDB[0] = 0x35
	case 4: // REPORT LUNS
		r.CDB[0], r.CDB[9] = 0xa0, 128
		r.DataIn = r.vec[:1]
	}
}

// done is the end of a request, on its loop.
func (r *soakReq) done() {
	ln, s := r.ln, r.ln.s
	if !r.busy {
		s.fail("task %d ended twice", r.Tag)
		return
	}
	r.busy = false
	if r.Aborted {
		s.aborted.Add(1)
	}
	r.check()
	s.mu.Lock()
	s.clock++
	r.ended = s.clock
	delete(s.live, &r.data[0])
	if r.passed != "" && !r.Aborted && r.Status == scsi.StatusGood {
		s.errorf("%s", r.passed)
	}
	r.passed = ""
	s.mu.Unlock()
	r.data, r.vec = nil, [2][]byte{}
	r.buf.Close()
	ln.free = append(ln.free, r)
	ln.ln.Loop().PostOnce(&ln.node)
}

// check looks at the outcome and the data.
func (r *soakReq) check() {
	ln, s := r.ln, r.ln.s
	good := r.Status == scsi.StatusGood && !r.Aborted
	key, asc := SenseOf(&r.Task)
	if !good && !r.Aborted && !tolerable(r, key, asc) {
		s.fail("task %d (CDB % x) ended with %v, sense %x %v", r.Tag, r.CDB[:16], r.Status, key, asc)
	}
	switch r.kind {
	case reqRead:
		if !good {
			return
		}
		if r.InLen != int64(len(r.data)) {
			s.fail("READ moved %d of %d bytes", r.InLen, len(r.data))
		}
		for i := range int(r.blocks) {
			b := r.data[i*soakBlock:][:soakBlock]
			lba := uint64(r.lba) + uint64(i)
			if lba == counterLBA {
				s.whole(b)
			} else if n := binary.BigEndian.Uint64(b); n != 0 && n != lba {
				s.fail("READ of block %d gave block %d's data", lba, n)
			}
		}
	case reqCountRead:
		ln.counting = false
		if !good {
			return
		}
		s.whole(r.data)
		copy(ln.known[:], r.data)
		ln.read = true
		have := binary.BigEndian.Uint64(r.data[8+8*ln.id:])
		switch {
		case have == ln.mine:
		case ln.unsure && have == ln.mine+1:
			ln.mine++
		default:
			s.fail("lane %d: the counter block says %d increments, %d were acknowledged", ln.id, have, ln.mine)
		}
		ln.unsure = false
	case reqCount:
		ln.counting = false
		if r.Status == scsi.StatusReservationConflict {
			return // it has not begun
		}
		switch {
		case good:
			ln.mine++
			copy(ln.known[:], r.data[soakBlock:])
		case r.Status == scsi.StatusCheckCondition && key == scsi.Miscompare:
			ln.read = false
		case r.Status == scsi.StatusCheckCondition && key == scsi.UnitAttention:
		default:
			ln.read = false
			ln.unsure = true
		}
	}
}

// tolerable are the outcomes that resizes, resets and removals explain.
func tolerable(r *soakReq, key scsi.SenseKey, asc scsi.ASC) bool {
	switch {
	case r.Status == scsi.StatusTaskAborted:
		return true
	case r.Status == scsi.StatusReservationConflict:
		return r.CDB[0] != 0x12 && r.CDB[0] != 0xa0 // not INQUIRY, REPORT LUNS
	case r.Status != scsi.StatusCheckCondition:
		return false
	case key == scsi.UnitAttention:
		return true
	case key == scsi.Miscompare:
		return r.kind == reqCount || r.kind == reqMedium
	case key == scsi.IllegalRequest && asc == scsi.ASCLUNNotSupported:
		return r.ln.nx.id == 2
	case key == scsi.IllegalRequest && asc == scsi.ASCLBAOutOfRange:
		return r.lba+uint32(r.blocks) > soakSize
	case key == scsi.MediumError && r.lba+uint32(r.blocks) > soakSize:
		return true // the store was cut under the operation
	}
	return r.ln.s.o.Faults && storeFault(r, key, asc)
}

// storeFault are the outcomes that an error of the store explains.
func storeFault(r *soakReq, key scsi.SenseKey, asc scsi.ASC) (ok bool) {
	reads, writes := false, false
	switch r.kind {
	case reqRead, reqCountRead:
		reads = true
	case reqWrite:
		writes = true
	case reqCount, reqMedium:
		reads, writes = true, true
	case reqOther:
		writes = r.CDB[0] == 0x35 || r.CDB[0] == 0x1b
	}
	switch {
	case key == scsi.MediumError && asc == scsi.ASCUnrecoveredReadError:
		ok = reads
	case key == scsi.MediumError && asc == scsi.ASCWriteError,
		key == scsi.DataProtect && asc == scsi.ASCSpaceAllocationFailed:
		ok = writes
	case key == scsi.AbortedCommand && asc == scsi.ASCInsufficientResources:
		ok = reads || writes
	}
	if ok {
		r.ln.s.failed.Add(1)
	}
	return ok
}

// whole checks that a counter block is one that some COMPARE AND WRITE wrote.
func (s *soak) whole(b []byte) {
	n := binary.BigEndian.Uint64(b)
	var sum uint64
	for i := range s.lanes {
		sum += binary.BigEndian.Uint64(b[8+8*i:])
	}
	if last := binary.BigEndian.Uint64(b[soakBlock-8:]); n != sum || n != last {
		s.fail("half a counter block: %d, sum of the lanes %d, repeated %d", n, sum, last)
	}
}

// started is called by the store when an operation begins: the moment at which
// order shows.
func (s *soak) started(op *backing.Op) {
	if len(op.Bufs) == 0 || len(op.Bufs[0]) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.live[&op.Bufs[0][0]]
	if r == nil {
		return
	}
	for _, o := range s.live {
		if o == r || o.kind == reqOther || o.kind == reqMedium || o.subTo == 0 || o.subTo >= r.subFrom {
			continue
		}
		switch {
		case r.Attr == scsi.Ordered:
			s.errorf("%s", r.before(o))
		case r.Attr == scsi.Simple && o.Attr != scsi.Simple:
			// Unless o was aborted and never runs, which shows at its end.
			o.passed = r.before(o)
		}
	}
}

func (r *soakReq) before(o *soakReq) string {
	return fmt.Sprintf("%v task %d of lane %d (%d..%d) started before %v task %d of lane %d (%d..%d) had ended",
		r.Attr, r.Tag, r.ln.id, r.subFrom, r.subTo, o.Attr, o.Tag, o.ln.id, o.subFrom, o.subTo)
}

// manage sends a task management function, one at a time for each lane.
func (ln *soakLane) manage() {
	if ln.tmfBusy {
		return
	}
	s, m := ln.s, &ln.tmf
	ln.tmfBusy = true
	m.LUN, m.Tag, ln.tmfReq = ln.lun, 0, nil
	switch k := ln.rand.IntN(40); {
	case k < 26:
		m.Func = scsi.AbortTask
		r := ln.all[ln.rand.IntN(len(ln.all))]
		m.Tag = r.Tag
		ln.tmfReq, ln.tmfSub = r, r.subFrom
	case k < 31:
		m.Func = scsi.AbortTaskSet
	case k < 33:
		m.Func = scsi.ClearTaskSet
	case k < 35:
		m.Func = scsi.LUNReset
	case k < 36:
		m.Func = scsi.NexusReset
	case k < 37 && ln.nx.id != 2: // whose target may have no LUN to reset
		m.Func = scsi.TargetWarmReset
	case k < 38:
		m.Func = scsi.QueryTaskSet
	default:
		m.Func = scsi.QueryTask
		m.Tag = ln.tag
	}
	s.tmfs.Add(1)
	s.mu.Lock()
	s.clock++
	ln.tmfFrom = s.clock
	s.mu.Unlock()
	ln.nx.n.Manage(m)
}

// managed is the answer, on the loop.
func (ln *soakLane) managed(m *scsi.TMF) {
	s := ln.s
	ln.tmfBusy = false
	ln.ln.Loop().PostOnce(&ln.node)
	ok := m.Response == scsi.TMComplete
	switch m.Func {
	case scsi.AbortTask:
		ok = ok || m.Response == scsi.TMNoTask
	case scsi.QueryTask, scsi.QueryTaskSet:
		ok = ok || m.Response == scsi.TMSucceeded
	}
	if m.Response == scsi.TMNoLUN && ln.nx.id == 2 {
		return
	}
	if !ok {
		s.fail("%v: %v", m.Func, m.Response)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m.Func {
	case scsi.AbortTask:
		if r := ln.tmfReq; r.busy && r.subFrom == ln.tmfSub {
			s.errorf("%v of task %d: %v, and the task lives", m.Func, m.Tag, m.Response)
		}
	case scsi.AbortTaskSet, scsi.NexusReset, scsi.ClearTaskSet, scsi.LUNReset, scsi.TargetWarmReset:
		all := m.Func != scsi.AbortTaskSet && m.Func != scsi.NexusReset
		for _, r := range s.live {
			if (all || r.ln.nx == ln.nx) && r.subTo != 0 && r.subTo < ln.tmfFrom {
				s.errorf("%v (at %d) was answered with %v, and task %d of lane %d (%d..%d) lives", m.Func, ln.tmfFrom, m.Response, r.Tag, r.ln.id, r.subFrom, r.subTo)
			}
		}
	}
}
