package guesttest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/attach/libvirt"
)

// pausedGuest: a guest that does not run lets go of nothing, and is not waited for.
func (b *bench) pausedGuest(g *libvirtGuest) {
	was := b.state("web1")
	b.ok("attach", "web1", "t2")
	g.works(g.sees(16), 7)
	b.l.virsh("suspend", "web1")
	b.fails("detach", []string{"web1", "t2"}, "web1: is paused", "virsh resume web1")
	if out := b.vtgt("get", "attachments"); !strings.Contains(out, "detaching") || !strings.Contains(out, "paused") || !strings.Contains(out, "was broken off") {
		b.t.Errorf("%s", out)
	}
	b.fails("attach", []string{"web1", "t2"}, "was broken off", "vtgt detach libvirt web1 t2")
	b.l.virsh("resume", "web1")
	b.ok("detach", "web1", "t2")
	g.misses(16)
	b.same("web1", was)

	// Out of the running domain only, and back, and out of the definition only.
	b.ok("attach", "web1", "t2")
	g.sees(16)
	b.ok("detach", "web1", "t2", "--live")
	g.misses(16)
	if out := b.l.virsh("dumpxml", "--inactive", "web1"); !strings.Contains(out, "vhost-user-scsi-pci") {
		b.t.Errorf("the definition has lost it:\n%s", out)
	}
	b.ok("attach", "web1", "t2", "--live")
	g.works(g.sees(16), 8)
	b.ok("detach", "web1", "t2", "--config")
	g.works(g.sees(16), 9)
	b.ok("detach", "web1", "t2")
	g.misses(16)
	b.same("web1", was)

	// The domain ends with what it was given for this life; the next one has it not.
	b.ok("attach", "web1", "t1", "--lun", "0", "--live")
	g.sees(32)
	b.l.virsh("destroy", "web1")
	b.l.virsh("start", "--paused", "web1")
	if out := b.vtgt("get", "attachments"); !strings.Contains(out, "does not have it any more") {
		b.t.Errorf("%s", out)
	}
	b.l.virsh("destroy", "web1")
	b.ok("detach", "web1", "t1")
	now := b.state("web1")
	was.live, was.qemu = now.live, now.qemu
	b.same("web1", was)
}

// small is a domain without a system.
func (b *bench) small(name, machine string, ports int, shared bool, more string) {
	b.t.Helper()
	b.l.define(domainXML(name, machine, "", 64, ports, shared, more))
	b.t.Cleanup(func() {
		_, _ = b.l.try("destroy", name)
		_, _ = b.l.try("undefine", name)
	})
}

func (b *bench) wrongDomain() {
	b.small("small", "q35", 2, true, "")
	was := b.state("small")
	b.fails("attach", []string{"nobody", "t1", "--lun", "0"}, "domain nobody: is not there", "small, web1")
	b.fails("attach", []string{"small", "t9"}, "target t9: is not there", "vtgt get targets")
	b.fails("attach", []string{"small", "t1"}, "several LUNs", "0, 5")
	b.fails("attach", []string{"small", "t1", "--lun", "7"}, "no LUN 7", "0, 5")
	b.fails("attach", []string{"small", "t1", "--lun", "0", "--live"}, "does not run")
	b.fails("attach", []string{"small", "t1", "--lun", "0", "--via", "vhost"}, "not exported by vhost-user", "--vhost-socket")
	b.fails("attach", []string{"small", "t2", "--lun", "0"}, "all LUNs")
	b.fails("detach", []string{"nobody", "t1"}, "domain nobody: is not there")

	// Another domain has it.
	b.ok("attach", "web1", "t1", "--lun", "0")
	b.fails("attach", []string{"small", "t1", "--lun", "0"}, "is only for iqn.2008-11.org.linux-kvm:", "not shared")
	b.fails("detach", []string{"small", "t1"}, "is not attached to domain small but to web1")
	if out := b.ok("attach", "web1", "t1", "--lun", "0"); !strings.Contains(out, "is attached") { // again
		b.t.Errorf("%q", out)
	}
	b.ok("detach", "web1", "t1")
	b.same("small", was)

	// A shared disk may go to both; the last one out leaves the target as it was.
	other := b.state("web1")
	b.ok("attach", "web1", "t4")
	b.ok("attach", "small", "t4")
	if c := b.vtgt("get", "config"); !strings.Contains(c, "prIdentity: name}") || strings.Count(c, "linux-kvm") != 4 {
		b.t.Errorf("%s", c)
	}
	b.ok("detach", "web1", "t4")
	b.ok("detach", "small", "t4")
	b.same("small", was)
	b.same("web1", other)

	// A domain that is undefined leaves what can be taken away.
	b.ok("attach", "small", "t1", "--lun", "5")
	b.l.virsh("undefine", "small")
	if out := b.vtgt("get", "attachments"); !strings.Contains(out, "undefined") || !strings.Contains(out, "vtgt detach libvirt small t1") {
		b.t.Errorf("%s", out)
	}
	b.ok("detach", "small", "t1")
	b.same("web1", other)
}

