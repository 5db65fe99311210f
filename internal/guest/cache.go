package guest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Cache is a folder of downloaded and unpacked Debian packages.
type Cache struct {
	Dir string
	mu  sync.Mutex
}

// DefaultCache is .cache/guest below the module's root.
func DefaultCache() (*Cache, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			c := &Cache{Dir: filepath.Join(dir, ".cache", "guest")}
			return c, os.MkdirAll(c.Dir, 0o755)
		}
		if dir == filepath.Dir(dir) {
			return nil, errors.New("guest: no go.mod above the working folder")
		}
	}
}

// Package makes sure that the Debian package name is unpacked in the cache and
// returns the folder. A download whose SHA-256 sum is not the one of apt's index
// is refused and removed.
func (c *Cache) Package(name string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	version, sum, err := aptIndex(name)
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
	if err := run(tmp, "apt-get", "download", "-q", name+"="+version); err != nil {
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

var (
	versionLine = regexp.MustCompile(`(?m)^Version: (.*)$`)
	sumLine     = regexp.MustCompile(`(?m)^SHA256: (.*)$`)
	dependsLine = regexp.MustCompile(`(?m)^Depends: (.*)$`)
)

func aptShow(name string) (string, error) {
	b, err := exec.Command("apt-cache", "show", "--no-all-versions", name).Output()
	if err != nil || len(b) == 0 {
		return "", fmt.Errorf("guest: apt knows no package %s: run apt-get update", name)
	}
	return string(b), nil
}

func aptIndex(name string) (version, sum string, err error) {
	s, err := aptShow(name)
	if err != nil {
		return "", "", err
	}
	v, h := versionLine.FindStringSubmatch(s), sumLine.FindStringSubmatch(s)
	if v == nil || h == nil {
		return "", "", fmt.Errorf("guest: apt's index has no version or sum for %s", name)
	}
	return v[1], h[1], nil
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
	cmd := exec.Command(name, arg...)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("guest: %s %s: %w: %s", name, strings.Join(arg, " "), err, b)
	}
	return nil
}
