package scsi

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
)

// twoPaths is a unit behind two targets, of groups 1 and 0x102.
func twoPaths(t *testing.T, c UnitConfig, st *rigStore) (r *rig, a, b *rigNexus, other *Target) {
	c.Shared = true
	r = newRig(t, c, st)
	a = r.nexus()
	other = NewTarget(TargetConfig{Name: "other", Group: 0x102, Access: AccessNonOptimized})
	if err := other.Map(7, r.u, MapOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		done := make(chan int, 1)
		other.Close(time.Second, func(n int) { done <- n })
		<-done
	})
	p := other.NewPort(PortConfig{RelID: 0x203, Protocol: protocolSRP})
	other.NewPort(PortConfig{RelID: 9, Protocol: protocolSRP})
	nx, err := p.Attach("srp", rigFE{tb: t})
	if err != nil {
		t.Fatal(err)
	}
	l := r.g.Loops()[0]
	ln, err := nx.Lane(l)
	if err != nil {
		t.Fatal(err)
	}
	b = &rigNexus{r: r, nx: nx, ln: ln, l: l, lun: EncodeLUN(7)}
	b.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	a.expect("06 3f/03", "00 00 00 00 00 00", nil, 0)
	return r, a, b, other
}

func setAccess(t *testing.T, tg *Target, s AccessState) {
	t.Helper()
	done := make(chan int, 1)
	tg.SetAccess(s, 0, func(n int) { done <- n })
	select {
	case n := <-done:
		if n != 0 {
			t.Errorf("%d tasks stuck", n)
		}
	case <-time.After(tempotest.Patience):
		t.Fatal("SetAccess does not end")
	}
}

// Written from SPC-4 §6.37.
func TestReportPortGroups(t *testing.T) {
	_, a, b, other := twoPaths(t, goldenConf(), newRigStore(1<<20))
	const one, two = "00 4f 0001 00 00 00 01  0000 0002", "01 4f 0102 00 00 00 02  0000 0009 0000 0203"
	want := func(n *rigNexus, cdb, want string) {
		t.Helper()
		wantBytes(t, cdb, n.expect("good", cdb, nil, 512).in(), unhex(t, want))
	}
	want(a, "a3 0a 00 00 0000 00000200 00 00", "0000001c"+one+two)
	want(b, "a3 0a 00 00 0000 00000200 00 00", "0000001c"+one+two)
	want(a, "a3 2a 00 00 0000 00000200 00 00", "00000020 10 00 0000"+one+two)
	want(a, "a3 0a 00 00 0000 00000004 00 00", "0000001c")
	a.expect("05 24/00 cdb 1.7", "a3 4a 00 00 0000 00000200 00 00", nil, 512)
	// The identification page names the port's own group.
	if p := b.expect("good", "12 01 83 00ff 00", nil, 255).in(); !slices.Equal(p[len(p)-8:], unhex(t, "41 95 00 04 00000102")) {
		t.Errorf("page 83h: % x", p)
	}
	setAccess(t, other, AccessStandby)
	a.expect("06 2a/06", "a3 0a 00 00 0000 00000200 00 00", nil, 512)
	want(a, "a3 0a 00 00 0000 00000200 00 00", "0000001c"+one+"02 4f 0102 00 02 00 02  0000 0009 0000 0203")
	setAccess(t, other, AccessOffline)
	b.expect("06 2a/06", "a3 0a 00 00 0000 00000200 00 00", nil, 512)
	want(b, "a3 0a 00 00 0000 00000200 00 00", "0000001c"+one+"0e 4f 0102 00 02 00 02  0000 0009 0000 0203")
	if other.Access() != AccessOffline {
		t.Errorf("%v", other.Access())
	}
	// Not among what a unit reports any more.
	gone := make(chan int, 1)
	if err := other.Unmap(7, 0, func(n int) { gone <- n }); err != nil {
		t.Fatal(err)
	}
	<-gone
	a.expect("06 2a/06", "a3 0a 00 00 0000 00000200 00 00", nil, 512)
	a.expect("06 3f/03", "a3 0a 00 00 0000 00000200 00 00", nil, 512)
	want(a, "a3 0a 00 00 0000 00000200 00 00", "0000000c"+one)

	// A group of many ports is told as far as the field goes.
	many := portGroup{id: 3, ports: make([]uint16, 300)}
	if b := appendPortGroups(nil, []portGroup{many}, false); len(b) != 4+8+4*255 || b[11] != 255 {
		t.Errorf("%d bytes, %d ports", len(b), b[11])
	}
}

