package xentest

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/xen/evtchn/evtchntest"
	"github.com/vtgt/vtgt/xen/gnttab/gnttabtest"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/vscsiif"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// The xenbus states (xen/include/public/io/xenbus.h).
const (
	Initialising  = 1
	InitWait      = 2
	Initialised   = 3
	Connected     = 4
	Closing       = 5
	Closed        = 6
	Reconfiguring = 7
	Reconfigured  = 8
)

// Driver is xen-scsifront's part of xenbus for one device.
type Driver struct {
	m      *Machine
	be, fe string
	c      *xenstore.Conn // the domain's
	dom    *gnttabtest.Domain
	hub    *evtchntest.Hub
	done   chan struct{}

	mu    sync.Mutex
	ring  *Front
	state int
	disks map[string]bool // by v-dev
	flush map[string]int32
	deaf  bool
}

// Boot starts the driver of device d, whose nodes are there.
func (m *Machine) Boot(d nodes.Device) *Driver {
	m.TB.Helper()
	r := m.driver(d)
	go r.run()
	return r
}

func (m *Machine) driver(d nodes.Device) *Driver {
	m.TB.Helper()
	r := &Driver{m: m, be: d.BackendPath(), fe: d.FrontendPath(), c: m.Store.Dial(d.Domain), dom: m.Domain(d.Domain), hub: &m.Hub,
		done: make(chan struct{}), state: Initialising, disks: map[string]bool{}, flush: map[string]int32{}}
	if err := r.c.Watch(r.be+"/state", "s"); err != nil {
		m.TB.Fatal(err)
	}
	return r
}

// Resume starts the driver as one that was restored in another domain: it believes to be
// connected, and builds a new ring.
func (m *Machine) Resume(d nodes.Device) *Driver {
	m.TB.Helper()
	r := m.driver(d)
	r.NewRing()
	go r.run()
	return r
}

// NewRing builds a ring and offers it, as a driver does that was suspended.
func (d *Driver) NewRing() {
	f := NewFront(d.m.TB, d.dom, d.hub)
	d.mu.Lock()
	d.ring, d.state = f, Initialised
	clear(d.disks)
	d.mu.Unlock()
	d.offer(f, strconv.Itoa(Initialised))
}

