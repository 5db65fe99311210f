package iscsi

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// complaint is something that a peer did against the rules, or that the server had
// to refuse: each is counted, and logged at a bounded rate.
type complaint uint8

const (
	badHeaderDigest complaint = iota
	badDataDigest
	badFormat        // a header that RFC 7143 §7.7 calls a format error
	badLength        // DataSegmentLength above what was declared
	badSequence      // DataSN, Buffer Offset, F bit or length of Data-Out
	badCmdSN         // outside the window
	badTag           // an initiator task tag in use
	badOpcode        // unknown, or not of full feature phase
	badLogin         // login refused or malformed
	badAuth          // authentication failed
	notAllowed       // not on a target's lists, or the target is somebody else's
	strayData        // Data-Out of no task
	unsolicitedData  // data that nobody asked for or allowed
	refusedSNACK     // ErrorRecoveryLevel is 0
	tooManyImmediate // immediate commands
	tooManyLogins    // half-open connections
	tooManySessions  //
	peerSilent       // no answer to a ping
	peerStalled      // owed data did not come
	peerReset        // the connection broke
	taskSetFull      // TASK SET FULL for want of memory
	complaints
)

var complaintNames = [complaints]string{
	"header-digest", "data-digest", "format", "length", "sequence", "cmdsn-window",
	"duplicate-tag", "opcode", "login", "authentication", "authorization", "stray-data", "unsolicited-data", "snack",
	"too-many-immediate", "too-many-logins", "too-many-sessions", "silent", "stalled",
	"reset", "task-set-full",
}

func (k complaint) String() string { return complaintNames[k] }

// journal counts complaints and logs them, a few lines a second at most.
type journal struct {
	log        *slog.Logger
	count      [complaints]atomic.Uint64
	second     atomic.Int64
	lines      atomic.Int64
	suppressed atomic.Uint64
}

const linesPerSecond = 5

// note counts k; true: a line may be logged.
func (j *journal) note(k complaint) bool {
	j.count[k].Add(1)
	now := time.Now().Unix()
	if s := j.second.Load(); s != now && j.second.CompareAndSwap(s, now) {
		j.lines.Store(0)
	}
	if j.lines.Add(1) > linesPerSecond {
		j.suppressed.Add(1)
		return false
	}
	return true
}

// line logs what note allowed.
func (j *journal) line(k complaint, msg string, args ...any) {
	if n := j.suppressed.Swap(0); n > 0 {
		args = append(args, "suppressed", n)
	}
	j.log.Warn("iscsi: "+msg, append(args, "kind", k.String())...)
}

// traffic is what one connection counts. It is written by its loop only, without
// atomics, and published once a round.
type traffic struct {
	commands, bytesIn, bytesOut, pdusIn, pdusOut uint64
}

type published struct {
	commands, bytesIn, bytesOut, pdusIn, pdusOut atomic.Uint64
}

func (p *published) set(t *traffic) {
	show(&p.commands, t.commands)
	show(&p.bytesIn, t.bytesIn)
	show(&p.bytesOut, t.bytesOut)
	show(&p.pdusIn, t.pdusIn)
	show(&p.pdusOut, t.pdusOut)
}

// show stores what has changed: an atomic store locks the bus, a load does not.
func show(p *atomic.Uint64, v uint64) {
	if p.Load() != v {
		p.Store(v)
	}
}

func (p *published) get() Traffic {
	return Traffic{
		Commands: p.commands.Load(), BytesIn: p.bytesIn.Load(), BytesOut: p.bytesOut.Load(),
		PDUsIn: p.pdusIn.Load(), PDUsOut: p.pdusOut.Load(),
	}
}

// Traffic counts what passed in full feature phase. Bytes are those on the wire,
// seen from the target: In was received.
type Traffic struct {
	Commands          uint64 // SCSI commands delivered
	BytesIn, BytesOut uint64
	PDUsIn, PDUsOut   uint64
}

func (t *Traffic) add(o Traffic) {
	t.Commands += o.Commands
	t.BytesIn += o.BytesIn
	t.BytesOut += o.BytesOut
	t.PDUsIn += o.PDUsIn
	t.PDUsOut += o.PDUsOut
}

// Stats are the server's counters since it was made.
type Stats struct {
	Sessions, Discoveries, HalfOpen int // now
	Waiting                         int // connections that may not begin their login yet
	Logins                          uint64
	Traffic                         Traffic
	// Complaints counts what peers did wrong or were refused, by kind; kinds
	// never seen are present with 0.
	Complaints map[string]uint64
}
