package backing

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// HostUse is one way in which the host itself uses a block device.
type HostUse struct {
	// What says how, after "the device ": "is mounted at /mnt".
	What string
	// Hint is what to do about it.
	Hint string
	// Signature: it was told by what is written on the device, which may be an
	// initiator's doing; nothing uses the device at present.
	Signature bool
}

// host is where the kernel and the volume managers tell who uses what; tests have
// their own.
type host struct{ proc, sys, run string }

var thisHost = host{"/proc", "/sys", "/run"}

// HostUses tells how the host uses the block device at path, or a partition of it:
// mounts (proc(5) mountinfo), swap, holders (device mapper, MD), a path of a
// multipath device, and, for signatures, LVM2 and MD. What cannot be looked at is
// left out.
func HostUses(path string) []HostUse { return thisHost.uses(path) }

func (h host) uses(path string) []HostUse {
	rdev, ok := blockDevice(path)
	if !ok {
		return nil
	}
	out := h.usesOf(rdev)
	if f, err := os.Open(path); err == nil {
		out = append(out, signatures(f)...)
		f.Close()
	}
	return out
}

// blockDevice is the number of the block device at path.
func blockDevice(path string) (string, bool) {
	fi, err := os.Stat(path)
	if err != nil || fi.Mode()&os.ModeDevice == 0 || fi.Mode()&os.ModeCharDevice != 0 {
		return "", false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return deviceNumber(uint64(st.Rdev)), true
}

// deviceNumber writes a device number as the kernel's files do, MAJOR:MINOR.
func deviceNumber(d uint64) string {
	return fmt.Sprintf("%d:%d", d>>8&0xfff|d>>32&0xfffff000, d&0xff|d>>12&0xffffff00)
}

// usesOf is what uses device number dev now.
func (h host) usesOf(dev string) (out []HostUse) {
	dir := filepath.Join(h.sys, "dev/block", dev)
	if p, err := filepath.EvalSymlinks(dir); err == nil {
		dir = p
	}
	// The device and its partitions, each with what to call it.
	parts := map[string]string{dev: "the device"}
	dirs := []string{dir}
	order := []string{dev}
	es, _ := os.ReadDir(dir)
	for _, e := range es {
		sub := filepath.Join(dir, e.Name())
		if _, err := os.Stat(filepath.Join(sub, "partition")); err != nil {
			continue
		}
		if n := firstLine(filepath.Join(sub, "dev")); n != "" {
			parts[n] = "its partition " + e.Name()
			dirs, order = append(dirs, sub), append(order, n)
		}
	}
	say := func(n, hint, format string, args ...any) {
		out = append(out, HostUse{What: parts[n] + " " + fmt.Sprintf(format, args...), Hint: hint})
	}
	h.mounts(parts, say)
	h.swaps(parts, say)
	for i, n := range order {
		h.holders(n, dirs[i], say)
	}
	return out
}

type sayUse func(n, hint, format string, args ...any)

// mounts reads mountinfo: "36 35 98:0 /root /mountpoint options … - type source …".
func (h host) mounts(parts map[string]string, say sayUse) {
	b, _ := os.ReadFile(filepath.Join(h.proc, "self/mountinfo"))
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		n := f[2]
		if strings.HasPrefix(n, "0:") {
			// A file system with a number of its own, such as btrfs, names
			// its device as the source.
			for i := range f {
				if f[i] == "-" && i+2 < len(f) && strings.HasPrefix(f[i+2], "/") {
					if d, ok := blockDevice(unescape(f[i+2])); ok {
						n = d
					}
					break
				}
			}
		}
		at := unescape(f[4])
		if parts[n] == "" || seen[n+at] {
			continue
		}
		seen[n+at] = true
		say(n, "unmount it first: umount "+at, "is mounted at %s", at)
	}
}

func (h host) swaps(parts map[string]string, say sayUse) {
	b, _ := os.ReadFile(filepath.Join(h.proc, "swaps"))
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		path := unescape(f[0])
		if n, ok := blockDevice(path); ok && parts[n] != "" {
			say(n, "take it out first: swapoff "+path, "is swap space (%s)", path)
		}
	}
}

