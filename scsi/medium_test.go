package scsi

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// waitMedium waits until no operation has the medium.
func (n *rigNexus) waitMedium() {
	tempotest.Wait(n.r.tb, "the end of the operation on the medium", func() bool {
		o, ok := n.r.u.MediumOperation()
		return !ok || o.Failed
	})
}

// start submits a CDB and does not wait for its end.
func (n *rigNexus) start(cdb, out []byte, tag uint64) *rigCall {
	c := &rigCall{done: make(chan struct{})}
	c.t.Ref, c.t.Tag = c, tag
	c.t.CDBLen = uint8(copy(c.t.CDB[:], cdb))
	if out != nil {
		c.t.DataOut = [][]byte{out}
	}
	n.l.Do(func() {
		n.ln.Submit(&c.t)
		n.ln.Kick()
	})
	return c
}

// end waits for the end of a task.
func (n *rigNexus) end(c *rigCall) *rigCall {
	n.r.tb.Helper()
	tempotest.Recv(n.r.tb, c.done, "the end of a task")
	return c
}

func overwriteList(flags byte, pattern ...byte) []byte {
	return append([]byte{flags, 0, byte(len(pattern) >> 8), byte(len(pattern))}, pattern...)
}

func sanitizeCDB(flags byte, sa, n int) []byte {
	return []byte{0x48, flags | byte(sa), 0, 0, 0, 0, 0, byte(n >> 8), byte(n), 0}
}

func (n *rigNexus) sanitize(flags byte, sa int, list []byte) *rigCall {
	n.r.tb.Helper()
	var out [][]byte
	if list != nil {
		out = [][]byte{list}
	}
	return n.run(LUN{}, sanitizeCDB(flags, sa, len(list)), out, nil)
}

func TestSanitizeOverwrite(t *testing.T) {
	for _, later := range []bool{false, true} {
		c := goldenConf()
		c.Memory = &rigMemory{}
		st := newRigStore(1 << 20)
		st.later = later
		r := newRig(t, c, st)
		n := r.nexus()
		for _, c := range []struct {
			list []byte
			unit []byte // what repeats
			not  byte
		}{
			{overwriteList(1, 0xaa), []byte{0xaa}, 0},
			{overwriteList(1, fill(512, 7)...), []byte{7}, 0},
			{overwriteList(3|0x80, 1, 2), []byte{1, 2}, 0},
			{overwriteList(2|0x80, 1, 2), []byte{1, 2}, 0xff}, // the last pass is the inverted one
			{overwriteList(31, 1, 2, 3, 4), []byte{1, 2, 3, 4}, 0},
		} {
			st.mu.Lock()
			copy(st.b, fill(len(st.b), 'x'))
			st.ops = nil
			st.mu.Unlock()
			n.want(n.sanitize(0, sanitizeOverwrite, c.list), "good")
			want := bytes.Repeat(c.unit, len(st.b)/len(c.unit))
			for i := range want {
				want[i] ^= c.not
			}
			if !bytes.Equal(st.b, want) {
				t.Errorf("list % x...: the medium holds % x... at 0", c.list[:min(len(c.list), 8)], st.b[:8])
			}
			syncs := 0
			for _, o := range st.ops {
				if o.kind == backing.Sync {
					syncs++
				}
			}
			if syncs < int(c.list[0]&0x1f) {
				t.Errorf("%d syncs after %d passes", syncs, c.list[0]&0x1f)
			}
		}
		// A pattern that does not divide the block begins anew in each.
		n.want(n.sanitize(0, sanitizeOverwrite, overwriteList(1, 1, 2, 3)), "good")
		if !bytes.Equal(st.b[:512], st.b[512:1024]) || !bytes.Equal(st.b[510:515], []byte{1, 2, 1, 2, 3}) {
			t.Errorf("a pattern of three bytes: % x at the second block", st.b[508:516])
		}
		if len(c.Memory.(*rigMemory).m) != 0 {
			t.Errorf("kept after the end: %q", c.Memory.(*rigMemory).m)
		}
	}
}

