package scsi

import (
	"slices"
	"sync"
)

// What a nexus knows of its copies and tokens. Nothing of it is known to another nexus,
// and it ends with the nexus.

const (
	// maxCopies bounds the copies of one nexus that are under way.
	maxCopies = 16
	// maxResults bounds those that are over and whose results are kept.
	maxResults = 64
)

// copyStatus is the copy operation status of RECEIVE COPY STATUS(LID4) and RECEIVE ROD
// TOKEN INFORMATION (SPC-4 table 234).
type copyStatus uint8

const (
	copyGood       copyStatus = 0x01
	copyBad        copyStatus = 0x02
	copyForeground copyStatus = 0x11
	copyBackground copyStatus = 0x12
	copyTerminated copyStatus = 0x60
)

// running reports whether the copy is not over.
func (s copyStatus) running() bool { return s == copyForeground || s == copyBackground }

// copyEntry is one third-party copy command of a nexus: what RECEIVE COPY RESULTS tells.
type copyEntry struct {
	list *copyList
	// unit is where the command came to, sa its service action.
	unit *Unit
	sa   uint8
	// id is its list identifier; named is false for one that has none.
	id    uint32
	named bool
	// discard: nothing is kept of a success.
	discard bool

	// The rest is guarded by list.mu.

	op       *copyOp // for copyOp.lane's loop only; nil: over, or there was nothing to do
	status   copyStatus
	segments uint16 // done
	bytes    int64  // done
	fail     Sense  // why it failed, with a Key
	token    *rodToken
	deletes  *rodToken // to be forgotten after a success
	stopped  bool      // by COPY OPERATION ABORT
}

// copyList belongs to a Nexus. Its lock is the last: nothing is called with it held.
type copyList struct {
	mu      sync.Mutex
	entries []*copyEntry // oldest first
	tokens  []*rodToken  // oldest first
	seq     uint64
}

// find is the entry of unit u under id. mu is held.
func (l *copyList) find(u *Unit, id uint32) *copyEntry {
	for _, e := range l.entries {
		if e.named && e.unit == u && e.id == id {
			return e
		}
	}
	return nil
}

// begin enters e. What an earlier command under the same identifier left is forgotten;
// where that is still under way, or where there are too many, the answer says so.
func (l *copyList) begin(e *copyEntry) (s Sense, full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.named {
		if o := l.find(e.unit, e.id); o != nil {
			if o.status.running() {
				return Sense{Key: IllegalRequest, ASC: ascCopyOpInProgress}, false
			}
			l.drop(o)
		}
	}
	running, over := 0, 0
	for _, o := range l.entries {
		if o.status.running() {
			running++
		} else {
			over++
		}
	}
	if running >= maxCopies {
		return Sense{}, true
	}
	if over >= maxResults {
		l.drop(l.entries[slices.IndexFunc(l.entries, func(o *copyEntry) bool { return !o.status.running() })])
	}
	l.seq++
	e.list = l
	l.entries = append(l.entries, e)
	return Sense{}, false
}

// drop forgets e. mu is held.
func (l *copyList) drop(e *copyEntry) {
	if i := slices.Index(l.entries, e); i >= 0 {
		l.entries = slices.Delete(l.entries, i, i+1)
	}
}

// forget takes e, that has not begun, out again.
func (l *copyList) forget(e *copyEntry) {
	l.mu.Lock()
	l.drop(e)
	l.mu.Unlock()
}

// nextTag is another number for each copy of the nexus.
func (l *copyList) nextTag() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	return l.seq
}

func (e *copyEntry) segmentDone() {
	e.list.mu.Lock()
	e.segments++
	e.list.mu.Unlock()
}

func (e *copyEntry) copied(n int64) {
	e.list.mu.Lock()
	e.bytes += n
	e.list.mu.Unlock()
}

// ended notes the end of the copy.
func (e *copyEntry) ended(fail Sense, canceled bool) {
	l := e.list
	l.mu.Lock()
	defer l.mu.Unlock()
	e.op, e.fail = nil, fail
	switch {
	case canceled, e.stopped:
		e.status = copyTerminated
	case fail.Key != NoSense:
		e.status = copyBad
	default:
		e.status = copyGood
		l.dropToken(e.deletes)
	}
	if !e.named || e.discard && e.status != copyBad {
		l.drop(e)
	}
}
