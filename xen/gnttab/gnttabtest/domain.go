package gnttabtest

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/xen/gnttab"
)

// Domain is a domain's memory. Any goroutine.
type Domain struct {
	ID  uint32
	tb  testing.TB
	fd  int
	mem []byte

	mu     sync.Mutex
	grants map[uint32]*grant
	last   uint32
	free   []int // pages
	maps   int
	copies uint64
	calls  uint64
}

type grant struct {
	page     int
	readOnly bool
	mapped   int
}

// NewDomain makes one with n pages of memory. It ends with the test.
func NewDomain(tb testing.TB, id uint32, n int) *Domain {
	tb.Helper()
	fd, err := sys.NewMemfd("gnttabtest", int64(n*gnttab.PageSize))
	if err != nil {
		tb.Fatal(err)
	}
	mem, err := sys.MapShared(fd, 0, n*gnttab.PageSize)
	if err != nil {
		tb.Fatal(err)
	}
	d := &Domain{ID: id, tb: tb, fd: fd, mem: mem, grants: map[uint32]*grant{}, last: 7}
	for i := n - 1; i >= 0; i-- {
		d.free = append(d.free, i)
	}
	return d
}

// Free gives the memory back. Nothing may be mapped.
func (d *Domain) Free() {
	if d.Maps() != 0 {
		d.tb.Errorf("%d pages are mapped at the domain's end", d.Maps())
	}
	_ = sys.Unmap(d.mem)
	_ = sys.Close(d.fd)
}

// Alloc takes a page, and gives its bytes.
func (d *Domain) Alloc() (page int, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.free) == 0 {
		d.tb.Error("the domain has no page left")
		return 0, d.mem[:gnttab.PageSize]
	}
	page = d.free[len(d.free)-1]
	d.free = d.free[:len(d.free)-1]
	return page, d.Page(page)
}

// Page is a page's bytes.
func (d *Domain) Page(page int) []byte {
	return d.mem[page*gnttab.PageSize:][:gnttab.PageSize:gnttab.PageSize]
}

// Release gives a page back.
func (d *Domain) Release(page int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = append(d.free, page)
}

// Grant grants a page.
func (d *Domain) Grant(page int, readOnly bool) (ref uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	d.grants[d.last] = &grant{page: page, readOnly: readOnly}
	return d.last
}

// End takes a grant back; false: the page is mapped still.
func (d *Domain) End(ref uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.grants[ref].mapped > 0 {
		return false
	}
	delete(d.grants, ref)
	return true
}

// Maps is how many pages are mapped.
func (d *Domain) Maps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.maps
}

// Copies is how many copies there were, in how many calls.
func (d *Domain) Copies() (ops, calls uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.copies, d.calls
}

// Table is the Table by which this domain's memory is reached; other domains have none.
func (d *Domain) Table() gnttab.Table { return (*table)(d) }

type table Domain

func (t *table) Close() error { return nil }

func (t *table) Copy(b *gnttab.Batch) error {
	d := (*Domain)(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	for i := range b.Len() {
		dom, s, local, put := b.Op(i)
		g := d.grants[s.Ref]
		switch {
		case int(s.Off)+int(s.Len) > gnttab.PageSize:
			return syscall.EINVAL // so does gntdev
		case uint32(dom) != d.ID:
			b.SetStatus(i, -2)
		case g == nil:
			b.SetStatus(i, -3)
		case put && g.readOnly:
			b.SetStatus(i, -8)
		case put:
			copy(d.Page(g.page)[s.Off:], local)
			b.SetStatus(i, gnttab.OK)
		default:
			copy(local, d.Page(g.page)[s.Off:])
			b.SetStatus(i, gnttab.OK)
		}
		d.copies++
	}
	return nil
}

func (t *table) Map(v *gnttab.View, domid uint32, refs []uint32, write bool) error {
	d := (*Domain)(t)
	w, err := v.Window(len(refs))
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range refs {
		if g := d.grants[r]; domid != d.ID || g == nil || write && g.readOnly {
			return fmt.Errorf("grant %d of domain %d: %w", r, domid, syscall.EINVAL)
		}
	}
	for i, r := range refs {
		g := d.grants[r]
		if err := sys.MapFixed(w[i*gnttab.PageSize:][:gnttab.PageSize], d.fd, int64(g.page)*gnttab.PageSize, write); err != nil {
			return errors.Join(err, sys.MapHide(w))
		}
		g.mapped++
		d.maps++
	}
	v.B = w
	v.SetRefs(refs)
	return nil
}

func (t *table) Unmap(v *gnttab.View) error {
	d := (*Domain)(t)
	if v.B == nil {
		return nil
	}
	if err := v.Hide(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range v.Refs() {
		d.grants[r].mapped--
		d.maps--
	}
	return nil
}
