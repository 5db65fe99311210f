package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// toolTime bounds one run of apt, dpkg-deb, xz or go.
	toolTime = 20 * time.Minute
	// lockTime bounds the wait for another process that fills the same cache.
	lockTime = 30 * time.Minute
)

// Cache is a folder of downloaded and unpacked Debian packages. Several processes
// may use one.
type Cache struct{ Dir string }

// DefaultCache is .cache/guest below the module's root.
func DefaultCache() (*Cache, error) {
	root, err := ModuleRoot()
	if err != nil {
		return nil, err
	}
	c := &Cache{Dir: filepath.Join(root, ".cache", "guest")}
	return c, os.MkdirAll(c.Dir, 0o755)
}

// ModuleRoot is the folder of the go.mod above the working folder.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("guest: no go.mod above the working folder")
		}
	}
}

// lock keeps other processes, and goroutines, out of the cache.
func (c *Cache) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.Dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockTime); ; time.Sleep(100 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR), time.Now().After(end):
			_ = f.Close()
			return nil, fmt.Errorf("guest: lock of %s: %w", c.Dir, err)
		}
	}
}

// Package makes sure that the Debian package name is unpacked in the cache, in the
// version that apt would install, and returns the folder. A download whose SHA-256
// sum is not the one of apt's index is refused. Where apt's index is missing or too old,
// the cache gets one of its own; where that fails too, what is in the cache does.
func (c *Cache) Package(name string) (string, error) {
	unlock, err := c.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	var errs []error
	for _, a := range []apt{{}, {lists: filepath.Join(c.Dir, "lists")}} {
		root, err := c.fetch(a, name)
		if err == nil {
			return root, nil
		}
		errs = append(errs, err)
	}
	if old := c.unpacked(name); old != "" {
		return old, nil
	}
	return "", fmt.Errorf("%w\nguest: run apt-get update, or look at the sources of apt", errors.Join(errs...))
}

// fetch is Package with the index of a. The cache is locked.
func (c *Cache) fetch(a apt, name string) (string, error) {
	version, sum, err := a.index(name)
	if err != nil {
		return "", err
	}
	root := filepath.Join(c.Dir, name+"_"+strings.ReplaceAll(version, ":", "%3a"))
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	tmp, err := os.MkdirTemp(c.Dir, name+".tmp")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := run(tmp, "apt-get", a.args("download", "-q", name+"="+version)...); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("guest: apt-get download %s left %d files", name, len(debs))
	}
	got, err := fileSum(debs[0])
	if err != nil {
		return "", err
	}
	if got != sum {
		return "", fmt.Errorf("guest: %s: SHA-256 is %s, the index says %s", name, got, sum)
	}
	out := filepath.Join(tmp, "root")
	if err := run(tmp, "dpkg-deb", "-x", debs[0], out); err != nil {
		return "", err
	}
	return root, os.Rename(out, root)
}

// Packages unpacks several and returns their folders in the same order.
func (c *Cache) Packages(names ...string) ([]string, error) {
	var roots []string
	for _, n := range names {
		r, err := c.Package(n)
		if err != nil {
			return nil, err
		}
		roots = append(roots, r)
	}
	return roots, nil
}

// Depends is what the package name depends on, as the index has it.
func (c *Cache) Depends(name string) (string, error) {
	unlock, err := c.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	s, err := apt{}.show(name)
	if err != nil {
		s, err = apt{lists: filepath.Join(c.Dir, "lists")}.show(name)
	}
	if err != nil {
		return "", fmt.Errorf("%w: run apt-get update", err)
	}
	return dependsLine.FindString(s), nil
}

// unpacked is the last version of a package in the cache, "" for none.
func (c *Cache) unpacked(name string) string {
	dirs, _ := filepath.Glob(filepath.Join(c.Dir, name+"_*"))
	if len(dirs) == 0 {
		return ""
	}
	return dirs[len(dirs)-1]
}

func fileSum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func run(dir, name string, arg ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, arg...)
	cmd.Dir = dir
	cmd.WaitDelay = 30 * time.Second
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("guest: %s %s: %w: %s", name, strings.Join(arg, " "), err, b)
	}
	return nil
}