func TestSanitizeParameters(t *testing.T) {
	c := goldenConf()
	c.Thin = false
	st := newRigStore(1 << 20)
	r := newRig(t, c, st)
	n := r.nexus()
	big := overwriteList(1, fill(513, 0)...)
	for _, c := range []struct {
		what    string
		flags   byte
		sa      int
		list    []byte
		outcome string
	}{
		{"no list", 0, sanitizeOverwrite, nil, "05 24/00 cdb 7.7"},
		{"no pattern", 0, sanitizeOverwrite, overwriteList(1), "05 24/00 cdb 7.7"},
		{"more than a block", 0, sanitizeOverwrite, big, "05 24/00 cdb 7.7"},
		{"no pass", 0, sanitizeOverwrite, overwriteList(0, 1), "05 26/00 param 0.4"},
		{"TEST", 0, sanitizeOverwrite, overwriteList(1|0x20, 1), "05 26/00 param 0.6"},
		{"reserved", 0, sanitizeOverwrite, []byte{1, 1, 0, 1, 0}, "05 26/00 param 1.7"},
		{"length 0", 0, sanitizeOverwrite, []byte{1, 0, 0, 0, 0}, "05 26/00 param 2.7"},
		{"length too large", 0, sanitizeOverwrite, []byte{1, 0, 0, 2, 0}, "05 26/00 param 2.7"},
		{"not thin", 0, sanitizeBlockErase, nil, "05 24/00 cdb 1.4"},
		{"no key", 0, sanitizeCryptoErase, nil, "05 24/00 cdb 1.4"},
		{"exit with a list", 0, sanitizeExit, []byte{0}, "05 24/00 cdb 7.7"},
		{"exit", 0, sanitizeExit, nil, "good"},
		{"reserved bit", 0x40, sanitizeOverwrite, overwriteList(1, 1), "05 24/00 cdb 1.6"},
	} {
		if o := n.sanitize(c.flags, c.sa, c.list).outcome(); o != c.outcome {
			t.Errorf("%s: %s, want %s", c.what, o, c.outcome)
		}
	}
	// Less data than the length says.
	n.want(n.run(LUN{}, sanitizeCDB(0, sanitizeOverwrite, 5), [][]byte{{1, 0, 0}}, nil), "05 1a/00")
	for _, o := range st.ops {
		t.Errorf("operation %d on the store", o.kind)
	}
}

func TestSanitizeBlockErase(t *testing.T) {
	c := goldenConf()
	c.Thin = true
	st := newRigStore(1 << 20)
	r := newRig(t, c, st)
	n := r.nexus()
	copy(st.b, fill(len(st.b), 'x'))
	n.want(n.sanitize(0, sanitizeBlockErase, []byte{0}), "05 24/00 cdb 7.7")
	n.want(n.sanitize(0, sanitizeBlockErase, nil), "good")
	if !allZero(st.b) {
		t.Error("something is left")
	}
	n.want(n.sanitize(0, sanitizeCryptoErase, nil), "05 24/00 cdb 1.4")
	b := n.expect("good", "12 01 b1 00 ff 00", nil, 255).in()
	if b[7]>>6 != 1 {
		t.Errorf("WABEREQ is %d", b[7]>>6)
	}
}

func TestSanitizeCryptoErase(t *testing.T) {
	c := goldenConf()
	c.Thin = true
	st := newRigStore(1 << 20)
	st.info.Rekeys = true
	r := newRig(t, c, st)
	n := r.nexus()
	n.want(n.sanitize(0, sanitizeCryptoErase, nil), "good")
	var kinds []backing.Kind
	for _, o := range st.ops {
		kinds = append(kinds, o.kind)
	}
	want := []backing.Kind{backing.Rekey, backing.Discard, backing.Sync, backing.Purge}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("the store was asked for %v, want %v", kinds, want)
	}
}

