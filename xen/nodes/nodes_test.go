package nodes_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/xenstore"
	"github.com/vtgt/vtgt/xen/xentest"
)

func update(t *testing.T, m *xentest.Machine, f func(tx *xenstore.Tx) error) {
	t.Helper()
	if err := m.Tools.Update(f); err != nil {
		t.Fatal(err)
	}
}

// TestNodes writes both ends' nodes, which are there at once, ends the device and removes
// them; what is others' stays.
func TestNodes(t *testing.T) {
	m := xentest.NewMachine(t)
	m.Create(5, "vm1", "")
	d := nodes.Device{Type: "vtgt", Domain: 5, Number: 2}
	other := nodes.Device{Type: "vscsi", Domain: 5}
	m.Attach(other)
	for _, want := range []bool{true, false} {
		m.Store.Conflicts(2)
		update(t, m, func(tx *xenstore.Tx) error {
			made, err := nodes.Write(tx, d)
			if made != want {
				t.Errorf("made: %v", made)
			}
			return err
		})
	}
	for p, want := range map[string]string{
		d.BackendPath() + "/frontend": d.FrontendPath(), d.BackendPath() + "/frontend-id": "5", d.BackendPath() + "/online": "1", d.BackendPath() + "/state": "1",
		d.FrontendPath() + "/backend": d.BackendPath(), d.FrontendPath() + "/backend-id": "0", d.FrontendPath() + "/state": "1",
	} {
		if v, ok := m.Store.Get(p); v != want || !ok {
			t.Errorf("%s is %q, want %q", p, v, want)
		}
	}
	// What is written later has the rights of its folder: the domain reads it.
	g := m.Store.Dial(5)
	defer g.Close()
	if err := m.Tools.Write(d.BackendPath()+"/feature-sg-grant", "512"); err != nil {
		t.Fatal(err)
	}
	if v, err := g.Read(d.BackendPath() + "/feature-sg-grant"); v != "512" {
		t.Error(v, err)
	}
	if err := g.Write(d.BackendPath()+"/state", "4"); err == nil {
		t.Error("the domain writes the back end's state")
	}
	if err := g.Write(d.FrontendPath()+"/ring-ref", "8"); err != nil {
		t.Error(err)
	}

	// The number is another back end's.
	err := m.Tools.Update(func(tx *xenstore.Tx) error {
		_, err := nodes.Write(tx, nodes.Device{Type: "vtgt", Domain: 5})
		return err
	})
	var te *nodes.TakenError
	if !errors.As(err, &te) || te.Backend != other.BackendPath() {
		t.Error(err)
	}
	// Half a removal is mended.
	if err := m.Tools.Remove(d.BackendPath()); err != nil {
		t.Fatal(err)
	}
	update(t, m, func(tx *xenstore.Tx) error {
		made, err := nodes.Write(tx, d)
		if !made {
			t.Error("not made")
		}
		return err
	})
	if _, ok := m.Store.Get(d.FrontendPath() + "/ring-ref"); ok {
		t.Error("what an earlier device had is there")
	}

	for _, want := range []bool{true, true} {
		update(t, m, func(tx *xenstore.Tx) error {
			wait, err := nodes.End(tx, d)
			if wait != want {
				t.Errorf("wait: %v", wait)
			}
			return err
		})
	}
	if v, _ := m.Store.Get(d.BackendPath() + "/state"); v != nodes.Closing {
		t.Errorf("state %q", v)
	}
	if v, _ := m.Store.Get(d.BackendPath() + "/online"); v != "0" {
		t.Errorf("online %q", v)
	}
	if ok, err := nodes.Ended(&m.Tools.Tx, d); ok || err != nil {
		t.Error(ok, err)
	}
	if err := m.Tools.Write(d.BackendPath()+"/state", nodes.Closed); err != nil {
		t.Fatal(err)
	}
	if ok, err := nodes.Ended(&m.Tools.Tx, d); !ok || err != nil {
		t.Error(ok, err)
	}
	update(t, m, func(tx *xenstore.Tx) error {
		wait, err := nodes.End(tx, d)
		if wait {
			t.Error("a device that is closed is waited for")
		}
		return err
	})
	for range 2 {
		update(t, m, func(tx *xenstore.Tx) error { return nodes.Remove(tx, d) })
	}
	for _, p := range []string{d.BackendPath(), "/local/domain/0/backend/vtgt/5", d.FrontendPath()} {
		if _, ok := m.Store.Get(p); ok {
			t.Errorf("%s stays", p)
		}
	}
	// A front end of another back end is not ours to remove.
	update(t, m, func(tx *xenstore.Tx) error { return nodes.Remove(tx, nodes.Device{Type: "vtgt", Domain: 5}) })
	if _, ok := m.Store.Get(other.FrontendPath() + "/backend"); !ok {
		t.Error("another back end's front end has gone")
	}
	if wait, err := nodes.End(&m.Tools.Tx, d); wait || err != nil {
		t.Error(wait, err)
	}
}

func TestFind(t *testing.T) {
	const uuid = "6f1c0000-0000-4000-8000-00000000000a"
	m := xentest.NewMachine(t)
	find := func(want string) string {
		l, err := nodes.Find(m.Tools, want)
		if err != nil {
			t.Fatal(err)
		}
		var ids []uint32
		for _, d := range l {
			ids = append(ids, d.ID)
		}
		return fmt.Sprint(ids)
	}
	if got := find("vm1"); got != "[]" {
		t.Error(got)
	}
	m.Create(3, "vm1", uuid) // dying
	m.Create(11, "vm1", uuid)
	m.Create(12, "17", "")
	if err := m.Tools.Write("/local/domain/13/name", "vm1"); err != nil { // being made: not introduced
		t.Fatal(err)
	}
	for want, ids := range map[string]string{"vm1": "[11 3]", "6F1C0000-0000-4000-8000-00000000000A": "[11 3]", "3": "[3]", "17": "[12]", "": "[]", "vm": "[]"} {
		if got := find(want); got != ids {
			t.Errorf("%q: %s, want %s", want, got, ids)
		}
	}
}

func TestStateName(t *testing.T) {
	for s, want := range map[string]string{"4": "Connected", "": "none", "9": "9", "-1": "-1", "x": "x"} {
		if got := nodes.StateName(s); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}