func (b *bench) noSharedMemory() {
	b.small("plain", "q35", 3, false, "")
	was := b.state("plain")
	b.fails("attach", []string{"plain", "t2"}, "memory is not shared", "<access mode='shared'/>", "virsh edit plain", "--via iscsi")
	b.same("plain", was)
	b.l.virsh("start", "--paused", "plain")
	was = b.state("plain")
	b.fails("attach", []string{"plain", "t2", "--live"}, "runs with memory that is not shared", "<access mode='shared'/>")
	b.same("plain", was)
	out := b.ok("attach", "plain", "t2", "--print-xml")
	if !strings.Contains(out, "<access mode='shared'/>") || !strings.Contains(out, "vhost-user-scsi-pci") {
		b.t.Errorf("%s", out)
	}
	if out = b.ok("attach", "plain", "t1", "--lun", "5", "--print-xml"); !strings.Contains(out, `device="lun"`) || !strings.Contains(out, "iqn.2026-11.org.vtgt:t1/5") || !strings.Contains(out, "virtio-scsi") || strings.Contains(out, "open-sesame") {
		b.t.Errorf("%s", out)
	}
	b.same("plain", was)
}

func (b *bench) noFreeSlot() {
	b.small("full", "q35", 1, true, "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>")
	b.l.virsh("start", "--paused", "full")
	was := b.state("full")
	b.fails("attach", []string{"full", "t2", "--live"}, "no free slot", "pci.1", "pcie-root-port", "--config")
	b.fails("attach", []string{"full", "t1", "--lun", "0", "--live"}, "no free slot", "pcie-root-port", "--config")
	b.same("full", was)
	// From the next start on there is room: a port is added, and taken away again.
	b.ok("attach", "full", "t2", "--config")
	b.ok("attach", "full", "t1", "--lun", "0", "--config")
	b.l.virsh("destroy", "full")
	b.l.virsh("start", "--paused", "full")
	b.l.virsh("destroy", "full")
	b.ok("detach", "full", "t2")
	b.ok("detach", "full", "t1")
	now := b.state("full")
	was.live, was.qemu = now.live, now.qemu
	b.same("full", was)

	// A machine with a plain PCI bus has slots.
	b.small("pc", "pc", 0, true, "")
	was = b.state("pc")
	b.ok("attach", "pc", "t2")
	b.l.virsh("start", "--paused", "pc")
	if q := b.qmp("pc", "qom-list", "path", "/machine/peripheral"); !strings.Contains(q, "vtgt-") {
		b.t.Errorf("%s", q)
	}
	b.l.virsh("destroy", "pc")
	b.ok("detach", "pc", "t2")
	b.same("pc", was)
	b.l.virsh("start", "--paused", "pc")
	b.ok("attach", "pc", "t2", "--live")
	if q := b.qmp("pc", "qom-list", "path", "/machine/peripheral"); !strings.Contains(q, "vtgt-") {
		b.t.Errorf("%s", q)
	}
	b.l.virsh("destroy", "pc")
	b.ok("detach", "pc", "t2")
	b.same("pc", was)
}

