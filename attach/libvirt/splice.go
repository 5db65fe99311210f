package libvirt

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Changes in the text of a domain's XML, which leave all else as it is: what libvirtxml
// does not know would be lost on the way through it.

const qemuSpace = "http://libvirt.org/schemas/domain/qemu/1.0"

// element is where one stands in the text: from its start tag on, inside it, and behind
// its end tag.
type element struct {
	start, in, out, end int
	attr                []xml.Attr
}

func (e *element) value(name string) string {
	for _, a := range e.attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// elements finds the elements at a path, such as domain/devices/controller. A name with
// a prefix "qemu:" is in QEMU's namespace.
func elements(text string, path ...string) ([]element, error) {
	var found []element
	var stack []string
	var open []element
	dec := xml.NewDecoder(strings.NewReader(text))
	matches := func() bool {
		if len(stack) != len(path) {
			return false
		}
		for i := range path {
			if stack[i] != path[i] {
				return false
			}
		}
		return true
	}
	for {
		at := int(dec.InputOffset())
		t, err := dec.Token()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the domain's XML is not understood: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			n := t.Name.Local
			if t.Name.Space == qemuSpace {
				n = "qemu:" + n
			}
			stack = append(stack, n)
			open = append(open, element{start: at, in: int(dec.InputOffset()), attr: t.Copy().Attr})
		case xml.EndElement:
			e := open[len(open)-1]
			e.out, e.end = at, int(dec.InputOffset())
			if matches() {
				found = append(found, e)
			}
			stack, open = stack[:len(stack)-1], open[:len(open)-1]
		}
	}
}

// quote makes text the value of an attribute in single quotes.
func quote(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", "\n", "&#10;", "\t", "&#9;", "\r", "&#13;").Replace(s)
}

// portSuffix ends the id of a root port that is on the command line with its device.
const portSuffix = "-port"

// commandLineArgs are the arguments for a vhost-user device at a bus and, unless it is
// negative, a slot. With ownPort the slot is that of a root port of its own.
func commandLineArgs(id, socket, bus string, slot int, ownPort bool) []string {
	// A comma in the path of a chardev is doubled.
	args := []string{"-chardev", "socket,id=" + id + ",path=" + strings.ReplaceAll(socket, ",", ",,")}
	device := func(d map[string]any) {
		b, _ := json.Marshal(d) // strings and numbers, keys in order
		args = append(args, "-device", string(b))
	}
	d := map[string]any{"driver": "vhost-user-scsi-pci", "id": id, "chardev": id, "bus": bus}
	switch {
	case ownPort:
		// libvirt's ports have the chassis 1 and up, ours those from 128 on.
		device(map[string]any{"driver": "pcie-root-port", "id": id + portSuffix, "bus": bus, "addr": fmt.Sprintf("0x%x", slot), "chassis": 128 + slot})
		d["bus"] = id + portSuffix
	case slot >= 0:
		d["addr"] = fmt.Sprintf("0x%x", slot)
	}
	device(d)
	return args
}

// commandLineXML is the element, for people too.
func commandLineXML(indent string, args []string) string {
	var b strings.Builder
	b.WriteString(indent + "<qemu:commandline>\n")
	for _, a := range args {
		fmt.Fprintf(&b, "%s  <qemu:arg value='%s'/>\n", indent, quote(a))
	}
	b.WriteString(indent + "</qemu:commandline>\n")
	return b.String()
}

