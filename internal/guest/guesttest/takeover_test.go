package guesttest

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
	"github.com/vtgt/vtgt/internal/handover"
)

// takeover starts another vtgt in the place of the one that runs, and waits for the end
// of that.
func (h *host) takeover() {
	h.t.Helper()
	was, done := h.cmd, h.done
	h.startWith("--takeover")
	select {
	case <-done:
	case <-time.After(patience):
		h.t.Fatal("the vtgt before does not end")
	}
	if c := was.ProcessState.ExitCode(); c != 0 {
		h.t.Errorf("the vtgt before ended with %d", c)
	}
}

// pauses are what the vtgts have said of pauses.
func (h *host) pauses() (out []string) {
	for l := range strings.Lines(h.text()) {
		if _, p, ok := strings.Cut(strings.TrimSpace(l), "pause="); ok {
			out = append(out, p)
		}
	}
	return out
}

// failedTakeover begins one and gives it up before it is ready.
func (h *host) failedTakeover() {
	h.t.Helper()
	nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(h.dir, "state", "takeover.sock"), Net: "unix"})
	if err != nil {
		h.t.Fatal(err)
	}
	c := handover.NewConn(nc)
	defer c.Close()
	if err := c.Send(1, []byte(`{"version":1}`), nil, patience); err != nil {
		h.t.Fatal(err)
	}
	kind, b, set, err := c.Recv(patience)
	if err != nil || kind != 3 {
		h.t.Fatalf("frame %d: %v %s", kind, err, b)
	}
	set.Close()
}

// TestTakeover puts vtgt after vtgt in the place of the one before, under a guest of the
// host's QEMU that writes and verifies. That cannot connect anew if it is QEMU 7.2: it
// must not notice. With VTGT_TAKEOVER_ROUNDS, that often.
func TestTakeover(t *testing.T) {
	kernel, err := wantGuest(t).Kernel()
	if err != nil {
		t.Fatal(err)
	}
	_, seed := random(t)
	n := rounds(t, "VTGT_TAKEOVER_ROUNDS", 3)
	h := newHost(t)
	h.write(h.config(reconnectConfig))
	h.start()
	vm, err := guest.Boot(guest.Options{
		Dir: t.TempDir(), CPUs: 2, MemMB: 320, Life: time.Hour,
		Image: &guest.Image{Kernel: kernel, Boot: []string{"virtio_pci", "virtio_scsi", "sd_mod", "crc32c_generic"}},
		Args:  vhostDevice("c", filepath.Join(h.dir, "vm.sock"), ",num_queues=2"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	const dev, jobs, slot, area = "/dev/sda", 16, 8192, 32 << 20
	beginWork(t, vm, agent.Request{Path: dev, Jobs: jobs, Size: slot, Len: area, Seed: seed})
	sound(t, vm, jobs, 100)
	for round := range n {
		h.failedTakeover()
		sound(t, vm, jobs, 50)
		h.takeover()
		p := sound(t, vm, jobs, 100)
		t.Logf("round %d: %d writes, %d reads, longest %d ms", round, p.Writes, p.Reads, p.Longest)
	}
	t.Logf("pauses: %s", strings.Join(h.pauses(), ", "))
	p := endWork(t, vm)
	h.stop()
	checkSlots(t, filepath.Join(h.dir, "data.img"), seed, slot, p.Sequence)
}

const takeoverISCSI = `disks:
  - {name: data, store: "file:DIR/data.img", create: true, size: 64MiB}
targets:
  - {name: t, luns: [{lun: 0, disk: data}], iscsi: {iqn: "iqn.2026-11.org.vtgt:takeover"}}
`

// TestTakeoverISCSI does the same under the Linux initiator, with digests: its session goes
// on by the same connection.
func TestTakeoverISCSI(t *testing.T) {
	wantGuest(t)
	const iqn = "iqn.2026-11.org.vtgt:takeover"
	_, seed := random(t)
	n := rounds(t, "VTGT_TAKEOVER_ROUNDS", 3)
	h := newHost(t)
	h.write(h.config(takeoverISCSI))
	h.start()
	g := bootLinux(t)
	if out, err := g.iscsistart(iqn, h.port, digests); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	session, _ := g.session(iqn)
	disk := g.disk(session, "0")
	if err := g.vm.Put("/sys/block/"+disk+"/device/timeout", "120"); err != nil {
		t.Fatal(err)
	}
	const jobs, slot, area = 8, 65536, 32 << 20
	if err := g.vm.Work(agent.Request{Path: "/dev/" + disk, Jobs: jobs, Size: slot, Len: area, Seed: seed}); err != nil {
		t.Fatal(err)
	}
	sound(t, g.vm, jobs, 50)
	before, mark := h.sessions(), g.mark()
	for round := range n {
		h.failedTakeover()
		sound(t, g.vm, jobs, 20)
		h.takeover()
		p := sound(t, g.vm, jobs, 50)
		t.Logf("round %d: %d writes, %d reads, longest %d ms", round, p.Writes, p.Reads, p.Longest)
	}
	t.Logf("pauses: %s", strings.Join(h.pauses(), ", "))
	after := h.sessions()
	if len(before) != 1 || len(after) != 1 || after[0].TSIH != before[0].TSIH || after[0].Connections[0].Remote != before[0].Connections[0].Remote {
		t.Errorf("the session is another one: %+v, it was %+v", after, before)
	}
	p, err := g.vm.Worked(true, 2*patience)
	if err != nil || len(p.Errors) > 0 {
		t.Fatalf("the guest sees %v %v", p.Errors, err)
	}
	quiet(t, g.vm)
	log, err := g.vm.Log()
	if err != nil {
		t.Fatal(err)
	}
	if l := log[min(mark, len(log)):]; strings.Contains(l, "conn error") {
		t.Errorf("the guest's log: %s", l)
	}
	if err := g.vm.Poweroff(); err != nil {
		t.Error(err)
	}
	h.stop()
	checkSlots(t, filepath.Join(h.dir, "data.img"), seed, slot, p.Sequence)
}
