package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Where names the hosts: one of them, or all of a cluster. With neither it is the only
// host there is.
type Where struct{ Host, Cluster string }

// host is an ESXi host.
type host struct {
	s           *Session
	ref         types.ManagedObjectReference
	name        string
	uuid        string // of its hardware: it stays, however the host is reached
	storage, ds types.ManagedObjectReference
}

func (h *host) object() string { return "host " + h.name }

// list retrieves all objects of a kind.
func list[T any](ctx context.Context, s *Session, kind string, props ...string) ([]T, error) {
	v, err := view.NewManager(s.c).CreateContainerView(ctx, s.c.ServiceContent.RootFolder, []string{kind}, true)
	if err != nil {
		return nil, because(s.String(), "the inventory cannot be read", "give the user the right to see it", err)
	}
	defer func() { _ = v.Destroy(ctx) }()
	var out []T
	if err := v.Retrieve(ctx, []string{kind}, props, &out); err != nil {
		return nil, because(s.String(), "the inventory cannot be read", "give the user the right to see it", err)
	}
	return out, nil
}

// some joins a few names, for hints.
func some(names []string) string {
	slices.Sort(names)
	if len(names) > 10 {
		return strings.Join(names[:10], ", ") + fmt.Sprintf(" and %d more", len(names)-10)
	}
	return strings.Join(names, ", ")
}

// hosts finds what w names.
func (s *Session) hosts(ctx context.Context, w Where) ([]*host, error) {
	all, err := list[mo.HostSystem](ctx, s, "HostSystem", "name", "parent", "runtime.connectionState", "configManager", "summary.hardware")
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range all {
		names = append(names, all[i].Name)
	}
	match := func(h *mo.HostSystem) bool { return w.Host == "" || strings.EqualFold(h.Name, w.Host) }
	switch {
	case w.Cluster != "" && w.Host != "":
		return nil, fail(s.String(), "give --host or --cluster", "a host and a cluster are named")
	case w.Cluster != "":
		cs, err := list[mo.ClusterComputeResource](ctx, s, "ClusterComputeResource", "name")
		if err != nil {
			return nil, err
		}
		var found []types.ManagedObjectReference
		var there []string
		for i := range cs {
			there = append(there, cs[i].Name)
			if strings.EqualFold(cs[i].Name, w.Cluster) {
				found = append(found, cs[i].Self)
			}
		}
		switch len(found) {
		case 0:
			return nil, fail("cluster "+w.Cluster, "there are: "+some(there), "is not there")
		case 1:
		default:
			return nil, fail("cluster "+w.Cluster, "name its hosts one by one with --host", "there are %d of that name", len(found))
		}
		match = func(h *mo.HostSystem) bool { return h.Parent != nil && *h.Parent == found[0] }
	case w.Host == "" && len(all) != 1:
		return nil, fail(s.String(), "name one with --host, or a cluster with --cluster; hosts are: "+some(names), "it has %d hosts", len(all))
	}
	var out []*host
	for i := range all {
		m := &all[i]
		if !match(m) {
			continue
		}
		h := &host{s: s, ref: m.Self, name: m.Name}
		if m.Summary.Hardware != nil {
			h.uuid = strings.ToLower(m.Summary.Hardware.Uuid)
		}
		switch {
		case m.Runtime.ConnectionState != types.HostSystemConnectionStateConnected:
			return nil, fail(h.object(), "connect it to vCenter again, then repeat", "it is %s", m.Runtime.ConnectionState)
		case m.ConfigManager.StorageSystem == nil || m.ConfigManager.DatastoreSystem == nil || h.uuid == "":
			return nil, fail(h.object(), "give the user the privilege Host.Config.Storage", "its storage cannot be seen")
		}
		h.storage, h.ds = *m.ConfigManager.StorageSystem, *m.ConfigManager.DatastoreSystem
		out = append(out, h)
	}
	switch {
	case len(out) == 0 && w.Cluster != "":
		return nil, fail("cluster "+w.Cluster, "add a host to it", "it has no hosts")
	case len(out) == 0:
		return nil, fail("host "+w.Host, "there are: "+some(names), "is not there")
	case w.Host != "" && len(out) > 1:
		return nil, fail("host "+w.Host, "connect to the host itself by --url", "there are %d of that name", len(out))
	}
	slices.SortFunc(out, func(a, b *host) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// vm is a virtual machine.
type vm struct {
	ref  types.ManagedObjectReference
	name string
	uuid string // instance UUID
	host types.ManagedObjectReference
}

// vms lists the virtual machines that match.
func (s *Session) vms(ctx context.Context, match func(*vm) bool) (found []vm, names []string, err error) {
	all, err := list[mo.VirtualMachine](ctx, s, "VirtualMachine", "name", "runtime.host", "config.instanceUuid")
	if err != nil {
		return nil, nil, err
	}
	for i := range all {
		m := &all[i]
		v := vm{ref: m.Self, name: m.Name}
		if m.Config != nil {
			v.uuid = strings.ToLower(m.Config.InstanceUuid)
		}
		if m.Runtime.Host != nil {
			v.host = *m.Runtime.Host
		}
		names = append(names, m.Name)
		if match(&v) {
			found = append(found, v)
		}
	}
	return found, names, nil
}

// vmNamed finds the only virtual machine of a name.
func (s *Session) vmNamed(ctx context.Context, name string) (*vm, error) {
	found, names, err := s.vms(ctx, func(v *vm) bool { return v.name == name })
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fail("virtual machine "+name, "there are: "+some(names), "is not there")
	case len(found) > 1:
		return nil, fail("virtual machine "+name, "rename one of them", "there are %d of that name", len(found))
	case found[0].uuid == "":
		return nil, fail("virtual machine "+name, "wait until vCenter shows its configuration", "it is not accessible")
	}
	return &found[0], nil
}

func (s *Session) one(ctx context.Context, ref types.ManagedObjectReference, props []string, dst any) error {
	return property.DefaultCollector(s.c).RetrieveOne(ctx, ref, props, dst)
}
