package libvirt

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/api"
)

// XML is what Attach would put into the domain's definition, for those who do it
// themselves (virsh edit, virt-manager's XML tab). Nothing is changed; of CHAP's secret
// and the mask at the target it says in a comment what is to be done.
func XML(ctx context.Context, c *api.Client, o Options) (string, error) {
	w := newWorker(c, o)
	if err := w.open(ctx); err != nil {
		return "", err
	}
	defer w.close()
	w.o.Live, w.o.Config = false, false
	p, err := w.plan(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if p.via == ViaVHost {
		d := p.configDef
		if d == nil {
			d = p.liveDef
		}
		if d == nil {
			return "", fmt.Errorf("domain %s: has no definition", w.dom.name)
		}
		if !d.shared() {
			fmt.Fprintf(&b, "<!-- below <domain>: -->\n%s\n", memoryXML)
		}
		args, _, err := vhostArgs(d, "vtgt-"+p.t.Name, p.t.VHost.Socket)
		if err != nil {
			return "", fmt.Errorf("domain %s: %w", w.dom.name, err)
		}
		fmt.Fprintf(&b, "<!-- below <domain xmlns:qemu='%s'>: -->\n%s", qemuSpace, commandLineXML("  ", args))
		return b.String(), nil
	}
	l, err := p.t.lun(p.lun)
	if err != nil {
		return "", err
	}
	host, port, err := p.t.portal(w.o.Portal, w.c.local)
	if err != nil {
		return "", err
	}
	k := disk{source: p.t.ISCSI.IQN + "/" + strconv.Itoa(p.lun), host: host, port: port, initiator: initiator(w.dom.uuid), alias: "ua-vtgt-" + p.t.Name}
	k.controller, k.unit = place(p.defs()...)
	k.name = freeName(p.defs()...)
	if dk := p.t.cfg.Disk(l.Disk); dk != nil {
		k.readOnly, k.shared = l.ReadOnly || dk.ReadOnly, dk.Shared
	}
	user, err := p.t.user(w.o.CHAPUser)
	if err != nil {
		return "", err
	}
	if user != nil {
		k.user, k.secret = user.User, newUUID()
		fmt.Fprintf(&b, "<!-- virsh secret-define FILE with\n<secret ephemeral='no' private='yes'><uuid>%s</uuid><usage type='iscsi'><target>vtgt-%s</target></usage></secret>\n     and virsh secret-set-value %s --file %s --plain -->\n", k.secret, k.secret, k.secret, user.SecretFile)
	}
	for _, d := range p.defs() {
		if d.scsi(k.controller) == nil {
			b.WriteString(controllerXML(k.controller) + "\n")
			break
		}
	}
	text, err := k.xml()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "%s\n<!-- only this domain is to see it: initiators: [%s] at LUN %d of target %s in vtgt's configuration -->\n", text, k.initiator, p.lun, p.t.Name)
	return b.String(), nil
}
