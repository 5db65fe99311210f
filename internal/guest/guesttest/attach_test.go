package guesttest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

const attachConfig = `# kept
disks:
  - {name: root1, store: "mem:", size: 32MiB, serial: "SERIAL-OF-ROOT1"}
  - {name: data1, store: "mem:", size: 24MiB}
  - {name: vdata, store: "mem:", size: 16MiB}
  - {name: other, store: "mem:", size: 8MiB}
  - {name: many, store: "mem:", size: 8MiB, shared: true}
targets:
  - name: t1 # by iSCSI
    luns:
      - {lun: 0, disk: root1} # of web1
      - {lun: 5, disk: data1}
    iscsi: {iqn: "iqn.2026-11.org.vtgt:t1", chap: {user: web, secretFile: "DIR/web.secret"}}
  - {name: t2, luns: [{lun: 0, disk: vdata}], vhost: {socket: "DIR/t2.sock", owner: "OWNER"}}
  - {name: t3, luns: [{lun: 0, disk: other}], vhost: {socket: "DIR/t3.sock"}}
  - {name: t4, luns: [{lun: 0, disk: many}], iscsi: {iqn: "iqn.2026-11.org.vtgt:t4", initiators: ["iqn.1993-08.org.debian:*"], prIdentity: name+isid}}
`

