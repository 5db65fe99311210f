package guesttest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

const sharedConfig = `disks:
  - {name: data, store: "file:DIR/data.img", create: true, size: 64MiB, shared: true}
targets:
  - {name: net, luns: [{lun: 0, disk: data}], iscsi: {iqn: "` + dataIQN + `"}}
  - {name: vm, luns: [{lun: 0, disk: data}], vhost: {socket: "DIR/vm.sock"}}
`

// member is a guest of a cluster that shares a disk, with the part of it that is its
// to write.
type member struct {
	*linux
	name, dev, key string
	seed           uint64
	off            int64
}

const (
	memberArea = 8 << 20
	memberSlot = 4096
	memberJobs = 4
)

// TestSharedDisk has two guests share a disk, one over iSCSI and one over
// vhost-user-scsi. Each in turn fences the other, as cluster managers do it, while both
// write: the one that is fenced writes no more, the other notices nothing.
func TestSharedDisk(t *testing.T) {
	wantGuest(t)
	h := newHost(t)
	h.write(h.config(sharedConfig))
	h.start()
	gs := bootAll(t, guest.Options{Net: true, MemMB: 192}, guest.Options{MemMB: 192, Args: vhostDevice("c", filepath.Join(h.dir, "vm.sock"), "")})
	if out, err := gs[0].iscsistart(dataIQN, h.port, nil); err != nil {
		t.Fatal(out, err)
	}
	a := &member{linux: gs[0], name: "the iSCSI guest", key: "0xa", seed: 1}
	b := &member{linux: gs[1], name: "the vhost guest", key: "0xb", seed: 2, off: 32 << 20}
	for _, m := range []*member{a, b} {
		p, err := m.vm.Await("/sys/block/sd*/device/timeout", patience)
		if err != nil {
			t.Fatal(err)
		}
		// A command that is lost still times out while the test runs; one that is late on
		// a busy machine does not.
		m.put(p, "120")
		m.dev = "/dev/" + strings.Split(p, "/")[3]
		m.persist(t, "--register-ignore", "--param-sark="+m.key)
	}
	const writeExclusive, exclusiveAccess = "5", "6" // registrants only
	file := filepath.Join(h.dir, "data.img")

	a.persist(t, "--reserve", "--param-rk="+a.key, "--prout-type="+writeExclusive)
	a.work(t)
	b.work(t)
	b.fence(t, file, true, func() {
		a.persist(t, "--preempt-abort", "--param-rk="+a.key, "--param-sark="+b.key, "--prout-type="+writeExclusive)
	})
	a.sound(t)
	// This type lets anybody read; with the other nobody does who is not registered.
	if err := b.vm.ReadDirect(b.dev, 4096); err != nil {
		t.Errorf("%s does not read: %v", b.name, err)
	}
	a.persist(t, "--release", "--param-rk="+a.key, "--prout-type="+writeExclusive)
	a.persist(t, "--reserve", "--param-rk="+a.key, "--prout-type="+exclusiveAccess)
	if err := b.vm.ReadDirect(b.dev, 4096); err == nil {
		t.Errorf("%s reads", b.name)
	}
	a.sound(t)

	// The other way round: what was fenced comes back, takes over, and fences.
	b.persist(t, "--register-ignore", "--param-sark="+b.key)
	b.work(t)
	a.fence(t, file, false, func() {
		b.persist(t, "--preempt", "--param-rk="+b.key, "--param-sark="+a.key, "--prout-type="+writeExclusive)
	})
	b.sound(t)
	b.end(t, file)
}

// persist runs PERSISTENT RESERVE OUT.
func (m *member) persist(t *testing.T, args ...string) {
	t.Helper()
	if out, err := m.vm.Run(slices.Concat([]string{"/usr/bin/sg_persist", "--no-inquiry", "--out"}, args, []string{m.dev})...); err != nil {
		t.Fatalf("%s: %v: %s", m.name, err, out)
	}
}

// work starts writers, and waits until they write.
func (m *member) work(t *testing.T) {
	t.Helper()
	if err := m.vm.Work(agent.Request{Path: m.dev, Jobs: memberJobs, Size: memberSlot, Off: m.off, Len: memberArea, Seed: m.seed}); err != nil {
		t.Fatal(err)
	}
	m.sound(t)
}

// sound wants all writers at work, and waits until they have written more.
func (m *member) sound(t *testing.T) {
	t.Helper()
	first := m.worked(t, false)
	poll(t, m.name+" writes", func() error {
		p := m.worked(t, false)
		if len(p.Errors) > 0 || p.Running != memberJobs {
			t.Fatalf("%s sees %+v", m.name, p)
		}
		if p.Writes < first.Writes+20 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
}

func (m *member) worked(t *testing.T, stop bool) agent.Progress {
	t.Helper()
	p, err := m.vm.Worked(stop, patience)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fence has do, of the other member, fence m, whose writers are at work: all of them
// have to end for that reason, and nothing that they had not written before may be in
// the file, then and later. With aborts, commands that were in the store may have ended
// as aborted ones do (VIRTIO_SCSI_S_ABORTED where TAS is 0), which Linux calls EIO.
func (m *member) fence(t *testing.T, file string, aborts bool, do func()) {
	t.Helper()
	mark := m.mark()
	do()
	sum := m.sum(t, file)
	poll(t, m.name+" is fenced", func() error {
		if p := m.worked(t, false); p.Running > 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	})
	p := m.worked(t, true)
	if len(p.Errors) != memberJobs {
		t.Errorf("%s: %q", m.name, p.Errors)
	}
	for _, e := range p.Errors {
		// EBADE; Linux forgets the reason of a SYNCHRONIZE CACHE that fails.
		conflict := strings.HasPrefix(e, "write at") && strings.Contains(e, "invalid exchange")
		aborted := aborts && strings.Contains(e, "input/output error")
		if !conflict && !aborted && !strings.HasPrefix(e, "sync: ") {
			t.Errorf("%s: %s", m.name, e)
		}
	}
	// It may try again, but not succeed.
	if _, err := m.vm.Do(agent.Request{Op: agent.Fill, Path: m.dev, Seed: 3, Off: m.off, Len: memberSlot, Size: memberSlot, Direct: true}, patience); err == nil {
		t.Errorf("%s writes", m.name)
	}
	m.logged(mark, "reservation conflict")
	if m.sum(t, file) != sum {
		t.Errorf("%s has written after it was fenced", m.name)
	}
	// A write that was aborted may have been done, or not.
	for _, e := range p.Errors {
		var at int64
		if _, err := fmt.Sscanf(e, "write at byte %d", &at); err == nil {
			p.Sequence[(at-m.off)/memberSlot] = 0
		}
	}
	m.check(t, file, p)
}

// end ends the writers, who have to be well.
func (m *member) end(t *testing.T, file string) {
	t.Helper()
	p := m.worked(t, true)
	if len(p.Errors) > 0 {
		t.Errorf("%s: %q", m.name, p.Errors)
	}
	m.check(t, file, p)
}

// check wants the file to hold what the writers remember.
func (m *member) check(t *testing.T, file string, p agent.Progress) {
	t.Helper()
	checkSlots(t, file, m.seed, memberSlot, slices.Concat(make([]uint32, m.off/memberSlot), p.Sequence))
}

// sum is of the member's part of the file.
func (m *member) sum(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, m.off, memberArea))
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}