func (b *bench) socketDenied() {
	b.small("denied", "q35", 3, true, "")
	if os.Getuid() == 0 { // it does not run yet: what libvirtd's user is counts
		b.fails("attach", []string{"denied", "t3"}, "QEMU runs as user nobody", "may not write", "t3.sock")
	}
	b.l.virsh("start", "--paused", "denied")
	was := b.state("denied")
	if os.Getuid() == 0 {
		b.fails("attach", []string{"denied", "t3"}, "QEMU runs as user nobody", "may not write", "t3.sock", "vtgt target set t3 --vhost-owner nobody")
		if err := os.Chmod(b.dir, 0o700); err != nil {
			b.t.Fatal(err)
		}
		b.fails("attach", []string{"denied", "t2"}, "may not enter the folder "+b.dir)
		if err := os.Chmod(b.dir, 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	// Somebody else has it.
	b.small("first", "q35", 3, true, "")
	b.l.virsh("start", "--paused", "first")
	b.ok("attach", "first", "t2", "--live")
	b.fails("attach", []string{"denied", "t2", "--live"}, "uses its vhost-user socket", "detach it there first")
	b.fails("attach", []string{"denied", "t2", "--config"}, "is attached to domain first", "a socket of its own")
	b.same2("denied", was)
	b.l.virsh("destroy", "first")
	b.ok("detach", "first", "t2")
	b.same("denied", was)
}

// same2 is same for a domain while there are attachments of others.
func (b *bench) same2(domain string, was state) {
	b.t.Helper()
	was.attachments = b.state(domain).attachments
	b.same(domain, was)
}

// guestKeeps: a machine whose firmware runs has nobody who lets go.
func (b *bench) guestKeeps() {
	b.small("keeper", "q35", 3, true, "")
	b.l.virsh("start", "keeper")
	was := b.state("keeper")
	b.ok("attach", "keeper", "t2", "--live")
	b.fails("detach", []string{"keeper", "t2", "--wait", "1s"}, "the guest has not let go", "may not have booted", "shut the domain down")
	b.fails("detach", []string{"keeper", "t2", "--wait", "1s"}, "the guest has not let go") // again
	b.l.virsh("destroy", "keeper")
	b.ok("detach", "keeper", "t2")
	was.live, was.qemu = "", ""
	b.same("keeper", was)
}

func (b *bench) secretLost() {
	b.small("lost", "q35", 2, true, "")
	was := b.state("lost")
	b.ok("attach", "lost", "t1", "--lun", "0")
	uuid := strings.Fields(b.l.virsh("secret-list"))[0]
	if out, err := b.l.try("secret-get-value", uuid); err == nil {
		b.t.Errorf("libvirt gives the secret away: %q", out)
	}
	if as := b.vtgt("get", "attachments", "-o", "json"); strings.Contains(as, "open-sesame") {
		b.t.Errorf("the journal has the secret: %s", as)
	}
	b.l.virsh("secret-undefine", uuid)
	if _, err := b.l.try("start", "--paused", "lost"); err == nil {
		b.t.Error("the domain starts without its secret")
	}
	if out := b.vtgt("get", "attachments"); !strings.Contains(out, "has lost the secret") || !strings.Contains(out, "vtgt attach libvirt lost t1") {
		b.t.Errorf("%s", out)
	}
	b.ok("attach", "lost", "t1", "--lun", "0")
	b.l.virsh("start", "--paused", "lost")
	b.l.virsh("destroy", "lost")
	b.l.virsh("secret-undefine", uuid)
	b.ok("detach", "lost", "t1")
	b.same("lost", was)
}

func (b *bench) daemonGone() {
	b.small("alone", "q35", 3, true, "")
	was := b.state("alone")
	b.ok("attach", "alone", "t1", "--lun", "0")
	b.host.kill()
	b.fails("attach", []string{"alone", "t2"}, "no vtgt daemon answers", "vtgt serve")
	b.fails("detach", []string{"alone", "t1"}, "no vtgt daemon answers")
	b.host.start()
	// It goes in the middle: at each of its writes.
	for n := 1; ; n++ {
		p := b.proxy(n, false, func(*exec.Cmd) { b.host.kill() })
		out, err := p.run("attach", "alone", "t2")
		p.close()
		if !p.fired() {
			if err != nil {
				b.t.Fatal(err)
			}
			break
		}
		if err == nil || !strings.Contains(err.Error(), "daemon") && !strings.Contains(err.Error(), "answer") && !strings.Contains(err.Error(), "journal") {
			b.t.Errorf("write %d: %v %s", n, err, out)
		}
		b.host.start()
		b.ok("detach", "alone", "t2")
	}
	b.ok("detach", "alone", "t2")
	b.ok("detach", "alone", "t1")
	b.same("alone", was)

	// A libvirt that is gone for good: what is vtgt's own is taken back.
	b.ok("attach", "alone", "t1", "--lun", "0")
	disk, secret := b.l.virsh("dumpxml", "alone", "--xpath", "//disk"), strings.Fields(b.l.virsh("secret-list"))[0]
	b.l.kill()
	b.fails("detach", []string{"alone", "t1"}, "no connection")
	b.ok("detach", "alone", "t1", "--forget")
	b.l.start()
	if b.vtgt("get", "config") != was.vtgt || len(b.attachments()) != 0 || !strings.Contains(disk, "vtgt") {
		b.t.Errorf("left: %s", b.vtgt("get", "config"))
	}
	b.l.virsh("secret-undefine", secret)
}

// killed kills the command at its writes to the daemon, before and after it: at every
// other one, or with VTGT_ATTACH_POINTS=1 at each. What it has left behind, the next one
// takes away, or goes on with.
func (b *bench) killed() {
	b.small("victim", "q35", 1, true, "")
	was := b.state("victim")
	kill := func(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
	step := min(rounds(b.t, "VTGT_ATTACH_POINTS", 2), 2)
	points := 0
	for _, what := range [][]string{{"victim", "t1", "--lun", "0"}, {"victim", "t2"}} {
		for _, verb := range []string{"attach", "detach"} {
			for _, after := range []bool{false, true} {
				n := 1
				if after {
					n = step
				}
				for ; ; n += step {
					if verb == "detach" {
						b.ok("attach", what...)
					}
					p := b.proxy(n, after, kill)
					_, err := p.run(verb, what...)
					p.close()
					fired := p.fired()
					if !fired && err != nil {
						b.t.Fatal(err)
					}
					if verb == "attach" && (points%2 == 0 || !fired) {
						b.ok("attach", what...) // goes on
					}
					b.ok("detach", what...)
					b.same("victim", was)
					if !fired {
						break
					}
					points++
				}
			}
		}
	}
	b.t.Logf("killed at %d points", points)
	if points < 40/step {
		b.t.Errorf("killed at %d points only", points)
	}
}

// killedHot is killed with a guest that runs: at a few points, or with VTGT_ATTACH_POINTS=1
// at each. Every other time the next command goes on instead of taking back.
func (b *bench) killedHot(g *libvirtGuest) {
	was := b.state("web1")
	step := rounds(b.t, "VTGT_ATTACH_POINTS", 3)
	points := 0
	for _, c := range []struct {
		what []string
		mib  int
	}{{[]string{"web1", "t2"}, 16}, {[]string{"web1", "t1", "--lun", "5"}, 24}} {
		for _, verb := range []string{"attach", "detach"} {
			for n := 1; ; n += step {
				if verb == "detach" {
					b.ok("attach", c.what...)
				}
				p := b.proxy(n, false, func(cmd *exec.Cmd) { _ = cmd.Process.Kill() })
				_, err := p.run(verb, c.what...)
				p.close()
				if !p.fired() && err != nil {
					b.t.Fatal(err)
				}
				if verb == "attach" && (points%2 == 0 || !p.fired()) {
					b.ok("attach", c.what...)
					g.works(g.sees(c.mib), uint64(n))
				}
				b.ok("detach", c.what...)
				g.misses(c.mib)
				b.same("web1", was)
				if !p.fired() {
					break
				}
				points++
			}
		}
	}
	b.t.Logf("killed at %d points", points)
	if points < 8 {
		b.t.Errorf("killed at %d points only", points)
	}
}

// proxy stands between a command and the daemon, and does something at the n'th request
// that changes anything.
type proxy struct {
	b     *bench
	path  string
	srv   *http.Server
	n     int
	after bool
	do    func(*exec.Cmd)

	mu   sync.Mutex
	cmd  *exec.Cmd
	done bool
}

func (b *bench) proxy(n int, after bool, do func(*exec.Cmd)) *proxy {
	b.t.Helper()
	p := &proxy{b: b, path: filepath.Join(b.dir, "p"), n: n, after: after, do: do}
	_ = os.Remove(p.path)
	ln, err := net.Listen("unix", p.path)
	if err != nil {
		b.t.Fatal(err)
	}
	rp := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "vtgt"})
	rp.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", b.socket)
	}}
	rp.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
		panic(http.ErrAbortHandler) // as a socket that nobody answers at
	}
	p.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hit := false
		if r.Method != http.MethodGet {
			p.mu.Lock()
			p.n--
			hit = p.n == 0
			p.mu.Unlock()
		}
		if hit && !p.after {
			p.fire()
			panic(http.ErrAbortHandler)
		}
		if hit {
			defer p.fire()
			// The answer does not come: the command ends first.
			rp.ServeHTTP(nowhere{http.Header{}}, r)
			return
		}
		rp.ServeHTTP(w, r)
	})}
	go func() { _ = p.srv.Serve(ln) }()
	return p
}

