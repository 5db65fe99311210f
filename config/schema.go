package config

import (
	"time"

	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// maxLUN is the largest LUN number of flat space addressing (SAM-5 §4.7.7).
const maxLUN = 1<<14 - 1

// root states the keys of the file.
func (d *decoder) root(c *Config, n *yaml.Node) {
	version := -1
	var stated *yaml.Node
	ok := d.mapping(n, "", fields{
		"version": func(n *yaml.Node, p string) {
			stated = n
			d.int(&version, 0, 1<<31-1)(n, p)
		},
		"disks": func(n *yaml.Node, p string) {
			var k Disk
			fs := d.disk(&k)
			c.Disks = slices.Grow(c.Disks, len(n.Content))
			d.list(n, p, func(n *yaml.Node, p string) {
				k = DefaultDisk()
				d.mapping(n, p, fs)
				c.Disks = append(c.Disks, k)
			})
		},
		"targets": func(n *yaml.Node, p string) {
			var t Target
			fs := d.target(&t)
			c.Targets = slices.Grow(c.Targets, len(n.Content))
			d.list(n, p, func(n *yaml.Node, p string) {
				t = Target{}
				d.mapping(n, p, fs)
				c.Targets = append(c.Targets, t)
			})
		},
		"iscsi": func(n *yaml.Node, p string) {
			d.mapping(n, p, fields{
				"portals": func(n *yaml.Node, p string) {
					d.list(n, p, func(n *yaml.Node, p string) {
						var s string
						d.str(&s)(n, p)
						c.ISCSI.Portals = append(c.ISCSI.Portals, s)
					})
				},
				"discovery": func(n *yaml.Node, p string) {
					d.refuseNull(n, p, "write {chap: {user: NAME, secretFile: /PATH}}, or leave the key out")
					d.mapping(n, p, fields{"chap": d.chap(&c.ISCSI.Discovery)})
				},
				"pingInterval": d.duration(&c.ISCSI.PingInterval, time.Second, time.Hour),
				"pingTimeout":  d.duration(&c.ISCSI.PingTimeout, time.Second, time.Hour),
				"loginTimeout": d.duration(&c.ISCSI.LoginTimeout, time.Second, time.Hour),
				"maxSessions":  d.int(&c.ISCSI.MaxSessions, 1, 65535),
			})
		},
		"api": func(n *yaml.Node, p string) {
			d.mapping(n, p, fields{
				"socket": d.str(&c.API.Socket),
				"mode":   d.mode(&c.API.Mode),
				"group":  d.str(&c.API.Group),
			})
		},
		"state":  d.str(&c.State),
		"loops":  d.int(&c.Loops, 0, 1024),
		"memory": d.size(&c.Memory),
	})
	if !ok {
		return
	}
	switch {
	case stated == nil:
		d.add(nodePos(n), "version", "the key \"version\" is missing", "begin the file with \"version: 1\"")
	case version >= 0 && version != Version:
		d.add(nodePos(stated), "version", fmt.Sprintf("version %d is not known to this vtgt", version), "write version: 1, or use a vtgt that knows it")
	}
}

// disk are the keys of a disk. They serve one after another.
func (d *decoder) disk(k *Disk) fields {
	return fields{
		"name":              d.str(&k.Name),
		"store":             d.str(&k.Store),
		"size":              d.size(&k.Size),
		"create":            d.bool(&k.Create),
		"blockSize":         d.int(&k.BlockSize, 0, 1<<30),
		"physicalBlockSize": d.int(&k.PhysicalBlockSize, 0, 1<<30),
		"cache":             d.str((*string)(&k.Cache)),
		"thin":              d.bool(&k.Thin),
		"readOnly":          d.bool(&k.ReadOnly),
		"removable":         d.bool(&k.Removable),
		"shared":            d.bool(&k.Shared),
		"explicitALUA":      d.bool(&k.ExplicitALUA),
		"serial":            d.str(&k.Serial),
		"naa":               d.str(&k.NAA),
		"reservations":      d.str(&k.Reservations),
		"migratable":        d.bool(&k.Migratable),
		"onError":           d.str((*string)(&k.OnError)),
		"claim":             d.bool(&k.Claim),
		"sanitizeSpeed":     d.size(&k.SanitizeSpeed),
		"atomicLog":         d.size(&k.AtomicLog),
		"keyFile":           d.str(&k.KeyFile),
	}
}

// target are the keys of a target. They serve one after another.
func (d *decoder) target(t *Target) fields {
	var l LUN
	stated := false // l's number
	number := d.integer(func(v int64) { l.LUN = uint16(v) }, 0, maxLUN)
	lun := fields{
		"lun": func(n *yaml.Node, p string) {
			stated = true
			number(n, p)
		},
		"disk":       d.str(&l.Disk),
		"readOnly":   d.bool(&l.ReadOnly),
		"initiators": d.words(&l.Initiators, "pattern"),
		"address":    d.address(&l.Address),
	}
	var x TargetISCSI
	iscsi := d.targetISCSI(&x)
	return fields{
		"name": d.str(&t.Name),
		"luns": func(n *yaml.Node, p string) {
			t.LUNs = slices.Grow(t.LUNs, len(n.Content))
			d.list(n, p, func(n *yaml.Node, p string) {
				l, stated = LUN{}, false
				ok := d.mapping(n, p, lun)
				if ok && !stated {
					d.add(nodePos(n), p+".lun", p+" has no key \"lun\"", "give it a number, such as {lun: 0, disk: NAME}")
				}
				t.LUNs = append(t.LUNs, l)
			})
		},
		"iscsi": func(n *yaml.Node, p string) {
			x = TargetISCSI{}
			d.mapping(n, p, iscsi)
			is := x
			t.ISCSI = &is
		},
		"vhost": func(n *yaml.Node, p string) {
			t.VHost = &TargetVHost{}
			d.mapping(n, p, d.targetVHost(t.VHost))
		},
		"alua": d.str((*string)(&t.ALUA)),
		"vio": func(n *yaml.Node, p string) {
			t.VIO = &TargetVIO{}
			d.mapping(n, p, d.targetVIO(t.VIO))
		},
		"xen": func(n *yaml.Node, p string) {
			t.Xen = &TargetXen{}
			d.mapping(n, p, d.targetXen(t.Xen))
		},
	}
}

// only accepts a key at the one value that this version serves.
func (d *decoder) only(value string) setter {
	return func(n *yaml.Node, path string) {
		if d.plain(n, path) && (n.Kind != yaml.ScalarNode || n.Value != value) {
			d.add(nodePos(n), path, fmt.Sprintf("%s: %s is not in this version of vtgt", path, describe(n)), "write "+value+" or leave the key out")
		}
	}
}

// mode reads an octal permission in quotes, as in mode: "0660".
func (d *decoder) mode(to *uint32) setter {
	return func(n *yaml.Node, path string) {
		const hint = "write \"0600\", or \"0660\" together with group"
		if !d.scalar(n, path, "a permission in quotes", hint, "!!str", "!!int") {
			return
		}
		v, err := strconv.ParseUint(n.Value, 8, 32)
		if err != nil || (v != 0o600 && v != 0o660) {
			d.add(nodePos(n), path, fmt.Sprintf("%s: %s is neither 0600 nor 0660", path, clip(n.Value)), hint)
			return
		}
		*to = uint32(v)
	}
}
