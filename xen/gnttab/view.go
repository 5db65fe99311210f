package gnttab

import (
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// A View is where granted pages are mapped. Its addresses stay reserved between two
// mappings, so that whoever comes too late faults and meets nobody else's memory. The
// zero value is ready; Free ends it.
type View struct {
	// B is what is mapped, nil: nothing.
	B []byte

	window []byte
	index  uint64
	arg    []byte
	refs   []uint32
}

// Window gives addresses for n pages, for Tables.
func (v *View) Window(n int) ([]byte, error) {
	if v.B != nil {
		return nil, fmt.Errorf("%d pages are mapped there", len(v.B)/PageSize)
	}
	if n <= 0 {
		return nil, fmt.Errorf("a mapping of %d pages", n)
	}
	if len(v.window) < n*PageSize {
		if err := v.Free(); err != nil {
			return nil, err
		}
		w, err := sys.MapReserve(n * PageSize)
		if err != nil {
			return nil, err
		}
		v.window = w
	}
	return v.window[: n*PageSize : n*PageSize], nil
}

// Hide takes the pages out of reach, for Tables.
func (v *View) Hide() error {
	if v.B == nil {
		return nil
	}
	if err := sys.MapHide(v.B); err != nil {
		return err
	}
	v.B = nil
	return nil
}

// Free gives the addresses back. Nothing may be mapped.
func (v *View) Free() error {
	if v.B != nil {
		return fmt.Errorf("%d pages are mapped still", len(v.B)/PageSize)
	}
	if v.window == nil {
		return nil
	}
	err := sys.MapRelease(v.window)
	v.window = nil
	return err
}

// SetRefs and Refs keep what is mapped, for Tables.
func (v *View) SetRefs(refs []uint32) { v.refs = append(v.refs[:0], refs...) }

// Refs are those of SetRefs.
func (v *View) Refs() []uint32 { return v.refs }
