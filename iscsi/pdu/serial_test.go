package pdu

import "testing"

func TestSerial(t *testing.T) {
	const half = 1 << 31
	for _, tc := range []struct {
		a, b         uint32
		less, lessEq bool
	}{
		{0, 0, false, true},
		{0, 1, true, true},
		{1, 0, false, false},
		{0xffffffff, 0, true, true},
		{0, 0xffffffff, false, false},
		{0, half - 1, true, true},
		{0, half, false, false}, // not ordered (RFC 1982 §3.2)
		{half, 0, false, false},
		{0, half + 1, false, false},
		{half + 1, 0, true, true},
	} {
		if SNLess(tc.a, tc.b) != tc.less || SNLessEq(tc.a, tc.b) != tc.lessEq {
			t.Errorf("%#x, %#x: %v %v", tc.a, tc.b, SNLess(tc.a, tc.b), SNLessEq(tc.a, tc.b))
		}
	}
	for _, tc := range []struct {
		sn, first, last uint32
		in              bool
	}{
		{5, 5, 5, true}, {5, 5, 4, false}, {4, 5, 4, false}, // a closed window
		{5, 5, 8, true}, {8, 5, 8, true}, {9, 5, 8, false}, {4, 5, 8, false},
		{0, 0xfffffffe, 2, true}, {0xfffffffe, 0xfffffffe, 2, true}, {3, 0xfffffffe, 2, false}, {0xfffffffd, 0xfffffffe, 2, false},
	} {
		if SNInWindow(tc.sn, tc.first, tc.last) != tc.in {
			t.Errorf("%+v", tc)
		}
	}
}
