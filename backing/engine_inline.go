package backing

import (
	"github.com/vtgt/vtgt/internal/sys"
)

// Cached transfers are made by the loop itself. A 4 KiB read costs 1.5 us that
// way; through a worker 2.8 us of wall time and 3-4 us of CPU, through io_uring
// 1.6-1.9 us, and a buffered write through io_uring 4.5-16 us, because the kernel
// hands it to a thread of its own (ext4, tmpfs, kernel 6.18).

// bufferedRead tries inline and leaves the rest to a worker.
func (q *fileQueue) bufferedRead(op *Op) bool {
	s, st := q.s, &op.st
	if op.Len <= inlineMax && s.readInline != inlineNever {
		if s.readInline == inlineNowait {
			n, e := sys.Preadv2(q.cur.d.fd, st.vector(), op.Off, sys.RWF_NOWAIT)
			if e == 0 && int64(n) == op.Len {
				op.N = op.Len
				st.forget()
				return true
			}
			st.pos = int64(n) // 0 with an error: a worker meets it, too, if it is real
		} else if w := s.watch.begin(s.now(), sys.VoluntarySwitches); w.ok {
			n, e := sys.Preadv2(q.cur.d.fd, st.vector(), op.Off, 0)
			s.watch.end(w, s.now(), sys.VoluntarySwitches)
			if e == 0 && int64(n) == op.Len {
				op.N = op.Len
				st.forget()
				return true
			}
			st.pos = int64(n)
		}
	}
	q.enter(op)
	st.phase = phaseWhole
	q.toWorker(op)
	return false
}

// bufferedWrite writes inline while nothing says that it may sleep: no sync is
// running (which holds the inode, or pages under write-back) and no inline call
// was slow lately (the kernel throttles who dirties too much). Long ones go by the
// store's pipe while the loop is behind.
func (q *fileQueue) bufferedWrite(op *Op) bool {
	s, st := q.s, &op.st
	may := s.writeInline != inlineNever && !s.stable(op) && s.syncs.Load() == 0
	if may && s.pipe.takes(op, q.l) {
		q.enter(op)
		st.phase = phaseWhole
		q.toPipe(op)
		return false
	}
	if may && op.Len <= inlineMax {
		if w := s.watch.begin(s.now(), sys.VoluntarySwitches); w.ok {
			n, e := sys.Pwritev2(q.cur.d.fd, st.vector(), op.Off, 0)
			s.watch.end(w, s.now(), sys.VoluntarySwitches)
			if e == 0 && int64(n) == op.Len {
				op.N = op.Len
				st.forget()
				return true
			}
			st.pos = int64(n)
		}
	}
	q.enter(op)
	st.phase = phaseWhole
	q.toWorker(op)
	return false
}
