package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
)

// memoryXML is what a definition needs for vhost-user: the daemon works in the guest's
// memory.
const memoryXML = `  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>`

func (w *worker) attachVHost(ctx context.Context, r *attach.Run, p *plan) error {
	rec := r.Record()
	socket := p.t.VHost.Socket
	if !w.c.local {
		return fmt.Errorf("target %s: a vhost-user socket is only there for domains of this host, and %s is elsewhere; use --via iscsi", p.t.Name, w.o.URI)
	}
	if d := p.configDef; d != nil && !d.shared() {
		return fmt.Errorf("domain %s: its memory is not shared, as vhost-user needs it; add this to its definition (virsh edit %s, below <domain>), and attach again, or use --via iscsi:\n%s", w.dom.name, w.dom.name, memoryXML)
	}
	for _, s := range rec.Steps {
		if s.State != api.Done {
			continue
		}
		if s.Name == stepVHostConfig {
			p.configDef = nil
		}
		if s.Name == stepVHostLive {
			p.liveDef = nil
		}
	}
	if p.liveDef != nil { // it may have been started with it
		there, err := w.dom.device(ctx, deviceID(rec))
		if err != nil {
			return err
		}
		if there {
			p.liveDef = nil
		}
	}
	if err := w.checkSocket(ctx, p, socket); err != nil {
		return err
	}
	others, err := w.others(ctx, p.t.Name, rec.ID)
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.Options[optVia] == ViaVHost && o.Subject != rec.Subject {
			return fmt.Errorf("target %s: is attached to domain %s by vhost-user already, which is for one virtual machine; detach it there first, or add a target with a socket of its own", p.t.Name, o.Options[optName])
		}
	}
	for _, l := range p.t.LUNs {
		if l.Initiators != "" {
			fmt.Fprintf(w.o.Out, "note: LUN %d of target %s has initiators: %s; the domain sees it only if it is one of them (vtgt get sessions shows its name)\n", l.LUN, p.t.Name, strings.Join(l.Initiators.Words(), ", "))
		}
	}
	var port string
	if p.liveDef != nil {
		ids, err := w.dom.unsharedMemory(ctx)
		if err != nil {
			return err
		}
		if len(ids) > 0 {
			return fmt.Errorf("domain %s: it runs with memory that is not shared (%s): QEMU would end at once. Shut it down, add this to its definition (virsh edit %s, below <domain>) and start it again, or use --via iscsi:\n%s", w.dom.name, strings.Join(ids, ", "), w.dom.name, memoryXML)
		}
		if port, err = w.freeLivePort(ctx, p.liveDef); err != nil {
			return err
		}
	}
	if d := p.configDef; d != nil {
		if err := w.plugVHostConfig(ctx, r, d, socket); err != nil {
			return err
		}
	}
	if p.liveDef != nil {
		return w.plugVHostLive(ctx, r, p, socket, port)
	}
	return nil
}

// vhostArgs are the arguments for a definition. A port that libvirt has, and does not
// need soon, is taken where there is one: libvirt does not know of the device, and gives
// away the lowest port first. Else the device brings its own.
func vhostArgs(d *definition, id, socket string) (args []string, bus string, err error) {
	pcie, plain := d.pcie()
	slot := d.freeSlot()
	switch ports := d.freePorts(); {
	case pcie && len(ports) > 1:
		bus = fmt.Sprintf("pci.%d", ports[0])
		return commandLineArgs(id, socket, bus, -1, false), bus, nil
	case pcie && slot >= 0:
		return commandLineArgs(id, socket, "pcie.0", slot, true), id + portSuffix, nil
	case !pcie && plain && slot >= 0:
		return commandLineArgs(id, socket, "pci.0", slot, false), "pci.0", nil
	case pcie, plain:
		return nil, "", errors.New("its PCI bus has no free slot; take a device away, or use --via iscsi")
	}
	return nil, "", errors.New("its machine has no PCI bus for a vhost-user device; use --via iscsi")
}

// plugVHostConfig puts the device into the definition.
func (w *worker) plugVHostConfig(ctx context.Context, r *attach.Run, d *definition, socket string) error {
	id := deviceID(r.Record())
	args, bus, err := vhostArgs(d, id, socket)
	if err != nil {
		return fmt.Errorf("domain %s: %w", w.dom.name, err)
	}
	return r.Do(ctx, api.AttachmentStep{Name: stepVHostConfig, Args: map[string]string{"socket": socket, "bus": bus}, Undo: map[string]string{"id": id}}, func(ctx context.Context) error {
		text, err := w.dom.xml(ctx, true, true)
		if err != nil {
			return err
		}
		if text, err = addArgs(text, args); err != nil {
			return err
		}
		return w.dom.define(ctx, text)
	})
}

