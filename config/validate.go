package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxSocketPath leaves room below the 107 bytes of sun_path for the
	// temporary name under which the socket is made.
	maxSocketPath = 90
	maxSerial     = 64
	maxAlias      = 255
	maxBlockSize  = 1 << 20
)

// Validate checks c as a whole. The error is an Errors that holds everything that
// is wrong, with places where c came from Parse.
func (c *Config) Validate() error {
	v := &validator{c: c, disk: c.disks()}
	v.disks()
	v.targets()
	v.sharing()
	v.portals()
	v.chap("discovery: ", "iscsi.discovery.chap", v.c.ISCSI.Discovery)
	v.rest()
	if len(v.errs) == 0 {
		return nil
	}
	sortErrors(v.errs)
	if len(v.errs) > maxErrors {
		v.errs = v.errs[:maxErrors]
	}
	return v.errs
}

type validator struct {
	c    *Config
	disk map[string]*Disk
	errs Errors
}

// pos is where the value at path stands, or else what holds it.
func (c *Config) pos(path string) Pos {
	if c.src == nil {
		return Pos{}
	}
	for p := path; p != ""; {
		if at, ok := c.src.places()[p]; ok {
			return at
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	return Pos{1, 1}
}

// At is where the value at path ("disks[0].store") stands in the file, for
// errors that are found later; path alone where c was made by hand.
func (c *Config) At(path string) *Error {
	e := &Error{Path: path, Pos: c.pos(path)}
	if c.src != nil {
		e.File = c.src.file
	}
	return e
}

// DiskPath is the path of the disk called name, for At.
func (c *Config) DiskPath(name, key string) string {
	for i := range c.Disks {
		if c.Disks[i].Name == name {
			return at("disks", i) + "." + key
		}
	}
	return "disks"
}

// PortalPath is the path of the portal with the address, for At.
func (c *Config) PortalPath(addr string) string {
	for i, a := range c.ISCSI.Portals {
		if a == addr {
			return at("iscsi.portals", i)
		}
	}
	return "iscsi.portals"
}

func (v *validator) add(path, hint, format string, args ...any) {
	e := v.c.At(path)
	e.Msg, e.Hint = fmt.Sprintf(format, args...), hint
	v.errs = append(v.errs, e)
}

// first names the place of an earlier value.
func (v *validator) first(path string) string {
	if p := v.c.pos(path); p.Line > 0 {
		return "line " + strconv.Itoa(p.Line)
	}
	return path
}

func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// object is an element of a list of the file. Only errors ask for paths.
type object struct {
	list string
	i    int
}

func (o object) path() string          { return at(o.list, o.i) }
func (o object) key(key string) string { return o.path() + "." + key }

// other is the path of a key of another element of the list.
func (o object) other(i int, key string) string { return object{o.list, i}.key(key) }

// name checks an object's name and that it is the only one; seen are earlier ones.
func (v *validator) name(kind string, o object, name string, seen map[string]int) {
	switch {
	case name == "":
		v.add(o.key("name"), "add name: and a short word", "this %s has no name", kind)
		return
	case !isPlainName(name):
		v.add(o.key("name"), "use letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit", "%q cannot be the name of a %s", clip(name), kind)
		return
	}
	if other, dup := seen[name]; dup {
		v.add(o.key("name"), "give each "+kind+" its own name", "the name %q is used by two %ss, first in %s", name, kind, v.first(o.other(other, "name")))
		return
	}
	seen[name] = o.i
}

func (v *validator) disks() {
	n := len(v.c.Disks)
	names, paths := make(map[string]int, n), make(map[string]int, n)
	serials, naas := map[string]int{}, map[string]int{}
	files := map[string][]int{} // of reservations
	for i := range v.c.Disks {
		d, p := &v.c.Disks[i], object{"disks", i}
		v.name("disk", p, d.Name, names)
		v.store(d, p)
		v.geometry(d, p)
		v.migratable(d, p)
		if path := d.Path(); path != "" {
			if other, dup := paths[path]; dup {
				v.add(p.key("store"), "map one disk into both targets instead", "disk %q has the same file as another disk: %s, first in %s", d.Name, path, v.first(p.other(other, "store")))
			} else {
				paths[path] = i
			}
		}
		switch d.Cache {
		case Writeback, Writethrough, Direct:
		default:
			v.add(p.key("cache"), "write writeback, writethrough or direct", "disk %q: %q is not a cache mode", d.Name, clip(string(d.Cache)))
		}
		switch d.OnError {
		case Report, Stop, StopNoSpace:
		default:
			v.add(p.key("onError"), "write report, stop or enospc-stop", "disk %q: %q is not an error policy", d.Name, clip(string(d.OnError)))
		}
		v.identity(d, p, serials, naas)
		if r := d.Reservations; r != "" {
			switch {
			case !filepath.IsAbs(r):
				v.add(p.key("reservations"), "write it from the root on", "disk %q: the path %q is relative", d.Name, clip(r))
			case strings.ContainsRune(r, 0):
				v.add(p.key("reservations"), "write the path of a file", "disk %q: the path holds a zero byte", d.Name)
			default:
				files[filepath.Clean(r)] = append(files[filepath.Clean(r)], i)
			}
		}
	}
	for i := range v.c.Disks {
		p := object{"disks", i}
		if v.c.Disks[i].Reservations == "" {
			continue
		}
		path := filepath.Clean(v.c.Disks[i].Reservations)
		if other, dup := paths[path]; dup {
			v.add(p.key("reservations"), "name a file of its own", "disk %q: %s is the store of a disk, see %s", v.c.Disks[i].Name, path, v.first(p.other(other, "store")))
		}
		if all := files[path]; len(all) > 1 && all[0] != i {
			v.add(p.key("reservations"), "name a file of its own", "disk %q: %s is that of another disk, first in %s", v.c.Disks[i].Name, path, v.first(p.other(all[0], "reservations")))
		}
	}
}

// migratable checks that two hosts can serve disk d by turns.
func (v *validator) migratable(d *Disk, p object) {
	if !d.Migratable {
		return
	}
	bad := func(hint, why string) {
		v.add(p.key("migratable"), hint, "disk %q: a migratable disk %s", d.Name, why)
	}
	scheme, _ := SplitStore(d.Store)
	switch {
	case scheme != "file" && scheme != "block":
		bad("use file: or block:, on storage that both hosts have", "cannot have a "+scheme+": store")
	case d.AtomicLog != 0 && v.stated(p.key("atomicLog")):
		bad("leave one of the two out", "cannot have an atomicLog:, which is one host's")
	case d.Serial == "":
		bad("add serial: with the same text on both hosts", "needs a serial: number, so that the guest sees the same disk")
	case d.Reservations == "":
		bad("add reservations: and a path on storage that both hosts have, such as one beside the image", "needs reservations:, so that they go along")
	}
}

// Migratable tells whether t's disks are (all are, or none is).
func (c *Config) Migratable(t *Target) bool {
	for _, l := range t.LUNs {
		if d := c.Disk(l.Disk); d != nil && d.Migratable {
			return true
		}
	}
	return false
}

// moves checks the target of migratable disks.
func (v *validator) moves(t *Target, p object) {
	var yes, no string
	for _, l := range t.LUNs {
		switch d := v.disk[l.Disk]; {
		case d == nil:
		case d.Migratable:
			yes = l.Disk
		default:
			no = l.Disk
		}
	}
	switch {
	case yes == "":
	case no != "":
		v.add(p.key("luns"), "make all of them migratable, or none", "target %q: disk %q is migratable, disk %q is not: the virtual machine cannot take it along", t.Name, yes, no)
	case t.ISCSI != nil || t.VIO != nil || t.Xen != nil || t.VHost == nil:
		v.add(p.path(), "give the target vhost: and nothing else", "target %q: disk %q is migratable, which goes by vhost: alone", t.Name, yes)
	case t.VHost.Initiator == "":
		v.add(p.key("vhost.initiator"), "write the same UUID on both hosts (uuidgen makes one)", "target %q: its disks are migratable, so reservations need an initiator: that both hosts know", t.Name)
	}
}

func (v *validator) store(d *Disk, p object) {
	scheme, rest := SplitStore(d.Store)
	const forms = "write file:/PATH, encrypted:/PATH, block:/dev/NAME, mem: or null:"
	switch scheme {
	case "file", "block", "encrypted":
		switch {
		case rest == "":
			v.add(p.key("store"), forms, "disk %q: the store %q names no path", d.Name, d.Store)
		case !filepath.IsAbs(rest):
			v.add(p.key("store"), "write it from the root on, because the daemon and the commands run in different folders: "+scheme+":/…/"+clip(strings.TrimPrefix(rest, "./")), "disk %q: the path %q is relative", d.Name, clip(rest))
		case strings.ContainsRune(rest, 0):
			v.add(p.key("store"), forms, "disk %q: the path holds a zero byte", d.Name)
		}
	case "mem", "null":
		if rest != "" {
			v.add(p.key("store"), "write "+scheme+": alone and the size as size:", "disk %q: nothing may follow %s:", d.Name, scheme)
		}
		if d.Size == 0 {
			v.add(p.key("store"), "add size:, such as 1GiB", "disk %q: a %s: store needs a size", d.Name, scheme)
		}
	case "nbd", "rbd", "qcow2", "luks":
		v.add(p.key("store"), forms, "disk %q: %s: stores are not in this version of vtgt", d.Name, scheme)
	case "":
		switch {
		case d.Store == "":
			v.add(p.key("store"), forms, "disk %q has no store", d.Name)
		case filepath.IsAbs(d.Store):
			v.add(p.key("store"), "write file:"+d.Store, "disk %q: the store %q has no scheme", d.Name, clip(d.Store))
		default:
			v.add(p.key("store"), forms, "disk %q: the store %q has no scheme", d.Name, clip(d.Store))
		}
	default:
		v.add(p.key("store"), forms, "disk %q: unknown kind of store %q", d.Name, clip(scheme))
	}
	file := scheme == "file" || scheme == "encrypted"
	if d.Create && !file {
		v.add(p.key("create"), "leave create out", "disk %q: only a file: or encrypted: store can be created", d.Name)
	}
	switch {
	case scheme == "encrypted" && d.KeyFile == "":
		v.add(p.key("keyFile"), "make one with `(umask 077; od -An -vtx1 -N32 /dev/urandom | tr -d ' \\n' > PATH)`, and name it by keyFile:", "disk %q: an encrypted: store needs a key file", d.Name)
	case scheme != "encrypted" && d.KeyFile != "":
		v.add(p.key("keyFile"), "write encrypted:/PATH, or leave the key file out", "disk %q: only an encrypted: store has a key file", d.Name)
	case d.KeyFile != "" && !filepath.IsAbs(d.KeyFile):
		v.add(p.key("keyFile"), "write it from the root on", "disk %q: the path %q is relative", d.Name, clip(d.KeyFile))
	}
	if d.Create && file && d.Size == 0 {
		v.add(p.key("create"), "add size:, such as 10GiB", "disk %q: create: true needs a size", d.Name)
	}
	if scheme == "block" && d.Size != 0 {
		v.add(p.key("size"), "leave size out", "disk %q: a block device has a size of its own", d.Name)
	}
}

func (v *validator) geometry(d *Disk, p object) {
	if d.BlockSize != 512 && d.BlockSize != 4096 {
		v.add(p.key("blockSize"), "write 512 or 4096", "disk %q: a block size of %d is not possible", d.Name, d.BlockSize)
		return
	}
	if n := d.PhysicalBlockSize; n < d.BlockSize || n > maxBlockSize || n&(n-1) != 0 {
		v.add(p.key("physicalBlockSize"), "write a power of two, such as 4096", "disk %q: a physical block size of %d is not a power of two from blockSize (%d) to %d", d.Name, n, d.BlockSize, maxBlockSize)
	}
	if d.Size < 0 || int64(d.Size)%int64(d.BlockSize) != 0 {
		down := int64(d.Size) / int64(d.BlockSize) * int64(d.BlockSize)
		v.add(p.key("size"), fmt.Sprintf("write %dB or %dB", down, down+int64(d.BlockSize)), "disk %q: the size of %d bytes is not a multiple of the block size %d", d.Name, int64(d.Size), d.BlockSize)
	}
}

func (v *validator) identity(d *Disk, p object, serials, naas map[string]int) {
	if s := d.Serial; s != "" {
		bad := len(s) > maxSerial || s != strings.TrimSpace(s)
		for i := 0; i < len(s); i++ {
			bad = bad || s[i] < 0x20 || s[i] > 0x7e
		}
		if bad {
			v.add(p.key("serial"), fmt.Sprintf("use at most %d printable ASCII characters, or leave it out to have one made", maxSerial), "disk %q: %q cannot be a serial number", d.Name, clip(s))
		} else if other, dup := serials[s]; dup {
			v.add(p.key("serial"), "initiators would take the two for one: give each its own, or leave it out", "disk %q has the serial number of another disk, first in %s", d.Name, v.first(p.other(other, "serial")))
		} else {
			serials[s] = p.i
		}
	}
	if s := strings.ToLower(d.NAA); s != "" {
		if !hex16.MatchString(s) || s[0] != '3' {
			v.add(p.key("naa"), "write 16 hexadecimal digits of which the first is 3, in quotes, or leave it out to have one made", "disk %q: %q is not a locally assigned NAA designator", d.Name, clip(d.NAA))
		} else if other, dup := naas[s]; dup {
			v.add(p.key("naa"), "initiators would take the two for one: give each its own, or leave it out", "disk %q has the NAA designator of another disk, first in %s", d.Name, v.first(p.other(other, "naa")))
		} else {
			naas[s] = p.i
		}
	}
}

func (v *validator) targets() {
	n := len(v.c.Targets)
	names, iqns := make(map[string]int, n), make(map[string]int, n)
	sockets := map[string]string{v.c.API.Socket: "api.socket"}
	devices := map[string]string{} // of Xen domains
	for i := range v.c.Targets {
		t, p := &v.c.Targets[i], object{"targets", i}
		v.name("target", p, t.Name, names)
		switch t.ALUA.State() {
		case Optimized, NonOptimized, Standby, Unavailable, Offline:
		default:
			v.add(p.key("alua"), "write optimized, non-optimized, standby, unavailable or offline", "target %q: %q is not an access state", t.Name, clip(string(t.ALUA)))
		}
		v.luns(t, p)
		v.moves(t, p)
		if t.VHost != nil {
			v.vhost(t, p.key("vhost"), sockets)
		}
		if t.VIO != nil {
			v.vio(t, p.key("vio"), sockets)
		}
		if t.Xen != nil {
			v.xen(t, p.key("xen"), devices)
		}
		if t.ISCSI == nil {
			continue
		}
		if err := CheckISCSIName(t.ISCSI.IQN); err != nil {
			msg, hint, _ := strings.Cut(err.Error(), "; ")
			v.add(p.key("iscsi.iqn"), hint, "target %q: %s", t.Name, msg)
		} else if other, dup := iqns[strings.ToLower(t.ISCSI.IQN)]; dup {
			v.add(p.key("iscsi.iqn"), "give each target its own", "target %q has the iSCSI name of another target, first in %s", t.Name, v.first(p.other(other, "iscsi.iqn")))
		} else {
			iqns[strings.ToLower(t.ISCSI.IQN)] = i
		}
		if a := t.ISCSI.Alias; len(a) > maxAlias || strings.ContainsAny(a, "\x00\r\n") {
			v.add(p.key("iscsi.alias"), fmt.Sprintf("use one line of at most %d bytes", maxAlias), "target %q: the alias is not possible", t.Name)
		}
		v.access(t, p)
		if len(v.c.ISCSI.Portals) == 0 {
			v.add(p.key("iscsi"), "add iscsi: {portals: [\"127.0.0.1:3260\"]} at the end of the file", "target %q is exported by iSCSI, but there is no portal", t.Name)
		}
	}
}

// luns checks the LUNs of target t.
func (v *validator) luns(t *Target, p object) {
	list := func(j int, key string) string { return at(p.key("luns"), j) + "." + key }
	var luns map[uint16]int
	var disks map[string]int
	if len(t.LUNs) > 1 {
		luns, disks = make(map[uint16]int, len(t.LUNs)), make(map[string]int, len(t.LUNs))
	}
	for j := range t.LUNs {
		l := &t.LUNs[j]
		switch other, dup := luns[l.LUN]; {
		case l.LUN > maxLUN:
			v.add(list(j, "lun"), fmt.Sprintf("write a number from 0 to %d", maxLUN), "target %q: LUN %d is out of range", t.Name, l.LUN)
		case dup && v.c.src != nil && !v.stated(list(j, "lun")): // said by the decoder
		case dup:
			v.add(list(j, "lun"), "give each its own number", "target %q has LUN %d twice, first in %s", t.Name, l.LUN, v.first(list(other, "lun")))
		case luns != nil:
			luns[l.LUN] = j
		}
		if l.Initiators != "" {
			v.patterns(fmt.Sprintf("target %q, LUN %d: ", t.Name, l.LUN), list(j, "initiators"), l.Initiators)
		}
		switch {
		case l.Disk == "":
			v.add(list(j, "disk"), "add disk: and the name of a disk", "target %q: LUN %d names no disk", t.Name, l.LUN)
			continue
		case v.disk[l.Disk] == nil:
			v.add(list(j, "disk"), v.diskNames(), "target %q: LUN %d is the unknown disk %q", t.Name, l.LUN, clip(l.Disk))
			continue
		}
		if other, dup := disks[l.Disk]; dup {
			v.add(list(j, "disk"), "keep one of them", "target %q maps disk %q twice, first in %s", t.Name, l.Disk, v.first(list(other, "disk")))
		} else if disks != nil {
			disks[l.Disk] = j
		}
	}
}

func (v *validator) stated(path string) bool {
	_, ok := v.c.src.places()[path]
	return ok
}

func (v *validator) diskNames() string {
	if len(v.c.Disks) == 0 {
		return "there are no disks yet: add it under disks:"
	}
	var names []string
	for i := range v.c.Disks {
		if len(names) == 8 {
			names = append(names, "…")
			break
		}
		names = append(names, v.c.Disks[i].Name)
	}
	return "add it under disks:, or use one of " + strings.Join(names, ", ")
}

// sharing refuses a disk that two targets, or two exports of one, may write and nobody
// declared shared.
func (v *validator) sharing() {
	// guest is who writes where that can be one virtual machine only: two sockets
	// of one are two paths of one initiator.
	type user struct {
		target, lun int // their places
		guest       string
	}
	path := func(u user) string { return at(at("targets", u.target)+".luns", u.lun) + ".disk" }
	first := map[string]user{}
	said := map[[2]int]bool{}
	for i := range v.c.Targets {
		t := &v.c.Targets[i]
		for j, l := range t.LUNs {
			d := v.disk[l.Disk]
			if d == nil || d.Shared || d.ReadOnly || l.ReadOnly {
				continue
			}
			u := user{target: i, lun: j}
			const hint = "write shared: true at the disk if the initiators know of each other, or readOnly: true at the LUN, or say with initiators: who sees it"
			switch g := t.guests(); {
			case len(g) == 0:
			case t.ISCSI == nil && !slices.ContainsFunc(g, func(o guest) bool { return o.id != g[0].id }):
				u.guest = g[0].id
			case l.Initiators != "": // the mask decides
			case t.ISCSI == nil:
				v.add(path(u), hint, "disk %q could be written by the virtual machines at %s and %s at once", l.Disk, clip(g[0].place), clip(other(g).place))
			default:
				v.add(path(u), hint, "disk %q could be written by the virtual machine at %s and by iSCSI initiators of target %q at once", l.Disk, clip(g[0].place), t.Name)
			}
			o, used := first[l.Disk]
			if !used {
				first[l.Disk] = u
				continue
			}
			if u.guest != "" && u.guest == o.guest {
				continue
			}
			if o.target != i && !said[[2]int{i, j}] {
				said[[2]int{i, j}] = true
				v.add(path(u), "write shared: true at the disk if the initiators know of each other (a cluster file system), or readOnly: true at one of the LUNs", "disk %q could be written through the targets %q and %q at once (%s)", l.Disk, v.c.Targets[o.target].Name, t.Name, v.first(path(o)))
			}
		}
	}
}

func (v *validator) portals() {
	type listen struct {
		ap   netip.AddrPort
		path string
	}
	var seen []listen
	for i, s := range v.c.ISCSI.Portals {
		p := at("iscsi.portals", i)
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			hint := "write ADDRESS:PORT, such as 127.0.0.1:3260, 0.0.0.0:3260 or [::]:3260"
			if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
				hint = "write " + netip.AddrPortFrom(a, 3260).String()
			} else if strings.HasPrefix(s, ":") {
				hint = "write 0.0.0.0" + s + " or [::]" + s
			}
			v.add(p, hint, "the portal %q is not an IP address with a port", clip(s))
			continue
		}
		for _, o := range seen {
			if ap.Port() == 0 || o.ap.Port() != ap.Port() {
				continue
			}
			if o.ap.Addr() == ap.Addr() {
				v.add(p, "keep one of them", "the portal %s stands twice, first in %s", s, v.first(o.path))
			} else if o.ap.Addr().Is4() == ap.Addr().Is4() && (o.ap.Addr().IsUnspecified() || ap.Addr().IsUnspecified()) {
				v.add(p, "keep the one for all addresses, or the single ones", "the portals %s and %s overlap (%s)", o.ap, ap, v.first(o.path))
			} else {
				continue
			}
			break
		}
		seen = append(seen, listen{ap, p})
	}
}

