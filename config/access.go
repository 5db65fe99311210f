package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Who may use what: the keys that say which initiators may log in, what they have to
// prove, and what they see.

// List is a list of words that can be compared by ==: each is ended by a line feed.
type List string

// MakeList makes a List of words without line feeds.
func MakeList(words ...string) List {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(w)
		b.WriteByte('\n')
	}
	return List(b.String())
}

// Words are the list's words; nil for an empty list.
func (l List) Words() []string {
	if l == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(l), "\n"), "\n")
}

func (l List) String() string { return "[" + strings.Join(l.Words(), ", ") + "]" }

// Credential is a user name and the file that holds its secret.
type Credential struct {
	User string
	// SecretFile is the absolute path of a file of mode 0600.
	SecretFile string
}

// CHAP is one user that initiators may log in as (RFC 7143 §12.1.3).
type CHAP struct {
	Credential
	// Mutual is what the target proves to an initiator of that user that asks
	// it to; without a User it proves nothing.
	Mutual Credential
}

// Redirect sends initiators to another portal.
type Redirect struct {
	// Address is "host:port" or "[v6]:port"; empty: no redirection.
	Address   string
	Permanent bool
}

// The values of prIdentity.
const (
	PRNameISID = "name+isid"
	PRName     = "name"
)

// maxConnections is the most that a file may allow to a session.
const maxConnections = 16

// chap decodes one user or a list of users.
func (d *decoder) chap(to *[]CHAP) setter {
	one := func(n *yaml.Node, path string) {
		var c CHAP
		d.refuseNull(n, path, "write {user: NAME, secretFile: /PATH}, or leave the key out to let everybody in")
		mutual := func(n *yaml.Node, path string) {
			d.refuseNull(n, path, "write {user: NAME, secretFile: /PATH}, or leave the key out")
			d.mapping(n, path, d.credential(&c.Mutual))
		}
		fs := d.credential(&c.Credential)
		fs["mutual"] = mutual
		d.mapping(n, path, fs)
		*to = append(*to, c)
	}
	return func(n *yaml.Node, path string) {
		if n.Kind == yaml.SequenceNode {
			d.someList(n, path, "user", one)
			return
		}
		one(n, path)
	}
}

func (d *decoder) credential(c *Credential) fields {
	inline := func(n *yaml.Node, path string) {
		d.add(nodePos(n), path, path+": a secret does not belong in this file, which others may read", "write it into a file of mode 0600 and name that with secretFile:")
	}
	return fields{"user": d.str(&c.User), "secretFile": d.str(&c.SecretFile), "secret": inline, "password": inline}
}

// refuseNull refuses a key without a value, where that would mean to let everybody in.
func (d *decoder) refuseNull(n *yaml.Node, path, hint string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.add(nodePos(n), path, path+" has no value", hint)
	}
}

// someList is list for lists that must not be empty.
func (d *decoder) someList(n *yaml.Node, path, what string, item setter) {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.add(nodePos(n), path, path+" is empty, which lets nobody in", "add a "+what+", or leave the key out to let everybody in")
		return
	}
	d.list(n, path, item)
}

// words decodes a list of words, or a single one.
func (d *decoder) words(to *List, what string) setter {
	return func(n *yaml.Node, path string) {
		var ws []string
		one := func(n *yaml.Node, p string) {
			var s string
			d.str(&s)(n, p)
			if strings.Contains(s, "\n") {
				d.add(nodePos(n), p, p+" has more than one line", "write each "+what+" as an element of its own")
				return
			}
			ws = append(ws, s)
		}
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			one(n, path)
		} else {
			d.someList(n, path, what, one)
		}
		*to = MakeList(ws...)
	}
}