// freeLivePort is the highest root port of the running domain that is free, as QEMU and
// libvirt see it. libvirt does not know what is plugged in by QMP, and takes the lowest.
func (w *worker) freeLivePort(ctx context.Context, d *definition) (string, error) {
	all, err := w.dom.pci(ctx)
	if err != nil {
		return "", err
	}
	pcie, plain := d.pcie()
	buses, slots := d.taken()
	if !pcie && plain {
		for _, x := range all {
			if x.Bus == 0 {
				slots[x.Slot] = true
			}
		}
		for s := topSlot; s > 1; s-- {
			if !slots[s] {
				return fmt.Sprintf("pci.0/0x%x", s), nil
			}
		}
	}
	var busy []string
	for _, n := range d.ports() {
		name := fmt.Sprintf("pci.%d", n)
		for _, x := range all {
			if x.QdevID != name || x.Bridge == nil {
				continue
			}
			if len(x.Bridge.Devices) == 0 && !buses[n] {
				return name, nil
			}
			busy = append(busy, name)
		}
	}
	what := "it has no pcie-root-port"
	if len(busy) > 0 {
		what = "all its root ports have devices (" + strings.Join(busy, ", ") + ")"
	}
	return "", fmt.Errorf("domain %s: no free slot to plug into: %s; add %s to its definition and start it anew, or attach from the next start on (--config), or use --via iscsi", w.dom.name, what, portXML)
}

// checkSocket sees to it that QEMU will come through to an export that answers.
func (w *worker) checkSocket(ctx context.Context, p *plan, socket string) error {
	if p.liveDef == nil && p.configDef == nil {
		return nil
	}
	e := vhostExport(p.t.exports)
	if e == nil || e.State == "failed" {
		why := "it is not there"
		if e != nil {
			why = e.Reason
		}
		return fmt.Errorf("target %s: its vhost-user export does not serve: %s; vtgt get exports and the daemon's log say more", p.t.Name, why)
	}
	if e.State == "connected" && p.liveDef != nil {
		who := "another QEMU"
		if e.VHost != nil && e.VHost.PID > 0 {
			who = fmt.Sprintf("process %d", e.VHost.PID)
		}
		return fmt.Errorf("target %s: %s uses its vhost-user socket, which is for one virtual machine; detach it there first, or add a target with a socket of its own", p.t.Name, who)
	}
	if acc, ok := w.dom.accountOf(ctx, w.caps); ok {
		why, err := acc.reach(socket)
		if err != nil {
			return fmt.Errorf("target %s: its socket cannot be looked at: %w; run this command as root", p.t.Name, err)
		}
		if why != "" {
			name := strings.TrimPrefix(acc.String(), "user ")
			return fmt.Errorf("target %s: QEMU runs as %s, which %s; have the daemon give it away: vtgt target set %s --vhost-owner %s (a folder: chmod o+x)", p.t.Name, acc, why, p.t.Name, name)
		}
	}
	if e.State == "listening" {
		if err := probe(ctx, socket); err != nil {
			return fmt.Errorf("target %s: its socket %s does not serve: %w; nothing was done to the domain. Is vtgt well (vtgt get status)?", p.t.Name, socket, err)
		}
		return awaitFree(ctx, w.api, p.t.Name)
	}
	return nil
}

// confined says what to do where a security module keeps QEMU from the socket.
func (w *worker) confined(socket string) string {
	switch {
	case w.caps.apparmor:
		return "; AppArmor confines QEMU: put " + socket + " rw, into /etc/apparmor.d/local/abstractions/libvirt-qemu (vtgt's share/vtgt/apparmor has it), and try again"
	case w.caps.selinux:
		return "; SELinux confines QEMU: install vtgt's policy module (share/vtgt/selinux), and try again"
	}
	return ""
}

// plugVHostLive plugs the device in by QMP.
func (w *worker) plugVHostLive(ctx context.Context, r *attach.Run, p *plan, socket, port string) error {
	id := deviceID(r.Record())
	bus, addr, _ := strings.Cut(port, "/")
	return r.Do(ctx, api.AttachmentStep{Name: stepVHostLive, Args: map[string]string{"socket": socket}, Undo: map[string]string{"id": id, "bus": bus}}, func(ctx context.Context) error {
		err := w.dom.qmp(ctx, "chardev-add", map[string]any{"id": id, "backend": map[string]any{"type": "socket", "data": map[string]any{
			"addr": map[string]any{"type": "unix", "data": map[string]any{"path": socket}}, "server": false}}}, nil)
		if err != nil {
			var qe *qmpError
			if errors.As(err, &qe) && strings.Contains(qe.Desc, "ermission denied") {
				return fmt.Errorf("%w%s", err, w.confined(socket))
			}
			return err
		}
		dev := map[string]any{"driver": "vhost-user-scsi-pci", "id": id, "chardev": id, "bus": bus}
		if addr != "" {
			dev["addr"] = addr
		}
		return w.dom.qmp(ctx, "device_add", dev, nil)
	})
}

