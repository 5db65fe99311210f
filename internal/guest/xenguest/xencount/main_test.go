package main

import (
	"encoding/binary"
	"testing"
)

// record is one with its time.
func record(event uint32, words ...uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, event|uint32(len(words))<<28|1<<31)
	b = le.AppendUint64(b, 12345)
	for _, w := range words {
		b = le.AppendUint32(b, w)
	}
	return b
}

func TestCount(t *testing.T) {
	var b []byte
	for _, r := range [][]byte{
		record(cpuChange, 1, 100), record(hypercall, grantTableOp, grantCopy, 9), // another processor's
		record(cpuChange, 0, 100), record(0x00201003, 1, 2, 3),
		record(hypercall, 0x500000|grantTableOp, grantCopy, 127), record(subcall, 0x500000|grantTableOp, grantMap, 2),
		record(hypercall, grantTableOp, grantUnmap, 3), record(hypercall, eventChannelOp), record(hypercall, iret), record(hypercall, 0x100000|schedOp, 1),
		record(hypercall, 1)[:10], // torn
	} {
		b = append(b, r...)
	}
	want := Counts{Hypercalls: 6, Events: 1, Irets: 1, Sched: 1, GrantCalls: 3, GrantMaps: 2, GrantUnmaps: 3, GrantCopies: 127}
	if c := count(b, 0); c != want {
		t.Errorf("%+v, want %+v", c, want)
	}
	if c := count(record(lost), 0); !c.Lost {
		t.Error("a gap was not seen")
	}
}
