package backing_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/tempotest"
)

func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (qemu-utils)", name)
	}
	return p
}

// TestLocksAgainstQEMU: QEMU's tools refuse what we serve and we refuse what
// they have open, by QEMU's own locks.
func TestLocksAgainstQEMU(t *testing.T) {
	img, io := tool(t, "qemu-img"), tool(t, "qemu-io")
	g := group(t)
	dir := t.TempDir()
	path := sparse(t, filepath.Join(dir, "disk"), 1<<20)
	src := sparse(t, filepath.Join(dir, "src"), 1<<20)
	run := func(refused bool, want string, args ...string) {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		// qemu-io ends with 0 when a command fails but not when the open does.
		if refused && (err == nil || !strings.Contains(string(out), want)) {
			t.Errorf("%v: %v %s, want a refusal with %q", args, err, out, want)
		}
		if !refused && err != nil {
			t.Errorf("%v: %v %s", args, err, out)
		}
	}

	st := open(t, "file:"+path, backing.Options{Group: g})
	run(true, `Failed to get "write" lock`, img, "convert", "-n", "-f", "raw", "-O", "raw", src, path)
	run(true, `Failed to get "write" lock`, io, "-f", "raw", "-c", "write 0 512", path)
	run(true, `lock`, img, "resize", "-f", "raw", path, "2M")
	run(true, `Failed to get shared "write" lock`, img, "convert", "-f", "raw", "-O", "raw", path, filepath.Join(dir, "out"))
	run(false, "", img, "info", "-U", "-f", "raw", path)
	if _, err := backing.Open("file:"+path, backing.Options{Group: g}); !errors.Is(err, backing.ErrInUse) {
		t.Errorf("a second writer: %v, want ErrInUse", err)
	}
	if _, err := backing.Open("file:"+path, backing.Options{Group: g, ReadOnly: true}); !errors.Is(err, backing.ErrInUse) {
		t.Errorf("a reader beside a writer: %v, want ErrInUse", err)
	}
	// A re-open never lets go.
	if err := st.Reopen(); err != nil {
		t.Fatal(err)
	}
	run(true, `Failed to get "write" lock`, io, "-f", "raw", "-c", "write 0 512", path)
	closeAll(t, st)
	run(false, "", io, "-f", "raw", "-c", "write 0 512", path)

	// Readers share with readers, ours and QEMU's.
	r1 := open(t, "file:"+path, backing.Options{Group: g, ReadOnly: true})
	r2 := open(t, "file:"+path, backing.Options{Group: g, ReadOnly: true})
	run(false, "", img, "convert", "-f", "raw", "-O", "raw", path, filepath.Join(dir, "out"))
	run(true, `Failed to get "write" lock`, img, "convert", "-n", "-f", "raw", "-O", "raw", src, path)
	if _, err := backing.Open("file:"+path, backing.Options{Group: g}); !errors.Is(err, backing.ErrInUse) {
		t.Errorf("a writer beside readers: %v, want ErrInUse", err)
	}
	closeAll(t, r1)
	closeAll(t, r2)

	// QEMU first.
	cmd := exec.Command(io, "-f", "raw", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	tempotest.Wait(t, "qemu-io locks", func() bool {
		b, _ := os.ReadFile("/proc/locks")
		return strings.Contains(string(b), inode(t, path)+" 100 ")
	})
	_, err = backing.Open("file:"+path, backing.Options{Group: g})
	if !errors.Is(err, backing.ErrInUse) {
		t.Fatalf("open while qemu-io has it: %v, want ErrInUse", err)
	}
	if !strings.Contains(err.Error(), "qemu-io (pid ") {
		t.Errorf("%v: want the holder's name", err)
	}
	// It waits as long as it is told, and gets the lock when it is free.
	time.AfterFunc(300*time.Millisecond, func() { in.Close() })
	st, err = backing.Open("file:"+path, backing.Options{Group: g, LockWait: tempotest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	closeAll(t, st)
}

// inode is how /proc/locks names a file, from the inode number on.
func inode(t *testing.T, path string) string {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(fi.Sys().(*syscall.Stat_t).Ino)
}
