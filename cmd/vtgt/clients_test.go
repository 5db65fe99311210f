package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// need skips, with the reason, where a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed (make deps)", program)
	}
}

// qemuISCSI skips where qemu-img has no iSCSI driver.
func qemuISCSI(t *testing.T) {
	t.Helper()
	need(t, "qemu-img")
	out, _ := exec.Command("qemu-img", "--help").CombinedOutput()
	_, errOut, _ := command(t, os.Environ(), "qemu-img", "info", "iscsi://127.0.0.1:1/iqn.2026-11.org.vtgt:x/0")
	if strings.Contains(errOut, "Unknown protocol") || !bytes.Contains(out, []byte("iscsi")) && strings.Contains(errOut, "nknown driver") {
		t.Skip("qemu-img has no iSCSI driver (package qemu-block-extra)")
	}
}

// hold runs a qemu-io that has the image open until the test ends.
func hold(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command("qemu-io", args...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = pw, pw
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	out := &server{}
	open := out.follow(r, "read 512/512")
	t.Cleanup(func() {
		in.Write([]byte("quit\n"))
		in.Close()
		done := make(chan struct{})
		go func() { c.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(tempotest.Patience):
			c.Process.Kill()
			<-done
		}
		r.Close()
		if t.Failed() {
			t.Logf("qemu-io: %s", out.text())
		}
	})
	in.Write([]byte("read 0 512\n"))
	tempotest.Recv(t, open, "qemu-io has the image open")
	return c
}

func TestHeldByQEMU(t *testing.T) {
	need(t, "qemu-io")
	w := newWorld(t)
	img := filepath.Join(w.dir, "a.img")
	hold(t, "-f", "raw", img)
	w.fails(w.now(), "disk a", img, "in use")
}

func TestQEMURefused(t *testing.T) {
	need(t, "qemu-img")
	w := newWorld(t)
	w.serve()
	src := w.file("src.img", 1<<20)
	_, errOut, code := command(t, os.Environ(), "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", src, filepath.Join(w.dir, "a.img"))
	if code == 0 || !strings.Contains(errOut, "lock") {
		t.Errorf("qemu-img wrote onto a served file: exit %d, %s", code, errOut)
	}
}

// A random image goes to the target and back, with digests as negotiated.
func TestConvert(t *testing.T) {
	qemuISCSI(t)
	need(t, "qemu-io")
	const size = 32 << 20
	for _, digest := range []string{"crc32c", "none"} {
		t.Run(digest, func(t *testing.T) {
			w := newWorld(t)
			w.file("a.img", size)
			w.serve()
			src, back := filepath.Join(w.dir, "src.img"), filepath.Join(w.dir, "back.img")
			b := make([]byte, size)
			rand.Read(b)
			if err := os.WriteFile(src, b, 0o600); err != nil {
				t.Fatal(err)
			}
			opts := fmt.Sprintf("driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=%s,file.target=%s,file.lun=0,file.header-digest=%s", w.portal, testIQN, digest)
			ctx, cancel := context.WithTimeout(context.Background(), 2*tempotest.Patience)
			defer cancel()
			for _, args := range [][]string{
				{"convert", "-n", "-f", "raw", "--target-image-opts", src, opts},
				{"convert", "--image-opts", opts, "-O", "raw", back},
			} {
				if out, err := exec.CommandContext(ctx, "qemu-img", args...).CombinedOutput(); err != nil {
					t.Fatalf("qemu-img %v: %v\n%s", args, err, out)
				}
			}
			got, err := os.ReadFile(back)
			if err != nil || !bytes.Equal(got[:size], b) {
				t.Fatalf("what came back is another image: %v", err)
			}

			hold(t, "--image-opts", opts)
			var ss []api.Session
			if err := json.Unmarshal([]byte(w.ok("get", "sessions", "-o", "json")), &ss); err != nil || len(ss) != 1 {
				t.Fatalf("%+v %v", ss, err)
			}
			want := map[string]string{"crc32c": "CRC32C", "none": "None"}[digest]
			if ss[0].Params["HeaderDigest"] != want || ss[0].Params["DataDigest"] != "None" {
				t.Errorf("negotiated %+v, want HeaderDigest=%s", ss[0].Params, want)
			}
			if out := w.ok("get", "sessions"); !strings.Contains(out, want) {
				t.Errorf("%s", out)
			}
		})
	}
}

func TestDiscovery(t *testing.T) {
	need(t, "iscsi-ls")
	w := newWorld(t)
	w.serve()
	out, errOut, code := command(t, os.Environ(), "iscsi-ls", "-s", "iscsi://"+w.portal)
	if code != 0 || !strings.Contains(out, testIQN) || !strings.Contains(out, "Lun:0") {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
}