// While the operation lasts every other command is told so, with how far it is; task
// management ends the command, and the operation goes on.
func TestSanitizeInProgress(t *testing.T) {
	c := goldenConf()
	c.Memory = &rigMemory{}
	st := newRigStore(4 << 20)
	st.hold = make(chan struct{})
	r := newRig(t, c, st)
	n, other := r.nexus(), r.nexus()
	list := overwriteList(1, 0x55)
	call := n.start(sanitizeCDB(0, sanitizeOverwrite, len(list)), list, 7)
	tempotest.Wait(t, "the first write", func() bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return len(st.ops) > 0
	})
	for _, m := range []*rigNexus{n, other} {
		for _, cdb := range []string{
			"00 00 00 00 00 00", "1b 00 00 00 01 00", "28 00 00000000 00 0001 00", "2a 00 00000000 00 0001 00",
			"89 00 00000000 00000000 00000001 00 00", "35 00 00000000 00 0000 00", "5e 00 00 00 00 00 00 00 08 00",
			"48 81 00 00 00 00 00 00 00 00", "48 1f 00 00 00 00 00 00 00 00", "04 00 00 00 00 00", "16 00 00 00 00 00",
		} {
			if o := m.do(cdb, fill(1024, 0), 512).outcome(); o[:8] != "02 04/1b" {
				t.Errorf("%s: %s", cdb, o)
			}
		}
		m.expect("good", "12 00 00 00 24 00", nil, 36)
		m.expect("good", "a0 00 00 00 00 00 00 00 00 10 00 00", nil, 16)
		m.expect("good", "a3 0c 00 00 00 00 00 00 00 ff 00 00", nil, 255)
		b := m.expect("good", "03 00 00 00 12 00", nil, 18).in()
		if b[2] != 2 || b[12] != 4 || b[13] != 0x1b || b[15]&0x80 == 0 {
			t.Errorf("REQUEST SENSE: % x", b)
		}
	}
	select {
	case <-call.done:
		t.Fatalf("the command ended: %s", call.outcome())
	default:
	}
	tmf := func(f TMFunc) {
		got := make(chan struct{}, 1)
		m := &TMF{Func: f, Tag: 7, Lane: n.ln, Done: func(*TMF) { got <- struct{}{} }}
		n.l.Do(func() { n.nx.Manage(m) })
		tempotest.Recv(t, got, f.String())
		if m.Response != TMComplete && m.Response != TMNoTask {
			t.Errorf("%v: %v", f, m.Response)
		}
	}
	tmf(AbortTask)
	n.want(n.end(call), "aborted")
	for _, f := range []TMFunc{AbortTaskSet, ClearTaskSet, LUNReset, TargetWarmReset} {
		tmf(f)
	}
	n.expect("06 29/02", "00 00 00 00 00 00", nil, 0)
	if o := n.do("00 00 00 00 00 00", nil, 0).outcome(); o[:8] != "02 04/1b" {
		t.Errorf("after the resets: %s", o)
	}
	// One that comes now sees it too.
	late := r.nexus()
	if o := late.do("00 00 00 00 00 00", nil, 0).outcome(); o[:8] != "02 04/1b" {
		t.Errorf("a new nexus: %s", o)
	}
	close(st.hold)
	n.waitMedium()
	late.expect("good", "00 00 00 00 00 00", nil, 0)
	if !bytes.Equal(st.b, fill(len(st.b), 0x55)) {
		t.Error("it did not come to its end")
	}
	if b, _ := c.Memory.Load(mediumRecordName); b != nil {
		t.Errorf("kept after the end: %s", b)
	}
}

// IMMED is answered at once; the speed holds the operation up, and can be changed.
func TestSanitizeImmediate(t *testing.T) {
	c := goldenConf()
	c.SanitizeSpeed = 1 // a block takes minutes
	st := newRigStore(1 << 20)
	r := newRig(t, c, st)
	n := r.nexus()
	n.want(n.sanitize(sanitizeIMMED, sanitizeOverwrite, overwriteList(1, 1)), "good")
	tempotest.Wait(t, "a write", func() bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return len(st.ops) > 0
	})
	if o := n.do("00 00 00 00 00 00", nil, 0).outcome(); o[:8] != "02 04/1b" {
		t.Errorf("TEST UNIT READY: %s", o)
	}
	o, ok := r.u.MediumOperation()
	if !ok || o.Name != "SANITIZE OVERWRITE" || o.Percent != 0 {
		t.Errorf("the unit says %+v, %v", o, ok)
	}
	// The write that waits for its time is let go too.
	r.u.SetSanitizeSpeed(0)
	n.waitMedium()
	if !bytes.Equal(st.b, fill(len(st.b), 1)) {
		t.Error("it did not come to its end")
	}
}

