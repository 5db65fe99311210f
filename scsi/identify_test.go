package scsi

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
)

// Written from SPC-4 §6.32 and §6.43.
func TestIdentity(t *testing.T) {
	c := goldenConf()
	n := newRig(t, c, newRigStore(1<<20)).nexus()
	n.expect("05 24/00 cdb 1.4", "a3 05 00 00 0000 000000ff 00 00", nil, 255)
	n.expect("05 24/00 cdb 1.4", "a4 06 00 00 0000 00000000 00 00", nil, 0)

	m := &rigMemory{}
	c.Memory = m
	r := newRig(t, c, newRigStore(1<<20))
	n, other := r.nexus(), r.nexus()
	report := func(n *rigNexus, kind, want string) {
		t.Helper()
		wantBytes(t, kind, n.expect("good", "a3 05 00 00 0000 00000400 "+kind+" 00", nil, 1024).in(), unhex(t, want))
	}
	report(n, "00", "00000000")
	report(n, "04", "00000000")
	report(n, "fe", "00000008 00 00 0200 04 00 0100")
	n.expect("05 24/00 cdb 10.7", "a3 05 00 00 0000 00000400 02 00", nil, 1024)
	n.expect("05 24/00 cdb 10.0", "a3 05 00 00 0000 00000400 01 00", nil, 1024)
	set := func(want string, kind int, b []byte) {
		t.Helper()
		n.expect(want, fmt.Sprintf("a4 06 00 00 0000 %08x %02x 00", len(b), kind<<1), b, 0)
	}
	set("05 24/00 cdb 10.7", 1, nil)
	set("05 24/00 cdb 10.7", 0x7f, nil)
	set("05 24/00 cdb 6.7", 0, fill(513, 1))
	set("05 24/00 cdb 6.7", 2, append(fill(256, 'x'), 0))
	set("05 26/00 param 2.7", 2, []byte("abc"))
	set("05 26/00 param 2.7", 2, []byte("a\x00c\x00"))
	set("05 26/00 param 1.7", 2, []byte("a\xff\x00"))
	n.expect("05 1a/00", "a4 06 00 00 0000 00000008 00 00", fill(4, 0), 0)
	m.err = errors.New("no space")
	set("04 44/00", 0, []byte{1})
	m.err = nil
	other.expect("good", "00 00 00 00 00 00", nil, 0)
	report(n, "00", "00000000")

	set("good", 0, []byte{1, 2, 3})
	other.expect("06 3f/05", "00 00 00 00 00 00", nil, 0)
	n.expect("good", "00 00 00 00 00 00", nil, 0)
	set("good", 2, []byte("é\x00"))
	report(n, "00", "00000003 010203")
	other.expect("06 3f/05", "00 00 00 00 00 00", nil, 0)
	report(other, "04", "00000003 c3a900")
	wantBytes(t, "cut", n.expect("good", "a3 05 00 00 0000 00000005 00 00", nil, 1024).in(), unhex(t, "00000003 01"))
	long := fill(512, 7)
	set("good", 0, long)

	// A restart.
	r = newRig(t, c, newRigStore(1<<20))
	n = r.nexus()
	report(n, "04", "00000003 c3a900")
	report(n, "00", "00000200"+strings.Repeat("07", 512))
	set("good", 0, nil)
	report(n, "00", "00000000")
	report(n, "04", "00000003 c3a900")
	for _, bad := range []string{"{", `{"version":2}`, `{"version":1,"text":"` + strings.Repeat("AAAA", 100) + `"}`} {
		m.m[identRecord] = []byte(bad)
		if _, err := NewUnit(c, newRigStore(1<<20)); err == nil {
			t.Errorf("record %.30s was taken", bad)
		}
	}
}

func FuzzCheckText(f *testing.F) {
	for _, s := range []string{"", "\x00", "a", "a\x00", "a\x00b\x00", "é\x00", "\xff\x00", "\xef\xbf\xbd\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		at, ok := checkText(b)
		want := len(b) == 0 || bytes.IndexByte(b, 0) == len(b)-1 && strings.ToValidUTF8(string(b), "") == string(b)
		if ok != want || !ok && (at < 0 || at >= len(b)) {
			t.Fatalf("%q: %v at %d", b, ok, at)
		}
	})
}

// FuzzRecords: records are read by what is there, not by what was written.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"version":1,"peripheral":"AQI=","text":"AA=="}`))
	f.Add(modeState{wce: true, limit: 7}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := decodeIdentity(b); err == nil {
			again, err := decodeIdentity(d.encode())
			if err != nil || !bytes.Equal(again.text, d.text) || !bytes.Equal(again.peripheral, d.peripheral) {
				t.Fatalf("%+v, %+v, %v", d, again, err)
			}
		}
		if s, err := decodeModes(b); err == nil {
			if again, err := decodeModes(s.encode()); err != nil || again != s {
				t.Fatalf("%+v, %+v, %v", s, again, err)
			}
		}
	})
}

