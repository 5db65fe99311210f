package guesttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

const (
	bootIQN = "iqn.2026-11.org.vtgt:boot"
	dataIQN = "iqn.2026-11.org.vtgt:data"
)

const linuxConfig = `disks:
  - {name: boot, store: "file:DIR/boot.img", size: 64MiB, create: true}
  - {name: data, store: "file:DIR/data.img", create: true, size: 96MiB, serial: "SERIAL-OF-DATA"}
%s
targets:
  - {name: boot, luns: [{lun: 0, disk: boot}], iscsi: {iqn: "` + bootIQN + `"}}
  - {name: data, luns: [{lun: 0, disk: data}%s], iscsi: {iqn: "` + dataIQN + `"}}
`

// What is added live.
const (
	moreDisk = `  - {name: more, store: "mem:", size: 16MiB}`
	moreLUN  = ", {lun: 3, disk: more}"
)

// TestLinux drives vtgt with the kernel initiator, by both of open-iscsi's ways in.
func TestLinux(t *testing.T) {
	wantGuest(t)
	h := newHost(t)
	h.write(h.config(fmt.Sprintf(linuxConfig, "", "")))
	h.start()
	g := bootLinux(t)
	var data string // the data disk's kernel name

	g.step(h, "iscsistart", func(t *testing.T) {
		if out, err := g.iscsistart(bootIQN, h.port, digests); err != nil {
			t.Fatal(out, err)
		}
		s, number := g.session(bootIQN)
		g.digestsOn(t, number)
		h.digestsOn(t, bootIQN)
		g.fileSystem(t, "/dev/"+g.disk(s, "0"), 1)
	})

	g.step(h, "iscsid", func(t *testing.T) {
		g.startDaemon()
		if err := g.login(dataIQN, h.port, digests); err != nil {
			t.Fatal(err)
		}
		s, number := g.session(dataIQN)
		g.digestsOn(t, number)
		h.digestsOn(t, dataIQN)
		data = g.disk(s, "0")
		g.fileSystem(t, "/dev/"+data, 2)
	})

	g.step(h, "identity", func(t *testing.T) {
		dev := "/sys/block/" + data + "/device"
		want := h.disks()["data"]
		for _, f := range []struct{ name, want string }{{"vendor", "VTGT"}, {"type", "0"}} {
			if v := g.read(dev + "/" + f.name); v != f.want {
				t.Errorf("%s is %q, want %q", f.name, v, f.want)
			}
		}
		inquiry, err := g.vm.Read(dev + "/inquiry")
		if err != nil || len(inquiry) < 36 || !strings.HasPrefix(inquiry[8:], "VTGT") {
			t.Errorf("INQUIRY data %q, %v", inquiry, err)
		}
		if v, err := g.vm.Read(dev + "/vpd_pg80"); err != nil || !strings.Contains(v, want.Serial) || want.Serial != "SERIAL-OF-DATA" {
			t.Errorf("serial number page %q, %v, want %q", v, err, want.Serial)
		}
		// Linux prefers the SCSI name string, with the zeros that end and pad it.
		if v := strings.TrimRight(g.read(dev+"/wwid"), "\x00"); !strings.EqualFold(v, "naa."+want.NAA) {
			t.Errorf("wwid is %q, want naa.%s", v, want.NAA)
		}
	})

	g.step(h, "discovery", func(t *testing.T) {
		// The addresses are the host's own, which the guest cannot use.
		out := g.run("/sbin/iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", fmt.Sprintf("%s:%d", hostAddress, h.port), "-o", "nonpersistent")
		for _, iqn := range []string{bootIQN, dataIQN} {
			if !strings.Contains(out, iqn) {
				t.Errorf("SendTargets: no %s in %s", iqn, out)
			}
		}
	})

	g.step(h, "added LUN", func(t *testing.T) {
		s, number := g.session(dataIQN)
		mark := g.mark()
		h.apply(fmt.Sprintf(linuxConfig, moreDisk, moreLUN))
		g.touch(t, data)
		g.logged(mark, "LUN assignments on this target have changed")
		if p := g.glob(s + "/device/target*/*:3/block/*"); len(p) > 0 {
			t.Errorf("%s is there before the rescan", p)
		}
		g.put(scsiHost(g, number)+"/scan", "- - -")
		more := g.disk(s, "3")
		if v := g.read("/sys/block/" + more + "/size"); v != strconv.Itoa(16<<20/512) {
			t.Errorf("its size is %s sectors", v)
		}
		g.pattern(t, agent.Fill, agent.Request{Path: "/dev/" + more, Seed: 7, Len: 1 << 20, Direct: true})
		g.pattern(t, agent.Check, agent.Request{Path: "/dev/" + more, Seed: 7, Len: 1 << 20, Direct: true})
	})

	g.step(h, "grown disk", func(t *testing.T) {
		mark := g.mark()
		const size = 128 << 20
		if err := os.Truncate(filepath.Join(h.dir, "data.img"), size); err != nil {
			t.Fatal(err)
		}
		poll(t, "vtgt sees the new size", func() error {
			if n := h.disks()["data"].Size; n != size {
				return fmt.Errorf("it is %d", n)
			}
			return nil
		})
		g.touch(t, data)
		g.logged(mark, "apacity data has changed")
		if v := g.read("/sys/block/" + data + "/size"); v != strconv.Itoa(96<<20/512) {
			t.Errorf("the guest has %s sectors before the rescan", v)
		}
		g.put("/sys/block/"+data+"/device/rescan", "1")
		if v := g.read("/sys/block/" + data + "/size"); v != strconv.Itoa(size/512) {
			t.Errorf("the guest has %s sectors", v)
		}
		end := agent.Request{Path: "/dev/" + data, Seed: 9, Off: size - 1<<20, Len: 1 << 20, Direct: true}
		g.pattern(t, agent.Fill, end)
		g.pattern(t, agent.Check, end)
	})

	g.step(h, "CHAP", func(t *testing.T) { g.chap(t, h) })

	g.step(h, "logout", func(t *testing.T) {
		if err := g.logout(dataIQN, h.port); err != nil {
			t.Fatal(err)
		}
		for _, s := range h.sessions() {
			if s.IQN == dataIQN {
				t.Errorf("a session is left: %+v", s)
			}
		}
	})
}

