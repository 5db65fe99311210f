package scsi

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// newFileRig is a target with two thin disks of size bytes in files, LUN 0 and 1.
func newFileRig(t *testing.T, dir string, size int64) (r *rig, us [2]*Unit) {
	t.Helper()
	g, err := loop.NewGroup(loop.Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	r = &rig{tb: t, g: g, tg: NewTarget(TargetConfig{Name: "t"})}
	r.p = r.tg.NewPort(goldenPort)
	for i := range us {
		st, err := backing.Open("file:"+filepath.Join(dir, string(rune('a'+i))), backing.Options{Group: g, Size: size, Create: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
		c := goldenConf()
		c.NAA, c.Shared, c.Thin = copyNAA+uint64(i), true, true
		if us[i], err = NewUnit(c, st); err != nil {
			t.Fatal(err)
		}
		if err := r.tg.Map(uint16(i), us[i], MapOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		done := make(chan int, 1)
		r.tg.Close(0, func(n int) { done <- n })
		if n := tempotest.Recv(t, done, "the end of the target"); n != 0 {
			t.Errorf("%d tasks stuck", n)
		}
	})
	return r, us
}

// Copying 1 GiB from one sparse file to another whose file system can share blocks moves
// no data: by EXTENDED COPY, and by a token.
func TestCopyMovesNothing(t *testing.T) {
	const size, data = 1 << 30, 96 << 20
	dir, moved := backingtest.Reflink(t, 1<<30)
	r, us := newFileRig(t, dir, size)
	n := r.attach(r.p, "i")
	for lun := range uint16(2) {
		n.run(EncodeLUN(lun), make([]byte, 6), nil, nil)
	}
	// Data in 96 places, each of another content.
	piece := pattern(1<<20, 1)
	rw := func(op byte, lun uint16, off int64, b []byte) {
		t.Helper()
		cdb := make([]byte, 16)
		cdb[0] = op
		binary.BigEndian.PutUint64(cdb[2:], uint64(off/512))
		binary.BigEndian.PutUint32(cdb[10:], uint32(len(b)/512))
		n.want(n.run(EncodeLUN(lun), cdb, [][]byte{b}, [][]byte{b}), "good")
	}
	for i := range int64(data >> 20) {
		binary.BigEndian.PutUint64(piece, uint64(i))
		rw(0x8a, 0, i*(size/96)>>20<<20, piece)
	}
	check := func() {
		t.Helper()
		got := make([]byte, len(piece))
		for i := range int64(data >> 20) {
			binary.BigEndian.PutUint64(piece, uint64(i))
			rw(0x88, 1, i*(size/96)>>20<<20, got)
			if !bytes.Equal(got, piece) {
				t.Fatalf("piece %d: other data", i)
			}
		}
		rw(0x88, 1, 1<<20, got)
		if !allZero(got) {
			t.Error("a hole is not zero")
		}
	}
	for _, by := range []string{"EXTENDED COPY", "token"} {
		n.want(n.run(EncodeLUN(1), unhex(t, "93 09 0000000000000000 00200000 00 00"), nil, nil), "good")
		before, begin := moved(), time.Now()
		if by == "token" {
			k := n.token(0, 0, size/512)
			n.want(n.writeToken(1, 2, writeTokenList(0, 0, k, rangeList(0, size/512))), "good")
		} else {
			var segs [][]byte
			for off := uint64(0); off < size; off += maxCopySegmentLen {
				segs = append(segs, byteSegment(0, 1, maxCopySegmentLen, off/512, off/512, 0, 0))
			}
			n.want(n.xcopy(0, copyParamList(1, 0, [][]byte{naaTarget(copyNAA, 512), naaTarget(copyNAA+1, 512)}, segs)), "good")
		}
		took := time.Since(begin)
		// The log and the inodes of the file system.
		if m := moved() - before; m > data/16 {
			t.Errorf("%s: %d bytes were moved for %d of data", by, m, data)
		} else {
			t.Logf("%s of 1 GiB with %d MiB of data: %d KiB moved, %.2f s", by, data>>20, m>>10, took.Seconds())
		}
		check()
	}
	if s := us[1].Stats(); s.ReadBytes < data {
		t.Errorf("%+v", s)
	}
}