// nowhere takes an answer that nobody is to get.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

func (p *proxy) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	p.do(p.cmd)
}

func (p *proxy) fired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *proxy) close() { p.srv.Close() }

// run runs the command through the proxy.
func (p *proxy) run(verb string, args ...string) (string, error) {
	p.b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.b.bin, p.b.command(verb, args)...)
	cmd.Env = append(os.Environ(), "VTGT_SOCKET="+p.path)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	p.mu.Lock()
	err := cmd.Start()
	p.cmd = cmd
	p.mu.Unlock()
	if err != nil {
		p.b.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, out.String())
	}
	return out.String(), nil
}

// watch follows a domain through its life, and a libvirtd that is killed.
func (b *bench) watch() {
	b.small("seen", "q35", 2, true, "")
	was := b.state("seen")
	b.ok("attach", "seen", "t1", "--lun", "0")
	cmd := exec.Command(b.bin, "watch", "--connect", b.l.uri, "--clean", "-o", "json")
	cmd.Env = append(os.Environ(), "VTGT_SOCKET="+b.socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			lines <- sc.Text()
		}
	}()
	defer func() {
		_ = cmd.Process.Kill()
		for range lines {
		}
		_ = cmd.Wait()
	}()
	next := func(event, now string) {
		b.t.Helper()
		for {
			select {
			case l, ok := <-lines:
				if !ok {
					b.t.Fatal("vtgt watch has ended")
				}
				var e libvirt.WatchEvent
				if err := json.Unmarshal([]byte(l), &e); err != nil {
					b.t.Fatalf("%v: %s", err, l)
				}
				b.t.Log(e)
				if e.Event == event && (now == "" || e.View != nil && strings.HasPrefix(e.View.Now, now)) {
					return
				}
			case <-timeout(b.t):
				b.t.Fatalf("no event %q", event)
			}
		}
	}
	next("connected", "")
	next("found", "shut off (config)")
	b.l.virsh("start", "seen")
	next("started", "running (live, config)")
	b.l.kill()
	next("lost", "")
	b.l.start()
	next("connected", "")
	next("found", "running (live, config)")
	b.l.virsh("destroy", "seen")
	next("stopped", "shut off")
	b.l.virsh("undefine", "seen")
	next("undefined", "undefined")
	next("cleaned", "")
	// As before, but for the domain.
	if as := b.attachments(); len(as) != 0 || b.l.virsh("secret-list") != was.secrets || b.vtgt("get", "config") != was.vtgt {
		b.t.Errorf("left: %+v", as)
	}
}

func timeout(t *testing.T) <-chan time.Time {
	t.Helper()
	return time.After(patience)
}
