package guesttest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

const copyIQN = "iqn.2026-11.org.vtgt:copy"

// Two disks that a domain sees, and two of which an iSCSI initiator sees one: a is
// everybody's, b only the domain's, c only the initiator's.
const copyConfig = `disks:
  - {name: a, store: "file:DIR/a.img", thin: true, shared: true}
  - {name: b, store: "file:DIR/b.img", thin: true, create: true, size: 1GiB}
  - {name: c, store: "file:DIR/c.img", thin: true, create: true, size: 1GiB}
targets:
  - {name: vm, luns: [{lun: 0, disk: a}, {lun: 1, disk: b}], vhost: {socket: "DIR/vm.sock", initiator: 5d0b3d5e-5a1c-4a86-9b65-0123456789ab}}
  - {name: net, luns: [{lun: 0, disk: a}, {lun: 1, disk: c}], iscsi: {iqn: "` + copyIQN + `"}}
`

const copySize = 1 << 30

// TestThirdPartyCopy has sg_xcopy (sg3-utils) and ddpt, in a Linux guest, copy 1 GiB
// between two sparse disks: by EXTENDED COPY, by tokens, tokens kept in a file, and a
// token of zeros. What one nexus may do with its disks is of no use to another.
func TestThirdPartyCopy(t *testing.T) {
	wantGuest(t)
	h := newHost(t)
	a, b, c := filepath.Join(h.dir, "a.img"), filepath.Join(h.dir, "b.img"), filepath.Join(h.dir, "c.img")
	scatter(t, a)
	h.write(h.config(copyConfig))
	h.start()
	g := bootCopy(t, h)
	dev := func(host, lun string) string {
		p, err := g.vm.Await("/sys/class/scsi_device/"+host+":0:0:"+lun+"/device/scsi_generic/*", patience)
		if err != nil {
			t.Fatal(err)
		}
		d := "/dev/" + filepath.Base(p)
		g.run("/usr/bin/sg_requests", "--num=8", d) // the unit attentions of power on
		return d
	}
	ringA, ringB := dev("0", "0"), dev("0", "1")
	if out, err := g.iscsistart(copyIQN, h.port, nil); err != nil {
		t.Fatal(out, err)
	}
	netA, netC := dev("1", "0"), dev("1", "1")

	// exec runs a program that ends well or not.
	exec := func(ok bool, args ...string) string {
		t.Helper()
		begin := time.Now()
		r, err := g.vm.Do(agent.Request{Op: agent.Exec, Args: args, Seconds: int(patience.Seconds())}, 2*patience)
		if err != nil {
			t.Fatal(err)
		}
		if (r.Exit == 0) != ok {
			t.Errorf("%s: exit status %d: %s", strings.Join(args, " "), r.Exit, r.Out)
		}
		t.Logf("%.1f s: %s", time.Since(begin).Seconds(), strings.Join(args, " "))
		return string(r.Out)
	}
	// same compares what is where data are, and next to it.
	same := func(what, x, y string) {
		t.Helper()
		for i := range int64(scattered + 1) {
			off := min(place(i), copySize-2*scatterLen)
			if at := differ(t, x, y, off, 2*scatterLen); at >= 0 {
				t.Fatalf("%s: other data at %d", what, at)
			}
		}
	}
	blank := func(device, path string) {
		t.Helper()
		exec(true, "/usr/bin/sg_write_same", "--16", "--ndob", "--unmap", "--lba=0", fmt.Sprint("--num=", copySize/512), device)
		if n := used(t, path); n > 1<<20 {
			t.Errorf("%s has %d bytes after UNMAP", path, n)
		}
	}

	t.Run("sg_xcopy", func(t *testing.T) {
		exec(true, "/usr/bin/sg_xcopy", "if="+ringA, "of="+ringB, "bs=512", "bpt=65535")
		if at := differ(t, a, b, 0, copySize); at >= 0 {
			t.Errorf("sg_xcopy: other data at %d", at)
		}
		if x, y := used(t, a), used(t, b); y > x+x/4 {
			t.Errorf("the copy takes %d bytes of %d", y, x)
		}
		out := exec(true, "/usr/bin/sg_copy_results", "-p", ringA)
		for _, want := range []string{"Maximum target descriptor count: 8", "Maximum segment descriptor count: 64", "descriptor 0x02", "descriptor 0x0a", "descriptor 0xe4"} {
			if !strings.Contains(out, want) {
				t.Errorf("sg_copy_results: no %q in %s", want, out)
			}
		}
		blank(netC, c)
		exec(true, "/usr/bin/sg_xcopy", "if="+netA, "of="+netC, "bs=512", "bpt=65535")
		same("sg_xcopy over iSCSI", a, c)
	})
	t.Run("ddpt, EXTENDED COPY", func(t *testing.T) {
		blank(ringB, b)
		// One command: ddpt 0.97 does not go on behind the first.
		const from, n = 20 << 20, 30 << 20
		exec(true, "/usr/bin/ddpt", "if="+ringA, "of="+ringB, "bs=512", "iflag=xcopy", "bpt=65535",
			fmt.Sprint("skip=", from/512), fmt.Sprint("seek=", from/512), fmt.Sprint("count=", n/512))
		if at := differ(t, a, b, from, n); at >= 0 {
			t.Errorf("ddpt by EXTENDED COPY: other data at %d", at)
		}
		if at := differ(t, a, b, 0, from); at < 0 {
			t.Error("ddpt by EXTENDED COPY: more than was asked for")
		}
	})
	// ddpt 0.97 puts block device range descriptors one byte ahead of their place, so
	// that its numbers, of blocks and LBAs, are 256 times as many to the target. Its own
	// copies then wonder about the transfer count; ddptctl does not.
	t.Run("ddpt, tokens", func(t *testing.T) {
		all := fmt.Sprintf("0,%d", copySize/512/256)
		for _, x := range []struct{ from, to, path string }{{ringA, ringB, b}, {netA, netC, c}} {
			blank(x.to, x.path)
			exec(true, "/usr/bin/ddptctl", "--pt="+all, "--rtf=/tmp/token", x.from)
			out := exec(true, "/usr/bin/ddptctl", "--wut="+all, "--rtf=/tmp/token", x.to)
			if want := fmt.Sprint("transfer count of ", copySize/512); !strings.Contains(out, want) {
				t.Errorf("no %q in %s", want, out)
			}
			same("ddptctl by a token", a, x.path)
			blank(x.to, x.path)
			exec(true, "/usr/bin/ddptctl", "--immed", "--list_id=300", "--wut="+all, "--rtf=/tmp/token", x.to)
			out = exec(true, "/usr/bin/ddptctl", "--poll", "--list_id=300", x.to)
			if !strings.Contains(out, "completed without errors") {
				t.Errorf("IMMED: %s", out)
			}
			same("ddptctl by a token, IMMED", a, x.path)
		}
		exec(true, "/usr/bin/ddpt", "if=/dev/null", "rtype=zero", "bs=512", "of="+ringB, "seek="+all)
		if n := used(t, b); n > 1<<20 {
			t.Errorf("%d bytes after zeros by a token", n)
		}
		out := exec(true, "/usr/bin/ddptctl", "--info", ringA)
		for _, want := range []string{"Populate token", "access upon reference", "block device zero", "Maximum Range Descriptors: 128"} {
			if !strings.Contains(strings.ToLower(out), strings.ToLower(want)) {
				t.Errorf("ddptctl: no %q in %s", want, out)
			}
		}
	})
	t.Run("another nexus", func(t *testing.T) {
		blank(ringB, b)
		blank(netC, c)
		// A token of the domain's is unknown to the initiator, and the other way round;
		// also of the disk that both see.
		const some, there = "0,8", "16,8"
		exec(true, "/usr/bin/ddptctl", "--pt="+some, "--rtf=/tmp/ring", ringA)
		exec(true, "/usr/bin/ddptctl", "--pt="+some, "--rtf=/tmp/net", netA)
		for _, x := range [][2]string{{"/tmp/ring", netC}, {"/tmp/ring", netA}, {"/tmp/net", ringB}, {"/tmp/net", ringA}} {
			out := exec(false, "/usr/bin/ddptctl", "-v", "--wut="+there, "--rtf="+x[0], x[1])
			if !strings.Contains(strings.ToLower(out), "token unknown") {
				t.Errorf("%v: %s", x, out)
			}
		}
		// Disks that are not both mapped to the one who is asked.
		for _, x := range []struct{ ask, from, to string }{
			{"--on_src", ringA, netC}, {"--on_dst", netC, ringA}, {"--on_dst", ringB, netA}, {"--on_src", netA, ringB},
			{"--on_src", ringB, netC}, {"--on_dst", ringB, netC}, {"--on_src", netC, ringB}, {"--on_dst", netC, ringB},
		} {
			exec(false, "/usr/bin/sg_xcopy", x.ask, "if="+x.from, "of="+x.to, "bs=512", "count=64", "seek=4096")
		}
		if n := used(t, b) + used(t, c); n > 1<<20 {
			t.Errorf("%d bytes were written", n)
		}
		// Each by its own.
		exec(true, "/usr/bin/ddptctl", "--wut="+there, "--rtf=/tmp/net", netC)
		exec(true, "/usr/bin/ddptctl", "--wut="+there, "--rtf=/tmp/ring", ringB)
		same("tokens from files", b, c)
		if n := used(t, b); n < 64<<10 {
			t.Errorf("%d bytes were written", n)
		}
	})
}

