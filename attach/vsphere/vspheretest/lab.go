package vspheretest

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Config describes a Lab.
type Config struct {
	// Hosts is how many hosts the cluster has; 0: no vCenter server but one ESXi
	// host.
	Hosts int
	// VMs is how many virtual machines there are.
	VMs int
	// Listen is the address to listen on; empty: a free port of 127.0.0.1.
	Listen string
}

// The credentials that a Lab takes.
const (
	User     = "administrator@vsphere.local"
	Password = "Secret-of-the-lab-1"
)

// Call is a call of an API method.
type Call struct {
	// Host is the host's name; empty where the object is none of a host's.
	Host string
	// Method is its name in the API: "RescanHba".
	Method string
	// After: what the method does is done, and the answer not yet sent. Only
	// storage methods are told of twice.
	After bool
}

// Lab is a running simulator.
type Lab struct {
	// URL of the API, without credentials. Thumbprint is its certificate's
	// (SHA-256), CA the path of a PEM file of it.
	URL        string
	Thumbprint string
	CA         string
	// Cluster is the cluster's name, HostNames those of its hosts, VMs the virtual
	// machines'.
	Cluster   string
	HostNames []string
	VMs       []string

	model  *simulator.Model
	server *simulator.Server
	hosts  map[types.ManagedObjectReference]*storage // by storage or datastore system

	mu    sync.Mutex
	hook  func(Call) error
	calls []Call
}

// New starts a Lab.
func New(c Config) (*Lab, error) {
	l := &Lab{hosts: map[types.ManagedObjectReference]*storage{}}
	m := simulator.ESX()
	if c.Hosts > 0 {
		m = simulator.VPX()
		m.Host, m.ClusterHost = 0, c.Hosts
	}
	m.Machine = c.VMs
	if err := m.Create(); err != nil {
		m.Remove()
		return nil, err
	}
	l.model = m
	m.Service.TLS = new(tls.Config)
	m.Service.Listen = &url.URL{Host: c.Listen, User: url.UserPassword(User, Password)}
	if c.Listen == "" {
		m.Service.Listen.Host = "127.0.0.1:0"
	}
	reg := m.Map()
	for _, e := range reg.All("HostSystem") {
		h := e.(*simulator.HostSystem)
		ss, ok := reg.Get(*h.ConfigManager.StorageSystem).(*simulator.HostStorageSystem)
		ds, ok2 := reg.Get(*h.ConfigManager.DatastoreSystem).(*simulator.HostDatastoreSystem)
		if !ok || !ok2 {
			m.Remove()
			return nil, errors.New("the simulator's hosts have no storage system")
		}
		s := newStorage(l, ss, ds, h)
		reg.Put(s)
		reg.Put(&datastores{HostDatastoreSystem: ds, s: s})
		l.hosts[s.Self], l.hosts[ds.Self] = s, s
		l.HostNames = append(l.HostNames, h.Name)
	}
	slices.Sort(l.HostNames)
	for _, e := range reg.All("VirtualMachine") {
		l.VMs = append(l.VMs, e.Entity().Name)
	}
	slices.Sort(l.VMs)
	if e := reg.Any("ClusterComputeResource"); e != nil {
		l.Cluster = e.Entity().Name
	}
	reg.Handler = l.before
	l.server = m.Service.NewServer()
	u := *l.server.URL
	u.User = nil
	l.URL = u.String()
	l.Thumbprint = soap.ThumbprintSHA256(l.server.Certificate())
	var err error
	l.CA, err = l.server.CertificateFile()
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close logs the hosts out and ends the simulator.
func (l *Lab) Close() {
	l.OnCall(nil)
	l.server.Close()
	for _, s := range l.hosts {
		s.closeAll()
	}
	if l.CA != "" {
		os.Remove(l.CA)
	}
	l.model.Remove()
}

// Logout ends the sessions of a host, as if it had been switched off.
func (l *Lab) Logout(host string) {
	for ref, s := range l.hosts {
		if s.name == host && ref == s.Self {
			s.closeAll()
		}
	}
}

// OnCall has f called before every API method, and after those of the storage
// systems; where it returns an error the method fails: before, without having done
// anything. Other calls wait meanwhile. nil: no more.
func (l *Lab) OnCall(f func(Call) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = f
}

// Changes are the calls so far that have changed a host or a virtual machine, since
// the last time.
func (l *Lab) Changes() []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.calls
	l.calls = nil
	return out
}

// State is all that the hosts have and remember of storage, to compare.
func (l *Lab) State() string {
	ctx := l.model.Service.Context
	var out []any
	for _, name := range l.HostNames {
		for ref, s := range l.hosts {
			if s.name != name || ref != s.Self {
				continue
			}
			ctx.WithLock(s, func() {
				out = append(out, name, s.StorageDeviceInfo, s.FileSystemVolumeInfo, maps.Clone(s.off), maps.Clone(s.kept), maps.Clone(s.policy))
			})
			ctx.WithLock(s.Host, func() { out = append(out, slices.Clone(s.Host.Datastore)) })
		}
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// reading are methods that change nothing.
func reading(method string) bool {
	for _, p := range []string{"Retrieve", "Query", "Create", "Login", "Logout", "Destroy", "Fetch", "WaitFor", "Cancel", "Rescan", "Refresh"} {
		if strings.HasPrefix(method, p) && method != "CreateVmfsDatastore" {
			return true
		}
	}
	return false
}

// before is the registry's handler of every call.
func (l *Lab) before(_ *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	c := Call{Method: m.Name}
	if s := l.hosts[m.This]; s != nil {
		c.Host = s.name
	}
	if !reading(m.Name) {
		l.mu.Lock()
		l.calls = append(l.calls, c)
		l.mu.Unlock()
	}
	if err := l.tell(c); err != nil {
		return nil, failure(err)
	}
	return nil, nil
}

func (l *Lab) tell(c Call) error {
	l.mu.Lock()
	f := l.hook
	l.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(c)
}

// failure is the fault that hosts answer with when they cannot.
func failure(err error) types.BaseMethodFault {
	f := &types.HostConfigFault{}
	f.FaultMessage = []types.LocalizableMessage{{Key: "com.vmware.esx.hostctl.default", Message: err.Error()}}
	return f
}

func fault(f types.BaseMethodFault, format string, args ...any) *soap.Fault {
	return simulator.Fault(fmt.Sprintf(format, args...), f)
}