func TestSanitizeFails(t *testing.T) {
	for _, ause := range []bool{true, false} {
		m := &rigMemory{}
		c := goldenConf()
		c.Memory = m
		st := newRigStore(1 << 20)
		st.later = true
		r := newRig(t, c, st)
		n := r.nexus()
		fail := true
		st.fail = func(op *backing.Op) error {
			if fail && op.Kind == backing.Write {
				return errors.New("defect")
			}
			return nil
		}
		flags := byte(0)
		if ause {
			flags = sanitizeAUSE
		}
		list := overwriteList(1, 9)
		n.want(n.sanitize(flags, sanitizeOverwrite, list), "03 31/03")
		n.expect("03 31/03", "00 00 00 00 00 00", nil, 0)
		n.expect("03 31/03", "28 00 00000000 00 0001 00", nil, 512)
		n.expect("03 31/03", "04 00 00 00 00 00", nil, 0)
		if b := n.expect("good", "03 00 00 00 12 00", nil, 18).in(); b[2] != 3 || b[12] != 0x31 || b[13] != 3 {
			t.Errorf("REQUEST SENSE: % x", b)
		}
		// It is so for the next process too.
		r2 := newRig(t, c, newRigStore(1<<20))
		n2 := r2.nexusAt("03 31/03")
		n2.expect("03 31/03", "28 00 00000000 00 0001 00", nil, 512)
		if ause {
			n.want(n.sanitize(0, sanitizeExit, nil), "good")
			n.expect("good", "28 00 00000000 00 0001 00", nil, 512)
			if b, _ := m.Load(mediumRecordName); b != nil {
				t.Errorf("kept: %s", b)
			}
			continue
		}
		n.want(n.sanitize(0, sanitizeExit, nil), "03 31/03")
		n.want(n.sanitize(sanitizeAUSE, sanitizeOverwrite, list), "05 24/00 cdb 1.5")
		st.mu.Lock()
		fail = false
		st.mu.Unlock()
		n.want(n.sanitize(0, sanitizeOverwrite, list), "good")
		n.expect("good", "28 00 00000000 00 0001 00", nil, 512)
	}
}

// nexusAt is nexus for a unit whose medium has a fault.
func (r *rig) nexusAt(outcome string) *rigNexus {
	r.tb.Helper()
	n := r.fresh()
	n.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	n.expect(outcome, "00 00 00 00 00 00", nil, 0)
	return n
}

// TestSanitizeResumes: the unit closes in the middle of an overwrite; the next one, on
// what is stable by then, goes on to the end.
func TestSanitizeResumes(t *testing.T) {
	for _, kind := range []string{"overwrite", "format"} {
		m := &rigMemory{}
		c := goldenConf()
		c.Memory, c.SanitizeSpeed = m, 1
		st := newRigStore(1 << 20)
		copy(st.b, fill(len(st.b), 'x'))
		r := newRig(t, c, st)
		n := r.nexus()
		if kind == "overwrite" {
			n.want(n.sanitize(sanitizeIMMED, sanitizeOverwrite, overwriteList(2|0x80, 3)), "good")
		} else {
			n.want(n.run(LUN{}, []byte{4, 0x10, 0, 0, 0, 0}, [][]byte{{0, 0x8a, 0, 0, 0, 1, 0, 1, 0xfc}}, nil), "good")
		}
		tempotest.Wait(t, "a write", func() bool {
			st.mu.Lock()
			defer st.mu.Unlock()
			return len(st.ops) > 0
		})
		done := make(chan int, 1)
		r.u.Close(tempotest.Patience/2, func(stuck int) { done <- stuck })
		if n := <-done; n != 0 {
			t.Fatalf("%d stuck", n)
		}
		if bytes.Count(st.b, []byte{'x'}) == 0 {
			t.Fatal("it came to its end: there is nothing to go on with")
		}
		g := newRig(t, goldenConf(), newRigStore(1<<20)).g // its loops
		c.SanitizeSpeed = 0
		if _, err := NewUnit(c, st); err == nil {
			t.Error("a unit without loops does not go on, and does not say so")
		}
		c.Group = g
		u, err := NewUnit(c, st)
		if err != nil {
			t.Fatal(err)
		}
		tempotest.Wait(t, "the end", func() bool { _, ok := u.MediumOperation(); return !ok })
		if !bytes.Equal(st.b, fill(len(st.b), 0xfc)) {
			t.Errorf("%s: the medium holds % x...", kind, st.b[:8])
		}
		if len(m.m) != 0 {
			t.Errorf("kept after the end: %q", m.m)
		}
		u.Close(time.Minute, func(int) { done <- 0 })
		<-done
	}
}

