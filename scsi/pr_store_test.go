package scsi

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
)

func (m *rigMemory) saved(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[name]
}

func (m *rigMemory) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
}

// What was acknowledged with APTPL is there after a restart, nothing else is.
func TestPRPersists(t *testing.T) {
	c := goldenConf()
	m := &rigMemory{}
	c.Memory = m
	start := func() (a, b *rigNexus) {
		r := newRig(t, c, newRigStore(1<<20))
		return r.nexus(), r.nexus()
	}
	a, b := start()
	a.out("good", 0, 0, prList(0, 1, 0))
	a.out("good", 1, 3, prList(1, 0, 0))
	if m.saves != 0 {
		t.Error("saved without APTPL")
	}
	a, b = start()
	a.keys(0)
	a.held(0, 0)

	// APTPL of the last registration counts for all.
	a.out("good", 0, 0, prList(0, 1, 0))
	b.out("good", 0, 0, prList(0, 2, 1))
	a.out("good", 1, 6, prList(1, 0, 0))
	n := m.saves
	a.out("good", 1, 6, prList(1, 0, 0)) // changes nothing
	a.out("good", 0, 0, prList(1, 1, 1))
	if m.saves != n {
		t.Error("saved what had not changed")
	}
	a, b = start()
	a.keys(0, 1, 2)
	a.held(1, 6)
	a.access(true, true)
	b.access(true, true)
	a.r.nexus().access(false, false)
	if s := a.r.u.Reservations(); !s.Persistent || len(s.Registrations) != 2 || !s.Registrations[0].Holder || s.Registrations[1].Holder || !s.Registrations[0].Attached {
		t.Errorf("%+v", s)
	}
	// Switched off by anybody.
	b.out("good", 6, 0, prList(0, 2, 0))
	if m.saved("reservations") != nil {
		t.Error("the record is there still")
	}
	a, b = start()
	a.keys(0)
	_ = b
}

// A save that fails: nothing changes, and the next change is saved again.
func TestPRSaveFails(t *testing.T) {
	c := goldenConf()
	m := &rigMemory{}
	c.Memory = m
	r := newRig(t, c, newRigStore(1<<20))
	a, b := r.nexus(), r.nexus()
	for _, x := range []struct {
		err  error
		want string
	}{{syscall.ENOSPC, "05 55/04"}, {syscall.EDQUOT, "05 55/04"}, {errors.New("any"), "04 44/00"}} {
		m.fail(x.err)
		a.out(x.want, 0, 0, prList(0, 1, 1))
		a.keys(0)
		m.fail(nil)
	}
	a.out("good", 0, 0, prList(0, 1, 1))
	a.out("good", 1, 3, prList(1, 0, 0))
	kept := m.saved("reservations")
	b.out("good", 0, 0, prList(0, 2, 1))
	m.fail(syscall.EIO)
	for _, sa := range []byte{4, 5} {
		b.out("04 44/00", sa, 1, prList(2, 1, 0))
	}
	a.out("04 44/00", 2, 3, prList(1, 0, 0))
	a.out("04 44/00", 0, 0, prList(1, 0, 0)) // off
	if err := r.u.ClearReservations(0); err == nil {
		t.Error("cleared although it was not stored")
	}
	a.keys(2, 1, 2)
	a.held(1, 3)
	a.ua("")
	b.access(false, false)
	m.fail(nil)
	n := m.saves
	a.out("good", 0, 0, prList(1, 1, 1)) // changes nothing, but what lies there is not sure
	if m.saves != n+1 || bytes.Equal(m.saved("reservations"), kept) {
		t.Error("not saved")
	}
}

// SPC-4 §5.13.5.3.2 and §5.13.11.3.
func TestPRLost(t *testing.T) {
	c := goldenConf()
	m := &rigMemory{}
	c.Memory = m
	m.m = map[string][]byte{"reservations": []byte("{}")}
	r := newRig(t, c, newRigStore(1<<20))
	b := r.nexus()
	const lost = "07 44/01"
	for cdb, want := range map[string]string{
		"28 00 00000000 00 0001 00": lost, "5e 00 0000000000 ffff 00": lost, "16 00 00 00 00 00": lost, "1a 00 3f 00 ff 00": lost,
		"1b 00 00 00 00 00": lost, "25 0000000000000000 00": lost,
		"12 00 00 00 60 00": "good", "a0 00 00 000000 00000100 00 00": "good", "03 00 00 00 12 00": "good", "1b 00 00 00 01 00": "good",
	} {
		b.expect(want, cdb, nil, 512)
	}
	b.out(lost, 0, 0, prList(0, 1, 0))
	b.out("05 26/00 param 0.7", 8, 1, prList(1, 1, 0))
	b.out("05 26/00 param 8.7", 8, 1, prList(0, 0, 0))
	b.out("05 26/00 param 20.2", 8, 1, prList(0, 1, 4))
	b.out("05 26/00 param 20.3", 8, 1, prList(0, 1, 8))
	b.out("05 24/00 cdb 2.3", 8, 2, prList(0, 1, 0))
	if !r.u.Reservations().Lost {
		t.Error("not told")
	}
	b.out("good", 8, 3, prList(0, 5, 1))
	b.keys(0, 5)
	b.held(5, 3)
	b.access(true, true)
	b.out("05 26/04", 8, 3, prList(0, 5, 1))
	r = newRig(t, c, newRigStore(1<<20))
	r.nexus().keys(0, 5)

	m.m["reservations"] = []byte("x")
	r = newRig(t, c, newRigStore(1<<20))
	r.fresh().expect("06 29/00", "00 00 00 00 00 00", nil, 0)
	if err := r.u.ClearReservations(0); err != nil {
		t.Fatal(err)
	}
	r.nexus().access(true, true)
	if m.saved("reservations") != nil {
		t.Error("the damaged record is there still")
	}
}

func FuzzReservationsRecord(f *testing.F) {
	p := &prTable{aptpl: true, regs: []registrant{{regID{1, iqn(1)}, 5}, {regID{2, "\x04\x00\x00\x00\x00\x00\x00\x000123456789abcdef"}, 6}}}
	f.Add(encodeReservations(p))
	p.typ, p.holder = WriteExclusive, p.regs[1].id
	f.Add(encodeReservations(p))
	p.typ, p.holder = ExclusiveAccessAllRegistrants, regID{}
	f.Add(encodeReservations(p))
	f.Add([]byte(`{"version":1,"crc32c":"","table":{"type":7,"holder":-1,"registrations":[]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeReservations(b)
		if err != nil || p == noReservations {
			return
		}
		again, err := decodeReservations(encodeReservations(p))
		if err != nil || !sameKept(p, again) {
			t.Errorf("%+v %v", again, err)
		}
	})
}

// A record with any one byte changed is refused, or says the same.
func TestPRRecordDamage(t *testing.T) {
	p := &prTable{aptpl: true, typ: WriteExclusive, regs: []registrant{{regID{1, iqn(1)}, 5}, {regID{2, iqn(2)}, 6}}}
	p.holder = p.regs[1].id
	whole := encodeReservations(p)
	if got, err := decodeReservations(whole); err != nil || !sameKept(got, p) {
		t.Fatal(got, err)
	}
	for i := range whole {
		for _, x := range []byte{1, 0x10, 0x20} {
			b := bytes.Clone(whole)
			b[i] ^= x
			if got, err := decodeReservations(b); err == nil && !sameKept(got, p) {
				t.Errorf("byte %d: %s", i, b)
			}
		}
		if _, err := decodeReservations(whole[:i]); err == nil {
			t.Errorf("cut at %d", i)
		}
	}
}
