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
	case k < 15:
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
	default:
		ln.other(r)
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
	case r.Status != scsi.StatusCheckCondition:
		return false
	case key == scsi.UnitAttention, key == scsi.Miscompare && r.kind == reqCount:
		return true
	case key == scsi.IllegalRequest && asc == scsi.ASCLUNNotSupported:
		return r.ln.nx.id == 2
	case key == scsi.IllegalRequest && asc == scsi.ASCLBAOutOfRange:
		return r.lba+uint32(r.blocks) > soakSize
	}
	return false
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
		if o == r || o.kind == reqOther || o.subTo == 0 || o.subTo >= r.subFrom {
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