// The record cannot be saved: nothing begins, nothing is lost.
func TestSanitizeNotKept(t *testing.T) {
	m := &rigMemory{}
	c := goldenConf()
	c.Memory = m
	st := newRigStore(1 << 20)
	r := newRig(t, c, st)
	n := r.nexus()
	copy(st.b, fill(len(st.b), 'x'))
	m.mu.Lock()
	m.err = errors.New("no room")
	m.mu.Unlock()
	n.want(n.sanitize(0, sanitizeOverwrite, overwriteList(1, 3)), "04 44/00")
	n.expect("good", "00 00 00 00 00 00", nil, 0)
	if !bytes.Equal(st.b, fill(len(st.b), 'x')) {
		t.Error("something was written")
	}
}

func TestFormatUnit(t *testing.T) {
	for _, thin := range []bool{true, false} {
		c := goldenConf()
		c.Thin = thin
		st := newRigStore(1 << 20)
		st.refuse = map[backing.Kind]bool{backing.Zero: !thin} // written, then
		r := newRig(t, c, st)
		n := r.nexus()
		for _, c := range []struct {
			what    string
			cdb     string
			list    []byte
			outcome string
			holds   int // -1: nothing happened
		}{
			{"plain", "04 00 00 00 00 00", nil, "good", 0},
			{"header", "04 10 00 00 00 00", []byte{0, 0, 0, 0}, "good", 0},
			{"IMMED", "04 10 00 00 00 00", []byte{0, 2, 0, 0}, "good", 0},
			{"long header", "04 30 00 00 00 00", []byte{0, 0x80, 0, 0, 0, 0, 0, 0}, "good", 0},
			{"pattern", "04 10 00 00 00 00", []byte{0, 0x88, 0, 0, 0, 1, 0, 2, 5, 5}, "good", 5},
			{"default pattern", "04 10 00 00 00 00", []byte{0, 0x88, 0, 0, 0, 0, 0, 0}, "good", 0},
			{"short", "04 10 00 00 00 00", []byte{0, 0, 0}, "05 1a/00", -1},
			{"short, long header", "04 30 00 00 00 00", []byte{0, 0, 0, 0}, "05 1a/00", -1},
			{"protection", "04 10 00 00 00 00", []byte{1, 0, 0, 0}, "05 26/00 param 0.0", -1},
			{"defects", "04 10 00 00 00 00", []byte{0, 0, 0, 8}, "05 26/00 param 2.7", -1},
			{"IP without FOV", "04 10 00 00 00 00", []byte{0, 8, 0, 0}, "05 26/00 param 1.3", -1},
			{"pattern too long", "04 10 00 00 00 00", []byte{0, 0x88, 0, 0, 0, 1, 2, 1}, "05 26/00 param 6.7", -1},
			{"pattern cut", "04 10 00 00 00 00", []byte{0, 0x88, 0, 0, 0, 1, 0, 4, 1}, "05 1a/00", -1},
			{"no pattern descriptor", "04 10 00 00 00 00", []byte{0, 0x88, 0, 0}, "05 1a/00", -1},
			{"FMTPINFO", "04 50 00 00 00 00", []byte{0, 0, 0, 0}, "05 24/00 cdb 1.6", -1},
			{"LONGLIST alone", "04 20 00 00 00 00", nil, "05 24/00 cdb 1.5", -1},
		} {
			copy(st.b, fill(len(st.b), 'x'))
			n.want(n.do(c.cdb, c.list, 0), c.outcome)
			n.waitMedium()
			want := fill(len(st.b), 'x')
			if c.holds >= 0 {
				want = fill(len(st.b), byte(c.holds))
			}
			if !bytes.Equal(st.b, want) {
				t.Errorf("%s: the medium holds % x..., want % x", c.what, st.b[:4], want[:4])
			}
		}
	}
}