func (v *validator) rest() {
	s := v.c.API.Socket
	switch {
	case !filepath.IsAbs(s):
		v.add("api.socket", "write it from the root on, such as "+DefaultAPISocket, "the API socket %q is not an absolute path", clip(s))
	case len(s) > maxSocketPath:
		v.add("api.socket", "choose a shorter folder", "the API socket's path has %d bytes, the limit is %d", len(s), maxSocketPath)
	case strings.ContainsRune(s, 0) || filepath.Clean(s) == "/" || strings.HasSuffix(s, "/"):
		v.add("api.socket", "write a file name, such as "+DefaultAPISocket, "the API socket %q is not a file name", clip(s))
	}
	switch v.c.API.Mode {
	case 0o600:
		if v.c.API.Group != "" {
			v.add("api.group", "write mode: \"0660\" as well, or leave group out", "the API socket's group has no access with mode 0600")
		}
	case 0o660:
	default:
		v.add("api.mode", "write \"0600\" or \"0660\"", "the API socket's mode %04o is not possible", v.c.API.Mode)
	}
	if !filepath.IsAbs(v.c.State) {
		v.add("state", "write it from the root on, such as "+DefaultState, "the state folder %q is not an absolute path", clip(v.c.State))
	}
	if v.c.Loops < 0 || v.c.Loops > 1024 {
		v.add("loops", "write a number from 0 (one for each CPU) to 1024", "%d loops are not possible", v.c.Loops)
	}
	if m := v.c.Memory; m != 0 && m < 16<<20 {
		v.add("memory", "write at least 16MiB, or leave it out", "%s are too little memory for payload buffers", m)
	}
}
