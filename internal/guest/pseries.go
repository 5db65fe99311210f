package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pSeries guests: the machine of IBM's POWER partitions, for the client of IBM's virtual
// SCSI. The kernel is Debian's for ppc64el, of the release that the tests were recorded
// with; x-vof=on does without the firmware SLOF, which takes 80 s to start Linux.

const (
	ppc64      = "ppc64le" // GOARCH
	ppcSuite   = "bookworm"
	ppcMachine = "pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
	ppcMeta    = "linux-image-powerpc64le"
)

// KernelPPC64 unpacks Debian's kernel for pSeries machines. What is in the cache is used
// without asking the mirror.
func (c *Cache) KernelPPC64() (*Kernel, error) {
	unlock, err := c.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	dir := filepath.Join(c.Dir, ppcSuite+"-ppc64el")
	root := filepath.Join(dir, "root")
	if _, err := os.Stat(root); err != nil {
		if err := c.fillPPC64(dir, root); err != nil {
			return nil, err
		}
	}
	images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinux-*"))
	if len(images) != 1 {
		return nil, fmt.Errorf("guest: %d kernels in %s: remove that folder", len(images), root)
	}
	k := &Kernel{Image: images[0], Release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinux-"), arch: ppc64}
	return k, k.scan(filepath.Join(root, "lib", "modules", k.Release))
}

// fillPPC64 downloads and unpacks into root. The cache is locked.
func (c *Cache) fillPPC64(dir, root string) error {
	if err := os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755); err != nil {
		return err
	}
	source := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, debianMirror(), ppcSuite)
	for f, text := range map[string]string{"sources.list": source, "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o644); err != nil {
			return err
		}
	}
	a := apt{more: []string{
		"APT::Architecture=ppc64el", "APT::Architectures=ppc64el", "APT::Sandbox::User=root",
		"Dir::Etc::SourceList=" + filepath.Join(dir, "sources.list"), "Dir::Etc::SourceParts=/dev/null",
		"Dir::State::lists=" + filepath.Join(dir, "lists"), "Dir::State::status=" + filepath.Join(dir, "status"),
		"Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
	}}
	if err := run(dir, "apt-get", a.args("update", "-q")...); err != nil {
		return err
	}
	s, err := a.show(ppcMeta)
	if err != nil {
		return err
	}
	m := ppcKernelName.FindString(dependsLine.FindString(s))
	if m == "" {
		return errors.New("guest: " + ppcMeta + " depends on no kernel")
	}
	tmp, err := os.MkdirTemp(dir, "root.tmp")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// apt checks it against the signed index.
	if err := run(tmp, "apt-get", a.args("download", "-q", m)...); err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("guest: apt-get download %s left %d files", m, len(debs))
	}
	out := filepath.Join(tmp, "root")
	if err := run(tmp, "dpkg-deb", "-x", debs[0], out); err != nil {
		return err
	}
	return os.Rename(out, root)
}

// pseriesArguments is the part of QEMU's command line that is the machine's. The agent
// has the second console.
func (o *Options) pseriesArguments() []string {
	machine := ppcMachine
	if o.Image != nil {
		machine += ",x-vof=on"
	}
	return []string{"-M", machine, "-cpu", "power9", "-vga", "none"}
}
