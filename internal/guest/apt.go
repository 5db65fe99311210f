package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// apt asks Debian's package tools, with the system's index or, where lists is not
// empty, with one in that folder, which needs no root. Sources and keys are the
// system's.
type apt struct {
	lists string
	more  []string // options
}

// listsAge is how old an index of our own may be.
const listsAge = 12 * time.Hour

var (
	versionLine = regexp.MustCompile(`(?m)^Version: (.*)$`)
	sumLine     = regexp.MustCompile(`(?m)^SHA256: (.*)$`)
	dependsLine = regexp.MustCompile(`(?m)^Depends: (.*)$`)
)

// args adds what apt-get and apt-cache must be told.
func (a apt) args(arg ...string) []string {
	if os.Geteuid() == 0 {
		arg = append(arg, "-o", "APT::Sandbox::User=root") // _apt may not write our folders
	}
	for _, o := range a.more {
		arg = append(arg, "-o", o)
	}
	if a.lists != "" {
		arg = append(arg, "-o", "Dir::State::lists="+a.lists, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
	}
	return arg
}

// update makes the index of our own, unless it is new.
func (a apt) update() error {
	stamp := filepath.Join(a.lists, "updated")
	if fi, err := os.Stat(stamp); err == nil && time.Since(fi.ModTime()) < listsAge {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(a.lists, "partial"), 0o755); err != nil {
		return err
	}
	if err := run(a.lists, "apt-get", a.args("update", "-q")...); err != nil {
		return err
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// show is the index's entry of a package.
func (a apt) show(name string) (string, error) {
	if a.lists != "" {
		if err := a.update(); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	b, err := exec.CommandContext(ctx, "apt-cache", a.args("show", "--no-all-versions", name)...).Output()
	if err != nil || len(b) == 0 {
		return "", fmt.Errorf("guest: apt knows no package %s (%v)", name, err)
	}
	return string(b), nil
}

// index is the version and the SHA-256 sum of what apt would install.
func (a apt) index(name string) (version, sum string, err error) {
	s, err := a.show(name)
	if err != nil {
		return "", "", err
	}
	v, h := versionLine.FindStringSubmatch(s), sumLine.FindStringSubmatch(s)
	if v == nil || h == nil {
		return "", "", fmt.Errorf("guest: apt's index has no version or sum for %s", name)
	}
	return v[1], h[1], nil
}