// targetISCSI are the keys of targets[].iscsi.
func (d *decoder) targetISCSI(t *TargetISCSI) fields {
	return fields{
		"iqn":        d.str(&t.IQN),
		"alias":      d.str(&t.Alias),
		"chap":       d.chap(&t.CHAP),
		"initiators": d.words(&t.Initiators, "pattern"),
		"addresses":  d.words(&t.Addresses, "address"),
		"redirect": func(n *yaml.Node, p string) {
			d.refuseNull(n, p, "write {address: HOST:PORT}, or leave the key out")
			d.mapping(n, p, fields{"address": d.str(&t.Redirect.Address), "permanent": d.bool(&t.Redirect.Permanent)})
			if t.Redirect.Address == "" && t.Redirect.Permanent {
				d.add(nodePos(n), p, p+" has no address", "add address: HOST:PORT")
			}
		},
		"prIdentity":     d.str(&t.PRIdentity),
		"maxConnections": d.int(&t.MaxConnections, 1, maxConnections),
	}
}

// access checks what says who may use target t by iSCSI.
func (v *validator) access(t *Target, o object) {
	x := t.ISCSI
	if len(x.CHAP) == 0 && x.Initiators == "" && x.Addresses == "" && x.Redirect.Address == "" && x.PRIdentity == "" && x.MaxConnections == 0 {
		return // nothing is said
	}
	p, who := o.key("iscsi"), fmt.Sprintf("target %q: ", t.Name)
	v.chap(who, p+".chap", x.CHAP)
	v.patterns(who, p+".initiators", x.Initiators)
	for i, a := range x.Addresses.Words() {
		if _, err := ParseAddress(a); err != nil {
			v.add(v.element(p+".addresses", i), err.Error(), "%s%q is neither an address nor a network", who, clip(a))
		}
	}
	if a := x.Redirect.Address; a != "" {
		v.redirect(who, p+".redirect.address", a)
	}
	switch x.PRIdentity {
	case "", PRName, PRNameISID:
	default:
		v.add(p+".prIdentity", "write "+PRName+" or "+PRNameISID, "%s%q cannot be an initiator's identity", who, clip(x.PRIdentity))
	}
	if x.MaxConnections < 0 || x.MaxConnections > maxConnections {
		v.add(p+".maxConnections", fmt.Sprintf("write a number from 1 to %d", maxConnections), "%s%d connections of a session are not possible", who, x.MaxConnections)
	}
}

// element is the path of element i of a list that may stand as a single word.
func (v *validator) element(path string, i int) string {
	if p := at(path, i); v.c.src != nil && v.stated(p) {
		return p
	}
	return path
}

func (v *validator) redirect(who, p, a string) {
	const hint = "write HOST:PORT, such as 192.0.2.7:3260 or [2001:db8::7]:3260"
	host, port, err := net.SplitHostPort(a)
	n, perr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || perr != nil || n == 0 || host == "" || len(a) > 255 || strings.ContainsAny(a, ", \t\r\n\x00"):
		v.add(p, hint, "%s%q is not an address with a port", who, clip(a))
		return
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		v.add(p, hint, "%sinitiators cannot reach %q", who, clip(a))
	} else if slices.Contains(v.c.ISCSI.Portals, a) {
		v.add(p, "name the portal of another server, or leave redirect out", "%s%s is a portal of this one: initiators would go round in circles", who, a)
	}
}

// ParseAddress reads an IP address or a network ("192.0.2.0/24"). The error says what
// to write.
func ParseAddress(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("leave out the zone %q", "%"+a.Zone())
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("write one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")
	case p.Masked() != p:
		return netip.Prefix{}, fmt.Errorf("write %s for the network, or %s for one host", p.Masked(), p.Addr())
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("write it in the form of IPv4, such as 192.0.2.0/24")
	}
	return p, nil
}

// patterns checks patterns of initiator names.
func (v *validator) patterns(who, path string, l List) {
	for i, w := range l.Words() {
		low := strings.ToLower(w)
		switch {
		case w == "" || len(w) > maxISCSIName:
			v.add(v.element(path, i), "write an initiator's name, such as iqn.1993-08.org.debian:01:*; * stands for any characters, ? for one", "%sa pattern has %d bytes, allowed are 1 to %d", who, len(w), maxISCSIName)
		case low != w:
			v.add(v.element(path, i), "write "+low, "%s%q has capital letters, which iSCSI names have not", who, clip(w))
		case strings.ContainsFunc(w, func(r rune) bool {
			return r <= ' ' || r == ',' || r == 0x7f || r == 0xfffd
		}):
			v.add(v.element(path, i), "write each pattern as an element of its own, without blanks and commas", "%s%q cannot be the pattern of a name", who, clip(w))
		}
	}
}