// What each state lets through: SPC-4 §5.15.2.4.
func TestAccessStates(t *testing.T) {
	c := goldenConf()
	c.SetAccess, c.Memory = true, &rigMemory{}
	_, a, b, other := twoPaths(t, c, newRigStore(1<<20))
	always := []string{"INQUIRY", "REPORT LUNS", "REQUEST SENSE", "REPORT TARGET PORT GROUPS", "SET TARGET PORT GROUPS"}
	standby := append([]string{
		"MODE SELECT(6)", "MODE SELECT(10)", "MODE SENSE(6)", "MODE SENSE(10)", "LOG SELECT", "LOG SENSE",
		"SEND DIAGNOSTIC", "RECEIVE DIAGNOSTIC RESULTS", "PERSISTENT RESERVE IN", "PERSISTENT RESERVE OUT",
		// Which a device server may support beyond those: what initiators ask of
		// a path before they use it.
		"READ CAPACITY(10)", "READ CAPACITY(16)", "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
		"REPORT IDENTIFYING INFORMATION", "REPORT TIMESTAMP",
	}, always...)
	d := b.r.u.server.(*disk)
	for _, s := range []struct {
		state   AccessState
		refusal string
		allowed []string
	}{
		{AccessStandby, "02 04/0b", standby}, {AccessUnavailable, "02 04/0c", always}, {AccessOffline, "02 04/12", always},
		{AccessNonOptimized, "", nil}, {AccessOptimized, "", nil},
	} {
		setAccess(t, other, s.state)
		for _, n := range []*rigNexus{a, b} {
			n.expect("06 2a/06", "00 00 00 00 00 00", nil, 0)
		}
		// REQUEST SENSE says what TEST UNIT READY does.
		sense := "70 00 00 00000000 0a 00000000 0000 00 000000"
		if s.refusal != "" {
			sense = "70 00 02 00000000 0a 00000000 04" + s.refusal[6:] + " 00 000000"
		}
		wantBytes(t, s.state.String(), b.expect("good", "03 00 00 00 12 00", nil, 18).in(), unhex(t, sense))
		wantBytes(t, "the other path", a.expect("good", "03 00 00 00 12 00", nil, 18).in(), unhex(t, "70 00 00 00000000 0a 00000000 0000 00 000000"))
		seen := 0
		for _, row := range d.rows {
			cdb := make([]byte, len(row.usage))
			cdb[0] = row.op
			if row.sa != noSA {
				cdb[1] = byte(row.sa)
			}
			in := slices.ContainsFunc(s.allowed, func(name string) bool {
				return row.name == name || len(row.name) > len(name) && row.name[:len(name)+1] == name+","
			})
			if in {
				seen++
			}
			got := b.run(b.lun, cdb, nil, nil).outcome()
			b.r.u.setNotReady(0) // after START STOP UNIT
			b.r.u.mu.Lock()
			b.r.u.setReservation(nil)
			b.r.u.mu.Unlock()
			if refused := got == s.refusal; s.refusal != "" && refused == in {
				t.Errorf("%v: %s: %s", s.state, row.name, got)
			}
			if s.refusal == "" && len(got) > 5 && got[:5] == "02 04" {
				t.Errorf("%v: %s: %s", s.state, row.name, got)
			}
		}
		if s.refusal != "" && seen < len(s.allowed)-4 {
			t.Errorf("%v: only %d of the commands are there", s.state, seen)
		}
		// The other path does not care.
		for a.do("00 00 00 00 00 00", nil, 0).outcome()[:2] == "06" {
			// what the commands of b changed
		}
		a.expect("good", "28 00 00000000 00 0001 00", nil, 512)
	}
	// A nexus to come finds the state.
	setAccess(t, other, AccessUnavailable)
	setAccess(t, other, AccessUnavailable) // no change, nothing to tell
	a.expect("06 2a/06", "00 00 00 00 00 00", nil, 0)
	a.expect("good", "00 00 00 00 00 00", nil, 0)
	nx, err := other.ports[0].Attach("late", rigFE{tb: t})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := nx.Lane(b.l)
	if err != nil {
		t.Fatal(err)
	}
	late := &rigNexus{r: b.r, nx: nx, ln: ln, l: b.l, lun: b.lun}
	late.expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	late.expect("02 04/0c", "00 00 00 00 00 00", nil, 0)
}

// SetAccess ends when the tasks that came by the target have left the store; later ones
// are refused.
func TestSetAccessWaits(t *testing.T) {
	st := newRigStore(1 << 20)
	_, a, b, other := twoPaths(t, goldenConf(), st)
	hold := make(chan struct{})
	st.hold = hold
	call := &rigCall{done: make(chan struct{})}
	call.t.Ref, call.t.LUN = call, b.lun
	call.t.CDBLen = uint8(copy(call.t.CDB[:], []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}))
	call.t.DataOut = [][]byte{fill(512, 1)}
	b.l.Do(func() { b.ln.Submit(&call.t); b.ln.Kick() })
	done := make(chan int, 1)
	other.SetAccess(AccessStandby, 0, func(n int) { done <- n })
	b.l.Do(func() {})
	select {
	case <-done:
		t.Fatal("it ended before the task")
	default:
	}
	close(hold)
	<-call.done
	if n := <-done; n != 0 || call.t.Status != StatusGood {
		t.Errorf("%d stuck, %v", n, call.t.Status)
	}
	st.hold = nil
	b.expect("06 2a/06", "2a 00 00000000 00 0001 00", fill(512, 2), 0)
	b.expect("02 04/0b", "2a 00 00000000 00 0001 00", fill(512, 2), 0)
	a.expect("06 2a/06", "00 00 00 00 00 00", nil, 0)
	if st.b[0] != 1 {
		t.Errorf("block has %d", st.b[0])
	}
}

