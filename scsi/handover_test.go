package scsi

import (
	"encoding/json"
	"strings"
	"testing"
)

// successor is the unit of the next process: everything goes through the encoding.
func (r *rig) successor(c UnitConfig) *rig {
	r.tb.Helper()
	st, err := r.u.Save()
	if err != nil {
		r.tb.Fatal(err)
	}
	b, err := json.Marshal(st)
	if err != nil {
		r.tb.Fatal(err)
	}
	c.Saved = new(SavedUnit)
	if err := json.Unmarshal(b, c.Saved); err != nil {
		r.tb.Fatal(err)
	}
	return newRig(r.tb, c, newRigStore(1<<20))
}

// TestSavedUnit: initiators find in the next process what they left in this one, and no
// unit attention says that anything happened.
func TestSavedUnit(t *testing.T) {
	conf := sharedConf()
	conf.Removable = true
	a := newRig(t, conf, newRigStore(1<<20))
	x, y, z := a.nexus(), a.nexus(), a.nexus()
	x.out("good", 0, 0, prList(0, 7, 0))
	y.out("good", 0, 0, prList(0, 8, 0))
	x.out("good", 1, byte(WriteExclusiveRegistrantsOnly), prList(7, 0, 0))
	x.want(x.do("1e 00 00 00 01 00", nil, 0), "good")                                                                 // PREVENT
	x.want(x.do("15 10 00 00 10 00", []byte{0, 0, 0, 0, 0x0a, 10, 2, 0x10, 8, 0, 0, 0, 0xff, 0xff, 0, 0}, 0), "good") // SWP
	x.want(x.do("a4 0f 00 00 00 00 00 00 00 0c 00 00", []byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, 0), "good")        // SET TIMESTAMP
	// y has two conditions now, z too.

	b := a.successor(conf)
	at := func(o *rigNexus) *rigNexus { return b.attach(b.p, string(o.nx.ID())) }
	x2, y2 := at(x), at(y)
	if got := b.u.Carried(); !strings.Contains(got, string(z.nx.ID())) || strings.Contains(got, string(x.nx.ID())) {
		t.Errorf("still to come: %q", got)
	}
	x2.want(x2.do("00 00 00 00 00 00", nil, 0), "good")
	y2.want(y2.do("00 00 00 00 00 00", nil, 0), "06 2a/01")
	y2.ua("2a/10")
	x2.keys(2, 7, 8)
	x2.held(7, byte(WriteExclusiveRegistrantsOnly))
	x2.want(x2.do("1b 00 00 00 02 00", nil, 0), "05 53/02") // prevented
	if c := b.u.disk.clock.Load(); c == nil || c.ms>>32 != 0x0100 {
		t.Errorf("clock %+v", c)
	}
	if !b.u.writeProtected() {
		t.Error("SWP is gone")
	}
	// A condition for one that has come and has not been heard since.
	b.u.raiseUA(ASCTimestampChanged, nil)
	y2.ua("2a/10")
	// Who comes too late begins anew.
	b.u.ForgetCarried()
	z2 := at(z)
	z2.ua("29/00")
}

// TestSavedReserve: RESERVE holds from the moment on at which its nexus is there.
func TestSavedReserve(t *testing.T) {
	conf := sharedConf()
	a := newRig(t, conf, newRigStore(1<<20))
	x, y := a.nexus(), a.nexus()
	x.want(x.do("16 00 00 00 00 00", nil, 0), "good")
	b := a.successor(conf)
	y2 := b.attach(b.p, string(y.nx.ID()))
	x2 := b.attach(b.p, string(x.nx.ID()))
	y2.want(y2.do("28 00 00 00 00 00 00 00 01 00", nil, 512), conflicts)
	x2.want(x2.do("28 00 00 00 00 00 00 00 01 00", nil, 512), "good")
}

// TestSavedRefusesDamage: a state that contradicts itself is not taken.
func TestSavedRefusesDamage(t *testing.T) {
	a := newRig(t, sharedConf(), newRigStore(1<<20))
	a.nexus()
	st, err := a.u.Save()
	if err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]func(*SavedUnit){
		"modes":        func(s *SavedUnit) { s.Modes = json.RawMessage(`{"version":99}`) },
		"reservations": func(s *SavedUnit) { s.Reservations.Type = 9 },
		"attention":    func(s *SavedUnit) { s.Nexuses[0].Attention = make([]uint16, maxUA+1) },
		"absent":       func(s *SavedUnit) { s.Absent = []SavedAbsent{{Attention: make([]uint16, maxUA+1)}} },
	} {
		s := *st
		s.Nexuses = append([]SavedNexus(nil), st.Nexuses...)
		f(&s)
		c := sharedConf()
		c.Saved = &s
		if _, err := NewUnit(c, newRigStore(1<<20)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}