// wantAttach skips a test that runs libvirtd where none is wanted.
func wantAttach(t *testing.T) *guest.Cache {
	t.Helper()
	if os.Getenv("VTGT_ATTACH") == "" {
		t.Skip("starts libvirtd: set VTGT_ATTACH=1 (make test-attach does)")
	}
	c, err := guest.DefaultCache()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// bench is vtgt and a libvirtd.
type bench struct {
	*host
	l *libvirtd
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{host: newHost(t)}
	if err := os.Chmod(b.dir, 0o755); err != nil { // for QEMU's user
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "web.secret"), []byte("open-sesame-12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	owner := fmt.Sprint(os.Getuid())
	if os.Getuid() == 0 {
		owner = fmt.Sprint(nobody)
	}
	b.write(b.config(strings.ReplaceAll(attachConfig, "OWNER", owner)))
	b.host.start()
	b.l = newLibvirtd(t)
	return b
}

// command are the arguments for attach and detach: with the libvirt's URI, and with time
// for a guest of TCG on a busy machine.
func (b *bench) command(verb string, args []string) []string {
	return append([]string{verb, "libvirt", "--connect", b.l.uri, "--wait", "4m", "--timeout", "4m"}, args...)
}

// run runs vtgt attach or detach.
func (b *bench) run(verb string, args ...string) (string, error) {
	out, errOut, err := b.try(b.command(verb, args)...)
	return out + errOut, err
}

func (b *bench) ok(verb string, args ...string) string {
	b.t.Helper()
	out, err := b.run(verb, args...)
	if err != nil {
		b.t.Fatalf("%s %v: %v", verb, args, err)
	}
	return out
}

// fails wants the command to fail and to say all of these.
func (b *bench) fails(verb string, args []string, says ...string) {
	b.t.Helper()
	out, err := b.run(verb, args...)
	if err == nil {
		b.t.Fatalf("%s %v: no error: %s", verb, args, out)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			b.t.Errorf("%s %v: does not say %q: %v", verb, args, s, err)
		}
	}
}

// state is all that an attachment may change and its end must leave as it was.
type state struct{ config, live, qemu, secrets, vtgt, attachments string }

// ids are numbers that libvirt and QEMU make anew.
var volatile = regexp.MustCompile(`(?m)^.*<(source path='/dev/pts|backingStore).*\n`)

func (b *bench) state(domain string) (s state) {
	b.t.Helper()
	s.config = b.l.virsh("dumpxml", "--inactive", domain)
	if strings.Contains(b.l.virsh("domstate", domain), "running") {
		s.live = volatile.ReplaceAllString(b.l.virsh("dumpxml", domain), "")
		s.qemu = b.qmp(domain, "query-chardev") + b.qmp(domain, "qom-list", "path", "/machine/peripheral")
	}
	s.secrets = b.l.virsh("secret-list")
	s.vtgt = b.vtgt("get", "config")
	s.attachments = b.vtgt("get", "attachments", "-o", "json")
	return s
}

// qmp asks QEMU, and sorts what it says.
func (b *bench) qmp(domain, command string, args ...string) string {
	b.t.Helper()
	q := map[string]any{"execute": command}
	if len(args) == 2 {
		q["arguments"] = map[string]string{args[0]: args[1]}
	}
	text, _ := json.Marshal(q)
	var r struct{ Return []map[string]any }
	if err := json.Unmarshal([]byte(b.l.virsh("qemu-monitor-command", domain, string(text))), &r); err != nil {
		b.t.Fatal(err)
	}
	lines := []string{}
	for _, x := range r.Return {
		lines = append(lines, fmt.Sprint(x["label"], x["name"]))
	}
	slices.Sort(lines)
	return command + ":\n" + strings.Join(lines, "\n") + "\n"
}

// same wants the state to be as it was.
func (b *bench) same(domain string, was state) {
	b.t.Helper()
	now := b.state(domain)
	for _, x := range []struct{ what, was, now string }{
		{"the definition", was.config, now.config}, {"the running domain", was.live, now.live}, {"QEMU", was.qemu, now.qemu},
		{"libvirt's secrets", was.secrets, now.secrets}, {"vtgt's configuration", was.vtgt, now.vtgt}, {"vtgt's attachments", was.attachments, now.attachments},
	} {
		if x.was != x.now {
			b.t.Errorf("%s is not as it was:\n%s\n---- was:\n%s", x.what, x.now, x.was)
		}
	}
	if b.t.Failed() {
		b.t.FailNow()
	}
}

func (b *bench) attachments() []api.Attachment {
	b.t.Helper()
	var as []api.Attachment
	if err := json.Unmarshal([]byte(b.vtgt("get", "attachments", "-o", "json")), &as); err != nil {
		b.t.Fatal(err)
	}
	return as
}

// sees waits until the guest has a disk of vtgt's of so many MiB, and returns its name.
func (g *libvirtGuest) sees(mib int) string {
	g.l.t.Helper()
	name := ""
	poll(g.l.t, fmt.Sprintf("the guest sees the disk of %d MiB", mib), func() error {
		ds, err := g.Glob("/sys/class/scsi_disk/*/device/block/*")
		if err != nil {
			g.l.t.Fatal(err)
		}
		for _, d := range ds {
			n := filepath.Base(d)
			s, err := g.Read("/sys/block/" + n + "/size")
			if err == nil && strings.TrimSpace(s) == fmt.Sprint(mib*2048) {
				name = n
				return nil
			}
		}
		return fmt.Errorf("there are %v", ds)
	})
	dev := "/sys/block/" + name + "/device"
	if inq, err := g.Read(dev + "/inquiry"); err != nil || len(inq) < 36 || !strings.HasPrefix(inq[8:], "VTGT") {
		g.l.t.Errorf("INQUIRY data of %s: %q, %v", name, inq, err)
	}
	// A command may take its time on a busy machine.
	if err := g.Put(dev+"/timeout", "120"); err != nil {
		g.l.t.Error(err)
	}
	return "/dev/" + name
}

// misses waits until the guest has no such disk.
func (g *libvirtGuest) misses(mib int) {
	g.l.t.Helper()
	poll(g.l.t, fmt.Sprintf("the guest's disk of %d MiB goes", mib), func() error {
		ds, err := g.Glob("/sys/class/scsi_disk/*/device/block/*")
		if err != nil {
			g.l.t.Fatal(err)
		}
		for _, d := range ds {
			if s, err := g.Read("/sys/block/" + filepath.Base(d) + "/size"); err == nil && strings.TrimSpace(s) == fmt.Sprint(mib*2048) {
				return fmt.Errorf("%s is there", d)
			}
		}
		return nil
	})
}

// works writes and reads back.
func (g *libvirtGuest) works(dev string, seed uint64) {
	g.l.t.Helper()
	for _, op := range []agent.Op{agent.Fill, agent.Check} {
		if _, err := g.Do(agent.Request{Op: op, Path: dev, Seed: seed, Len: 4 << 20, Size: 1 << 20, Direct: true, Sync: op == agent.Fill}, patience); err != nil {
			g.l.t.Fatal(err)
		}
	}
}

// step is a subtest.
func (b *bench) step(name string, f func()) {
	t := b.t
	t.Run(name, func(t *testing.T) {
		b.t, b.l.t = t, t
		f()
	})
	b.t, b.l.t = t, t
	if t.Failed() {
		t.FailNow()
	}
}

// TestAttach puts targets into domains of a real libvirtd, before they start and while
// they run, and takes them away again; and what may go wrong does.
func TestAttach(t *testing.T) {
	cache := wantAttach(t)
	k, err := cache.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	g := b.l.newGuest("web1", k)
	b.step("cold", func() { b.cold(g) })
	b.step("hot", func() { b.hot(g) })
	b.step("killed hot", func() { b.killedHot(g) })
	b.step("paused guest", func() { b.pausedGuest(g) })
	b.step("storage pool", b.pool)
	b.step("watch", b.watch)
	b.step("wrong domain", b.wrongDomain)
	b.step("no shared memory", b.noSharedMemory)
	b.step("no free slot", b.noFreeSlot)
	b.step("socket", b.socketDenied)
	b.step("guest that keeps it", b.guestKeeps)
	b.step("secret lost", b.secretLost)
	b.step("daemon gone", b.daemonGone)
	b.step("killed", b.killed)
}

func (b *bench) cold(g *libvirtGuest) {
	t := b.t
	was := b.state("web1")
	t.Log(b.ok("attach", "web1", "t1", "--lun", "0"))
	t.Log(b.ok("attach", "web1", "t2"))
	t.Log(b.vtgt("get", "attachments"))
	g.start()
	root, vdata := g.sees(32), g.sees(16)
	g.works(root, 1)
	g.works(vdata, 2)
	// Again, with the domain that was started with both: nothing to do.
	as := len(b.attachments()[0].Steps)
	for _, what := range [][]string{{"web1", "t1", "--lun", "0"}, {"web1", "t2"}} {
		if out := b.ok("attach", what...); strings.Contains(out, "+ ") {
			t.Errorf("%v: %s", what, out)
		}
	}
	if n := len(b.attachments()[0].Steps); n != as {
		t.Errorf("%d steps, then %d", as, n)
	}

	// A libvirtd that is killed and comes back: nothing happens to the guest, and what
	// was attached by its predecessor is detached by the next one.
	b.l.kill()
	b.fails("attach", []string{"web1", "t1", "--lun", "5"}, "no connection", "--connect")
	b.l.start()
	g.works(root, 3)
	g.works(vdata, 4)
	t.Log(b.vtgt("get", "attachments"))

	t.Log(b.ok("detach", "web1", "t2"))
	t.Log(b.ok("detach", "web1", "t1"))
	g.misses(32)
	g.misses(16)
	if out := b.ok("detach", "web1", "t1"); !strings.Contains(out, "nothing to do") {
		t.Errorf("%q", out)
	}
	now := b.state("web1")
	was.live, was.qemu = now.live, now.qemu // there was none
	b.same("web1", was)
	if strings.Contains(now.qemu, "vtgt-") || strings.Contains(now.live, "ua-vtgt") {
		t.Errorf("left in the running domain:\n%s%s", now.qemu, now.live)
	}
}

func (b *bench) hot(g *libvirtGuest) {
	t := b.t
	was := b.state("web1")
	t.Log(b.ok("attach", "web1", "t1", "--lun", "5"))
	data := g.sees(24)
	g.works(data, 5)
	t.Log(b.ok("attach", "web1", "t2"))
	vdata := g.sees(16)
	g.works(vdata, 6)
	t.Log(b.vtgt("get", "attachments"))
	t.Log(b.ok("detach", "web1", "t2"))
	g.misses(16)
	t.Log(b.ok("detach", "web1", "t1"))
	g.misses(24)
	b.same("web1", was)
}
