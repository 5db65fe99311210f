package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Xen: one vscsi device of one domain, under a target's key xen.

// TargetXen is a target's export to a Xen domain.
type TargetXen struct {
	// Domain is the domain's name, its UUID, or its number, which is another one
	// after each boot.
	Domain string
	// Device is the device's number in the domain.
	Device uint32
	// Type is the back end's type in xenstore; empty: DefaultXenType.
	Type string
	// Toolstack says that another program writes the device's nodes. Else vtgt does,
	// whenever the domain comes up.
	Toolstack bool
	// Initiator is a UUID, the initiator port identifier of the domain; empty: made
	// once and kept in the state folder.
	Initiator string
}

// The types of back end. Linux's xen-scsiback serves all devices of type vscsi where
// its module is loaded.
const (
	DefaultXenType = "vtgt"
	XenTypeVSCSI   = "vscsi"
)

// XenAddress is where a domain finds a LUN: the four numbers of Linux's SCSI addresses.
// Domains do not look at Host.
type XenAddress struct {
	Stated                     bool // else it follows from the LUN's number
	Host, Channel, Target, LUN uint16
}

func (a XenAddress) String() string {
	return fmt.Sprintf("%d:%d:%d:%d", a.Host, a.Channel, a.Target, a.LUN)
}

// What xen-scsifront takes (VSCSIIF_MAX_TARGET, VSCSIIF_MAX_LUN; channel 0 alone).
const (
	maxXenTarget = 63
	maxXenLUN    = 254
	maxXenDevice = 1<<31 - 1
	maxXenDomain = 255 // bytes of a name
)

var xenType = regexp.MustCompile(`^(vscsi|vtgt(-[a-z0-9-]{1,24})?)$`)

// BackendType is Type with its default filled in.
func (x *TargetXen) BackendType() string {
	if x.Type == "" {
		return DefaultXenType
	}
	return x.Type
}

// sameDomain is the domain as far as the text tells: a UUID's case does not count.
func (x *TargetXen) sameDomain() string {
	if _, ok := ParseUUID(x.Domain); ok {
		return strings.ToLower(x.Domain)
	}
	return x.Domain
}

// Same tells whether a and b are one device.
func (x *TargetXen) Same(o *TargetXen) bool {
	return x.sameDomain() == o.sameDomain() && x.Device == o.Device && x.BackendType() == o.BackendType() && x.Toolstack == o.Toolstack && strings.EqualFold(x.Initiator, o.Initiator)
}

// Xen is where a xen export shows the LUN: 0:0:0:LUN unless it is stated. ok is false for
// numbers that have no such place.
func (l *LUN) Xen() (a XenAddress, ok bool) { return l.Address.XenOf(l.LUN) }

// XenOf is the same for the LUN of that number.
func (a *Address) XenOf(n uint16) (XenAddress, bool) {
	if a.Xen.Stated {
		return a.Xen, true
	}
	return XenAddress{LUN: n}, n <= maxXenLUN
}

func (d *decoder) targetXen(x *TargetXen) fields {
	return fields{
		"domain": func(n *yaml.Node, p string) {
			if d.scalar(n, p, "a domain", "write a name, a UUID or a number that xl list shows", "!!str", "!!int") {
				x.Domain = n.Value
			}
		},
		"device":    d.integer(func(v int64) { x.Device = uint32(v) }, 0, maxXenDevice),
		"type":      d.str(&x.Type),
		"toolstack": d.bool(&x.Toolstack),
		"initiator": d.str(&x.Initiator),
	}
}

// xenAddress decodes luns[].address.xen.
func (d *decoder) xenAddress(a *XenAddress) setter {
	return func(n *yaml.Node, p string) {
		hint := fmt.Sprintf("write HOST:CHANNEL:TARGET:LUN in quotes, such as \"0:0:1:0\": channel 0, target 0 to %d, LUN 0 to %d", maxXenTarget, maxXenLUN)
		// Without quotes YAML 1.1 takes 0:0:1:0 for a number of base 60.
		if !d.scalar(n, p, "an address in quotes", hint, "!!str", "!!int", "!!float") {
			return
		}
		x, ok := parseXenAddress(n.Value)
		if !ok {
			d.add(nodePos(n), p, fmt.Sprintf("%s: %s is not an address", p, clip(n.Value)), hint)
			return
		}
		*a = x
	}
}

