package config

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// vhost-user sockets: one for each virtual machine, under a target's key vhost.

// TargetVHost is a target's vhost-user-scsi export: the device of one virtual machine.
type TargetVHost struct {
	// Socket is the absolute path of the UNIX socket that QEMU connects to.
	Socket string
	// Owner and Group are names or numbers; empty: the daemon's own.
	Owner, Group string
	// Mode is the socket's permission; 0: 0660 with a Group, else 0600.
	Mode uint32
	// Initiator is a UUID, the initiator port identifier of the virtual machine;
	// empty: made once and kept in the state folder.
	Initiator string
}

// Address says where ring exports show a LUN.
type Address struct {
	// VHostTarget is the target number on the guest's virtio-scsi bus.
	VHostTarget uint8
	// VIO is the place on a pSeries guest's virtual SCSI bus.
	VIO VIOAddress
	// Xen is the place on a Xen domain's SCSI bus.
	Xen XenAddress
}

const (
	// maxVHostTarget and maxVHostLUN: Windows' vioscsi ignores what lies above.
	maxVHostTarget = 253
	maxVHostLUN    = 16382
	// maxVHostSocket is what sun_path holds beside its zero byte.
	maxVHostSocket = 107
)

// Permission is Mode with its default filled in.
func (x *TargetVHost) Permission() uint32 {
	switch {
	case x.Mode != 0:
		return x.Mode
	case x.Group != "":
		return 0o660
	}
	return 0o600
}

// ParseUUID reads the form 8-4-4-4-12 of hexadecimal digits.
func ParseUUID(s string) (id [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return id, false
	}
	return [16]byte(b), true
}