// step is a subtest that later ones build upon.
func (g *linux) step(h *host, name string, f func(t *testing.T)) {
	t := g.t
	t.Helper()
	begin := time.Now()
	if !t.Run(name, func(sub *testing.T) {
		g.t, h.t = sub, sub
		defer func() { g.t, h.t = t, t }()
		f(sub)
	}) {
		t.FailNow()
	}
	t.Logf("%s: %.1f s", name, time.Since(begin).Seconds())
}

// startDaemon starts iscsid.
func (g *linux) startDaemon() {
	g.t.Helper()
	// One attempt, so that a wrong password is refused once and at once.
	g.put("/etc/iscsi/iscsid.conf", "node.startup = manual\nnode.session.initial_login_retry_max = 1\nnode.conn[0].timeo.login_timeout = "+peerTime+"\nnode.conn[0].timeo.noop_out_timeout = "+peerTime+"\n")
	if _, err := g.vm.Spawn("/sbin/iscsid", "-f"); err != nil {
		g.t.Fatal(err)
	}
	poll(g.t, "iscsid listens", func() error {
		s, err := g.vm.Read("/proc/net/unix")
		if err == nil && !strings.Contains(s, "ISCSIADM_ABSTRACT_NAMESPACE") {
			err = fmt.Errorf("no socket")
		}
		return err
	})
}

// digestsOn wants both digests on as the guest's kernel sees it.
func (g *linux) digestsOn(t *testing.T, number string) {
	t.Helper()
	for _, f := range []string{"header_digest", "data_digest"} {
		if v := g.read("/sys/class/iscsi_connection/connection" + number + ":0/" + f); v != "1" {
			t.Errorf("the guest's %s is %s", f, v)
		}
	}
}

// digestsOn wants both digests on as vtgt sees it.
func (h *host) digestsOn(t *testing.T, iqn string) {
	t.Helper()
	for _, s := range h.sessions() {
		if s.IQN == iqn {
			if s.Params["HeaderDigest"] != "CRC32C" || s.Params["DataDigest"] != "CRC32C" || s.Initiator != initiatorName {
				t.Errorf("vtgt says %+v", s)
			}
			return
		}
	}
	t.Errorf("vtgt has no session with %s", iqn)
}

// fileSystem makes one, fills it, checks it and reads it back.
func (g *linux) fileSystem(t *testing.T, dev string, seed uint64) {
	t.Helper()
	const dir, n = "/mnt", 24 << 20
	g.run("/sbin/mkfs.ext4", "-q", "-F", dev)
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(g.vm.Mount(dev, dir, "ext4", ""))
	file := agent.Request{Path: dir + "/file", Seed: seed, Len: n, Create: true}
	g.pattern(t, agent.Fill, file)
	try(g.vm.Umount(dir))
	out, err := g.vm.Run("/sbin/e2fsck", "-f", "-n", dev)
	if err != nil {
		t.Fatal("the file system is not clean: ", out, err)
	}
	g.put("/proc/sys/vm/drop_caches", "3")
	try(g.vm.Mount(dev, dir, "ext4", "ro"))
	g.pattern(t, agent.Check, file)
	try(g.vm.Umount(dir))
}

func (g *linux) pattern(t *testing.T, op agent.Op, q agent.Request) {
	t.Helper()
	q.Op = op
	if _, err := g.vm.Do(q, patience); err != nil {
		t.Fatal(err)
	}
}

// touch sends a command, which brings what unit attentions wait.
func (g *linux) touch(t *testing.T, disk string) {
	t.Helper()
	if err := g.vm.ReadDirect("/dev/"+disk, 4096); err != nil {
		t.Fatal(err)
	}
}

// scsiHost is the SCSI host's folder of a session.
func scsiHost(g *linux, number string) string {
	g.t.Helper()
	p := g.glob("/sys/class/iscsi_host/host*/device/session" + number)
	if len(p) != 1 {
		g.t.Fatalf("hosts of session %s: %v", number, p)
	}
	f := strings.Split(p[0], "/")
	return "/sys/class/scsi_host/" + f[4]
}
