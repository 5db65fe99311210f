package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/ldd"
)

// Image is what goes into a guest's initramfs.
type Image struct {
	Kernel *Kernel
	// Boot names the modules that init loads, Modules those that are only there
	// (VM.Insmod), both with all they depend on.
	Boot, Modules []string
	// Files maps paths in the guest to files of the host.
	Files map[string]string
	// Binaries are programs of the host (or of an unpacked package below Root)
	// that go in with their libraries, at their own path.
	Binaries []Binary
	// Links maps paths in the guest to what they point to.
	Links map[string]string
}

// Binary is a program, at Root+Path on the host, at Path in the guest. Its
// libraries are looked for in Root, in Libs (roots of other unpacked packages) and
// then where the host has its own.
type Binary struct {
	Root, Path string
	Libs       []string
}

// moduleDir is where the guest has its modules.
const moduleDir = "/lib/modules/"

// Build makes the raw newc archive, with init, in folder dir and returns its path.
// One archive serves any number of guests.
func (im *Image) Build(dir string) (string, error) {
	initBinary, err := buildInit(dir, im.Kernel.arch)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "initramfs.cpio")
	return path, im.write(path, initBinary)
}

func (im *Image) write(path, initBinary string) error {
	recs := []cpio.Record{cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.StaticFile("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
		cpio.StaticFile("etc/group", "root:x:0:\n", 0o644)}
	files := map[string]string{"/init": initBinary}
	for k, v := range im.Files {
		files[k] = v
	}
	boot, err := im.Kernel.Modules(im.Boot...)
	if err != nil {
		return err
	}
	more, err := im.Kernel.Modules(im.Modules...)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, m := range boot {
		fmt.Fprintln(&list, moduleDir+filepath.Base(m))
	}
	recs = append(recs, cpio.StaticFile("modules.boot", list.String(), 0o644))
	for _, m := range append(boot, more...) {
		files[moduleDir+filepath.Base(m)] = m
	}
	for _, b := range im.Binaries {
		if err := b.add(files); err != nil {
			return err
		}
	}
	for _, to := range slices.Sorted(maps.Keys(files)) {
		b, err := os.ReadFile(files[to])
		if err != nil {
			return err
		}
		recs = append(recs, cpio.StaticFile(strings.TrimPrefix(to, "/"), string(b), 0o755))
	}
	for _, from := range slices.Sorted(maps.Keys(im.Links)) {
		recs = append(recs, cpio.Symlink(strings.TrimPrefix(from, "/"), im.Links[from]))
	}
	var buf bytes.Buffer
	w := cpio.Newc.Writer(&buf)
	if err := cpio.WriteRecordsAndDirs(cpio.NewDedupWriter(w), recs); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}

// add puts the program and its libraries into files.
func (b Binary) add(files map[string]string) error {
	host := filepath.Join(b.Root, b.Path)
	files[b.Path] = host
	libs, err := b.libraries(host)
	if err != nil {
		return err
	}
	for _, l := range libs {
		files[l.guest] = l.host
	}
	return nil
}

type library struct{ guest, host string }

func (b Binary) libraries(host string) ([]library, error) {
	interp, err := ldd.GetInterp(host)
	if err != nil || interp == "" {
		return nil, err // static
	}
	var path []string
	for _, r := range append([]string{b.Root}, b.Libs...) {
		path = append(path, filepath.Join(r, "usr/lib/x86_64-linux-gnu"), filepath.Join(r, "lib/x86_64-linux-gnu"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, interp, "--list", host)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(path, ":"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("guest: libraries of %s: %w: %s", host, err, out)
	}
	libs := []library{{interp, interp}}
	for _, line := range strings.Split(string(out), "\n") {
		f := strings.Fields(line)
		if len(f) >= 3 && f[1] == "=>" {
			libs = append(libs, library{filepath.Join("/usr/lib/x86_64-linux-gnu", f[0]), f[2]})
		}
	}
	return libs, nil
}

// buildInit compiles the init program, once for each version of its sources (the
// build cache of go sees to that).
func buildInit(dir, arch string) (string, error) {
	out := filepath.Join(dir, "init")
	if err := goBuild(out, "github.com/vtgt/vtgt/internal/guest/init", arch); err != nil {
		return "", err
	}
	return out, nil
}

// GoBuild compiles the command pkg into the static program out.
func GoBuild(out, pkg string) error { return goBuild(out, pkg, "amd64") }

func goBuild(out, pkg, arch string) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH="+arch)
	cmd.WaitDelay = 30 * time.Second
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("guest: go build %s: %w: %s", pkg, err, b)
	}
	return nil
}

// errNoQEMU says what is missing.
func errNoQEMU(name string) error {
	return errors.New("guest: " + name + " is not installed: run make deps")
}