// undoVHost takes the device out of the definition, and in any case out of the running
// domain: it may have been started with that definition.
func (w *worker) undoVHost(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error {
	if w.dom == nil {
		return nil
	}
	if err := w.dom.look(ctx); err != nil {
		return w.goneIsFine(err)
	}
	if s.Name == stepVHostConfig && w.dom.persistent {
		text, err := w.dom.xml(ctx, true, true)
		if err != nil {
			return w.goneIsFine(err)
		}
		out, found, err := removeArgs(text, deviceID(a))
		if err != nil {
			return err
		}
		if found {
			if err := w.dom.define(ctx, out); err != nil {
				return err
			}
		}
	}
	if s.Name == stepVHostLive || w.whole {
		return w.unplugVHost(ctx, a)
	}
	return nil
}

// unplugVHost takes the device out of the running domain: the guest has to let go of it.
func (w *worker) unplugVHost(ctx context.Context, a *api.Attachment) error {
	if err := w.dom.look(ctx); err != nil {
		return w.goneIsFine(err)
	}
	if !w.dom.running {
		return nil
	}
	id := deviceID(a)
	there, err := w.dom.device(ctx, id)
	if err != nil {
		return err
	}
	if there {
		if w.dom.paused {
			return fmt.Errorf("domain %s: is paused, so its guest cannot let go of the device; resume it (virsh resume %s) and detach again", w.dom.name, w.dom.name)
		}
		if err := w.dom.qmp(ctx, "device_del", map[string]any{"id": id}, nil); err != nil && !pending(err) {
			return err
		}
	}
	gone := func(ctx context.Context) (bool, error) {
		there, err := w.dom.device(ctx, id)
		if err != nil {
			if w.dom.look(ctx) == nil && !w.dom.running {
				return true, nil // it ended meanwhile
			}
			return false, err
		}
		return !there, nil
	}
	if err := w.await(ctx, gone, func(ctx context.Context) error { return w.blocked(ctx, a, "the vhost-user device") }); err != nil || !w.dom.running {
		return err
	}
	// QEMU is not done with a device when it is no longer in its tree: for a moment
	// its character device is busy still.
	return w.await(ctx, func(ctx context.Context) (bool, error) {
		there, err := w.dom.chardev(ctx, id)
		if err != nil || !there {
			return true, err
		}
		err = w.dom.qmp(ctx, "chardev-remove", map[string]any{"id": id}, nil)
		var qe *qmpError
		if errors.As(err, &qe) && strings.Contains(qe.Desc, "is busy") {
			return false, nil
		}
		return true, err
	}, func(ctx context.Context) error { return w.blocked(ctx, a, "the vhost-user device") })
}

// pending tells that QEMU waits for the guest already, or that the device went meanwhile.
func pending(err error) bool {
	var qe *qmpError
	return errors.As(err, &qe) && (qe.Class == "DeviceNotFound" || strings.Contains(qe.Desc, "already in the process of unplug"))
}

// blocked says why something is still in the guest when the time is over.
func (w *worker) blocked(ctx context.Context, a *api.Attachment, what string) error {
	var why []string
	if w.dom.look(ctx) == nil && w.dom.paused {
		why = append(why, fmt.Sprintf("the domain is paused (virsh resume %s)", w.dom.name))
	}
	if es, err := w.api.Exports(ctx); err == nil {
		for _, e := range es {
			if v := e.VHost; e.Target == a.Target && e.Kind == ViaVHost && v != nil {
				if v.InFlight > 0 {
					why = append(why, fmt.Sprintf("%d commands are under way at vtgt", v.InFlight))
				}
				if v.Started == 0 {
					why = append(why, "the guest has not set the device up: it may not have booted so far")
				}
			}
		}
	}
	if len(why) == 0 {
		why = append(why, "the guest may still boot, or its system does not answer hot-unplug (Linux: is pciehp or acpiphp there?)")
	}
	return fmt.Errorf("domain %s: the guest has not let go of %s within %v: %s; unmount what is on it and detach again (--wait for longer), or shut the domain down and detach then", w.dom.name, what, w.o.Wait, strings.Join(why, "; "))
}

// unplug takes the device of an attachment out of the running domain.
func (w *worker) unplug(ctx context.Context, a *api.Attachment) error {
	if a.Options[optVia] == ViaVHost {
		return w.unplugVHost(ctx, a)
	}
	return w.unplugDisk(ctx, a, false)
}