// addArgs adds arguments to <qemu:commandline>.
func addArgs(text string, args []string) (string, error) {
	es, err := elements(text, "domain", "qemu:commandline")
	if err != nil {
		return "", err
	}
	if len(es) > 0 {
		e := es[0]
		if text[e.in-2] == '/' { // <qemu:commandline/>
			return text[:e.start] + strings.TrimSpace(commandLineXML("", args)) + text[e.end:], nil
		}
		// With the prefix that the element has.
		name := text[e.start+1 : e.start+strings.IndexAny(text[e.start:], " \t\r\n>/")]
		prefix := strings.TrimSuffix(name, "commandline")
		var b strings.Builder
		for _, a := range args {
			fmt.Fprintf(&b, "\n    <%sarg value='%s'/>", prefix, quote(a))
		}
		return text[:e.in] + b.String() + text[e.in:], nil
	}
	ds, err := elements(text, "domain")
	if err != nil {
		return "", err
	}
	if len(ds) != 1 || text[ds[0].in-2] == '/' {
		return "", fmt.Errorf("the domain's XML is not understood: it is no <domain>")
	}
	d := ds[0]
	head, body := text[:d.in-1], text[d.in-1:d.out]
	space := true
	for _, a := range d.attr {
		space = space && !(a.Name.Space == "xmlns" && a.Name.Local == "qemu")
	}
	if space {
		head += " xmlns:qemu='" + qemuSpace + "'"
	}
	return head + body + commandLineXML("  ", args) + text[d.out:], nil
}

// removeArgs takes the arguments of a vhost-user device of this id away. found tells
// whether there were any.
func removeArgs(text, id string) (out string, found bool, err error) {
	as, err := elements(text, "domain", "qemu:commandline", "qemu:arg")
	if err != nil {
		return "", false, err
	}
	drop := map[int]bool{}
	for i := 0; i+1 < len(as); i++ {
		v := as[i+1].value("value")
		switch as[i].value("value") {
		case "-chardev":
			if !strings.HasPrefix(v, "socket,id="+id+",") {
				continue
			}
		case "-device":
			var dev struct{ ID string }
			if json.Unmarshal([]byte(v), &dev) != nil || dev.ID != id && dev.ID != id+portSuffix {
				continue
			}
		default:
			continue
		}
		drop[i], drop[i+1] = true, true
	}
	if len(drop) == 0 {
		return text, false, nil
	}
	if len(drop) == len(as) {
		es, err := elements(text, "domain", "qemu:commandline")
		if err != nil {
			return "", false, err
		}
		envs, err := elements(text, "domain", "qemu:commandline", "qemu:env")
		if err != nil {
			return "", false, err
		}
		if len(es) == 1 && len(envs) == 0 {
			return cut(text, es[0]), true, nil
		}
	}
	for i := len(as) - 1; i >= 0; i-- {
		if drop[i] {
			text = cut(text, as[i])
		}
	}
	return text, true, nil
}

// cut takes an element away, with the blanks before it.
func cut(text string, e element) string {
	return strings.TrimRight(text[:e.start], " \t\r\n") + text[e.end:]
}

// addPort adds a root port at a slot of bus 0. Without an address of its own libvirt
// would make a function of another port's slot of it, and leave a trace there.
func addPort(text string, n, slot int) (string, error) {
	es, err := elements(text, "domain", "devices")
	if err != nil {
		return "", err
	}
	if len(es) != 1 || text[es[0].in-2] == '/' {
		return "", fmt.Errorf("the domain's XML is not understood: it has no <devices>")
	}
	return text[:es[0].out] + fmt.Sprintf("  <controller type='pci' index='%d' model='pcie-root-port'><address type='pci' domain='0x0000' bus='0x00' slot='0x%02x' function='0x0'/></controller>\n  ", n, slot) + text[es[0].out:], nil
}

// removePort takes a root port away that nothing is on.
func removePort(text string, n int) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	if buses, _ := d.taken(); buses[n] || d.mentions(fmt.Sprintf("pci.%d", n)) {
		return text, nil
	}
	es, err := elements(text, "domain", "devices", "controller")
	if err != nil {
		return "", err
	}
	for _, e := range es {
		if e.value("type") == "pci" && e.value("index") == strconv.Itoa(n) && e.value("model") == "pcie-root-port" {
			return cut(text, e), nil
		}
	}
	return text, nil
}
