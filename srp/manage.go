package srp

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
)

// function is a task management function under way. The core knows the tasks that it
// has; those that a mover works on are looked after here: one whose data are still
// being fetched never reaches the core's task set, and the answer waits until no
// mover touches the initiator's memory for a task that the function is about.
//
// It lives on one loop, home, and visits the others. All of this is off the data path.
type function struct {
	tmf  scsi.TMF
	p    *Port
	home *shard
	done func(scsi.TMResponse)

	shards []*shard
	marks  []uint64     // by shard: the last command that it is about
	found  atomic.Int32 // tasks that a mover works on
	timer  loop.Timer
	began  int64
	joins  int
	over   bool
}

// wait is a function that waits for requests on a shard.
type wait struct {
	f     *function
	mark  uint64
	clear func()
}

// Manage starts task management function f: of r's LUN where it is about one; of the
// task r.TaskTag, where it is about that. It affects the commands of the port that
// were submitted on this loop before, and on others before the function gets there. r
// is responded to with Response set when the function is complete and no data of those
// commands move any more, or at the deadline with scsi.TMFailed.
func (q *Queue) Manage(r *Request, f scsi.TMFunc) {
	sh := q.sh
	c := sh.count()
	if r.state != stHeld || r.q != q {
		c.Misuse++
		return
	}
	c.Functions++
	r.bare(scsi.StatusGood)
	r.Func, r.state = f, stTMF
	sh.manage(f, r.LUN, r.TaskTag, func(resp scsi.TMResponse) {
		if resp == scsi.TMFailed {
			sh.count().Failed++
		}
		r.Response = resp
		r.respond()
	})
}

// Reset ends all commands of the nexus, as I_T NEXUS RESET does: for carriers whose
// transport started over under them. done is called on a goroutine of its own, with
// false if the deadline has passed. Any goroutine.
func (p *Port) Reset(done func(ok bool)) {
	p.mu.Lock()
	var sh *shard
	if len(p.shards) > 0 && !p.closed {
		sh = p.shards[0]
	}
	p.mu.Unlock()
	if sh == nil {
		go done(true)
		return
	}
	sh.loop.Later(func() {
		sh.manage(scsi.NexusReset, scsi.LUN{}, 0, func(resp scsi.TMResponse) { go done(resp != scsi.TMFailed) })
	})
}

// manage runs a function from its home sh, on whose loop it is called.
func (sh *shard) manage(fn scsi.TMFunc, lun scsi.LUN, tag uint64, done func(scsi.TMResponse)) {
	p := sh.port
	f := &function{p: p, home: sh, done: done, began: sh.loop.Now()}
	p.mu.Lock()
	f.shards = slices.Clone(p.shards)
	p.mu.Unlock()
	f.marks = make([]uint64, len(f.shards))
	f.tmf = scsi.TMF{Func: fn, LUN: lun, Tag: tag, Lane: sh.lane, Deadline: p.conf.Deadline,
		Done: func(*scsi.TMF) { f.join() }}
	f.timer.Init(f)
	if fn == scsi.AbortTask || fn == scsi.QueryTask {
		// First those that a mover has, everywhere: none of them can get into
		// the core behind the back of the core's own search then.
		f.joins = 1
		f.each(f.mark, func() { p.nexus.Manage(&f.tmf) })
		return
	}
	// The core's part begins at once: it may not affect what is submitted from
	// now on. Commands that are being fetched were announced to it.
	f.joins = 2
	f.each(f.mark, f.join)
	p.nexus.Manage(&f.tmf)
}

// each runs do for each shard on its loop, and then on home's: inside the call where
// there is no other shard.
func (f *function) each(do func(i int, clear func()), then func()) {
	var left atomic.Int32
	left.Store(int32(len(f.shards)) + 1)
	part := func() {
		if left.Add(-1) == 0 {
			f.home.loop.Later(then)
		}
	}
	for i, sh := range f.shards {
		if sh == f.home {
			do(i, part)
			continue
		}
		sh.loop.Later(func() { do(i, part) })
	}
	if left.Add(-1) == 0 {
		then()
	}
}

