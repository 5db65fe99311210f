package vhost_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// TestClientScans replays what drivers send to a new host, and holds every answer
// against what is written beside it and against the standards' formats.
func TestClientScans(t *testing.T) {
	files, err := filepath.Glob("testdata/scan/*.txt")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			r := newRig(t, rigOptions{maps: []mapping{{0, 0, 0}, {1, 0, 1}, {1, 1, 2}, {1, 300, 3}}})
			c := r.dial(vhosttest.Options{})
			s := &scan{T: t, q: c.Request(0), luns: map[uint8][]uint16{0: {0}, 1: {0, 1, 300}}}
			s.file(f)
		})
	}
}

type scan struct {
	*testing.T
	q      *vhosttest.Queue
	luns   map[uint8][]uint16
	target uint8
	lun    uint16
	every  int // targets, 0: only this one
	length int // that the last answer has announced
}

func (s *scan) file(name string) {
	f, err := os.Open(name)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	n := 0
	for l := bufio.NewScanner(f); l.Scan(); {
		line, _, _ := strings.Cut(l.Text(), "#")
		w := strings.Fields(line)
		switch {
		case len(w) == 0:
		case w[0] == "at":
			s.target, s.lun = uint8(s.number(w[1])), uint16(s.number(w[2]))
		case w[0] == "every":
			s.every = s.number(w[1]) + 1
		default:
			s.line(line)
			n++
		}
	}
	if n < 30 {
		s.Errorf("%d commands", n)
	}
}

func (s *scan) number(w string) int {
	n, err := strconv.Atoi(w)
	if err != nil {
		s.Fatal(err)
	}
	return n
}

func (s *scan) line(line string) {
	parts := strings.Split(line, ";")
	if len(parts) != 3 {
		s.Fatalf("%q", line)
	}
	fill := func(w string) string {
		w = strings.ReplaceAll(w, "++", fmt.Sprintf("%02x%02x", s.length>>8, s.length&0xff))
		return strings.ReplaceAll(w, "+", fmt.Sprintf("%02x", s.length&0xff))
	}
	room := s.length
	if w := strings.TrimSpace(parts[0]); w != "+" && w != "++" {
		room = s.number(w)
	}
	cdb, err := hex.DecodeString(strings.ReplaceAll(fill(parts[1]), " ", ""))
	if err != nil {
		s.Fatal(line, err)
	}
	want := strings.Split(parts[2], " or ")
	if s.every > 0 {
		for i := range s.every {
			if _, here := s.luns[uint8(i)]; !here {
				s.run(vhosttest.LUN(uint8(i), 0), cdb, room, want)
			}
		}
		s.every = 0
		return
	}
	s.run(vhosttest.LUN(s.target, s.lun), cdb, room, want)
}

const unwritten = 0xa5

func (s *scan) run(lun [8]byte, cdb []byte, room int, want []string) {
	what := fmt.Sprintf("LUN % x, CDB % x", lun[:4], cdb)
	// The guest's buffer has old contents, and the device knows no other length
	// than the buffer's.
	in := bytes.Repeat([]byte{unwritten}, room)
	x, err := s.q.ExecOver(lun, cdb, nil, in)
	if err != nil {
		s.Fatal(what, err)
	}
	got := "absent"
	n := 0
	switch {
	case x.Response == 0 && x.Status == 0:
		n = int(x.Written) - vhosttest.RespBytes
		got = fmt.Sprintf("good %d", n)
		if n < 0 || n > room || int(x.Resid) != room-n {
			s.Errorf("%s: %d bytes written of %d, residual %d", what, n, room, x.Resid)
			return
		}
		if i := slices.IndexFunc(in[n:], func(b byte) bool { return b != unwritten }); i >= 0 {
			s.Errorf("%s: byte %d was written, the answer has %d", what, n+i, n)
		}
		s.answer(what, lun, cdb, in[:n], room)
	case x.Response == 0 && x.Status == 2:
		key, asc := x.SenseCode()
		got = fmt.Sprintf("%x/%04x", key, asc)
		if x.Written != vhosttest.RespBytes || x.SenseLen < 18 {
			s.Errorf("%s: %d bytes written, %d of sense", what, x.Written, x.SenseLen)
		}
	case x.Response != vhosttest.RespBadTarget:
		got = outcome(x)
	}
	for _, w := range want {
		w = strings.TrimSpace(w)
		if w == got || w == "good" && strings.HasPrefix(got, "good") && (room == 0 || n > 0) {
			return
		}
	}
	s.Errorf("%s: %s; want %s", what, got, strings.Join(want, " or"))
}