// holders are the devices that are made of this one.
func (h host) holders(n, dir string, say sayUse) {
	es, _ := os.ReadDir(filepath.Join(dir, "holders"))
	for _, e := range es {
		top := filepath.Join(h.sys, "class/block", e.Name())
		name, uuid := firstLine(filepath.Join(top, "dm/name")), firstLine(filepath.Join(top, "dm/uuid"))
		switch {
		case strings.HasPrefix(uuid, "mpath-"):
			say(n, "serve the multipath device: block:/dev/mapper/"+name, "is a path of the multipath device %s", name)
		case strings.HasPrefix(uuid, "LVM-"):
			say(n, "serve a logical volume, or deactivate the volume group (vgchange -an) and keep LVM off the device by a filter (lvm.conf: devices/global_filter, or lvmdevices --deldev)", "is an LVM physical volume: the logical volume %s is on it", name)
		case strings.HasPrefix(uuid, "CRYPT-"):
			say(n, "serve the opened volume, block:/dev/mapper/"+name+", or close it: cryptsetup close "+name, "is opened as the encrypted volume %s", name)
		case name != "":
			say(n, "remove that first: dmsetup remove "+name, "is part of the device-mapper device %s", name)
		case strings.HasPrefix(e.Name(), "md"):
			say(n, "serve the array, block:/dev/"+e.Name()+", or stop it: mdadm --stop /dev/"+e.Name(), "is a member of the RAID array %s", e.Name())
		default:
			say(n, "stop what made "+e.Name()+" (lsblk shows it)", "is part of the device %s", e.Name())
		}
	}
}

// firstLine is the first line of a small file, empty where it cannot be read.
func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	s, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(s)
}

// unescape undoes the kernel's \040 for blanks in paths.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			var n, ok = 0, true
			for _, c := range s[i+1 : i+4] {
				ok = ok && c >= '0' && c <= '7'
				n = n*8 + int(c-'0')
			}
			if ok && n < 256 {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mdMagic begins a superblock of Linux MD, little-endian in versions 1.x.
const mdMagic = 0xa92b4efc

// signatures are the marks of volume managers: the label of an LVM2 physical volume
// in one of the first four sectors; the superblock of a member of an MD array at the
// start (1.1), at 4 KiB (1.2) or near the end (0.90, 1.0).
func signatures(f io.ReadSeeker) (out []HostUse) {
	head := make([]byte, 8192)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	for off := 0; off+32 <= len(head) && off < 4*512; off += 512 {
		if bytes.HasPrefix(head[off:], []byte("LABELONE")) && bytes.HasPrefix(head[off+24:], []byte("LVM2 001")) {
			out = append(out, HostUse{Signature: true, What: "the device has the label of an LVM physical volume",
				Hint: "if it is this host's, serve a logical volume, or remove it from LVM (pvremove)"})
			break
		}
	}
	md := func(b []byte) bool { return len(b) >= 4 && binary.LittleEndian.Uint32(b) == mdMagic }
	member := len(head) >= 4 && md(head) || len(head) >= 4100 && md(head[4096:])
	if size, err := f.Seek(0, io.SeekEnd); err == nil && !member {
		for _, at := range []int64{size&^65535 - 65536, (size/512 - 16) &^ 7 * 512} {
			var b [4]byte
			if at < 0 {
				continue
			}
			if _, err := f.Seek(at, io.SeekStart); err == nil {
				if _, err := io.ReadFull(f, b[:]); err == nil && (md(b[:]) || binary.BigEndian.Uint32(b[:]) == mdMagic) {
					member = true
				}
			}
		}
	}
	if member {
		out = append(out, HostUse{Signature: true, What: "the device has the superblock of a member of a Linux RAID array",
			Hint: "if it is this host's, serve the array, or remove it from the array (mdadm --zero-superblock)"})
	}
	return out
}

// HostRefusal is why the device at path is not to be served, nil where nothing
// speaks against it. claimed: what is written on it is its initiators'.
func HostRefusal(path string, claimed bool) *OpenError { return thisHost.refusal(path, claimed) }

func (h host) refusal(path string, claimed bool) *OpenError {
	e := &OpenError{Spec: "block:" + path, Err: ErrInUse}
	var what []string
	for _, u := range h.uses(path) {
		if u.Signature && (claimed || len(what) > 0) {
			continue
		}
		hint := u.Hint
		if u.Signature {
			hint += "; if an initiator made it, write claim: true at the disk (vtgt disk add --claim)"
		}
		if what = append(what, u.What); e.Hint == "" {
			e.Hint = hint
		}
	}
	if len(what) == 0 {
		return nil
	}
	e.Problem = strings.Join(what, ", ")
	return e
}