func parseXenAddress(s string) (a XenAddress, ok bool) {
	l := strings.Split(s, ":")
	if len(l) != 4 {
		return a, false
	}
	a.Stated = true
	for i, to := range []*uint16{&a.Host, &a.Channel, &a.Target, &a.LUN} {
		n, err := strconv.ParseUint(l[i], 10, 16)
		if err != nil || len(l[i]) > 5 {
			return a, false
		}
		*to = uint16(n)
	}
	return a, a.Channel == 0 && a.Target <= maxXenTarget && a.LUN <= maxXenLUN
}

// xen checks target t's export, which stands at path p. devices are those of other
// exports, with their places.
func (v *validator) xen(t *Target, p string, devices map[string]string) {
	x := t.Xen
	switch {
	case x.Domain == "":
		v.add(p+".domain", "add domain: and a name, a UUID or a number that xl list shows", "target %q: xen names no domain", t.Name)
	case len(x.Domain) > maxXenDomain || strings.ContainsFunc(x.Domain, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' || r == 0xfffd }):
		v.add(p+".domain", "write a name, a UUID or a number that xl list shows", "target %q: %q cannot be a domain", t.Name, clip(x.Domain))
	}
	if x.Device > maxXenDevice {
		v.add(p+".device", fmt.Sprintf("write a number from 0 to %d", maxXenDevice), "target %q: device %d is out of range", t.Name, x.Device)
	}
	// The domain has one device of a number, of whatever type.
	key := fmt.Sprintf("%s\x00%d", x.sameDomain(), x.Device)
	if o, dup := devices[key]; dup {
		v.add(p+".device", "give each its own: device: 1", "target %q: device %d of domain %s is in use already, first in %s", t.Name, x.Device, clip(x.Domain), v.first(o))
	} else {
		devices[key] = p + ".domain"
	}
	if !xenType.MatchString(x.BackendType()) {
		v.add(p+".type", "leave it out, or write vscsi where no xen-scsiback is loaded, or vtgt-NAME", "target %q: %q cannot be the back end's type: it would be another driver's", t.Name, clip(x.Type))
	}
	if x.Initiator != "" {
		if id, ok := ParseUUID(x.Initiator); !ok || id == [16]byte{} {
			v.add(p+".initiator", "write a UUID, such as that of the domain, or leave it out to have one made", "target %q: %q cannot be the initiator's UUID", t.Name, clip(x.Initiator))
		}
	}
	at0 := map[XenAddress]string{}
	for i := range t.LUNs {
		l := &t.LUNs[i]
		lp := at(p[:strings.LastIndexByte(p, '.')]+".luns", i)
		a, ok := l.Xen()
		if !ok || a.Channel != 0 || a.Target > maxXenTarget || a.LUN > maxXenLUN {
			v.add(lp+".lun", fmt.Sprintf("choose a number up to %d, or say where it is: address: {xen: \"0:0:1:0\"}: channel 0, target 0 to %d, LUN 0 to %d", maxXenLUN, maxXenTarget, maxXenLUN),
				"target %q: a Xen domain cannot have LUN %d at %s", t.Name, l.LUN, a)
			continue
		}
		a.Stated, a.Host = false, 0
		if o, dup := at0[a]; dup {
			v.add(lp, "give each its own: address: {xen: \"0:0:1:0\"}", "target %q: two LUNs are at xen %s, first in %s", t.Name, a, v.first(o))
			continue
		}
		at0[a] = lp
	}
}

// xen describes the export, for people.
func (t *Target) xen() string {
	if t.Xen == nil {
		return "no xen"
	}
	return t.Xen.String()
}

// String is the device, for people.
func (x *TargetXen) String() string { return fmt.Sprintf("domain %s device %d", x.Domain, x.Device) }

// xenChanges tells what differs in it.
func xenChanges(a, b *Target) []string {
	var out []string
	if x, y := a.xen(), b.xen(); x != y {
		out = append(out, "xen "+x+" -> "+y)
	}
	if a.Xen == nil || b.Xen == nil {
		return out
	}
	field := func(name string, x, y any) {
		if x != y {
			out = append(out, fmt.Sprintf("xen.%s %v -> %v", name, x, y))
		}
	}
	made := func(s string) string {
		if s == "" {
			return "(made)"
		}
		return strings.ToLower(s)
	}
	field("type", a.Xen.BackendType(), b.Xen.BackendType())
	field("toolstack", a.Xen.Toolstack, b.Xen.Toolstack)
	field("initiator", made(a.Xen.Initiator), made(b.Xen.Initiator))
	return out
}