// FuzzMediumLists: whatever the parameter lists hold, what comes of them can be kept
// and read back.
func FuzzMediumLists(f *testing.F) {
	f.Add(overwriteList(1, 1, 2, 3), false)
	f.Add(overwriteList(0x9f, fill(512, 1)...), true)
	f.Add([]byte{0, 0x88, 0, 0, 0, 1, 0, 2, 5, 5}, false)
	f.Add([]byte{0, 0x8a, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 9}, true)
	f.Fuzz(func(t *testing.T, p []byte, long bool) {
		keep := func(r mediumRecord) {
			back, err := decodeMedium(r.encode(), 512)
			if err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
			r.Version = mediumRecordVersion
			if fmt.Sprint(back) != fmt.Sprint(r) {
				t.Fatalf("%+v comes back as %+v", r, back)
			}
			b := fill(1024, 0xee)
			back.fill(b, 512)
		}
		var r mediumRecord
		if len(p) > overwriteHeadLen && len(p) <= overwriteHeadLen+512 {
			if s, ok := r.overwrite(p); ok {
				keep(r)
			} else if at := int(s.SKS[1])<<8 | int(s.SKS[2]); at >= len(p) {
				t.Errorf("points at byte %d of %d", at, len(p))
			}
		}
		r = mediumRecord{Kind: mediumFormat}
		if _, used, s, ok := r.format(p, long, 512); ok {
			if used > len(p) {
				t.Errorf("used %d of %d bytes", used, len(p))
			}
			keep(r)
		} else if at := int(s.SKS[1])<<8 | int(s.SKS[2]); at > len(p) {
			t.Errorf("points at byte %d of %d", at, len(p))
		}
	})
}

// FuzzMediumRecord: what the state folder holds is refused or makes sense.
func FuzzMediumRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"overwrite","stage":0,"pos":512,"count":2,"pattern":"qg=="}`))
	f.Add([]byte(`{"version":1,"kind":"format","stage":1,"pos":0,"failed":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeMedium(b, 512)
		if err != nil {
			return
		}
		if n := len(r.stages()); n > maxOverwrites+1 || r.Stage > n {
			t.Errorf("stage %d of %d", r.Stage, n)
		}
		p := fill(1024, 0)
		r.fill(p, 512)
	})
}

// A disk that moves to another host in the midst of an operation would leave it behind:
// it offers none.
func TestMediumMigratable(t *testing.T) {
	c := goldenConf()
	c.Thin, c.Migratable = true, true
	n := newRig(t, c, newRigStore(1<<20)).nexus()
	n.want(n.sanitize(0, sanitizeBlockErase, nil), "05 20/00")
	n.expect("05 20/00", "04 00 00 00 00 00", nil, 0)
	if b := n.expect("good", "12 01 b1 00 ff 00", nil, 255).in(); b[7] != 0 {
		t.Errorf("WABEREQ, WACEREQ: %02x", b[7])
	}
}

// The store is made smaller under an overwrite: what is left of it is overwritten, and
// that is all.
func TestSanitizeShrinks(t *testing.T) {
	g := newRig(t, goldenConf(), newRigStore(1<<20)).g
	st, err := backing.Open("mem:", backing.Options{Size: 1 << 20, Group: g})
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUnit(UnitConfig{Name: "d", SanitizeSpeed: 1, Group: g,
		Memory: &rigMemory{m: map[string][]byte{mediumRecordName: []byte(`{"version":1,"kind":"overwrite","stage":0,"pos":0,"count":1,"pattern":"qg=="}`)}}}, st)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := u.MediumOperation(); !ok {
		t.Fatal("it does not go on")
	}
	if err := u.Resize(512<<10, true); err != nil {
		t.Fatal(err)
	}
	u.SetSanitizeSpeed(0)
	tempotest.Wait(t, "the end", func() bool { _, ok := u.MediumOperation(); return !ok })
	if n := u.Capacity(); n != 512<<10 {
		t.Errorf("capacity %d", n)
	}
	done := make(chan int, 1)
	u.Close(time.Minute, func(n int) { done <- n })
	if n := <-done; n != 0 {
		t.Errorf("%d stuck", n)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}
