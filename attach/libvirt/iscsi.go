package libvirt

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	lv "github.com/digitalocean/go-libvirt"
	lx "libvirt.org/go/libvirtxml"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
	"github.com/vtgt/vtgt/config"
)

const (
	undoUUID       = "uuid"
	undoController = "controller"
	undoPort       = "port" // index of a root port
)

// others are the other attachments of a target.
func (w *worker) others(ctx context.Context, target, id string) ([]api.Attachment, error) {
	as, err := w.api.Attachments(ctx)
	return slices.DeleteFunc(as, func(a api.Attachment) bool { return a.Kind != Kind || a.Target != target || a.ID == id }), err
}

func (w *worker) attachISCSI(ctx context.Context, r *attach.Run, p *plan) error {
	rec := r.Record()
	l, err := p.t.lun(p.lun)
	if err != nil {
		return err
	}
	host, port, err := p.t.portal(w.o.Portal, w.c.local)
	if err != nil {
		return err
	}
	name := initiator(w.dom.uuid)
	if err := p.t.checkFree(ctx, w.api, l, name); err != nil {
		return err
	}

	others, err := w.others(ctx, p.t.Name, rec.ID)
	if err != nil {
		return err
	}
	g := p.t.grant(l, name, w.dom.uuid, others)
	err = r.Do(ctx, api.AttachmentStep{Name: stepAccess, Args: map[string]string{"initiator": name}, Undo: g.undo}, func(ctx context.Context) error {
		if len(g.ops) == 0 {
			return nil
		}
		_, err := w.api.Edit(ctx, api.EditRequest{Ops: g.ops})
		return err
	})
	if err != nil {
		return err
	}

	secret := ""
	user, err := p.t.user(w.o.CHAPUser)
	if err != nil {
		return err
	}
	if user != nil {
		for _, s := range rec.Steps {
			if s.Name == stepSecret && s.State == api.Done {
				secret = s.Undo[undoUUID]
			}
		}
		if secret == "" {
			secret = newUUID()
		}
		err = r.Do(ctx, api.AttachmentStep{Name: stepSecret, Args: map[string]string{"user": user.User}, Undo: map[string]string{undoUUID: secret}},
			func(ctx context.Context) error { return w.defineSecret(ctx, p.t, secret) })
		if err != nil {
			return err
		}
	}

	k := disk{source: p.t.ISCSI.IQN + "/" + strconv.Itoa(p.lun), host: host, port: port, initiator: name, alias: alias(rec), secret: secret}
	if user != nil {
		k.user = user.User
	}
	if d := p.t.cfg.Disk(l.Disk); d != nil {
		k.readOnly, k.shared = l.ReadOnly || d.ReadOnly, d.Shared
	}
	return w.plugDisk(ctx, r, p, k)
}

