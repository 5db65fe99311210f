package gnttab

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/vtgt/vtgt/internal/sys"
)

// PageSize is that of grants, bytes.
const PageSize = 4096

// A Segment is a piece of a granted page.
type Segment struct {
	Ref      uint32 // grant reference
	Off, Len uint16 // bytes; Off+Len is at most PageSize
}

// A Table is the way to the memory of other domains. Its methods may be called on any
// goroutine, for different Batches and Views.
type Table interface {
	// Copy does all copies of b. The error is the call's; each copy has a status of
	// its own (Batch.Failed).
	Copy(b *Batch) error
	// Map maps the pages refs of domain domid into v, which holds none, side by
	// side; writable, if the domain has granted that. All or none.
	Map(v *View, domid uint32, refs []uint32, write bool) error
	// Unmap gives them back. v.B is out of reach afterwards, and the domain may use
	// its pages for something else.
	Unmap(v *View) error
	// Close closes the table. Views must be unmapped.
	Close() error
}

// The ioctls of gntdev.h: _IOC(_IOC_NONE, 'G', number, size).
const (
	ioMap   = 0x00184700
	ioUnmap = 0x00104701
	ioCopy  = 0x00104708
)

// DevicePath is the kernel's device.
const DevicePath = "/dev/xen/gntdev"

// Device is the kernel's Table.
type Device struct{ fd int }

// Open opens the device at path ("": DevicePath).
func Open(path string) (*Device, error) {
	if path == "" {
		path = DevicePath
	}
	fd, err := sys.OpenDevice(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is this a Xen domain with the module xen-gntdev?", path, err)
	}
	return &Device{fd}, nil
}

// Close closes the device.
func (d *Device) Close() error { return sys.Close(d.fd) }

// Copy is Table's.
func (d *Device) Copy(b *Batch) error {
	if b.n == 0 {
		return nil
	}
	// struct ioctl_gntdev_grant_copy: count, 4 bytes of padding, pointer.
	binary.NativeEndian.PutUint32(b.arg[:], uint32(b.n))
	binary.NativeEndian.PutUint64(b.arg[8:], sys.Address(b.ops))
	_, e := sys.Ioctl(d.fd, ioCopy, b.arg[:])
	runtime.KeepAlive(b)
	if e != 0 {
		return fmt.Errorf("grant copy: %w", e)
	}
	return nil
}

// mapArg is struct ioctl_gntdev_map_grant_ref: count, padding, index (the kernel's
// answer), and for each page domid and reference.
func mapArg(dst []byte, domid uint32, refs []uint32) []byte {
	ne := binary.NativeEndian
	dst = ne.AppendUint32(dst, uint32(len(refs)))
	dst = ne.AppendUint32(dst, 0)
	dst = ne.AppendUint64(dst, 0)
	for _, r := range refs {
		dst = ne.AppendUint32(ne.AppendUint32(dst, domid), r)
	}
	return dst
}

// unmapArg is struct ioctl_gntdev_unmap_grant_ref: index, count, padding.
func unmapArg(dst []byte, index uint64, n int) []byte {
	ne := binary.NativeEndian
	return ne.AppendUint32(ne.AppendUint32(ne.AppendUint64(dst, index), uint32(n)), 0)
}

// Map is Table's.
func (d *Device) Map(v *View, domid uint32, refs []uint32, write bool) error {
	w, err := v.Window(len(refs))
	if err != nil {
		return err
	}
	v.arg = mapArg(v.arg[:0], domid, refs)
	if _, e := sys.Ioctl(d.fd, ioMap, v.arg); e != 0 {
		return fmt.Errorf("mapping %d grants of domain %d: %w", len(refs), domid, e)
	}
	index := binary.NativeEndian.Uint64(v.arg[8:])
	// The pages themselves are mapped here: a bad reference shows now.
	if err := sys.MapFixed(w, d.fd, int64(index), write); err != nil {
		v.arg = unmapArg(v.arg[:0], index, len(refs))
		_, _ = sys.Ioctl(d.fd, ioUnmap, v.arg)
		_ = sys.MapHide(w) // a mapping that failed leaves a hole
		return fmt.Errorf("mapping %d grants of domain %d: %w", len(refs), domid, err)
	}
	v.B, v.index = w, index
	return nil
}

// Unmap is Table's.
func (d *Device) Unmap(v *View) error {
	if v.B == nil {
		return nil
	}
	b := v.B
	if err := v.Hide(); err != nil {
		return err
	}
	v.arg = unmapArg(v.arg[:0], v.index, len(b)/PageSize)
	if _, e := sys.Ioctl(d.fd, ioUnmap, v.arg); e != 0 {
		return fmt.Errorf("unmapping grants: %w", e)
	}
	return nil
}