// Pieces of data in the sparse file, their length, and where the first scattered ones are.
const (
	scattered  = 100
	scatterLen = 64 << 10
)

func place(i int64) int64 { return i * (copySize / scattered) &^ 511 }

// scatter makes a sparse file of 1 GiB with data here and there.
func scatter(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(copySize); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, scatterLen)
	for i := range int64(scattered + 1) {
		for j := range block {
			block[j] = byte(int(i)*7 + j*j>>3)
		}
		if _, err := f.WriteAt(block, min(place(i), copySize-scatterLen)); err != nil {
			t.Fatal(err)
		}
	}
}

// differ is where two files differ in n bytes from off on, -1: nowhere.
func differ(t *testing.T, x, y string, off, n int64) int64 {
	t.Helper()
	const piece = 4 << 20
	var fs [2]*os.File
	for i, p := range []string{x, y} {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fs[i] = f
	}
	b := [2][]byte{make([]byte, min(n, piece)), make([]byte, min(n, piece))}
	for end := off + n; off < end; off += piece {
		k := min(end-off, piece)
		for i, f := range fs {
			if _, err := f.ReadAt(b[i][:k], off); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(b[0][:k], b[1][:k]) {
			return off
		}
	}
	return -1
}

// used is what a file takes of its file system, bytes.
func used(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// bootCopy boots a guest with the programs that copy.
func bootCopy(t *testing.T, h *host) *linux {
	t.Helper()
	roots, err := wantGuest(t).Packages("ddpt")
	if err != nil {
		t.Fatal(err)
	}
	more := []guest.Binary{{Root: roots[0], Path: "/usr/bin/ddpt"}, {Root: roots[0], Path: "/usr/bin/ddptctl"}}
	return bootAllWith(t, more, guest.Options{Net: true, CPUs: 2, Args: vhostDevice("c", filepath.Join(h.dir, "vm.sock"), ",num_queues=2")})[0]
}
