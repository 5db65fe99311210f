package libvirt

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	lx "libvirt.org/go/libvirtxml"
)

// definition is a domain's XML, to be looked at. Changes are made in its text, or by
// libvirt: what this version of libvirtxml does not know must survive.
type definition struct {
	text string
	*lx.Domain
}

func parse(text string) (*definition, error) {
	d := &definition{text, &lx.Domain{}}
	if err := d.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("the domain's XML is not understood: %w", err)
	}
	if d.Devices == nil {
		d.Devices = &lx.DomainDeviceList{}
	}
	return d, nil
}

// virtioSCSI tells whether a controller speaks virtio-scsi.
func virtioSCSI(c *lx.DomainController) bool {
	return c.Type == "scsi" && strings.HasPrefix(c.Model, "virtio")
}

func index(c *lx.DomainController) int {
	if c.Index == nil {
		return -1
	}
	return int(*c.Index)
}

// scsi finds the controller of an index among those for SCSI.
func (d *definition) scsi(n int) *lx.DomainController {
	for i := range d.Devices.Controllers {
		if c := &d.Devices.Controllers[i]; c.Type == "scsi" && index(c) == n {
			return c
		}
	}
	return nil
}

// maxUnit is how many units of a controller's target 0 are given away.
const maxUnit = 256

// place finds the lowest virtio-scsi controller, and a unit on it, that is free in all
// definitions; where one has no such controller, it is to be made.
func place(defs ...*definition) (controller, unit int) {
	best, bestHave := -1, -1
	for n := range 64 {
		have, fits := 0, true
		for _, d := range defs {
			if c := d.scsi(n); c != nil {
				fits = fits && virtioSCSI(c)
				have++
			}
		}
		if fits && have > bestHave {
			best, bestHave = n, have
		}
	}
	used := map[int]bool{}
	for _, d := range defs {
		for _, u := range d.units(best) {
			used[u] = true
		}
	}
	for unit < maxUnit && used[unit] {
		unit++
	}
	return best, unit
}

// units are those that are taken on a SCSI controller's target 0.
func (d *definition) units(controller int) (us []int) {
	add := func(a *lx.DomainAddress) {
		if a == nil || a.Drive == nil || a.Drive.Unit == nil {
			return
		}
		if c := a.Drive.Controller; (c == nil && controller == 0) || c != nil && int(*c) == controller {
			us = append(us, int(*a.Drive.Unit))
		}
	}
	for i := range d.Devices.Disks {
		if k := &d.Devices.Disks[i]; k.Target != nil && k.Target.Bus == "scsi" {
			add(k.Address)
		}
	}
	for i := range d.Devices.Hostdevs {
		if h := &d.Devices.Hostdevs[i]; h.SubsysSCSI != nil {
			add(h.Address)
		}
	}
	return us
}

// freeName is the first sdX that no disk of the definitions has.
func freeName(defs ...*definition) string {
	used := map[string]bool{}
	for _, d := range defs {
		for i := range d.Devices.Disks {
			if t := d.Devices.Disks[i].Target; t != nil {
				used[t.Dev] = true
			}
		}
	}
	for n := 0; ; n++ {
		s := ""
		for i := n; ; i = i/26 - 1 {
			s = string(rune('a'+i%26)) + s
			if i < 26 {
				break
			}
		}
		if !used["sd"+s] {
			return "sd" + s
		}
	}
}

// disk finds a disk by its alias.
func (d *definition) disk(alias string) *lx.DomainDisk {
	for i := range d.Devices.Disks {
		if k := &d.Devices.Disks[i]; k.Alias != nil && k.Alias.Name == alias {
			return k
		}
	}
	return nil
}

// pcie tells whether the machine has PCI Express, so that devices go on root ports;
// plain, whether it has a plain PCI bus.
func (d *definition) pcie() (pcie, plain bool) {
	for i := range d.Devices.Controllers {
		c := &d.Devices.Controllers[i]
		if c.Type == "pci" && index(c) == 0 {
			pcie, plain = pcie || c.Model == "pcie-root", plain || c.Model == "pci-root"
		}
	}
	return pcie, plain
}