// chap checks users that serve together.
func (v *validator) chap(who, path string, users []CHAP) {
	seen := map[string]string{}
	for i := range users {
		c, p := &users[i], v.element(path, i)
		v.credential(who, p, "user", &c.Credential)
		if o, dup := seen[c.User]; dup && c.User != "" {
			v.add(p+".user", "keep one of them", "%sthe CHAP user %q stands twice, first in %s", who, clip(c.User), v.first(o))
		}
		seen[c.User] = p + ".user"
		if c.Mutual == (Credential{}) {
			if v.c.src != nil && v.stated(p+".mutual") {
				v.add(p+".mutual", "write {user: NAME, secretFile: /PATH}, or leave mutual out", "%smutual names no user", who)
			}
			continue
		}
		v.credential(who, p+".mutual", "user", &c.Mutual)
		for j := range users {
			if f := users[j].SecretFile; f != "" && f == c.Mutual.SecretFile {
				v.add(p+".mutual.secretFile", "give each direction a secret of its own: an initiator could send our own challenge back", "%sone secret would serve both directions", who)
				break
			}
		}
	}
}

func (v *validator) credential(who, p, key string, c *Credential) {
	switch {
	case c.User == "":
		v.add(p+"."+key, "add user: and the name that the other side knows", "%sCHAP names no user", who)
	case len(c.User) > 255 || strings.ContainsFunc(c.User, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		v.add(p+"."+key, "use at most 255 printable characters", "%sthe CHAP user name is not possible", who)
	}
	f := c.SecretFile
	switch {
	case f == "":
		v.add(p+".secretFile", "add secretFile: and the path of a file of mode 0600", "%sCHAP user %q has no secret", who, clip(c.User))
	case !strings.HasPrefix(f, "/") || strings.ContainsRune(f, 0):
		v.add(p+".secretFile", "write it from the root on, such as /etc/vtgt/chap.secret", "%sthe path %q is relative", who, clip(f))
	}
}

// accessChanges tells what differs in who may log in.
func accessChanges(a, b *TargetISCSI) []string {
	var zero TargetISCSI
	if a == nil {
		a = &zero
	}
	if b == nil {
		b = &zero
	}
	var out []string
	field := func(name string, x, y any) {
		if x != y {
			out = append(out, fmt.Sprintf("%s %v -> %v", name, x, y))
		}
	}
	field("chap", users(a.CHAP), users(b.CHAP))
	if users(a.CHAP) == users(b.CHAP) && !slices.Equal(a.CHAP, b.CHAP) {
		out = append(out, "chap: other secret files")
	}
	field("initiators", a.Initiators, b.Initiators)
	field("addresses", a.Addresses, b.Addresses)
	field("redirect", a.Redirect.String(), b.Redirect.String())
	field("prIdentity", a.prIdentity(), b.prIdentity())
	field("maxConnections", max(a.MaxConnections, 1), max(b.MaxConnections, 1))
	return out
}

// users are the names of CHAP users, mutual ones behind a slash.
func users(cs []CHAP) string {
	if len(cs) == 0 {
		return "none"
	}
	var out []string
	for _, c := range cs {
		n := c.User
		if c.Mutual.User != "" {
			n += "/" + c.Mutual.User
		}
		out = append(out, n)
	}
	return strings.Join(out, " ")
}

func (r Redirect) String() string {
	switch {
	case r.Address == "":
		return "none"
	case r.Permanent:
		return r.Address + " for good"
	}
	return r.Address
}

func (t *TargetISCSI) prIdentity() string {
	if t.PRIdentity == "" {
		return PRNameISID
	}
	return t.PRIdentity
}
