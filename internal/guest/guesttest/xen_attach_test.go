package guesttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
	"github.com/vtgt/vtgt/internal/guest/xenguest"
)

// xenAttachConfig has targets that belong to nobody.
const xenAttachConfig = `version: 1
disks:
  - {name: a, store: "mem:", size: 16MiB}
  - {name: b, store: "mem:", size: 16MiB}
targets:
  - {name: one, luns: [{lun: 0, disk: a}]}
  - {name: two, luns: [{lun: 3, disk: b, address: {xen: "0:0:1:2"}}]}
api: {socket: /run/vtgt.sock}
state: /run/vtgt
`

// TestXenAttach: vtgt attach xen for a domain that is paused and for one that runs; a
// domain that is saved and restored, under another number; detach, and a domain that is
// paused and does not let go.
func TestXenAttach(t *testing.T) {
	if os.Getenv("VTGT_XEN") == "" {
		t.Skip("boots Xen in QEMU: VTGT_XEN=1, or make test-xen")
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cache, err := guest.DefaultCache()
	ok(err)
	kernel, err := cache.Kernel()
	ok(err)
	b, err := xenguest.Start(xenguest.Options{Cache: cache, Kernel: kernel, Dir: t.TempDir(), Domains: 2,
		First: guest.Image{Files: map[string]string{"/bin/vtgt": vtgtBinary(t)}}})
	ok(err)
	defer b.Kill()
	defer func() {
		if t.Failed() {
			t.Logf("the host's console:\n%s\nxenstore:\n%s", b.Console(), b.Tree("/local"))
		}
	}()
	vtgt := func(args ...string) (string, error) {
		return b.Run(append([]string{"/bin/vtgt", "--socket", "/run/vtgt.sock"}, args...)...)
	}
	must := func(want string, args ...string) {
		t.Helper()
		begin := time.Now()
		out, err := vtgt(args...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		if !strings.Contains(out, want) {
			t.Fatalf("%v says\n%s\nwant %q", args, out, want)
		}
		t.Logf("%v: %.1f s", args, time.Since(begin).Seconds())
	}
	ok(b.Put("/etc/vtgt.yaml", xenAttachConfig))
	_, err = b.Spawn("/bin/vtgt", "serve", "--config", "/etc/vtgt.yaml")
	ok(err)
	poll(t, "vtgt answers", func() error { _, err := vtgt("get", "exports"); return err })

	d, err := b.Create("u1")
	ok(err)
	must(fmt.Sprintf("target one is device 0 of domain u1 (%d), offered", d.ID), "attach", "xen", "u1", "one")
	ok(d.Unpause(patience))
	disk := func(dev int, at string) string {
		t.Helper()
		p, err := d.Await(fmt.Sprintf("/sys/bus/xen/devices/vscsi-%d/host*/target*/*:%s/block/*", dev, at), patience)
		ok(err)
		name := "/dev/" + filepath.Base(p)
		_, err = d.Await(name, patience)
		ok(err)
		ok(d.Put("/sys/block/"+filepath.Base(p)+"/device/timeout", "120"))
		return name
	}
	fill := func(op agent.Op, dev string, seed uint64) {
		t.Helper()
		_, err := d.Do(agent.Request{Op: op, Path: dev, Len: 4 << 20, Size: 64 << 10, Seed: seed, Direct: true, Sync: true}, patience)
		ok(err)
	}
	one := disk(0, "0:0:0")
	fill(agent.Fill, one, 1)
	must("which is connected", "attach", "xen", "u1", "two", "--wait", patience.String())
	two := disk(1, "0:1:2")
	fill(agent.Fill, two, 2)
	must("attached", "get", "attachments")

	// Another number, a driver that believes to be connected.
	old := d.ID
	ok(d.Save("/run/u1.save"))
	poll(t, "what the dead domain had is gone", func() error {
		if _, err := b.ReadNode(fmt.Sprintf("/local/domain/0/backend/vtgt/%d/0/state", old)); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
	ok(d.Restore("/run/u1.save"))
	must("of domain u1", "attach", "xen", "u1", "one")
	must("of domain u1", "attach", "xen", "u1", "two")
	ok(d.Resume())
	fill(agent.Check, one, 1)
	fill(agent.Fill, one, 3)
	fill(agent.Check, two, 2)

	// One that is paused does not let go.
	_, err = b.XL("pause", "u1")
	ok(err)
	if out, err := vtgt("detach", "xen", "u1", "two", "--wait", "1s"); err == nil || !strings.Contains(out+err.Error(), "has not let go of device 1") {
		t.Errorf("%v\n%s", err, out)
	}
	_, err = b.XL("unpause", "u1")
	ok(err)
	must("is detached", "detach", "xen", "u1", "two", "--wait", patience.String())
	poll(t, "the disk is gone", func() error {
		if l, err := d.Glob("/sys/bus/xen/devices/vscsi-1/host*"); err != nil || len(l) > 0 {
			return fmt.Errorf("%v %v", l, err)
		}
		return nil
	})
	fill(agent.Check, one, 3)
	must("is detached", "detach", "xen", "u1", "one", "--wait", patience.String())
	if s := b.Tree("/local"); strings.Contains(s, "vscsi") || strings.Contains(s, "backend/vtgt/") {
		t.Errorf("xenstore:\n%s", s)
	}
	conf, err := b.Read("/etc/vtgt.yaml")
	ok(err)
	if strings.Contains(conf, "xen: {domain") || strings.Contains(conf, "domain:") {
		t.Errorf("the configuration is\n%s", conf)
	}
	ok(d.Destroy())
}
