package xentest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/xen/evtchn/evtchntest"
	"github.com/vtgt/vtgt/xen/gnttab"
	"github.com/vtgt/vtgt/xen/gnttab/gnttabtest"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/xenstore"
	"github.com/vtgt/vtgt/xen/xenstore/wire"
	"github.com/vtgt/vtgt/xen/xenstore/xenstoretest"
)

// Machine is a host with Xen and some domains.
type Machine struct {
	TB    testing.TB
	Store *xenstoretest.Server
	Hub   evtchntest.Hub
	Tools *xenstore.Conn // dom0's toolstack

	mu      sync.Mutex
	domains map[uint32]*gnttabtest.Domain
	views   map[*gnttab.View]gnttab.Table
}

// NewMachine makes one, which ends with the test.
func NewMachine(tb testing.TB) *Machine {
	m := OpenMachine(tb)
	tb.Cleanup(m.Close)
	return m
}

// OpenMachine makes one that is to be closed.
func OpenMachine(tb testing.TB) *Machine {
	m := &Machine{TB: tb, Store: xenstoretest.New(), domains: map[uint32]*gnttabtest.Domain{}, views: map[*gnttab.View]gnttab.Table{}}
	m.Tools = m.Store.Dial(0)
	return m
}

// Close ends the machine. Nobody may use it any more.
func (m *Machine) Close() {
	_ = m.Tools.Close()
	m.Store.Close()
	for _, d := range m.domains {
		d.Free()
	}
}

// Dial connects dom0.
func (m *Machine) Dial() (*xenstore.Conn, error) { return m.Store.Dial(0), nil }

// Redial connects the toolstack again, after Store.Disconnect.
func (m *Machine) Redial() {
	_ = m.Tools.Close()
	m.Tools = m.Store.Dial(0)
}

// Create makes a domain, as xl create -p does.
func (m *Machine) Create(id uint32, name, uuid string) {
	m.TB.Helper()
	m.mu.Lock()
	if m.domains[id] == nil {
		m.domains[id] = gnttabtest.NewDomain(m.TB, id, 2048)
	}
	m.mu.Unlock()
	p := fmt.Sprintf("/local/domain/%d", id)
	if err := m.Tools.Update(func(tx *xenstore.Tx) error {
		if err := tx.Mkdir(p + "/device"); err != nil {
			return err
		}
		if err := tx.SetPerms(p+"/device", xenstore.Perm{Access: wire.None, Domain: id}); err != nil {
			return err
		}
		for _, kv := range [][2]string{{"name", name}, {"vm", "/vm/" + uuid}, {"domid", fmt.Sprint(id)}} {
			if err := tx.Write(p+"/"+kv[0], kv[1]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		m.TB.Fatal(err)
	}
	m.Store.Introduce(id)
}

// Destroy ends a domain at once.
func (m *Machine) Destroy(id uint32) { m.Store.Release(id) }

// Domain is a domain's memory.
func (m *Machine) Domain(id uint32) *gnttabtest.Domain {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.domains[id]
}

// Mapped is how many pages of all domains are mapped.
func (m *Machine) Mapped() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.domains {
		n += d.Maps()
	}
	return n
}

// Attach writes a device's nodes.
func (m *Machine) Attach(d nodes.Device) {
	m.TB.Helper()
	if err := m.Tools.Update(func(tx *xenstore.Tx) error { _, err := nodes.Write(tx, d); return err }); err != nil {
		m.TB.Fatal(err)
	}
}

// States waits for the states of both ends.
func (m *Machine) States(d nodes.Device, be, fe string) {
	m.TB.Helper()
	get := func() (string, string) {
		b, _ := m.Store.Get(d.BackendPath() + "/state")
		f, _ := m.Store.Get(d.FrontendPath() + "/state")
		return b, f
	}
	if !tempotest.Settles(func() bool { b, f := get(); return b == be && f == fe }) {
		b, f := get()
		m.TB.Fatalf("states %q and %q instead of %q and %q", b, f, be, fe)
	}
}

// Grants is the Table by which all domains' memory is reached.
func (m *Machine) Grants() gnttab.Table { return (*table)(m) }

type table Machine

func (t *table) of(id uint32) (gnttab.Table, error) {
	if d := (*Machine)(t).Domain(id); d != nil {
		return d.Table(), nil
	}
	return nil, fmt.Errorf("there is no domain %d", id)
}

func (t *table) Copy(b *gnttab.Batch) error {
	if b.Len() == 0 {
		return nil
	}
	id, _, _, _ := b.Op(0) // all are of one ring, and so of one domain
	d, err := t.of(uint32(id))
	if err != nil {
		return err
	}
	return d.Copy(b)
}

func (t *table) Map(v *gnttab.View, domid uint32, refs []uint32, write bool) error {
	d, err := t.of(domid)
	if err != nil {
		return err
	}
	if err := d.Map(v, domid, refs, write); err != nil {
		return err
	}
	t.mu.Lock()
	t.views[v] = d
	t.mu.Unlock()
	return nil
}

func (t *table) Unmap(v *gnttab.View) error {
	t.mu.Lock()
	d := t.views[v]
	delete(t.views, v)
	t.mu.Unlock()
	if d == nil {
		return nil
	}
	return d.Unmap(v)
}

func (t *table) Close() error { return nil }