// about tells whether r, submitted at mark or before, is a command that f affects.
func (f *function) about(r *Request, mark uint64) bool {
	if !r.busy() || r.seq > mark {
		return false
	}
	switch f.tmf.Func {
	case scsi.NexusReset, scsi.TargetWarmReset, scsi.TargetColdReset:
		return true
	case scsi.AbortTask, scsi.QueryTask:
		return r.Tag == f.tmf.Tag && sameLUN(r.LUN, f.tmf.LUN)
	case scsi.ClearACA, scsi.QueryAsyncEvent:
		return false
	}
	return sameLUN(r.LUN, f.tmf.LUN)
}

// sameLUN compares by number: a LUN can be written in two ways.
func sameLUN(a, b scsi.LUN) bool {
	if a == b {
		return true
	}
	na, ok := a.Number()
	nb, ok2 := b.Number()
	return ok && ok2 && na == nb
}

// mark notes what the function is about on shard i, and cuts commands that ABORT TASK
// finds before they are the core's.
func (f *function) mark(i int, clear func()) {
	sh := f.shards[i]
	f.marks[i] = sh.seq
	for _, r := range sh.all {
		if !r.moving() || !f.about(r, sh.seq) {
			continue
		}
		f.found.Add(1)
		if f.tmf.Func == scsi.AbortTask && r.state == stFetch {
			r.cut = true
		}
	}
	clear()
}

// join goes on when the core has answered and every shard is marked.
func (f *function) join() {
	if f.joins--; f.joins > 0 {
		return
	}
	resp := f.tmf.Response
	switch {
	case resp == scsi.TMFailed:
		f.fail()
		return
	case resp != scsi.TMComplete && resp != scsi.TMNoTask:
		f.answer(resp)
		return
	}
	if f.found.Load() > 0 {
		switch f.tmf.Func {
		case scsi.QueryTask, scsi.QueryTaskSet:
			f.answer(scsi.TMSucceeded)
			return
		case scsi.AbortTask:
			f.tmf.Response = scsi.TMComplete
		}
	}
	switch f.tmf.Func {
	case scsi.QueryTask, scsi.QueryTaskSet, scsi.QueryAsyncEvent:
		f.answer(f.tmf.Response)
		return
	}
	left := f.p.conf.Deadline - time.Duration(f.home.loop.Now()-f.began)
	f.home.loop.After(&f.timer, max(left, 0))
	f.each(f.watch, func() {
		if !f.over {
			f.answer(f.tmf.Response)
		}
	})
}

// watch has clear called when shard i has no command left that f is about.
func (f *function) watch(i int, clear func()) {
	sh := f.shards[i]
	w := wait{f: f, mark: f.marks[i], clear: clear}
	if w.over(sh) {
		clear()
		return
	}
	sh.waits = append(sh.waits, w)
}

// over tells whether no request is left.
func (w *wait) over(sh *shard) bool {
	return !slices.ContainsFunc(sh.all, func(r *Request) bool { return w.f.about(r, w.mark) })
}

// recheck looks at all waits after a request has ended.
func (sh *shard) recheck() {
	var clears []func()
	sh.waits = slices.DeleteFunc(sh.waits, func(w wait) bool {
		if !w.over(sh) {
			return false
		}
		clears = append(clears, w.clear)
		return true
	})
	for _, c := range clears {
		c()
	}
}

// Expired is the deadline for moves.
func (f *function) Expired(*loop.Timer) { f.fail() }

// fail answers that the deadline has passed. What is left ends without a response.
func (f *function) fail() {
	if f.over {
		return
	}
	f.over = true
	f.each(func(i int, clear func()) {
		sh := f.shards[i]
		sh.waits = slices.DeleteFunc(sh.waits, func(w wait) bool { return w.f == f })
		for _, r := range sh.all {
			if f.about(r, f.marks[i]) {
				r.mute = true
				r.setStuck()
			}
		}
		clear()
	}, func() { f.done(scsi.TMFailed) })
}

func (f *function) answer(resp scsi.TMResponse) {
	f.over = true
	f.home.loop.Stop(&f.timer)
	f.done(resp)
}