// answer checks the contents of b, as much as there is, and notes the length that it
// announces.
func (s *scan) answer(what string, lun [8]byte, cdb, b []byte, room int) {
	bad := func(format string, a ...any) { s.Errorf("%s: %s: % x", what, fmt.Sprintf(format, a...), b) }
	be := binary.BigEndian
	// whole wants as many bytes as the answer says it has, or as fit.
	whole := func(n int) bool {
		s.length = n
		if len(b) != min(n, room) {
			bad("it announces %d bytes", n)
		}
		return len(b) == n
	}
	switch {
	case cdb[0] == 0x12 && cdb[1] == 0:
		if len(b) < 36 {
			bad("short")
			return
		}
		whole(int(b[4]) + 5)
		if b[0] != 0 || b[1] != 0 || b[2] < 5 || b[2] > 7 || b[3]&0x0f != 2 || b[7]&2 == 0 {
			bad("qualifier and type, removable, version, format or CMDQUE")
		}
		if !text(b[8:36]) || string(b[8:16]) != "vtgt    " {
			bad("names")
		}
		if len(b) > 56 && !zero(b[36:56]) {
			bad("vendor specific bytes")
		}
	case cdb[0] == 0x12:
		if len(b) < 4 || b[0] != 0 || b[1] != cdb[2] {
			bad("head")
			return
		}
		if whole(4 + int(be.Uint16(b[2:]))) {
			s.page(bad, b)
		}
	case cdb[0] == 0xa0:
		want := s.luns[lun[1]]
		whole(8 + 8*len(want))
		for i := 8; i+8 <= len(b); i += 8 {
			w := vhosttest.LUN(0, want[i/8-1])
			if !bytes.Equal(b[i:i+2], w[2:4]) || !zero(b[i+2:i+8]) {
				bad("LUN at byte %d, want % x", i, w[2:4])
			}
		}
		if be.Uint32(b) != uint32(8*len(want)) {
			bad("length")
		}
	case cdb[0] == 0x25:
		if be.Uint32(b) != diskBytes/512-1 || be.Uint32(b[4:]) != 512 {
			bad("capacity")
		}
	case cdb[0] == 0x9e && cdb[1] == 0x10:
		if be.Uint64(b) != diskBytes/512-1 || be.Uint32(b[8:]) != 512 || b[12] != 0 || b[13] != 3 || b[14]&0xc0 != 0xc0 || !zero(b[16:]) {
			bad("capacity, protection, exponent or provisioning")
		}
	case cdb[0] == 0x1a:
		if len(b) < 4 || len(b) > 4 && len(b) != min(room, int(b[0])+1) {
			bad("length")
			return
		}
		if b[1] != 0 || b[2]&0x80 != 0 || b[2]&0x10 == 0 || b[3] != 0 && b[3] != 8 {
			bad("header: write protected, or no DPOFUA")
		}
		if len(b) == int(b[0])+1 {
			s.modePages(bad, cdb[2]&0x3f, b[4+int(b[3]):])
		}
	case cdb[0] == 0x5a:
		if len(b) < 8 || len(b) != min(room, int(be.Uint16(b))+2) {
			bad("length")
			return
		}
		if len(b) == int(be.Uint16(b))+2 {
			s.modePages(bad, cdb[2]&0x3f, b[8+int(be.Uint16(b[6:])):])
		}
	case cdb[0] == 0xa3 && cdb[1] == 0x0c && cdb[2]&7 == 1:
		if s := b[1] & 7; s != 1 && s != 3 || s == 3 && len(b) != 4+int(be.Uint16(b[2:])) || s == 3 && b[4] != cdb[3] {
			bad("support")
		}
	case cdb[0] == 0xa3 && cdb[1] == 0x0c:
		whole(4 + int(be.Uint32(b)))
	case cdb[0] == 0x5e:
		if n := 8 + int(be.Uint32(b[4:])); cdb[1] < 2 && (n != 8 || len(b) != 8) || cdb[1] == 2 && be.Uint16(b) != 8 {
			bad("reservations")
		}
	case cdb[0] == 0x9e && cdb[1] == 0x12:
		if n := 4 + int(be.Uint32(b)); n < 24 || n > len(b) || (n-8)%16 != 0 {
			bad("length")
		}
	case cdb[0] == 0x28 || cdb[0] == 0x88:
		if !zero(b) {
			s.Errorf("%s: a new disk is not zero", what)
		}
	}
}

