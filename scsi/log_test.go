package scsi

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
)

// logParams takes a log page apart: its parameters by code. Written from SPC-4 §7.3.2.
func logParams(t *testing.T, b []byte, code byte) map[int][]byte {
	t.Helper()
	if len(b) < 4 || b[0] != 0x80|code || b[1] != 0 || int(binary.BigEndian.Uint16(b[2:])) != len(b)-4 {
		t.Fatalf("header of page %02x: % x", code, b)
	}
	m := map[int][]byte{}
	last := -1
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 || len(b) < 4+int(b[3]) {
			t.Fatalf("page %02x ends inside a parameter", code)
		}
		c := int(binary.BigEndian.Uint16(b))
		if c <= last {
			t.Errorf("page %02x: parameter %04x after %04x", code, c, last)
		}
		last = c
		m[c] = b[4 : 4+int(b[3])]
		b = b[4+int(b[3]):]
	}
	return m
}

// Written from SPC-4 §7.3.6 to §7.3.21.
func TestLogPagesGolden(t *testing.T) {
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n := r.nexus()
	counters := func(v string) (s string) {
		for c := range 7 {
			s += fmt.Sprintf("%04x 20 08 %s", c, v)
		}
		return s
	}
	const none, most = "0000000000000000", "ffffffffffffffff"
	for _, c := range []struct{ cdb, want string }{
		{"4d 00 40 00 00 0000 ffff 00", "80 00 0007 00 02 03 05 0d 19 2f"},
		{"4d 00 40 ff 00 0000 ffff 00", "c0 ff 0010 0000 00ff 0200 0300 0500 0d00 1900 2f00"},
		{"4d 00 42 00 00 0000 ffff 00", "82 00 0054" + counters(none)},
		{"4d 00 02 00 00 0000 ffff 00", "82 00 0054" + counters(most)},
		{"4d 00 83 00 00 0000 ffff 00", "83 00 0054" + counters(most)},
		{"4d 00 c5 00 00 0000 ffff 00", "85 00 0054" + counters(none)},
		{"4d 00 42 00 00 0005 ffff 00", "82 00 0018 0005 20 08" + none + "0006 20 08" + none},
		{"4d 00 42 00 00 0000 0004 00", "82 00 0054"},
		{"4d 00 42 00 00 0000 0000 00", ""},
		{"4d 00 4d 00 00 0000 ffff 00", "8d 00 000c 0000 23 02 00 ff 0001 23 02 00 ff"},
		{"4d 00 4d 00 00 0001 ffff 00", "8d 00 0006 0001 23 02 00 ff"},
		{"4d 00 59 00 00 0003 ffff 00", "99 00 000c 0003 23 08 00000006 00000001"},
		{"4d 00 d9 00 00 0000 ffff 00", "99 00 005c 0001 23 40" + zeros(64) + "0002 23 08" + none + "0003 23 08 00000006 00000001"},
		{"4d 00 99 00 00 0002 ffff 00", "99 00 0018 0002 23 08" + most + "0003 23 08 00000006 00000001"},
		{"4d 00 6f 00 00 0000 ffff 00", "af 00 0008 0000 23 04 00 00 ff ff"},
	} {
		wantBytes(t, c.cdb, n.expect("good", c.cdb, nil, 4096).in(), unhex(t, c.want))
	}
	for _, c := range []struct{ cdb, want string }{
		{"4d 00 41 00 00 0000 ffff 00", "05 24/00 cdb 2.5"}, {"4d 00 7f 00 00 0000 ffff 00", "05 24/00 cdb 2.5"},
		{"4d 00 42 01 00 0000 ffff 00", "05 24/00 cdb 3.7"}, {"4d 00 40 01 00 0000 ffff 00", "05 24/00 cdb 3.7"},
		{"4d 00 42 00 00 0007 ffff 00", "05 24/00 cdb 5.7"}, {"4d 00 40 00 00 0001 ffff 00", "05 24/00 cdb 5.7"},
		{"4d 01 42 00 00 0000 ffff 00", "05 24/00 cdb 1.0"}, {"4d 02 42 00 00 0000 ffff 00", "05 24/00 cdb 1.1"},
		{"4c 00 41 00 00 0000 0000 00", "05 24/00 cdb 2.5"}, {"4c 00 42 01 00 0000 0000 00", "05 24/00 cdb 3.7"},
		{"4c 01 42 00 00 0000 0000 00", "05 24/00 cdb 1.0"}, {"4c 00 42 00 00 0000 0004 00", "05 24/00 cdb 8.2"},
	} {
		n.expect(c.want, c.cdb, nil, 4096)
	}

	// Resources are there when somebody has looked: 5 GiB free, 1 MiB and a bit used.
	n.expect("05 24/00 cdb 2.5", "4d 00 4c 00 00 0000 ffff 00", nil, 4096)
	r.u.SetSpace(backing.Space{Used: 1<<20 + 1, Available: 5 << 30, Total: 6 << 30})
	for _, c := range []struct{ cdb, want string }{
		{"4d 00 4c 00 00 0000 ffff 00", "8c 00 0018 0001 23 08 00001400 02000000 0002 23 08 00000002 01000000"},
		{"4d 00 40 00 00 0000 ffff 00", "80 00 0008 00 02 03 05 0c 0d 19 2f"},
	} {
		wantBytes(t, c.cdb, n.expect("good", c.cdb, nil, 4096).in(), unhex(t, c.want))
	}
}

