package pdu

// Sequence numbers (CmdSN, StatSN, DataSN, R2TSN) compare and add as RFC 1982
// serial numbers with SERIAL_BITS = 32 (RFC 7143 §4.2.2.1). Numbers exactly 2**31
// apart are not ordered: every comparison of such a pair is false, but for
// [SNLessEq] nothing is ever both.

// SNLess reports whether a comes before b.
func SNLess(a, b uint32) bool { d := b - a; return d-1 < 1<<31-1 }

// SNLessEq reports whether a is b or comes before it.
func SNLessEq(a, b uint32) bool { return b-a < 1<<31 }

// SNInWindow reports whether sn is in [first, last], in serial order; the window is
// empty where last is first-1 (MaxCmdSN = ExpCmdSN-1: closed, §4.2.2.1).
func SNInWindow(sn, first, last uint32) bool {
	return SNLessEq(first, last) && sn-first <= last-first
}