// Written from SPC-4 §6.45.
func TestSetPortGroups(t *testing.T) {
	_, a, _, _ := twoPaths(t, goldenConf(), newRigStore(1<<20))
	a.expect("05 24/00 cdb 1.4", "a4 0a 00 00 0000 00000000 00 00", nil, 0)
	if got := a.expect("good", "12 00 00 00ff 00", nil, 255).in()[5]; got&0x30 != 0x10 {
		t.Errorf("TPGS %02x", got)
	}
	c := goldenConf()
	c.SetAccess = true
	r, a, b, other := twoPaths(t, c, newRigStore(1<<20))
	if got := a.expect("good", "12 00 00 00ff 00", nil, 255).in()[5]; got&0x30 != 0x30 {
		t.Errorf("TPGS %02x", got)
	}
	set := func(want, list string) {
		t.Helper()
		l := unhex(t, list)
		a.expect(want, fmt.Sprintf("a4 0a 00 00 0000 %08x 00 00", len(l)), l, 0)
	}
	set("good", "")
	set("good", "00000000")
	set("05 1a/00", "000000")
	set("05 1a/00", "00000000 0000")
	set("05 26/00 param 4.3", "00000000 0e000102")
	set("05 26/00 param 4.3", "00000000 04000102")
	set("05 26/00 param 10.7", "00000000 02000102 00000002")
	set("05 26/00 param 10.7", "00000000 02000102 00000102")
	a.expect("05 1a/00", "a4 0a 00 00 0000 00000108 00 00", fill(264, 0), 0)
	a.expect("05 1a/00", "a4 0a 00 00 0000 00000008 00 00", fill(4, 0), 0)
	b.expect("good", "00 00 00 00 00 00", nil, 0) // none of these did anything

	set("good", "00000000 02000102 01000001")
	a.expect("good", "00 00 00 00 00 00", nil, 0)
	b.expect("06 2a/06", "00 00 00 00 00 00", nil, 0)
	b.expect("02 04/0b", "00 00 00 00 00 00", nil, 0)
	wantBytes(t, "groups", a.expect("good", "a3 0a 00 00 0000 00000200 00 00", nil, 512).in(), unhex(t,
		"0000001c 01 4f 0001 00 01 00 01 0000 0002 02 4f 0102 00 01 00 02  0000 0009 0000 0203"))
	// From a path in standby too.
	l := unhex(t, "00000000 00000102")
	b.expect("good", "a4 0a 00 00 0000 00000008 00 00", l, 0)
	b.expect("good", "00 00 00 00 00 00", nil, 0)
	a.expect("06 2a/06", "00 00 00 00 00 00", nil, 0)
	// The operator has the last word, also where he says what he said before.
	if other.Access() != AccessNonOptimized {
		t.Errorf("%v", other.Access())
	}
	setAccess(t, other, AccessNonOptimized)
	b.expect("06 2a/06", "00 00 00 00 00 00", nil, 0)
	if g := r.u.portGroups(); len(g) != 2 {
		t.Errorf("%+v", g)
	}
}

func FuzzSetPortGroups(f *testing.F) {
	for _, s := range []string{"", "00000000", "00000000 02000102 01000001", "00000000 0e000102", "00000000 0000000200"} {
		f.Add(unhexF(f, s))
	}
	gs := []portGroup{{id: 1}, {id: 0x102}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var room [64]setGroup
		sets, s, ok := parseSetGroups(b, gs, room[:0])
		if !ok {
			if s.Key != IllegalRequest {
				t.Fatalf("%+v", s)
			}
			return
		}
		if len(sets) > len(gs) || len(b) != 4+4*len(sets) {
			t.Fatalf("%d changes of % x", len(sets), b)
		}
		for _, x := range sets {
			if x.state > AccessUnavailable || x.id != 1 && x.id != 0x102 {
				t.Fatalf("%+v", x)
			}
		}
	})
}

func TestParseAccessState(t *testing.T) {
	for _, s := range []AccessState{AccessOptimized, AccessNonOptimized, AccessStandby, AccessUnavailable, AccessOffline} {
		if got, err := ParseAccessState(s.String()); err != nil || got != s {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	if _, err := ParseAccessState("active"); err == nil {
		t.Error("no error")
	}
}
