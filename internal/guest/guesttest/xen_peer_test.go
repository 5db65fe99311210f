package guesttest

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest"
	"github.com/vtgt/vtgt/internal/guest/agent"
)

// lioScript makes a RAM disk of LIO and its export by xen-scsiback (W is a port's name),
// then device 2 of domain ID: the state last, which the driver looks for.
const lioScript = `set -e
cd /sys/kernel/config/target
W=naa.6001405708ab297e
mkdir -p core/rd_mcp_0/disk0
echo rd_pages=4096 >core/rd_mcp_0/disk0/control
echo 1 >core/rd_mcp_0/disk0/enable
mkdir -p xen-pvscsi/$W/tpgt_1
echo naa.6001405708ab297f >xen-pvscsi/$W/tpgt_1/nexus
mkdir -p xen-pvscsi/$W/tpgt_1/lun/lun_0
ln -s /sys/kernel/config/target/core/rd_mcp_0/disk0 xen-pvscsi/$W/tpgt_1/lun/lun_0/disk0
ID=$1
BE=/local/domain/0/backend/vscsi/$ID/2
FE=/local/domain/$ID/device/vscsi/2
xs() { /usr/bin/xenstore write $1 "$3"; /usr/bin/xenstore chmod $1 $2; }
xs $BE "n0 r$ID" ""
xs $FE "n$ID r0" ""
xs $BE/frontend "n0 r$ID" $FE
xs $BE/frontend-id "n0 r$ID" $ID
xs $BE/online "n0 r$ID" 1
xs $BE/feature-host "n0 r$ID" 0
xs $BE/vscsi-devs "n0 r$ID" ""
xs $BE/vscsi-devs/dev-0 "n0 r$ID" ""
xs $BE/vscsi-devs/dev-0/p-dev "n0 r$ID" $W:0
xs $BE/vscsi-devs/dev-0/v-dev "n0 r$ID" 0:0:0:0
xs $BE/vscsi-devs/dev-0/state "n0 r$ID" 1
xs $FE/backend "n$ID r0" $BE
xs $FE/backend-id "n$ID r0" 0
xs $FE/state "n$ID r0" 1
xs $BE/state "n0 r$ID" 1
`

// hypercalls is what xencount prints.
type hypercalls struct {
	Hypercalls, Events, Irets, Sched, GrantCalls, GrantMaps, GrantUnmaps, GrantCopies uint64
	Lost                                                                              bool
}

// peer runs the same load over LIO: equal data, and what each costs the first domain, as
// xentrace has it: it alone runs on processor 0.
func (x *domU) peer() {
	cache, err := guest.DefaultCache()
	x.ok(err)
	kernel, err := cache.Kernel()
	x.ok(err)
	x.ok(x.Insmod(kernel, "", "xen_scsiback"))
	x.ok(x.Mount("config", "/sys/kernel/config", "configfs", ""))
	x.ok(x.Put("/run/lio.sh", lioScript))
	x.sh("sh /run/lio.sh %d", x.u.ID)
	devs := map[string]string{"vtgt": x.disk(0, 1), "LIO": x.disk(2, 0)}
	x.load("vtgt", devs["vtgt"])
	x.load("LIO", devs["LIO"])
	for name, dev := range devs {
		for i := range loads() {
			q := loads()[i]
			q.Path, q.Off = dev, int64(i)*2<<20
			x.do(agent.Check, q)
		}
		x.Logf("%s has the data", name)
	}
}

// loads are what is written, and then read.
func loads() []agent.Request {
	var qs []agent.Request
	for _, size := range []int{4 << 10, 64 << 10, 508 << 10} {
		n := min(64, int64(2<<20)/int64(size))
		qs = append(qs, agent.Request{Len: n * int64(size), Size: size, Seed: uint64(size), Direct: true})
	}
	return qs
}

// load does each of loads and tells what it costs.
func (x *domU) load(name, dev string) {
	x.Helper()
	for i, q := range loads() {
		q.Path, q.Off = dev, int64(i)*2<<20
		n := float64(q.Len / int64(q.Size))
		for _, op := range []agent.Op{agent.Fill, agent.Check} {
			begin := time.Now()
			h := x.traced(func() { x.do(op, q) })
			x.Logf("%s %s %d KiB: per I/O %.1f hypercalls (%.1f iret, %.1f event channel, %.1f scheduler, %.1f grant table: %.1f copies, %.1f maps, %.1f unmaps); %d ms%s",
				name, op, q.Size>>10, float64(h.Hypercalls)/n, float64(h.Irets)/n, float64(h.Events)/n, float64(h.Sched)/n, float64(h.GrantCalls)/n,
				float64(h.GrantCopies)/n, float64(h.GrantMaps)/n, float64(h.GrantUnmaps)/n, time.Since(begin).Milliseconds()/int64(n), gap(h.Lost))
		}
	}
}

func gap(lost bool) string {
	if lost {
		return " (the trace has gaps)"
	}
	return ""
}

// traced counts the first domain's hypercalls while f runs.
func (x *domU) traced(f func()) (h hypercalls) {
	x.Helper()
	const file = "/tmp/trace"
	pid, err := x.Spawn(x.Tool("xentrace"), "-D", "-S", "1024", "-e", "0x00201000", file)
	x.ok(err)
	poll(x.T, "xentrace traces", func() error {
		if s := x.sh("test -s %s && echo yes || true", file); s != "yes" {
			return errors.New("nothing yet")
		}
		return nil
	})
	f()
	x.ok(x.Signal(pid, 15, patience))
	out, err := x.Bed.Run("/bin/xencount", file, "0")
	x.ok(err)
	x.ok(json.Unmarshal([]byte(out), &h))
	x.sh("rm %s", file)
	return h
}

// xenCount compiles the program that counts.
func xenCount(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "xencount")
	if err := guest.GoBuild(out, "github.com/vtgt/vtgt/internal/guest/xenguest/xencount"); err != nil {
		t.Fatal(err)
	}
	return out
}