// ports are the indices of root ports into which can be plugged, highest first.
func (d *definition) ports() (ps []int) {
	for i := range d.Devices.Controllers {
		c := &d.Devices.Controllers[i]
		if c.Type != "pci" || c.Model != "pcie-root-port" || index(c) < 0 {
			continue
		}
		if c.PCI != nil && c.PCI.Target != nil && c.PCI.Target.Hotplug == "off" {
			continue
		}
		ps = append(ps, index(c))
	}
	slices.Sort(ps)
	slices.Reverse(ps)
	return ps
}

// pciAddress finds the addresses of devices on PCI buses. The text is looked at, since
// there are some thirty kinds of devices that have one.
var pciAddress = regexp.MustCompile(`<address\s+type=['"]pci['"][^>]*\sbus=['"](0x)?([0-9a-fA-F]+)['"](?:[^>]*\sslot=['"](0x)?([0-9a-fA-F]+)['"])?`)

// taken are the PCI buses, and the slots of bus 0, on which devices of libvirt's are.
func (d *definition) taken() (buses, slots map[int]bool) {
	buses, slots = map[int]bool{}, map[int]bool{}
	num := func(hex, s string) int {
		base := 10
		if hex != "" {
			base = 16
		}
		n, err := strconv.ParseInt(s, base, 32)
		if err != nil {
			return -1
		}
		return int(n)
	}
	for _, m := range pciAddress.FindAllStringSubmatch(d.text, -1) {
		b := num(m[1], m[2])
		buses[b] = true
		if b == 0 && m[4] != "" {
			slots[num(m[3], m[4])] = true
		}
	}
	return buses, slots
}

// commandLine are the arguments of <qemu:commandline>.
func (d *definition) commandLine() (args []string) {
	if d.QEMUCommandline != nil {
		for _, a := range d.QEMUCommandline.Args {
			args = append(args, a.Value)
		}
	}
	return args
}

// freePorts are the root ports that neither a device of libvirt's nor an argument is on,
// highest first.
func (d *definition) freePorts() (ps []int) {
	buses, _ := d.taken()
	for _, p := range d.ports() {
		if !buses[p] && !d.mentions(fmt.Sprintf("pci.%d", p)) {
			ps = append(ps, p)
		}
	}
	return ps
}

// topSlot is the highest slot of bus 0 that is given away: on the machine q35 the chipset
// has what is above.
const topSlot = 0x1c

// freeSlot is the highest free slot of bus 0; -1 where there is none. libvirt takes the
// lowest.
func (d *definition) freeSlot() int {
	_, slots := d.taken()
	for s := topSlot; s > 1; s-- {
		if !slots[s] && !d.mentions(fmt.Sprintf("0x%x", s)) {
			return s
		}
	}
	return -1
}

// mentions tells whether an argument of the command line has a word.
func (d *definition) mentions(word string) bool {
	w := regexp.MustCompile(`\b` + regexp.QuoteMeta(word) + `\b`)
	return slices.ContainsFunc(d.commandLine(), w.MatchString)
}

// nextPort is an index for a new root port.
func (d *definition) nextPort() int {
	most := 0
	for i := range d.Devices.Controllers {
		if c := &d.Devices.Controllers[i]; c.Type == "pci" {
			most = max(most, index(c))
		}
	}
	return most + 1
}

// shared tells whether the definition has the guest's memory shared with other
// processes.
func (d *definition) shared() bool {
	if b := d.MemoryBacking; b != nil && b.MemoryAccess != nil && b.MemoryAccess.Mode == "shared" {
		return true
	}
	if d.CPU == nil || d.CPU.Numa == nil || len(d.CPU.Numa.Cell) == 0 {
		return false
	}
	for _, c := range d.CPU.Numa.Cell {
		if c.MemAccess != "shared" {
			return false
		}
	}
	return true
}
