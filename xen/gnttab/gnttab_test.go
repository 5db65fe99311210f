package gnttab

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/sys"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The bytes are those of a little-endian machine, which is what Xen runs on.
func TestGolden(t *testing.T) {
	if got, want := mapArg(nil, 3, []uint32{8, 0x01020304}), unhex("02000000 00000000 0000000000000000 03000000 08000000 03000000 04030201"); !bytes.Equal(got, want) {
		t.Errorf("map: %x", got)
	}
	if got, want := unmapArg(nil, 0x5000, 2), unhex("0050000000000000 02000000 00000000"); !bytes.Equal(got, want) {
		t.Errorf("unmap: %x", got)
	}
	var b Batch
	buf := make([]byte, 512)
	b.Get(3, Segment{Ref: 9, Off: 0x100, Len: 512}, buf)
	b.Put(3, Segment{Ref: 10, Off: 0x200, Len: 16}, buf)
	for i := range 8 { // the address is not the same twice
		b.ops[8+i], b.ops[opLen+i] = 0xaa, 0xbb
	}
	want := unhex("09000000 0001 0300 aaaaaaaaaaaaaaaa 0002 0100 0000 0000" +
		"bbbbbbbbbbbbbbbb 0a000000 0002 0300 1000 0200 0000 0000")
	if !bytes.Equal(b.ops, want) {
		t.Errorf("copy: %x", b.ops)
	}
	if dom, s, l, put := b.Op(0); dom != 3 || s != (Segment{9, 0x100, 512}) || len(l) != 512 || put {
		t.Error(dom, s, len(l), put)
	}
	if dom, s, l, put := b.Op(1); dom != 3 || s != (Segment{10, 0x200, 16}) || len(l) != 16 || !put {
		t.Error(dom, s, len(l), put)
	}
	if i, _ := b.Failed(); i != -1 {
		t.Error(i)
	}
	b.SetStatus(1, -3)
	if i, s := b.Failed(); i != 1 || s != -3 {
		t.Error(i, s)
	}
	if ioMap != 24<<16|'G'<<8|0 || ioUnmap != 16<<16|'G'<<8|1 || ioCopy != 16<<16|'G'<<8|8 {
		t.Error("ioctl numbers")
	}
	if n := testing.AllocsPerRun(100, func() {
		b.Reset()
		b.Get(3, Segment{9, 0, 512}, buf)
		b.Put(3, Segment{9, 0, 512}, buf)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestView(t *testing.T) {
	var v View
	if _, err := v.Window(0); err == nil {
		t.Error("no pages")
	}
	w, err := v.Window(2)
	if err != nil || len(w) != 2*PageSize {
		t.Fatal(len(w), err)
	}
	fd, err := sys.NewMemfd("test", 2*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(fd)
	if err := sys.MapFixed(w, fd, 0, true); err != nil {
		t.Fatal(err)
	}
	v.B = w
	v.B[4097] = 1
	if _, err := v.Window(1); err == nil {
		t.Error("mapped twice")
	}
	if err := v.Free(); err == nil {
		t.Error("freed while mapped")
	}
	if err := v.Hide(); err != nil || v.B != nil {
		t.Error(err)
	}
	if w, err = v.Window(100); err != nil || len(w) != 100*PageSize {
		t.Error(len(w), err)
	}
	if err := v.Free(); err != nil {
		t.Error(err)
	}
}

func TestNoDevice(t *testing.T) {
	if _, err := Open(t.TempDir() + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	d, err := Open("/dev/null") // which knows none of the calls
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b Batch
	if err := d.Copy(&b); err != nil {
		t.Error("nothing to copy:", err)
	}
	b.Get(1, Segment{1, 0, 8}, make([]byte, 8))
	if err := d.Copy(&b); err == nil {
		t.Error("copied")
	}
	var v View
	if err := d.Map(&v, 1, []uint32{1}, true); err == nil || v.B != nil {
		t.Error("mapped")
	}
	if err := d.Unmap(&v); err != nil {
		t.Error("nothing to unmap:", err)
	}
	if err := v.Free(); err != nil {
		t.Error(err)
	}
}
