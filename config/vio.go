package config

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// IBM virtual SCSI: one adapter of a pSeries guest, under a target's key vio.

// TargetVIO is a target's export to a pSeries guest. Its socket is what vhost-user's is,
// only that vtgt's QEMU device connects to it.
type TargetVIO struct {
	TargetVHost
	// AIX has INQUIRY say IBM VDASD, by which AIX knows its virtual disks.
	AIX bool
}

// VIOAddress is where a client finds a LUN.
type VIOAddress struct {
	Stated  bool // else it follows from the LUN's number
	ID, LUN uint8
}

const (
	maxVIOID  = 63
	maxVIOLUN = 31
)

// VIO is where a vio export shows the LUN: id = LUN/32, lun = LUN%32 unless it is stated.
// ok is false for numbers that have no such place.
func (l *LUN) VIO() (id, lun uint8, ok bool) { return l.Address.VIOOf(l.LUN) }

// VIOOf is the same for the LUN of that number.
func (a *Address) VIOOf(n uint16) (id, lun uint8, ok bool) {
	if a.VIO.Stated {
		return a.VIO.ID, a.VIO.LUN, true
	}
	if n/32 > maxVIOID {
		return 0, 0, false
	}
	return uint8(n / 32), uint8(n % 32), true
}

func (d *decoder) targetVIO(x *TargetVIO) fields {
	f := d.targetVHost(&x.TargetVHost)
	f["aix"] = d.bool(&x.AIX)
	return f
}

// vioAddress decodes luns[].address.vio.
func (d *decoder) vioAddress(a *VIOAddress) setter {
	return func(n *yaml.Node, p string) {
		a.Stated = true
		d.mapping(n, p, fields{
			"id":  d.integer(func(v int64) { a.ID = uint8(v) }, 0, maxVIOID),
			"lun": d.integer(func(v int64) { a.LUN = uint8(v) }, 0, maxVIOLUN),
		})
	}
}

// vio checks target t's export, which stands at path p. sockets are those of other
// exports, with their places.
func (v *validator) vio(t *Target, p string, sockets map[string]string) {
	v.socket(t, "vio", &t.VIO.TargetVHost, p, sockets)
	at0 := map[[2]uint8]string{}
	for i := range t.LUNs {
		l := &t.LUNs[i]
		lp := at(p[:strings.LastIndexByte(p, '.')]+".luns", i)
		id, n, ok := l.VIO()
		if !ok || id > maxVIOID || n > maxVIOLUN {
			v.add(lp+".lun", fmt.Sprintf("choose a number below %d, or say where it is: address: {vio: {id: 0 to %d, lun: 0 to %d}}", 32*(maxVIOID+1), maxVIOID, maxVIOLUN),
				"target %q: a pSeries guest cannot have LUN %d", t.Name, l.LUN)
			continue
		}
		if o, dup := at0[[2]uint8{id, n}]; dup {
			v.add(lp, "give each its own: address: {vio: {id: …, lun: …}}", "target %q: two LUNs are at vio id %d, LUN %d, first in %s", t.Name, id, n, v.first(o))
			continue
		}
		at0[[2]uint8{id, n}] = lp
	}
}

// vio describes the export, for people.
func (t *Target) vio() string {
	if t.VIO == nil {
		return "no vio"
	}
	return t.VIO.Socket
}

// guest is a virtual machine that writes by an export of a target.
type guest struct{ id, place string }

// guests are a target's virtual machines. Two with one UUID are one initiator.
func (t *Target) guests() (out []guest) {
	add := func(kind, initiator, place string) {
		id := t.Name + " " + kind
		if u, ok := ParseUUID(initiator); ok {
			id = FormatUUID(u)
		}
		out = append(out, guest{id, place})
	}
	if x := t.VHost; x != nil {
		add("vhost", x.Initiator, x.Socket)
	}
	if x := t.VIO; x != nil {
		add("vio", x.Initiator, x.Socket)
	}
	if x := t.Xen; x != nil {
		add("xen", x.Initiator, "Xen "+x.String())
	}
	return out
}

// other is a guest that is not the first one.
func other(g []guest) guest {
	for _, o := range g[1:] {
		if o.id != g[0].id {
			return o
		}
	}
	return g[0]
}
