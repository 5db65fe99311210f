package evtchn

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// A Binder binds channels.
type Binder interface {
	// Bind makes the local end of the channel whose other end is port remote of
	// domain domid. It fails with EINVAL where that port is not there, was not
	// offered to this domain, or is bound: by a process before us that lives still.
	// The new channel rings at once.
	Bind(domid, remote uint32) (Channel, error)
}

// A Channel is a bound local end. It belongs to one goroutine.
type Channel interface {
	// FD is readable while the bell has rung.
	FD() int
	// Take takes the ringing and lets the next one through; false: it has not rung.
	Take() bool
	// Notify rings the other end's bell. It does not wait.
	Notify() error
	// Close gives the local end back: the other one is unbound then, and can be
	// bound again.
	Close() error
}

// The ioctls of evtchn.h: _IOC(_IOC_NONE, 'E', number, size).
const (
	ioBindInterdomain = 0x00084501
	ioNotify          = 0x00044504
)

// bindArg is struct ioctl_evtchn_bind_interdomain: remote_domain, remote_port.
func bindArg(domid, remote uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, domid), remote)
}

// DevicePath is the kernel's device.
const DevicePath = "/dev/xen/evtchn"

// Device is the kernel's Binder. The zero value is ready.
type Device struct {
	Path string // DevicePath
}

// Bind opens the device for one channel.
func (d Device) Bind(domid, remote uint32) (Channel, error) {
	path := d.Path
	if path == "" {
		path = DevicePath
	}
	fd, err := sys.OpenDevice(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is this a Xen domain with the module xen-evtchn?", path, err)
	}
	port, e := sys.Ioctl(fd, ioBindInterdomain, bindArg(domid, remote))
	if e != 0 {
		_ = sys.Close(fd)
		return nil, fmt.Errorf("binding event channel %d of domain %d: %w", remote, domid, e)
	}
	c := &channel{fd: fd}
	binary.NativeEndian.PutUint32(c.port[:], uint32(port))
	return c, nil
}

type channel struct {
	fd   int
	port [4]byte // struct ioctl_evtchn_notify, and what is written to unmask
	buf  [64]byte
}

func (c *channel) FD() int { return c.fd }

// Take reads the ports that have rung, which masks them, and writes ours to unmask it.
func (c *channel) Take() bool {
	n, err := sys.ReadNow(c.fd, c.buf[:])
	if err != nil || n < 4 {
		return false
	}
	_, err = sys.WriteNow(c.fd, c.port[:])
	return err == nil
}

func (c *channel) Notify() error {
	if _, e := sys.Ioctl(c.fd, ioNotify, c.port[:]); e != 0 {
		return e
	}
	return nil
}

func (c *channel) Close() error {
	if c.fd < 0 {
		return errors.New("event channel closed twice")
	}
	fd := c.fd
	c.fd = -1
	return sys.Close(fd) // unbinds
}
