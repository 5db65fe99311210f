package libvirt

import (
	"context"
	"encoding/json"
	"fmt"

	lv "github.com/digitalocean/go-libvirt"
)

// qmpError is an error of QEMU's.
type qmpError struct {
	command, Class, Desc string
}

func (e *qmpError) Error() string { return fmt.Sprintf("QEMU refuses %s: %s", e.command, e.Desc) }

// qmp runs a command of QEMU's monitor. An error of QEMU's comes in the reply, where the
// call itself went well.
func (d *domain) qmp(ctx context.Context, command string, args, out any) error {
	q := map[string]any{"execute": command}
	if args != nil {
		q["arguments"] = args
	}
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	var text string
	err = d.c.do(ctx, "domain "+d.name, func(l *lv.Libvirt) (err error) {
		text, err = l.QEMUDomainMonitorCommand(d.d, string(b), 0)
		return err
	})
	if err != nil {
		return err
	}
	var r struct {
		Return json.RawMessage
		Error  *qmpError
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("domain %s: QEMU's answer to %s is not understood: %w", d.name, command, err)
	}
	if r.Error != nil {
		r.Error.command = command
		return fmt.Errorf("domain %s: %w", d.name, r.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(r.Return, out)
}

// device tells whether QEMU has a device of this id.
func (d *domain) device(ctx context.Context, id string) (bool, error) {
	var l []struct{ Name string }
	if err := d.qmp(ctx, "qom-list", map[string]any{"path": "/machine/peripheral"}, &l); err != nil {
		return false, err
	}
	for _, o := range l {
		if o.Name == id {
			return true, nil
		}
	}
	return false, nil
}

// chardev tells whether QEMU has a character device of this id.
func (d *domain) chardev(ctx context.Context, id string) (bool, error) {
	var l []struct{ Label string }
	if err := d.qmp(ctx, "query-chardev", nil, &l); err != nil {
		return false, err
	}
	for _, o := range l {
		if o.Label == id {
			return true, nil
		}
	}
	return false, nil
}

// memory tells which parts of the guest's memory are not shared; QEMU ends where a
// vhost-user device is plugged in then.
func (d *domain) unsharedMemory(ctx context.Context) (ids []string, err error) {
	var l []struct {
		ID    string
		Share bool
	}
	if err := d.qmp(ctx, "query-memdev", nil, &l); err != nil {
		return nil, err
	}
	for _, m := range l {
		if !m.Share {
			ids = append(ids, m.ID)
		}
	}
	if len(l) == 0 {
		ids = append(ids, "all of it")
	}
	return ids, nil
}

// pciDevice is what query-pci tells.
type pciDevice struct {
	Bus    int
	Slot   int
	QdevID string                         `json:"qdev_id"`
	Bridge *struct{ Devices []pciDevice } `json:"pci_bridge"`
}

func (d *domain) pci(ctx context.Context) ([]pciDevice, error) {
	var buses []struct {
		Bus     int
		Devices []pciDevice
	}
	if err := d.qmp(ctx, "query-pci", nil, &buses); err != nil {
		return nil, err
	}
	var out []pciDevice
	for _, b := range buses {
		out = append(out, b.Devices...)
	}
	return out, nil
}
