package nodes

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/xen/xenstore"
	"github.com/vtgt/vtgt/xen/xenstore/wire"
)

// The xenbus states that a toolstack writes and waits for, as they stand in their nodes.
const (
	Initialising = "1"
	Connected    = "4"
	Closing      = "5"
	Closed       = "6"
)

// StateName is a state for people; empty: there is no node.
func StateName(s string) string {
	names := [...]string{"Unknown", "Initialising", "InitWait", "Initialised", "Connected", "Closing", "Closed", "Reconfiguring", "Reconfigured"}
	if s == "" {
		return "none"
	}
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(names) {
		return names[n]
	}
	return s
}

// Device is a vscsi device.
type Device struct {
	Backend uint32 // the domain that vtgt runs in
	Type    string // of back end
	Domain  uint32 // that the device is for
	Number  uint32 // of the device there
}

// BackendPath is the folder of the back end.
func (d Device) BackendPath() string {
	return fmt.Sprintf("/local/domain/%d/backend/%s/%d/%d", d.Backend, d.Type, d.Domain, d.Number)
}

// FrontendPath is the folder of the front end: its driver looks for devices of type
// vscsi, whatever the back end's type is.
func (d Device) FrontendPath() string {
	return fmt.Sprintf("/local/domain/%d/device/vscsi/%d", d.Domain, d.Number)
}

// TakenError: the domain has a device of that number already.
type TakenError struct {
	Device  Device
	Backend string // that it belongs to
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("domain %d has a vscsi device %d already, of the back end %s", e.Device.Domain, e.Device.Number, e.Backend)
}

// Write writes both ends' nodes, unless they are there: made is false then. The error is
// a *TakenError where the device is another back end's.
func Write(tx *xenstore.Tx, d Device) (made bool, err error) {
	be, fe := d.BackendPath(), d.FrontendPath()
	switch b, err := tx.Read(fe + "/backend"); {
	case err == nil && b != be:
		return false, &TakenError{d, b}
	case err == nil:
		if _, err := tx.Read(be + "/frontend"); err == nil {
			return false, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	// What a dead domain of the same number, or half a removal, has left.
	for _, p := range []string{be, fe} {
		if err := remove(tx, p); err != nil {
			return false, err
		}
		if err := tx.Mkdir(p); err != nil {
			return false, err
		}
	}
	// The permissions come first: a node has those that its folder had when it was
	// made. Without the right to read, a front end does not learn of segments beyond
	// 26 (feature-sg-grant).
	for p, l := range map[string][]xenstore.Perm{
		be: {{Access: wire.None, Domain: d.Backend}, {Access: wire.ReadOnly, Domain: d.Domain}},
		fe: {{Access: wire.None, Domain: d.Domain}, {Access: wire.ReadOnly, Domain: d.Backend}},
	} {
		if err := tx.SetPerms(p, l...); err != nil {
			return false, err
		}
	}
	for _, kv := range [][2]string{
		{be + "/frontend", fe}, {be + "/frontend-id", number(d.Domain)}, {be + "/online", "1"}, {be + "/state", Initialising},
		{fe + "/backend", be}, {fe + "/backend-id", number(d.Backend)}, {fe + "/state", Initialising},
	} {
		if err := tx.Write(kv[0], kv[1]); err != nil {
			return false, err
		}
	}
	return true, nil
}

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// End asks both ends to end the device: the front end's disks go, then the back end
// writes Closed. false: there is nothing to wait for, it is closed or not there.
func End(tx *xenstore.Tx, d Device) (wait bool, err error) {
	be := d.BackendPath()
	st, err := tx.Read(be + "/state")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := tx.Write(be+"/online", "0"); err != nil || st == Closed {
		return false, err
	}
	return true, tx.Write(be+"/state", Closing)
}

// Ended tells whether the back end has closed the device, or it is not there.
func Ended(tx *xenstore.Tx, d Device) (bool, error) {
	st, err := tx.Read(d.BackendPath() + "/state")
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return st == Closed, err
}

// Remove removes both ends' nodes, and folders that they leave empty. A front end that
// belongs to another back end stays.
func Remove(tx *xenstore.Tx, d Device) error {
	be, fe := d.BackendPath(), d.FrontendPath()
	switch b, err := tx.Read(fe + "/backend"); {
	case err == nil && b == be:
		if err := remove(tx, fe); err != nil {
			return err
		}
		if err := prune(tx, path.Dir(fe)); err != nil {
			return err
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return RemoveBackend(tx, d)
}

// RemoveBackend removes what the back end of a domain that is dead has left.
func RemoveBackend(tx *xenstore.Tx, d Device) error {
	be := d.BackendPath()
	if err := remove(tx, be); err != nil {
		return err
	}
	return prune(tx, path.Dir(be))
}

// remove removes what may be there.
func remove(tx *xenstore.Tx, p string) error {
	if _, err := tx.Read(p); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return tx.Remove(p)
}

// prune removes a folder that is empty.
func prune(tx *xenstore.Tx, p string) error {
	l, err := tx.List(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(l) > 0 {
		return err
	}
	return tx.Remove(p)
}

// Domain is a domain as xenstore knows it.
type Domain struct {
	ID   uint32
	Name string
	UUID string // empty: not known
}

// Is tells whether want, a number, a name or a UUID, means the domain.
func (d *Domain) Is(want string) bool {
	return want != "" && (want == number(d.ID) || want == d.Name || strings.EqualFold(want, d.UUID))
}

// Lookup reads what domain id is called.
func Lookup(tx *xenstore.Tx, id uint32) Domain {
	d := Domain{ID: id}
	p := fmt.Sprintf("/local/domain/%d/", id)
	d.Name, _ = tx.Read(p + "name")
	vm, _ := tx.Read(p + "vm")
	d.UUID = strings.TrimPrefix(vm, "/vm/")
	return d
}

// Find lists the domains that want means and that xenstored knows: one that is dying may
// be there beside the one that it becomes. The newest comes first.
func Find(c *xenstore.Conn, want string) ([]Domain, error) {
	names, err := c.List("/local/domain")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Domain
	for _, n := range names {
		id, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			continue
		}
		d := Lookup(&c.Tx, uint32(id))
		if !d.Is(want) {
			continue
		}
		if ok, err := c.Introduced(d.ID); err != nil {
			return nil, err
		} else if !ok {
			continue
		}
		i := 0
		for i < len(out) && out[i].ID > d.ID {
			i++
		}
		out = append(out[:i], append([]Domain{d}, out[i:]...)...)
	}
	return out, nil
}