// page checks a whole VPD page.
func (s *scan) page(bad func(string, ...any), b []byte) {
	be := binary.BigEndian
	switch b[1] {
	case 0x00:
		if !slices.IsSorted(b[4:]) || b[4] != 0 {
			bad("order")
		}
		for _, p := range []byte{0x80, 0x83, 0xb0, 0xb1, 0xb2} {
			if !bytes.Contains(b[4:], []byte{p}) {
				bad("page %02x is missing", p)
			}
		}
		for _, p := range b[4:] {
			in := make([]byte, 512)
			if x, err := s.q.Exec(vhosttest.LUN(s.target, s.lun), []byte{0x12, 1, p, 2, 0, 0}, nil, in); err != nil || x.Status != 0 || in[1] != p {
				bad("page %02x is listed and not there", p)
			}
		}
	case 0x80:
		if len(b) < 5 || len(b) > 4+64 || !text(b[4:]) {
			bad("serial number")
		}
	case 0x83:
		naa(s.T, b)
		for i := 4; i < len(b); i += 4 + int(b[i+3]) {
			if set, assoc, typ := b[i]&15, b[i+1]>>4&3, b[i+1]&15; set < 1 || set > 3 || assoc > 2 || typ > 10 || b[i+3] == 0 || i+4+int(b[i+3]) > len(b) {
				bad("designator at byte %d", i)
				return
			}
		}
		if len(b) > 252 {
			bad("more than drivers' buffers of 255 bytes hold")
		}
	case 0xb0:
		most, best := be.Uint32(b[8:]), be.Uint32(b[12:])
		if len(b) != 64 || most != 0 && best > most {
			bad("limits")
		}
		if be.Uint32(b[20:]) == 0 {
			bad("no UNMAP on a thin disk")
		}
	case 0xb1:
		if r := be.Uint16(b[4:]); len(b) != 64 || r > 1 && r < 0x401 || r == 0xffff {
			bad("rotation rate")
		}
	case 0xb2:
		if len(b) < 8 || b[5]&0x80 == 0 || b[6]&7 != 2 {
			bad("provisioning")
		}
	}
}

// modePages checks that the pages end where their lengths say.
func (s *scan) modePages(bad func(string, ...any), want byte, b []byte) {
	seen := 0
	for len(b) > 0 {
		n := 2
		if b[0]&0x40 != 0 {
			if len(b) < 4 {
				bad("cut subpage")
				return
			}
			n = 4 + int(binary.BigEndian.Uint16(b[2:]))
		} else if len(b) >= 2 {
			n = 2 + int(b[1])
		}
		if n > len(b) || want != 0x3f && b[0]&0x3f != want {
			bad("page %02x with %d bytes", b[0], n)
			return
		}
		seen++
		b = b[n:]
	}
	if seen == 0 {
		bad("no page")
	}
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func text(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c < 0x20 || c > 0x7e })
}