// FormatUUID is the form that ParseUUID reads, in small letters.
func FormatUUID(id [16]byte) string {
	s := hex.EncodeToString(id[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

func (d *decoder) targetVHost(x *TargetVHost) fields {
	return fields{
		"socket":    d.str(&x.Socket),
		"owner":     d.account(&x.Owner),
		"group":     d.account(&x.Group),
		"mode":      d.permission(&x.Mode),
		"initiator": d.str(&x.Initiator),
	}
}

// address decodes luns[].address.
func (d *decoder) address(a *Address) setter {
	return func(n *yaml.Node, p string) {
		d.mapping(n, p, fields{
			"vhost": func(n *yaml.Node, p string) {
				d.mapping(n, p, fields{"target": d.integer(func(v int64) { a.VHostTarget = uint8(v) }, 0, maxVHostTarget)})
			},
			"vio": d.vioAddress(&a.VIO),
			"xen": d.xenAddress(&a.Xen),
		})
	}
}

// account is the name or the number of a user or group.
func (d *decoder) account(to *string) setter {
	return func(n *yaml.Node, path string) {
		if d.scalar(n, path, "a name or a number", "write a name, such as libvirt-qemu, or leave the key out", "!!str", "!!int") {
			*to = n.Value
		}
	}
}

// permission reads an octal permission in quotes, as in mode: "0660".
func (d *decoder) permission(to *uint32) setter {
	return func(n *yaml.Node, path string) {
		const hint = "write three octal digits in quotes, such as \"0660\" (owner and group may connect) or \"0600\""
		if !d.scalar(n, path, "a permission in quotes", hint, "!!str", "!!int") {
			return
		}
		v, err := strconv.ParseUint(n.Value, 8, 32)
		if err != nil || v > 0o777 || v == 0 {
			d.add(nodePos(n), path, fmt.Sprintf("%s: %s is not a permission", path, clip(n.Value)), hint)
			return
		}
		*to = uint32(v)
	}
}

// vhost checks target t's export, which stands at path p. sockets are those of other
// exports, with their places.
func (v *validator) vhost(t *Target, p string, sockets map[string]string) {
	v.socket(t, "vhost", t.VHost, p, sockets)
	for i, l := range t.LUNs {
		lp := at(p[:strings.LastIndexByte(p, '.')]+".luns", i)
		if l.LUN > maxVHostLUN {
			v.add(lp+".lun", fmt.Sprintf("write a number from 0 to %d; there are %d targets on the bus, too: address: {vhost: {target: 1}}", maxVHostLUN, maxVHostTarget+1), "target %q: LUN %d is beyond what virtio-scsi drivers look at", t.Name, l.LUN)
		}
		if l.Address.VHostTarget > maxVHostTarget {
			v.add(lp+".address", fmt.Sprintf("write a number from 0 to %d", maxVHostTarget), "target %q: virtio target %d is out of range", t.Name, l.Address.VHostTarget)
		}
	}
}

// socket checks export x of target t, of that kind.
func (v *validator) socket(t *Target, kind string, x *TargetVHost, p string, sockets map[string]string) {
	s := x.Socket
	sp := p + ".socket"
	form := "write the path of the socket that QEMU is to connect to, such as /run/vtgt/" + t.Name + ".sock"
	switch {
	case s == "":
		v.add(sp, "add socket: "+strings.TrimPrefix(form, "write "), "target %q: %s names no socket", t.Name, kind)
	case !filepath.IsAbs(s):
		v.add(sp, "write it from the root on, because the daemon and QEMU run in different folders: /…/"+clip(strings.TrimPrefix(s, "./")), "target %q: the socket's path %q is relative", t.Name, clip(s))
	case len(s) > maxVHostSocket:
		v.add(sp, fmt.Sprintf("choose a shorter folder: the kernel allows %d bytes", maxVHostSocket), "target %q: the socket's path has %d bytes", t.Name, len(s))
	case strings.ContainsAny(s, "\x00\n") || filepath.Clean(s) != s:
		v.add(sp, form, "target %q: %q is not the plain path of a socket", t.Name, clip(s))
	case strings.ContainsRune(s, ','):
		v.add(sp, "choose a path without a comma, at which QEMU's options end", "target %q: the socket's path %q has a comma", t.Name, clip(s))
	default:
		if o, dup := sockets[s]; dup {
			v.add(sp, "give each its own: a socket is one device of one virtual machine", "target %q: the socket %s is in use already, first in %s", t.Name, s, v.first(o))
		} else {
			sockets[s] = sp
		}
	}
	if m := x.Permission(); m&0o600 != 0o600 || m > 0o777 {
		v.add(p+".mode", "write \"0660\" or \"0600\"", "target %q: with mode %04o not even the owner may connect", t.Name, m)
	} else if x.Group != "" && m&0o060 != 0o060 {
		v.add(p+".mode", "write \"0660\", or leave group out", "target %q: the group %s may not connect with mode %04o", t.Name, clip(x.Group), m)
	}
	for _, a := range []struct{ key, name string }{{"owner", x.Owner}, {"group", x.Group}} {
		if strings.ContainsAny(a.name, "\x00\n: \t/") {
			v.add(p+"."+a.key, "write a name, such as kvm, or a number", "target %q: %q cannot be the socket's %s", t.Name, clip(a.name), a.key)
		}
	}
	if x.Initiator != "" {
		if id, ok := ParseUUID(x.Initiator); !ok || id == [16]byte{} {
			v.add(p+".initiator", "write a UUID, such as that of the virtual machine, or leave it out to have one made", "target %q: %q cannot be the initiator's UUID", t.Name, clip(x.Initiator))
		}
	}
}

// vhost describes the export, for people.
func (t *Target) vhost() string {
	if t.VHost == nil {
		return "no vhost"
	}
	return t.VHost.Socket
}

// exports are a target's exports, for people.
func (t *Target) exports() string {
	var out []string
	if t.VHost != nil {
		out = append(out, "vhost "+t.VHost.Socket)
	}
	if t.VIO != nil {
		out = append(out, "vio "+t.VIO.Socket)
	}
	if t.Xen != nil {
		out = append(out, "xen "+t.Xen.String())
	}
	if t.ISCSI != nil || len(out) == 0 {
		out = append([]string{t.iscsi()}, out...)
	}
	return strings.Join(out, ", ")
}

// guestChanges tells what differs in the exports to virtual machines.
func guestChanges(a, b *Target) []string {
	out := socketChanges("vhost", a.vhost(), b.vhost(), a.VHost, b.VHost)
	var x, y *TargetVHost
	if a.VIO != nil {
		x = &a.VIO.TargetVHost
	}
	if b.VIO != nil {
		y = &b.VIO.TargetVHost
	}
	out = append(out, socketChanges("vio", a.vio(), b.vio(), x, y)...)
	if x != nil && y != nil && a.VIO.AIX != b.VIO.AIX {
		out = append(out, fmt.Sprintf("vio.aix %v -> %v", a.VIO.AIX, b.VIO.AIX))
	}
	return append(out, xenChanges(a, b)...)
}

// socketChanges tells what differs in one of them.
func socketChanges(kind, was, is string, a, b *TargetVHost) []string {
	var out []string
	if was != is {
		out = append(out, kind+" "+was+" -> "+is)
	}
	if a == nil || b == nil {
		return out
	}
	field := func(name, x, y string) {
		if x != y {
			out = append(out, fmt.Sprintf("%s.%s %s -> %s", kind, name, x, y))
		}
	}
	own := func(s string) string {
		if s == "" {
			return "(the daemon's)"
		}
		return s
	}
	made := func(s string) string {
		if s == "" {
			return "(made)"
		}
		return s
	}
	field("owner", own(a.Owner), own(b.Owner))
	field("group", own(a.Group), own(b.Group))
	field("mode", fmt.Sprintf("%04o", a.Permission()), fmt.Sprintf("%04o", b.Permission()))
	field("initiator", made(strings.ToLower(a.Initiator)), made(strings.ToLower(b.Initiator)))
	return out
}
