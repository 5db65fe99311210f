package scsi

import (
	"encoding/binary"
	"time"
)

// REPORT TIMESTAMP (SPC-4 §6.38) and SET TIMESTAMP (§6.46). The clock of a unit begins
// with the host's and goes by that until an initiator sets it (§5.2); it is not kept
// over a restart.

// Values of the TIMESTAMP ORIGIN field.
const (
	originCommand = 2 // set by SET TIMESTAMP
	originHost    = 3 // set by other means
)

const timestampLen = 12

// clock is a clock that an initiator has set. time.Time carries the monotonic clock:
// a step of the host's clock does not move it.
type clock struct {
	at time.Time
	ms uint64 // of at, since 1970-01-01
}

// now is the time in ms since 1970-01-01.
func (c *clock) now(at time.Time) (ms uint64, origin byte) {
	if c == nil {
		return uint64(max(at.UnixMilli(), 0)), originHost
	}
	return c.ms + uint64(max(at.Sub(c.at).Milliseconds(), 0)), originCommand
}

func runReportTimestamp(t *Task) {
	ms, origin := t.unit.disk.clock.Load().now(time.Now())
	t.reply(appendTimestamp(t.scratch(timestampLen)[:0], ms, origin), lenBytes6x4(t))
}

// appendTimestamp appends the parameter data.
func appendTimestamp(b []byte, ms uint64, origin byte) []byte {
	b = append(b, 0, timestampLen-2, origin, 0)
	return append(binary.BigEndian.AppendUint64(b, ms<<16)[:len(b)+6], 0, 0)
}

func runSetTimestamp(t *Task) {
	n := lenBytes6x4(t)
	if n == 0 {
		t.good()
		return
	}
	if n < timestampLen {
		t.check(Sense{Key: IllegalRequest, ASC: ASCParamListLengthError})
		return
	}
	p, ok := t.param(timestampLen)
	if !ok {
		return
	}
	ms := uint64(binary.BigEndian.Uint16(p[4:]))<<32 | uint64(binary.BigEndian.Uint32(p[6:]))
	t.unit.disk.clock.Store(&clock{time.Now(), ms})
	t.unit.raiseUA(ASCTimestampChanged, t.nu())
	t.good()
}