// Written from SPC-4 §6.38 and §6.46.
func TestTimestamp(t *testing.T) {
	wantBytes(t, "timestamp", appendTimestamp(nil, 0x0102030405060708, originHost), unhex(t, "000a 03 00 030405060708 0000"))
	c := &clock{at: time.Now(), ms: 1000}
	if ms, o := c.now(c.at.Add(1500 * time.Millisecond)); ms != 2500 || o != originCommand {
		t.Errorf("%d, %d", ms, o)
	}
	if ms, o := (*clock)(nil).now(time.UnixMilli(77)); ms != 77 || o != originHost {
		t.Errorf("%d, %d", ms, o)
	}
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	n, other := r.nexus(), r.nexus()
	report := func() (uint64, byte) {
		t.Helper()
		b := n.expect("good", "a3 0f 00 00 0000 00000020 00 00", nil, 32).in()
		var ms uint64
		for _, x := range b[4:10] {
			ms = ms<<8 | uint64(x)
		}
		wantBytes(t, "form", []byte{b[0], b[1], b[3], b[10], b[11]}, []byte{0, 10, 0, 0, 0})
		return ms, b[2]
	}
	before := time.Now().UnixMilli()
	if ms, o := report(); o != originHost || int64(ms) < before || int64(ms) > time.Now().UnixMilli() {
		t.Errorf("%d, %d", ms, o)
	}
	n.expect("good", "a4 0f 00 00 0000 00000000 00 00", nil, 0)
	n.expect("05 1a/00", "a4 0f 00 00 0000 0000000b 00 00", fill(11, 0), 0)
	n.expect("05 1a/00", "a4 0f 00 00 0000 0000000c 00 00", fill(11, 0), 0)
	other.expect("good", "00 00 00 00 00 00", nil, 0)
	n.expect("good", "a4 0f 00 00 0000 0000000c 00 00", unhex(t, "00000000 010000000000 0000"), 0)
	other.expect("06 2a/10", "00 00 00 00 00 00", nil, 0)
	n.expect("good", "00 00 00 00 00 00", nil, 0)
	if ms, o := report(); o != originCommand || ms>>40 != 1 {
		t.Errorf("%x, %d", ms, o)
	}
	// Not touched by a reset (SPC-4 §5.2).
	r.u.mu.Lock()
	r.u.server.reset()
	r.u.mu.Unlock()
	if _, o := report(); o != originCommand {
		t.Error("the clock was reset")
	}
}

// latchedStore is a store that refuses writes since a sync failed.
type latchedStore struct{ *rigStore }

func (latchedStore) Stats() backing.Stats { return backing.Stats{Latched: true} }

// Written from SPC-4 §6.27, §6.42 and §7.2.
func TestDiagnostics(t *testing.T) {
	n := newRig(t, goldenConf(), newRigStore(1<<20)).nexus()
	n.expect("good", "1d 04 00 0000 00", nil, 0)
	n.expect("good", "1d 07 00 0000 00", nil, 0)
	n.expect("good", "1d 00 00 0000 00", nil, 0)
	n.expect("good", "1d 10 00 0004 00", fill(4, 0), 0)
	n.expect("05 24/00 cdb 1.5", "1d 20 00 0000 00", nil, 0)
	n.expect("05 24/00 cdb 3.7", "1d 04 00 0004 00", fill(4, 0), 0)
	n.expect("05 24/00 cdb 1.4", "1d 00 00 0004 00", fill(4, 0), 0)
	n.expect("05 1a/00", "1d 10 00 0003 00", fill(3, 0), 0)
	n.expect("05 1a/00", "1d 10 00 0004 00", fill(3, 0), 0)
	n.expect("05 1a/00", "1d 10 00 0005 00", fill(5, 0), 0)
	n.expect("05 26/00 param 0.7", "1d 10 00 0004 00", []byte{0x40, 0, 0, 0}, 0)
	n.expect("05 26/00 param 2.7", "1d 10 00 0004 00", []byte{0, 0, 0, 1}, 0)
	for _, cdb := range []string{"1c 01 00 00ff 00", "1c 00 00 00ff 00"} {
		wantBytes(t, cdb, n.expect("good", cdb, nil, 255).in(), unhex(t, "00 00 0001 00"))
	}
	wantBytes(t, "cut", n.expect("good", "1c 01 00 0004 00", nil, 255).in(), unhex(t, "00 00 0001"))
	n.expect("05 24/00 cdb 2.7", "1c 01 40 00ff 00", nil, 255)

	u, err := NewUnit(goldenConf(), latchedStore{newRigStore(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, goldenConf(), newRigStore(1<<20))
	if err := r.tg.Map(1, u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	n = r.nexus()
	n.lun = EncodeLUN(1)
	n.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	n.expect("04 3e/03", "1d 04 00 0000 00", nil, 0)
}