// plugDisk puts the disk into the definitions of the plan.
func (w *worker) plugDisk(ctx context.Context, r *attach.Run, p *plan, k disk) error {
	rec := r.Record()
	// Where a definition has it already, the other one gets it at the same place.
	k.controller, k.unit = place(p.defs()...)
	k.name = freeName(p.defs()...)
	for _, s := range rec.Steps {
		if s.State == api.Done && (s.Name == stepDiskConfig || s.Name == stepDiskLive) {
			k.name = s.Args["dev"]
			k.controller, _ = strconv.Atoi(s.Args["controller"])
			k.unit, _ = strconv.Atoi(s.Args["unit"])
		}
	}
	args := map[string]string{"dev": k.name, "controller": strconv.Itoa(k.controller), "unit": strconv.Itoa(k.unit)}
	text, err := k.xml()
	if err != nil {
		return err
	}
	// The definition first: what fails there is not to take a disk from a guest.
	for _, x := range []struct {
		def              *definition
		config           bool
		controller, disk string
	}{{p.configDef, true, stepControllerConfig, stepDiskConfig}, {p.liveDef, false, stepControllerLive, stepDiskLive}} {
		if x.def == nil || !x.config && x.def.disk(k.alias) != nil {
			continue // the domain was started with it
		}
		if x.def.scsi(k.controller) == nil {
			if x.config {
				if err := w.addPort(ctx, r, x.def); err != nil {
					return err
				}
			}
			err := r.Do(ctx, api.AttachmentStep{Name: x.controller, Args: map[string]string{"index": strconv.Itoa(k.controller)}, Undo: map[string]string{undoController: strconv.Itoa(k.controller)}}, func(ctx context.Context) error {
				err := w.dom.attachDevice(ctx, controllerXML(k.controller), x.config)
				if err != nil && !x.config && strings.Contains(err.Error(), "No more available PCI slots") {
					return fmt.Errorf("%w; the domain has no virtio-scsi controller, and no free slot to plug one into: shut it down and attach again, attach from the next start on (--config), or add root ports (%s) to its definition", err, portXML)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		err := r.Do(ctx, api.AttachmentStep{Name: x.disk, Args: args, Undo: map[string]string{"alias": k.alias}}, func(ctx context.Context) error {
			err := w.dom.attachDevice(ctx, text, x.config)
			if err != nil && !x.config {
				return fmt.Errorf("%w; QEMU could not open the LUN: look at vtgt's log, and whether %s:%s is reached from where the domain runs (--portal)", err, k.host, k.port)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const portXML = "<controller type='pci' model='pcie-root-port'/>"

// addPort adds a root port to the definition where a controller would find none free.
// libvirt would do it by itself, but not take it away again.
func (w *worker) addPort(ctx context.Context, r *attach.Run, d *definition) error {
	pcie, _ := d.pcie()
	if !pcie || len(d.freePorts()) > 0 {
		return nil
	}
	n, slot := strconv.Itoa(d.nextPort()), d.freeSlot()
	if slot < 0 {
		return nil // libvirt may know better
	}
	return r.Do(ctx, api.AttachmentStep{Name: stepPortConfig, Args: map[string]string{"index": n}, Undo: map[string]string{undoPort: n}}, func(ctx context.Context) error {
		text, err := w.dom.xml(ctx, true, true)
		if err != nil {
			return err
		}
		if text, err = addPort(text, d.nextPort(), slot); err != nil {
			return err
		}
		return w.dom.define(ctx, text)
	})
}

func controllerXML(index int) string {
	return fmt.Sprintf("<controller type='scsi' index='%d' model='virtio-scsi'/>", index)
}

// disk is a LUN as libvirt's disk.
type disk struct {
	source, host, port, initiator string
	alias, name                   string
	controller, unit              int
	user, secret                  string
	readOnly, shared              bool
}

func (k *disk) xml() (string, error) {
	n := func(i int) *uint { u := uint(i); return &u }
	x := lx.DomainDisk{
		Device: "lun",
		Driver: &lx.DomainDiskDriver{Name: "qemu", Type: "raw"},
		Source: &lx.DomainDiskSource{Network: &lx.DomainDiskSourceNetwork{
			Protocol: "iscsi", Name: k.source,
			Hosts:     []lx.DomainDiskSourceHost{{Name: k.host, Port: k.port}},
			Initiator: &lx.DomainDiskSourceNetworkInitiator{IQN: &lx.DomainDiskSourceNetworkIQN{Name: k.initiator}},
		}},
		Target:  &lx.DomainDiskTarget{Dev: k.name, Bus: "scsi"},
		Alias:   &lx.DomainAlias{Name: k.alias},
		Address: &lx.DomainAddress{Drive: &lx.DomainAddressDrive{Controller: n(k.controller), Bus: n(0), Target: n(0), Unit: n(k.unit)}},
	}
	if k.user != "" {
		x.Source.Network.Auth = &lx.DomainDiskAuth{Username: k.user, Secret: &lx.DomainDiskSecret{Type: "iscsi", UUID: k.secret}}
	}
	if k.readOnly {
		x.ReadOnly = &lx.DomainDiskReadOnly{}
	}
	if k.shared {
		x.Shareable = &lx.DomainDiskShareable{}
	}
	return x.Marshal()
}

// user is the CHAP user that a domain logs in as; nil where the target wants none.
func (t *target) user(want string) (*config.CHAP, error) {
	var have []string
	for i := range t.ISCSI.CHAP {
		if c := &t.ISCSI.CHAP[i]; want == "" || c.User == want {
			return c, nil
		}
		have = append(have, t.ISCSI.CHAP[i].User)
	}
	if want == "" {
		return nil, nil
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("--chap-user %s: target %s wants no CHAP; leave it out, or write chap: at the target", want, t.Name)
	}
	return nil, fmt.Errorf("--chap-user %s: target %s does not know that user; there are %s", want, t.Name, strings.Join(have, ", "))
}

// defineSecret gives libvirt the CHAP secret of the target's user. Nobody can read it
// back from libvirt.
func (w *worker) defineSecret(ctx context.Context, t *target, uuid string) error {
	c, err := t.user(w.o.CHAPUser)
	if err != nil || c == nil {
		return err
	}
	b, err := os.ReadFile(c.SecretFile)
	if err != nil {
		hint := "correct secretFile: at the target"
		if errors.Is(err, fs.ErrPermission) {
			hint = "run this command as a user who may read it"
		}
		return fmt.Errorf("the CHAP secret of target %s cannot be read: %w; %s", t.Name, err, hint)
	}
	value := []byte(strings.TrimRight(string(b), "\r\n"))
	x := lx.Secret{Ephemeral: "no", Private: "yes", UUID: uuid,
		Description: fmt.Sprintf("CHAP at vtgt's target %s for domain %s", t.Name, w.dom.name),
		Usage:       &lx.SecretUsage{Type: "iscsi", Target: "vtgt-" + uuid}}
	text, err := x.Marshal()
	if err != nil {
		return err
	}
	return w.c.do(ctx, "secret "+uuid, func(l *lv.Libvirt) error {
		s, err := l.SecretDefineXML(text, 0)
		if err != nil {
			return err
		}
		return l.SecretSetValue(s, value, 0)
	})
}

// secret tells whether libvirt has the secret.
func (w *worker) secret(ctx context.Context, uuid string) (s lv.Secret, there bool, err error) {
	id, ok := config.ParseUUID(uuid)
	if !ok {
		return s, false, fmt.Errorf("the journal names no secret but %q", uuid)
	}
	err = w.c.do(ctx, "secret "+uuid, func(l *lv.Libvirt) (err error) {
		s, err = l.SecretLookupByUUID(lv.UUID(id))
		return err
	})
	if is(err, lv.ErrNoSecret) {
		return s, false, nil
	}
	return s, err == nil, err
}

func (w *worker) undoSecret(ctx context.Context, _ *api.Attachment, s *api.AttachmentStep) error {
	if w.c == nil {
		return nil
	}
	x, there, err := w.secret(ctx, s.Undo[undoUUID])
	if err != nil || !there {
		return err
	}
	err = w.c.do(ctx, "secret "+s.Undo[undoUUID], func(l *lv.Libvirt) error { return l.SecretUndefine(x) })
	if is(err, lv.ErrNoSecret) {
		return nil
	}
	return err
}

func newUUID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return config.FormatUUID(id)
}

func (w *worker) undoAccess(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error {
	text, err := w.api.Config(ctx)
	if err != nil {
		return err
	}
	cfg, err := config.Parse(text.File, []byte(text.Text))
	if err != nil {
		return err
	}
	t := cfg.Target(a.Target)
	if t == nil {
		return nil
	}
	others, err := w.others(ctx, a.Target, a.ID)
	if err != nil {
		return err
	}
	ops := revoke(t, a.LUN, s.Undo, a.Subject, others)
	if len(ops) == 0 {
		return nil
	}
	_, err = w.api.Edit(ctx, api.EditRequest{Ops: ops})
	return err
}

// undoDisk takes the disk out of the definition, and in any case out of the running
// domain: it may have been started with that definition.
func (w *worker) undoDisk(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error {
	if w.dom == nil {
		return nil
	}
	if s.Name == stepDiskConfig && w.dom.persistent {
		if err := w.unplugDisk(ctx, a, true); err != nil {
			return err
		}
	}
	if s.Name == stepDiskLive || w.whole {
		return w.unplugDisk(ctx, a, false)
	}
	return nil
}

// unplugDisk takes the disk out of one of the definitions and waits until it is out.
func (w *worker) unplugDisk(ctx context.Context, a *api.Attachment, config bool) error {
	if err := w.dom.look(ctx); err != nil {
		return w.goneIsFine(err)
	}
	if !config && !w.dom.running {
		return nil
	}
	find := func(ctx context.Context) (*definition, *lx.DomainDisk, error) {
		text, err := w.dom.xml(ctx, config, false)
		if err != nil {
			return nil, nil, err
		}
		d, err := parse(text)
		if err != nil {
			return nil, nil, err
		}
		return d, d.disk(alias(a)), nil
	}
	_, k, err := find(ctx)
	if err != nil || k == nil {
		return w.goneIsFine(err)
	}
	k.Source, k.Driver, k.BackingStore = nil, nil, nil // a secret's value is not there, and not wanted
	// libvirt finds it by the target's name.
	text, err := (&lx.DomainDisk{Device: "lun", Source: &lx.DomainDiskSource{Network: &lx.DomainDiskSourceNetwork{Protocol: "iscsi", Name: "x", Hosts: []lx.DomainDiskSourceHost{{Name: "x"}}}}, Target: k.Target, Alias: k.Alias, Address: k.Address}).Marshal()
	if err != nil {
		return err
	}
	if err := w.dom.detachDevice(ctx, text, config); err != nil && !is(err, lv.ErrDeviceMissing) {
		return err
	}
	return w.await(ctx, func(ctx context.Context) (bool, error) {
		_, k, err := find(ctx)
		if err != nil {
			return true, w.goneIsFine(err)
		}
		return k == nil, nil
	}, func(ctx context.Context) error { return w.blocked(ctx, a, "the disk") })
}

// goneIsFine: what was in a domain that is gone is gone.
func (w *worker) goneIsFine(err error) error {
	if is(err, lv.ErrNoDomain) {
		return nil
	}
	return err
}

// undoController takes the controller away again, unless others use it meanwhile.
func (w *worker) undoController(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error {
	if w.dom == nil {
		return nil
	}
	config := s.Name == stepControllerConfig
	if config && !w.dom.persistent {
		return nil
	}
	if config {
		if err := w.unplugController(ctx, a, s, true); err != nil {
			return err
		}
	}
	if !config || w.whole {
		return w.unplugController(ctx, a, s, false)
	}
	return nil
}

func (w *worker) unplugController(ctx context.Context, a *api.Attachment, s *api.AttachmentStep, config bool) error {
	if err := w.dom.look(ctx); err != nil {
		return w.goneIsFine(err)
	}
	if !config && !w.dom.running {
		return nil
	}
	n, err := strconv.Atoi(s.Undo[undoController])
	if err != nil {
		return fmt.Errorf("the journal names no controller but %q", s.Undo[undoController])
	}
	used := false
	find := func(ctx context.Context) (bool, error) {
		text, err := w.dom.xml(ctx, config, false)
		if err != nil {
			return false, err
		}
		d, err := parse(text)
		if err != nil {
			return false, err
		}
		c := d.scsi(n)
		used = len(d.units(n)) > 0
		return c != nil && virtioSCSI(c), nil
	}
	there, err := find(ctx)
	if err != nil {
		return w.goneIsFine(err)
	}
	if there && !used {
		if err := w.dom.detachDevice(ctx, controllerXML(n), config); err != nil && !is(err, lv.ErrDeviceMissing) {
			return err
		}
		err = w.await(ctx, func(ctx context.Context) (bool, error) {
			there, err := find(ctx)
			if err != nil {
				return true, w.goneIsFine(err)
			}
			return !there, nil
		}, func(ctx context.Context) error { return w.blocked(ctx, a, "the virtio-scsi controller") })
		if err != nil {
			return err
		}
	}
	return nil
}

// undoPort takes the root port out of the definition, unless something is on it.
func (w *worker) undoPort(ctx context.Context, _ *api.Attachment, s *api.AttachmentStep) error {
	if w.dom == nil {
		return nil
	}
	if err := w.dom.look(ctx); err != nil || !w.dom.persistent {
		return w.goneIsFine(err)
	}
	n, err := strconv.Atoi(s.Undo[undoPort])
	if err != nil {
		return fmt.Errorf("the journal names no root port but %q", s.Undo[undoPort])
	}
	was, err := w.dom.xml(ctx, true, true)
	if err != nil {
		return w.goneIsFine(err)
	}
	text, err := removePort(was, n)
	if err != nil || text == was {
		return err
	}
	return w.dom.define(ctx, text)
}
