package guest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mirror is where releases other than the host's come from unless apt's own sources
// name a Debian mirror.
const mirror = "http://deb.debian.org/debian/"

// keyring signs every release of Debian.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Closure makes sure that the package name of another release of Debian (suite:
// "trixie") is unpacked in the cache with all that it depends on, the C library
// included, and returns the folder. Nothing of it is installed: its programs run by
// the folder's own dynamic loader (see Loader). What is in the cache is used for
// listsAge without asking the mirror.
//
// QEMU 10 for x86 takes 90 packages, 38 MB, and five seconds.
func (c *Cache) Closure(suite, name string) (string, error) {
	unlock, err := c.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(c.Dir, suite+"-"+name)
	root := filepath.Join(dir, "root")
	fi, statErr := os.Stat(root)
	if statErr == nil && time.Since(fi.ModTime()) < listsAge {
		return root, nil
	}
	if err := c.fillClosure(dir, suite, name); err != nil {
		if statErr == nil {
			return root, nil // an older one does
		}
		return "", err
	}
	return root, nil
}

// fillClosure downloads and unpacks into dir/root. The cache is locked.
func (c *Cache) fillClosure(dir, suite, name string) error {
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	source := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, debianMirror(), suite)
	files := map[string]string{"sources.list": source, "status": ""} // status: nothing is installed
	for f, text := range files {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644); err != nil {
			return err
		}
	}
	apt := func(arg ...string) error {
		for _, o := range []string{
			"Dir::Etc::SourceList=" + filepath.Join(dir, "sources.list"), "Dir::Etc::SourceParts=/dev/null",
			"Dir::State::lists=" + filepath.Join(dir, "lists"), "Dir::State::status=" + filepath.Join(dir, "status"),
			"Dir::Cache::archives=" + filepath.Join(dir, "archives"), "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
			"APT::Sandbox::User=root", "APT::Install-Recommends=0", "Debug::NoLocking=1",
		} {
			arg = append(arg, "-o", o)
		}
		return run(dir, "apt-get", arg...)
	}
	if err := apt("update", "-q"); err != nil {
		return err
	}
	// apt checks each package against the signed index.
	if err := apt("install", "-q", "-y", "--download-only", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "archives", "*.deb"))
	if err != nil || len(debs) == 0 {
		return fmt.Errorf("guest: apt-get left no packages for %s of %s", name, suite)
	}
	tmp, err := os.MkdirTemp(dir, "root.tmp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, d := range debs {
		if err := run(dir, "dpkg-deb", "-x", d, tmp); err != nil {
			return err
		}
	}
	root := filepath.Join(dir, "root")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tmp, root); err != nil {
		return err
	}
	now := time.Now()
	if err := os.Chtimes(root, now, now); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, "archives"))
}

// debianMirror is the mirror that apt's sources name.
func debianMirror() string {
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	b, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return mirror
	}
	for _, uri := range bytes.Fields(b) {
		if u := strings.TrimSuffix(string(uri), "/"); strings.HasSuffix(u, "/debian") {
			return u + "/"
		}
	}
	return mirror
}

// Loader is the command that runs the program at path (in the closure) by the
// closure's own dynamic loader and libraries.
func Loader(root, path string) []string {
	return []string{
		filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"),
		"--library-path", filepath.Join(root, "usr/lib/x86_64-linux-gnu"),
		filepath.Join(root, path),
	}
}

// QEMU10 is the command line of trixie's QEMU for x86, which reconnects to a
// vhost-user back end and migrates its devices.
func (c *Cache) QEMU10() ([]string, error) {
	root, err := c.Closure("trixie", "qemu-system-x86")
	if err != nil {
		return nil, err
	}
	return append(Loader(root, "usr/bin/qemu-system-x86_64"),
		"-L", filepath.Join(root, "usr/share/qemu"), "-L", filepath.Join(root, "usr/share/seabios")), nil
}
