package xenguest

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/vtgt/vtgt/internal/guest"
)

// Xen is the unpacked hypervisor and its tools.
type Xen struct {
	Version string // "4.17"
	// Image is the hypervisor, uncompressed: QEMU's multiboot loader does not unpack.
	Image  string
	tools  string
	roots  []string // of packages with programs and libraries
	libgcc string
}

// metaPackage stands for Debian's present version.
const metaPackage = "xen-system-amd64"

var hypervisorName = regexp.MustCompile(`xen-hypervisor-([0-9.]+)-amd64`)

// libraries are the packages that xl, xenstored and xenconsoled want beside the C
// library and what every Debian has.
func libraries(version string) []string {
	return []string{
		"xenstore-utils", "libxenmisc" + version, "libxenstore4", "libxencall1", "libxendevicemodel1", "libxenevtchn1",
		"libxenforeignmemory1", "libxengnttab1", "libxenhypfs1", "libxentoolcore1", "libxentoollog1", "libyajl2", "libext2fs2",
	}
}

const (
	libDir = "x86_64-linux-gnu"
	libgcc = "libgcc_s.so.1"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Find makes sure that the packages are in the cache.
func Find(c *guest.Cache) (*Xen, error) {
	deps, err := c.Depends(metaPackage)
	if err != nil {
		return nil, err
	}
	m := hypervisorName.FindStringSubmatch(deps)
	if m == nil {
		return nil, errors.New("xenguest: " + metaPackage + " depends on no hypervisor")
	}
	x := &Xen{Version: m[1]}
	hv, err := c.Package(m[0])
	if err != nil {
		return nil, err
	}
	x.Image = filepath.Join(hv, "xen")
	if err := unzip(filepath.Join(hv, "boot", "xen-"+x.Version+"-amd64.gz"), x.Image); err != nil {
		return nil, err
	}
	if x.tools, err = c.Package("xen-utils-" + x.Version); err != nil {
		return nil, err
	}
	if x.roots, err = c.Packages(libraries(x.Version)...); err != nil {
		return nil, err
	}
	// The C library loads it where xl cancels a thread.
	gcc, err := c.Package("libgcc-s1")
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"lib", "usr/lib"} {
		if p := filepath.Join(gcc, dir, libDir, libgcc); exists(p) {
			x.libgcc = p
			return x, nil
		}
	}
	return nil, errors.New("xenguest: there is no " + libgcc + " in " + gcc)
}

// unzip makes out of the gzip file in, unless it is there.
func unzip(in, out string) error {
	if exists(out) {
		return nil
	}
	f, err := os.Open(in)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), "xen.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), out)
}

// bin is where the first domain has Xen's own programs.
func (x *Xen) bin(name string) string {
	return "/usr/lib/xen-" + x.Version + "/bin/" + name
}

// binaries are Xen's programs with their libraries.
func (x *Xen) binaries() []guest.Binary {
	var bs []guest.Binary
	for _, n := range []string{"xl", "xenstored", "xen-init-dom0", "xenconsoled", "libxl-save-helper", "xentrace"} {
		bs = append(bs, guest.Binary{Root: x.tools, Path: x.bin(n), Libs: x.roots})
	}
	for _, r := range x.roots {
		if strings.HasPrefix(filepath.Base(r), "xenstore-utils_") {
			bs = append(bs, guest.Binary{Root: r, Path: "/usr/bin/xenstore", Libs: x.roots})
		}
	}
	return bs
}
