package xen

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// maxLUN is the largest LUN that xen-scsifront takes (VSCSIIF_MAX_LUN).
const maxLUN = 254

// node is a device's entry below vscsi-devs.
type node struct {
	path  string
	state State
	lun   uint16
	addr  vscsiif.Address
	err   error
}

func (d *device) devs() string { return d.be + "/vscsi-devs" }

// nodes reads the entries, in the order of their names.
func (d *device) nodes(tx *xenstore.Tx) []node {
	names, err := tx.List(d.devs())
	if err != nil {
		return nil // none
	}
	slices.Sort(names)
	var l []node
	for _, n := range names {
		if !strings.HasPrefix(n, "dev-") {
			continue
		}
		x := node{path: d.devs() + "/" + n}
		st, err := tx.Read(x.path + "/state")
		if err != nil {
			continue // being made
		}
		k, _ := strconv.ParseUint(st, 10, 8)
		x.state = State(k)
		p, _ := tx.Read(x.path + "/p-dev")
		v, _ := tx.Read(x.path + "/v-dev")
		if x.lun, x.err = parsePhysical(p, d.e.conf.Name); x.err == nil {
			x.addr, x.err = parseVirtual(v)
		}
		l = append(l, x)
	}
	return l
}

// parsePhysical reads p-dev: the target's name, a colon and the LUN.
func parsePhysical(s, target string) (uint16, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || s[:i] != target {
		return 0, fmt.Errorf("p-dev is %q, not %s:LUN", s, target)
	}
	n, err := strconv.ParseUint(s[i+1:], 10, 14)
	if err != nil {
		return 0, fmt.Errorf("p-dev is %q, not %s:LUN", s, target)
	}
	return uint16(n), nil
}

// parseVirtual reads v-dev: host, which nobody looks at, channel, target and LUN.
func parseVirtual(s string) (a vscsiif.Address, err error) {
	l := strings.Split(s, ":")
	if len(l) != 4 {
		return a, fmt.Errorf("v-dev is %q, not H:C:T:L", s)
	}
	var host uint16
	for i, p := range []*uint16{&host, &a.Channel, &a.Target, &a.LUN} {
		n, err := strconv.ParseUint(l[i], 10, 16)
		if err != nil {
			return a, fmt.Errorf("v-dev is %q, not H:C:T:L", s)
		}
		*p = uint16(n)
	}
	return a, nil
}

// applyNodes makes the ring's devices what the nodes say: those in state Initialising
// come, those in Closing go. fresh: the front end has not met any of them yet.
func (d *device) applyNodes(tx *xenstore.Tx, fresh bool) error {
	m := lunMap{}
	set := func(x node, s State) error {
		if x.state == s {
			return nil
		}
		return tx.Write(x.path+"/state", strconv.Itoa(int(s)))
	}
	for _, x := range d.nodes(tx) {
		var err error
		_, double := m[x.addr]
		switch {
		case x.state == Closing:
			err = set(x, Closed)
		case x.state != Initialising && x.state != Initialised && x.state != Connected:
			continue
		case x.err != nil || double:
			if x.err == nil {
				x.err = fmt.Errorf("two devices at %d:%d:%d", x.addr.Channel, x.addr.Target, x.addr.LUN)
			}
			d.complain("a disk is not shown", "node", x.path, "why", x.err)
			err = set(x, Closed)
		default:
			m[x.addr] = x.lun
			if fresh || x.state == Initialising {
				err = set(x, Initialised)
			}
		}
		if err != nil {
			return err
		}
	}
	d.luns.Store(&m)
	return nil
}

// syncNodes writes the nodes that the target's LUNs want: new ones in Initialising,
// those of LUNs that are no more, or are elsewhere, in Closing.
func (d *device) syncNodes(tx *xenstore.Tx) (changed bool, err error) {
	if d.e.conf.Place == nil {
		return false, nil
	}
	want := d.e.luns()
	have := d.nodes(tx)
	for _, x := range have {
		live := x.state == Initialising || x.state == Initialised || x.state == Connected
		if live && x.err == nil && !slices.ContainsFunc(want, func(l LUN) bool { return l.Number == x.lun && l.At == x.addr }) {
			if err := tx.Write(x.path+"/state", strconv.Itoa(int(Closing))); err != nil {
				return false, err
			}
			changed = true
		}
	}
	for _, l := range want {
		// One that is elsewhere still goes first, and so does another one at its place.
		if slices.ContainsFunc(have, func(x node) bool { return x.err == nil && (x.lun == l.Number || x.addr == l.At) }) {
			continue
		}
		p := fmt.Sprintf("%s/dev-%d", d.devs(), l.Number)
		for _, kv := range [][2]string{
			{"p-dev", fmt.Sprintf("%s:%d", d.e.conf.Name, l.Number)},
			{"v-dev", fmt.Sprintf("%d:%d:%d:%d", l.Host, l.At.Channel, l.At.Target, l.At.LUN)}, {"state", "1"},
		} {
			if err := tx.Write(p+"/"+kv[0], kv[1]); err != nil {
				return false, err
			}
		}
		changed = true
	}
	return changed, nil
}

// shows tells whether a connected front end has a LUN, or has not let go of it yet. Any
// goroutine.
func (d *device) shows(lun uint16) bool {
	d.mu.Lock()
	up := d.ring != nil && (d.fs == Connected || d.fs == Reconfiguring || d.fs == Reconfigured)
	d.mu.Unlock()
	return up && slices.ContainsFunc(d.nodes(&d.h.xs().Tx), func(x node) bool { return x.err == nil && x.lun == lun })
}

// settle is the front end's news that it has met the devices: they are connected, and
// those that went have no node any more. Then comes the next change, if there is one.
func (d *device) settle(bs State) error {
	return d.h.xs().Update(func(tx *xenstore.Tx) error {
		for _, x := range d.nodes(tx) {
			var err error
			switch {
			case x.state == Initialised:
				err = tx.Write(x.path+"/state", strconv.Itoa(int(Connected)))
			case x.state == Closed && x.err == nil:
				err = tx.Remove(x.path)
			}
			if err != nil {
				return err
			}
		}
		changed, err := d.syncNodes(tx)
		switch {
		case err != nil:
			return err
		case changed:
			return tx.Write(d.be+"/state", strconv.Itoa(int(Reconfiguring)))
		case bs != Connected:
			return tx.Write(d.be+"/state", strconv.Itoa(int(Connected)))
		}
		return nil
	})
}
