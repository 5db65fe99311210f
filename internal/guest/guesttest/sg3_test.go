package guesttest

import (
	"bytes"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// TestSG3 asks vtgt about the same disks over iSCSI and over vhost-user-scsi with the
// programs of sg3-utils in a Linux guest, and wants what the standards say.
func TestSG3(t *testing.T) {
	wantGuest(t)
	cases := sg3Cases(t)
	h := startSG3(t)
	g := bootSG3(t, h)
	ring := g.sg3Devices("0")
	if out, err := g.iscsistart(sg3IQN, h.port, nil); err != nil {
		t.Fatal(out, err)
	}
	net := g.sg3Devices("1")
	disks := h.disks()
	a, b := bytes.Repeat([]byte("a!"), 256), bytes.Repeat([]byte("b?"), 256)
	tail := bytes.Clone(b)
	tail[511]++
	for name, data := range map[string][]byte{"a": a, "b": b, "ab": slices.Concat(a, b), "tail": slices.Concat(tail, a)} {
		g.put("/tmp/"+name, string(data))
	}
	run := func(t *testing.T, transport, host string, here, there map[string]string, peerGroup string) {
		vars := map[string]string{"naa": strings.TrimPrefix(disks["thin"].NAA, "naa."), "host": host, "peer": there["thin"], "peerplain": there["plain"], "peergroup": peerGroup}
		for name, dev := range here {
			vars[name] = dev
		}
		m := regexp.MustCompile(`PR generation=0x([0-9a-f]+)`).FindStringSubmatch(g.run("/usr/bin/sg_persist", "-n", "-k", here["thin"]))
		if m == nil {
			t.Fatal("no PRGENERATION")
		}
		vars["gen"] = m[1]
		begin, n := time.Now(), 0
		for i := range cases {
			c := &cases[i]
			if c.only != nil && !slices.Contains(c.only, transport) {
				continue
			}
			out, status := g.sg3(t, c, vars)
			c.check(t, vars, out, status)
			n++
		}
		t.Logf("%d programs in %.1f s", n, time.Since(begin).Seconds())
	}
	t.Run("iscsi", func(t *testing.T) { run(t, "iscsi", "1", net, ring, "2") })
	t.Run("vhost", func(t *testing.T) { run(t, "vhost", "0", ring, net, "1") })

	log, err := g.vm.Log()
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"01", "02"} {
		for _, state := range []string{"S", "U", "N", "A"} {
			if len(linesWith(log, "alua: port group "+group+" state "+state+" non-preferred")) == 0 {
				t.Errorf("Linux has not noticed state %s of port group %s", state, group)
			}
		}
	}
	// Linux asks again when a unit attention answers its first REPORT TARGET PORT GROUPS.
	for _, bad := range []string{"rror", "ail", "bort", "timed out", "offline", "reject", "nvalid", "nexpected", "not a multiple", "Unaligned", "BUG", "WARN", "Assuming"} {
		if lines := slices.DeleteFunc(linesWith(log, bad), func(l string) bool { return !sg3Device.MatchString(l) }); len(lines) > 0 {
			t.Errorf("the guest's log: %q", lines)
		}
	}
}

// sg3Device are lines of the kernel's log about what it reaches by a SCSI host.
var sg3Device = regexp.MustCompile(`\] (sd|sr|scsi|sg|connection|session|virtio_scsi|alua|blk_\w+|I/O error|critical)`)

// sg3 runs the program of a case.
func (g *linux) sg3(t *testing.T, c *sg3Case, vars map[string]string) (out []byte, status int) {
	t.Helper()
	var args []string
	for _, a := range c.args {
		args = append(args, c.expand(t, a, vars))
	}
	if args[0] == "cat" {
		text, err := g.vm.Read(args[1])
		if err != nil {
			return []byte(err.Error()), 1
		}
		return []byte(text), 0
	}
	args[0] = "/usr/bin/" + args[0]
	in, err := parseBytes(c.input)
	if err != nil {
		t.Fatal(c.at, err)
	}
	var data []byte
	for _, b := range in {
		data = append(data, byte(b))
	}
	r, err := g.vm.Do(agent.Request{Op: agent.Exec, Args: args, Data: data, Seconds: int(patience.Seconds())}, 2*patience)
	if err != nil {
		t.Fatal(c.at, err)
	}
	return r.Out, r.Exit
}

// sg3Devices waits for the disks at a SCSI host and returns their generic devices by
// name, as the kernel opens the others when it likes; and as NAMEsys where sysfs has them.
func (g *linux) sg3Devices(host string) map[string]string {
	g.t.Helper()
	m := map[string]string{}
	for name, lun := range map[string]string{"thin": "0", "plain": "1", "fixed": "5"} {
		device := "/sys/class/scsi_device/" + host + ":0:0:" + lun + "/device/"
		// The disk comes last.
		for _, kind := range []string{"scsi_generic", "block"} {
			p, err := g.vm.Await(device+kind+"/*", patience)
			if err != nil {
				g.t.Fatal(err)
			}
			if kind == "block" {
				m[name+"sys"] = "/sys/block/" + filepath.Base(p)
			} else {
				m[name] = "/dev/" + filepath.Base(p)
			}
		}
	}
	return m
}