// Every command counts at once, in the round in which it ends, and on all lanes.
func TestLogCounters(t *testing.T) {
	st := newRigStore(1 << 20)
	r := newRig(t, goldenConf(), st)
	n, other := r.nexus(), r.nexus()
	data := fill(4*512, 0)
	n.expect("good", "2a 00 00000000 00 0004 00", data, 0)
	other.expect("good", "8a 00 0000000000000000 00000002 00 00", data[:1024], 0)
	n.expect("good", "28 00 00000000 00 0003 00", nil, 3*512)
	n.expect("good", "2f 00 00000000 00 0008 00", nil, 0)
	n.expect("good", "8e 02 0000000000000000 00000001 00 00", data[:512], 0)
	st.fail = func(op *backing.Op) error { return syscall.EIO }
	n.expect("03 11/00 info 0", "28 00 00000000 00 0001 00", nil, 512)
	n.expect("03 0c/00 info 0", "2a 00 00000000 00 0001 00", data[:512], 0)
	n.expect("03 0c/00", "35 00 00000000 00 0000 00", nil, 0)
	n.expect("03 11/00 info 0", "2f 02 00000000 00 0001 00", data[:512], 0)
	st.fail = nil

	get := func(page byte, code int) uint64 {
		t.Helper()
		b := n.expect("good", fmt.Sprintf("4d 00 %02x 00 00 0000 ffff 00", 0x40|page), nil, 4096).in()
		return binary.BigEndian.Uint64(logParams(t, b, page)[code])
	}
	stat := func(i int) uint64 {
		b := n.expect("good", "4d 00 59 00 00 0000 ffff 00", nil, 4096).in()
		return binary.BigEndian.Uint64(logParams(t, b, logStatistics)[1][8*i:])
	}
	want := func(what string, got, want uint64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	want("bytes written", get(logWriteErrors, 5), 7*512)
	want("write errors", get(logWriteErrors, 6), 2)
	want("bytes read", get(logReadErrors, 5), 3*512)
	want("read errors", get(logReadErrors, 6), 1)
	want("bytes verified", get(logVerifyErrs, 5), 9*512)
	want("verify errors", get(logVerifyErrs, 6), 1)
	want("reads", stat(0), 2)
	want("writes", stat(1), 3)
	want("blocks received", stat(2), 7)
	want("blocks transmitted", stat(3), 3)

	// The time without commands, in us, goes on, and not faster than the clock.
	idle := get(logStatistics, 2)
	time.Sleep(2 * time.Millisecond)
	if now := get(logStatistics, 2); now < idle+1000 || now > uint64(time.Since(r.u.disk.born).Microseconds()) {
		t.Errorf("idle for %d us, before %d", now, idle)
	}

	// One page, told to the others; those of its counters only.
	n.expect("good", "4c 02 c2 00 00 0000 0000 00", nil, 0)
	want("bytes written after a reset", get(logWriteErrors, 5), 0)
	want("write errors after a reset", get(logWriteErrors, 6), 0)
	want("bytes read", get(logReadErrors, 5), 3*512)
	want("blocks received", stat(2), 7)
	other.expect("06 2a/02", "00 00 00 00 00 00", nil, 0)
	n.expect("good", "00 00 00 00 00 00", nil, 0)
	n.expect("good", "2a 00 00000000 00 0001 00", data[:512], 0)
	want("bytes written since", get(logWriteErrors, 5), 512)
	// All pages.
	n.expect("good", "4c 00 c0 00 00 0000 0000 00", nil, 0)
	want("bytes read after a reset", get(logReadErrors, 5), 0)
	want("bytes verified after a reset", get(logVerifyErrs, 5), 0)
	want("reads after a reset", stat(0), 0)
	other.expect("06 2a/02", "00 00 00 00 00 00", nil, 0)
	// Thresholds are what they were: nothing happens.
	n.expect("good", "4c 00 80 00 00 0000 0000 00", nil, 0)
	other.expect("good", "00 00 00 00 00 00", nil, 0)
	// The daemon's own statistics go on.
	if s := r.u.Stats(); s.Reads != 2 || s.Writes != 4 {
		t.Errorf("%d reads, %d writes", s.Reads, s.Writes)
	}
}
