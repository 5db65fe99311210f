package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Kernel is an unpacked Linux kernel.
type Kernel struct {
	// Image is the uncompressed vmlinux, which QEMU boots through its PVH note
	// in half the time of the bzImage.
	Image   string
	BzImage string // as boot loaders take it
	Release string
	arch    string            // GOARCH
	byName  map[string]string // module name to file
	builtin map[string]bool
}

var (
	kernelName    = regexp.MustCompile(`linux-image-[0-9][^ ,_]*-amd64`)
	ppcKernelName = regexp.MustCompile(`linux-image-[0-9][^ ,_]*-powerpc64le`)
)

// Kernel unpacks Debian's present amd64 kernel.
func (c *Cache) Kernel() (*Kernel, error) {
	m, err := c.kernelPackage()
	if err != nil {
		return nil, err
	}
	root, err := c.Package(m)
	if err != nil {
		return nil, err
	}
	k := &Kernel{Release: strings.TrimPrefix(m, "linux-image-"), Image: filepath.Join(root, "vmlinux"), BzImage: filepath.Join(root, "boot", "vmlinuz-"+m[len("linux-image-"):]), arch: "amd64"}
	if err := c.unpackImage(k, k.BzImage); err != nil {
		return nil, err
	}
	return k, k.scan(filepath.Join(root, "lib", "modules", k.Release))
}

// scan finds the modules.
func (k *Kernel) scan(modules string) error {
	k.byName, k.builtin = map[string]string{}, map[string]bool{}
	b, err := os.ReadFile(filepath.Join(modules, "modules.builtin"))
	if err != nil {
		return err
	}
	for _, l := range strings.Fields(string(b)) {
		k.builtin[moduleName(filepath.Base(l))] = true
	}
	return filepath.WalkDir(modules, func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".ko") {
			k.byName[moduleName(filepath.Base(p))] = p
		}
		return err
	})
}

// kernelPackage is the package that linux-image-amd64 stands for.
func (c *Cache) kernelPackage() (string, error) {
	const meta = "linux-image-amd64"
	deps, err := c.Depends(meta)
	if err == nil {
		if m := kernelName.FindString(deps); m != "" {
			return m, nil
		}
		err = errors.New("guest: " + meta + " depends on no kernel")
	}
	unlock, lerr := c.lock()
	if lerr != nil {
		return "", lerr
	}
	defer unlock()
	if m := kernelName.FindString(filepath.Base(c.unpacked("linux-image-[0-9]*-amd64"))); m != "" {
		return m, nil
	}
	return "", err
}

// unpackImage makes k.Image of the bzImage bz, once.
func (c *Cache) unpackImage(k *Kernel, bz string) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(k.Image); err == nil {
		return nil
	}
	return extractVmlinux(bz, k.Image)
}

func moduleName(s string) string {
	return strings.ReplaceAll(strings.TrimSuffix(s, ".ko"), "-", "_")
}

// extractVmlinux takes the xz payload out of a bzImage (Documentation/x86/boot.rst:
// setup_sects at 1f1h, payload_offset at 248h, payload_length at 24ch; the last four
// bytes of the payload are its unpacked size).
func extractVmlinux(bz, out string) error {
	b, err := os.ReadFile(bz)
	if err != nil {
		return err
	}
	if len(b) < 0x250 {
		return fmt.Errorf("guest: %s is no bzImage", bz)
	}
	off := (int(b[0x1f1])+1)*512 + int(binary.LittleEndian.Uint32(b[0x248:]))
	n := int(binary.LittleEndian.Uint32(b[0x24c:]))
	if n < 4 || off+n > len(b) {
		return fmt.Errorf("guest: %s: payload outside the file", bz)
	}
	if _, err := exec.LookPath("xz"); err != nil {
		return errors.New("guest: xz is not installed: run make deps")
	}
	tmp := out + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "xz", "-dc")
	cmd.Stdin = bytes.NewReader(b[off : off+n-4])
	cmd.Stdout = f
	err = cmd.Run()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("guest: unpacking %s: %w", bz, err)
	}
	return os.Rename(tmp, out)
}

// Modules returns the files of the named modules and of what they depend on, in
// the order in which they must be loaded. Names of what is built in are passed over;
// unknown names are an error.
func (k *Kernel) Modules(names ...string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = moduleName(name)
		if seen[name] {
			return nil
		}
		seen[name] = true
		file := k.byName[name]
		switch {
		case file == "" && k.builtin[name]:
			return nil
		case file == "":
			return fmt.Errorf("guest: kernel %s has no module %s", k.Release, name)
		}
		deps, err := moduleDepends(file)
		if err != nil {
			return err
		}
		for _, d := range deps {
			if err := add(d); err != nil {
				return err
			}
		}
		files = append(files, file)
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// moduleDepends reads the depends= entry of a module's .modinfo.
func moduleDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("guest: %s has no .modinfo", file)
	}
	b, err := s.Data()
	if err != nil {
		return nil, err
	}
	for _, kv := range bytes.Split(b, []byte{0}) {
		if v, ok := bytes.CutPrefix(kv, []byte("depends=")); ok && len(v) > 0 {
			return strings.Split(string(v), ","), nil
		}
	}
	return nil, nil
}