func (d *Driver) offer(f *Front, state string) {
	if err := d.c.Update(func(tx *xenstore.Tx) error {
		for _, kv := range [][2]string{{"ring-ref", fmt.Sprint(f.Ref)}, {"event-channel", fmt.Sprint(f.Port.Num)}, {"state", state}} {
			if kv[1] == "" {
				continue
			}
			if err := tx.Write(d.fe+"/"+kv[0], kv[1]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil && !errors.Is(err, xenstore.ErrClosed) {
		d.m.TB.Error(err)
	}
}

// Store is the domain's connection to xenstored.
func (d *Driver) Store() *xenstore.Conn { return d.c }

// Ring is the present ring, nil before the first.
func (d *Driver) Ring() *Front {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ring
}

// Deafen has the driver do nothing any more, as in a domain that hangs or is paused.
func (d *Driver) Deafen(on bool) {
	d.mu.Lock()
	d.deaf = on
	d.mu.Unlock()
	if !on {
		d.look()
	}
}

func (d *Driver) run() {
	defer close(d.done)
	for {
		if _, err := d.c.Next(); err != nil {
			return
		}
		d.look()
	}
}

func (d *Driver) look() {
	v, err := d.c.Read(d.be + "/state")
	if errors.Is(err, fs.ErrNotExist) {
		d.mu.Lock()
		clear(d.disks) // xenbus unregisters the device
		d.mu.Unlock()
	}
	if err != nil {
		return
	}
	n, _ := strconv.Atoi(v)
	d.mu.Lock()
	deaf := d.deaf
	d.mu.Unlock()
	if !deaf {
		d.backend(n)
	}
}

// SetState writes the front end's state.
func (d *Driver) SetState(s int) {
	d.mu.Lock()
	d.state = s
	d.mu.Unlock()
	err := d.c.Write(d.fe+"/state", strconv.Itoa(s))
	if err != nil && !errors.Is(err, xenstore.ErrClosed) && !errors.Is(err, xenstore.ErrLost) && !errors.Is(err, fs.ErrPermission) { // the nodes have gone
		d.m.TB.Error(err)
	}
}

func (d *Driver) backend(s int) {
	d.mu.Lock()
	state := d.state
	d.mu.Unlock()
	switch {
	case s == InitWait && state == Initialising:
		f := NewFront(d.m.TB, d.dom, d.hub)
		d.mu.Lock()
		d.ring = f
		d.mu.Unlock()
		d.offer(f, "")
		d.SetState(Initialised)
	case s == Connected && state == Initialised, s == Reconfigured && state == Reconfiguring:
		if v, err := d.c.Read(d.be + "/feature-sg-grant"); err != nil || v != "512" {
			d.m.TB.Errorf("feature-sg-grant %q, %v", v, err)
		}
		d.luns(Initialised, d.add)
		d.SetState(Connected)
	case s == Reconfiguring && state == Connected:
		d.luns(Closing, func(node, vdev string) {
			a, _ := address(vdev)
			rslt := d.Ring().Do(CDBAt(a, vscsiif.NoData, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0)).Result() // sd_shutdown
			d.mu.Lock()
			d.flush[vdev] = rslt
			delete(d.disks, vdev)
			d.mu.Unlock()
			_ = d.c.Write(d.fe+"/vscsi-devs/"+node+"/state", "6")
		})
		d.SetState(Reconfiguring)
	case (s == Closing || s == Closed) && state != Closed:
		d.mu.Lock()
		clear(d.disks)
		d.mu.Unlock()
		d.SetState(Closed)
	}
}

// add is scsi_add_device.
func (d *Driver) add(node, vdev string) {
	a, ok := address(vdev)
	for range 4 {
		ok = ok && d.Ring().Do(CDBAt(a, vscsiif.NoData, 0, 0, 0, 0, 0, 0)).Result() != vscsiif.Result(vscsiif.HostNoConnect, 0)
	}
	if !ok {
		d.m.TB.Errorf("the disk at %s does not answer", vdev)
	}
	d.mu.Lock()
	d.disks[vdev] = true
	d.mu.Unlock()
	_ = d.c.Write(d.fe+"/vscsi-devs/"+node+"/state", "4")
}

func address(vdev string) (a vscsiif.Address, ok bool) {
	l := strings.Split(vdev, ":")
	if len(l) != 4 {
		return a, false
	}
	for i, p := range []*uint16{&a.Channel, &a.Target, &a.LUN} {
		n, err := strconv.ParseUint(l[i+1], 10, 16)
		if err != nil {
			return a, false
		}
		*p = uint16(n)
	}
	return a, true
}

func (d *Driver) luns(want int, f func(node, vdev string)) {
	l, _ := d.c.List(d.be + "/vscsi-devs")
	for _, n := range l {
		p := d.be + "/vscsi-devs/" + n
		if s, _ := d.c.Read(p + "/state"); s == strconv.Itoa(want) {
			v, _ := d.c.Read(p + "/v-dev")
			f(n, v)
		}
	}
}

// Has tells whether the domain's disks are those at vdevs.
func (d *Driver) Has(vdevs ...string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range vdevs {
		if !d.disks[v] {
			return false
		}
	}
	return len(d.disks) == len(vdevs)
}

// Flushed is the result of the last SYNCHRONIZE CACHE to the disk at vdev, sent when the
// back end asked to let go of it; false: it did not.
func (d *Driver) Flushed(vdev string) (rslt int32, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	rslt, ok = d.flush[vdev]
	return rslt, ok
}

// Wait waits until they are.
func (d *Driver) Wait(vdevs ...string) {
	d.m.TB.Helper()
	tempotest.Wait(d.m.TB, fmt.Sprint("disks ", vdevs), func() bool { return d.Has(vdevs...) })
}

// Off ends the driver as the end of its domain does, so to say.
func (d *Driver) Off() {
	_ = d.c.Close()
	<-d.done
	if f := d.Ring(); f != nil {
		f.Close()
	}
}
