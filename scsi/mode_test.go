package scsi

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/backing"
)

// Written from SPC-4 §7.5.8 to §7.5.13 and SBC-3 §6.5.6, §6.5.8.
func TestModePagesGolden(t *testing.T) {
	on := modeState{wce: true, dSense: true, swp: true, tas: true, lbpere: true}
	volatile, safe := modeUnit{info: &backing.Info{Volatile: true}, thin: true}, modeUnit{info: &backing.Info{}}
	saves := volatile
	saves.saves = true
	for _, c := range []struct {
		page int
		pc   byte
		s    modeState
		u    modeUnit
		want string
	}{
		{0, pcCurrent, on, safe, "010a 80 00 00000000 00 00 0000"},
		{0, pcCurrent, on, saves, "810a 80 00 00000080 00 00 0000"},
		{0, pcChangeable, on, safe, "010a 00 00 00000000 00 00 0000"},
		{0, pcChangeable, modeState{}, volatile, "010a 00 00 00000080 00 00 0000"},
		{1, pcCurrent, on, saves, "020e 00 00 0000 0000 0000 0000 00 00 0000"},
		{2, pcCurrent, modeState{}, safe, "0812 00 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{2, pcCurrent, on, volatile, "0812 04 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{2, pcChangeable, on, safe, "0812 00 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{2, pcChangeable, on, saves, "8812 04 00 0000 0000 0000 0000 00 00 0000 00000000"},
		{3, pcCurrent, modeState{}, safe, "0a0a 02 10 00 00 0000 ffff 0000"},
		{3, pcCurrent, on, safe, "0a0a 06 10 08 40 0000 ffff 0000"},
		{3, pcChangeable, on, saves, "8a0a 04 00 08 40 0000 0000 0000"},
		{4, pcCurrent, on, saves, "4a01 001c 07 00 00" + zeros(25)},
		{4, pcChangeable, on, saves, "4a01 001c 00 00 00" + zeros(25)},
		{5, pcCurrent, on, saves, "1a26 00 00 00000000 00000000 00000000 00000000 00000000" + zeros(15) + "54"},
		{5, pcChangeable, on, saves, "1a26" + zeros(38)},
		{6, pcDefault, modeState{}, safe, "1c0a 08 00 00000000 00000000"},
		{6, pcChangeable, on, saves, "1c0a 00 00 00000000 00000000"},
	} {
		p := &modePages[c.page]
		wantBytes(t, fmt.Sprintf("mode page %02x/%02x", p.code, p.sub), p.append(nil, c.pc, &c.s, &c.u), unhex(t, c.want))
	}
	for i := 1; i < len(modePages); i++ {
		a, b := &modePages[i-1], &modePages[i]
		if int(a.code)<<8|int(a.sub) >= int(b.code)<<8|int(b.sub) {
			t.Error("mode pages out of order")
		}
	}
}

// zeros is n zero bytes in hex.
func zeros(n int) string { return fmt.Sprintf("%0*d", 2*n, 0) }

// rigMemory is a Memory that forgets nothing, and fails on demand.
type rigMemory struct {
	mu    sync.Mutex
	m     map[string][]byte
	err   error
	saves int
	// entered and leave, where set, hold Save up.
	entered, leave chan struct{}
}

func (m *rigMemory) Load(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[name], m.err
}

func (m *rigMemory) Save(name string, b []byte) error {
	if m.entered != nil {
		m.entered <- struct{}{}
		<-m.leave
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.saves++
	if m.m == nil {
		m.m = map[string][]byte{}
	}
	if b == nil {
		delete(m.m, name)
	} else {
		m.m[name] = append([]byte(nil), b...)
	}
	return nil
}

func TestModeSaved(t *testing.T) {
	c := goldenConf()
	m := &rigMemory{}
	c.Memory = m
	st := newRigStore(1 << 20)
	r := newRig(t, c, st)
	n, other := r.nexus(), r.nexus()
	const list = "00000000 0812 00 00 0000 0000 0000 0000 00 00 0000 00000000 0a0a 06 10 08 40 0000 ffff 0000"
	def := "000000008812040000000000000000000000000000000000"

	page := func(n *rigNexus, pc int, code byte) string {
		b := n.expect("good", fmt.Sprintf("1a 08 %02x 00 ff 00", pc<<6|int(code)), nil, 255).in()
		return fmt.Sprintf("%x", b[4:])
	}
	if p := page(n, pcSaved, 8); p != def[8:] {
		t.Errorf("nothing was saved: %s", p)
	}
	// Without SP the values are gone with a reset.
	b := unhex(t, list)
	n.expect("good", fmt.Sprintf("15 10 00 00 %02x 00", len(b)), b, 0)
	other.expect("descriptor 06 2a/01", "00 00 00 00 00 00", nil, 0)
	if m.saves != 0 {
		t.Error("saved without SP")
	}
	if o := st.ops; len(o) != 1 || o[0].kind != backing.Sync {
		t.Errorf("turning the cache off: %+v", o)
	}
	reset := func() {
		r.u.mu.Lock()
		r.u.server.reset()
		r.u.mu.Unlock()
	}
	reset()
	if p := page(n, pcCurrent, 8); p != def[8:] {
		t.Errorf("after a reset: %s", p)
	}
	// What cannot be saved is not done either.
	m.err = errors.New("no space")
	n.expect("04 44/00", fmt.Sprintf("15 11 00 00 %02x 00", len(b)), b, 0)
	if p := page(n, pcCurrent, 8); p != def[8:] {
		t.Errorf("after a failure: %s", p)
	}
	other.expect("good", "00 00 00 00 00 00", nil, 0)
	m.err = nil
	n.expect("good", fmt.Sprintf("15 11 00 00 %02x 00", len(b)), b, 0)
	other.expect("descriptor 06 2a/01", "00 00 00 00 00 00", nil, 0)
	reset()
	check := func(n *rigNexus) {
		t.Helper()
		for pc, want := range map[int]string{
			pcCurrent: "8a0a061008400000ffff0000", pcSaved: "8a0a061008400000ffff0000",
			pcDefault: "8a0a021000000000ffff0000", pcChangeable: "8a0a04000840000000000000",
		} {
			if p := page(n, pc, 10); p != want {
				t.Errorf("control page, PC %d: %s", pc, p)
			}
		}
		if p := page(n, pcCurrent, 8); p != "8812"+zeros(18) {
			t.Errorf("caching page: %s", p)
		}
		n.expect("descriptor 07 27/02", "2a 00 00000000 00 0001 00", fill(512, 1), 0)
		if b := n.expect("good", "1a 08 08 00 ff 00", nil, 255).in(); b[2] != 0x90 {
			t.Errorf("device-specific parameter %02x", b[2])
		}
	}
	check(n)

	// Another unit with that memory begins so: a restart.
	r2 := newRig(t, c, newRigStore(1<<20))
	n2 := r2.fresh()
	n2.want(n2.do("00 00 00 00 00 00", nil, 0), "descriptor 06 29/00")
	check(n2)
	// A store that has no cache meanwhile.
	dry := newRigStore(1 << 20)
	dry.info.Volatile = false
	m.m[modeRecord] = modeState{wce: true}.encode()
	n3 := newRig(t, c, dry).nexus()
	if p := page(n3, pcCurrent, 8); p != "8812"+zeros(18) {
		t.Errorf("caching page without a cache: %s", p)
	}

	for _, bad := range []string{"{", "{}", `{"version":2}`, `{"version":1,"x":1}`, `{"version":1}{}`} {
		m.m[modeRecord] = []byte(bad)
		if _, err := NewUnit(c, newRigStore(1<<20)); err == nil {
			t.Errorf("record %s was taken", bad)
		}
	}
	m.err = errors.New("input/output error")
	if _, err := NewUnit(c, newRigStore(1<<20)); err == nil {
		t.Error("a memory that cannot be read was taken for an empty one")
	}
}

// A task that is aborted while it saves ends when it has saved, and what it saved is
// in force.
func TestModeSaveAborted(t *testing.T) {
	c := goldenConf()
	m := &rigMemory{entered: make(chan struct{}), leave: make(chan struct{})}
	c.Memory = m
	r := newRig(t, c, newRigStore(1<<20))
	n := r.nexus()
	call := &rigCall{done: make(chan struct{})}
	call.t.Ref = call
	b := unhex(t, "00000000 0a0a 06 10 00 00 0000 ffff 0000")
	call.t.CDBLen = uint8(copy(call.t.CDB[:], []byte{0x15, 0x11, 0, 0, byte(len(b)), 0}))
	call.t.DataOut = [][]byte{b}
	n.l.Do(func() { n.ln.Submit(&call.t) })
	<-m.entered
	f := &TMF{Func: AbortTaskSet, Lane: n.ln}
	done := make(chan struct{})
	f.Done = func(*TMF) { close(done) }
	n.nx.Manage(f)
	n.l.Do(func() {})
	select {
	case <-done:
		t.Fatal("the function ended before its task")
	default:
	}
	close(m.leave)
	<-call.done
	<-done
	if !call.t.Aborted || f.Response != TMComplete {
		t.Errorf("aborted %v, %v", call.t.Aborted, f.Response)
	}
	if s := r.u.modeCurrent(); !s.dSense || s != r.u.modeSaved() {
		t.Errorf("%+v", s)
	}
}

// FuzzModeSelect: whatever the list, the state stays one that the pages can show, and
// nothing happens unless all of it is right.
func FuzzModeSelect(f *testing.F) {
	for _, s := range []string{
		"00000000", "00000008 00000800 00000200", "00000000 0812 00 00 0000 0000 0000 0000 00 00 0000 00000000",
		"00000000 0a0a 06 10 08 40 0000 ffff 0000 4a01 001c 07 00 00" + zeros(25), "00000000 4a02 0000", "00000000 1a26" + zeros(37) + "54",
		"0000000001000010 0000000000000800 00000000 00000200 0a0a 06 10 00 40 0000 ffff 0000",
	} {
		f.Add(unhexF(f, s), false)
		f.Add(unhexF(f, s), true)
	}
	u, err := NewUnit(goldenConf(), newRigStore(1<<20))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, ten bool) {
		header := modeHeader6
		if ten {
			header = modeHeader10
		}
		st := u.modeCurrent()
		s, ok := u.parseModeList(b, header, &st)
		if ok {
			if s != (Sense{}) {
				t.Fatalf("good, with %+v", s)
			}
			// Each page as it is now is good, too.
			mu := u.modeUnit()
			list := make([]byte, header)
			for i := range modePages {
				if !modePages[i].has(&mu) {
					continue
				}
				list = modePages[i].append(list, pcCurrent, &st, &mu)
			}
			again := st
			if _, ok := u.parseModeList(list, header, &again); !ok || again != st {
				t.Fatalf("%+v is not taken back: %+v", st, again)
			}
			return
		}
		if s.Key != IllegalRequest || s.ASC != ASCInvalidFieldInParamList && s.ASC != ASCParamListLengthError {
			t.Fatalf("%+v", s)
		}
		if at := int(s.SKS[1])<<8 | int(s.SKS[2]); s.SKS[0] != 0 && at >= len(b) {
			t.Fatalf("points at byte %d of %d", at, len(b))
		}
	})
}
