package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/config"
)

// CheckHost looks whether this host has what c names: files, devices, folders. It
// opens nothing for writing and takes no locks, so it does not disturb a daemon
// that serves the same files. The error is an Errors with places in the file.
func CheckHost(c *config.Config) error {
	var bad collect
	type seen struct {
		fi   os.FileInfo
		name string
	}
	var files []seen
	for i := range c.Disks {
		d := &c.Disks[i]
		if r := d.Reservations; r != "" {
			dir := filepath.Dir(r)
			if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
				bad.add(&Error{Code: CodeNotFound, Object: c.At(c.DiskPath(d.Name, "reservations")).Where() + ": disk " + d.Name,
					Message: "the folder " + dir + " is not there", Hint: "make it, or correct the path of reservations:", Err: err})
			}
		}
		p := d.Path()
		if p == "" {
			continue
		}
		scheme, _ := config.SplitStore(d.Store)
		size := int64(d.Size)
		if scheme == "encrypted" {
			// A file with a header.
			scheme = "file"
			if size > 0 {
				size += backing.EncryptedHeader
			}
			if err := backing.CheckKeyFile(d.KeyFile); err != nil {
				bad.add(&Error{Code: CodeInvalid, Object: c.At(c.DiskPath(d.Name, "keyFile")).Where() + ": disk " + d.Name,
					Message: "key file " + d.KeyFile + ": " + cause(err), Hint: "correct it: a line of 64 hexadecimal digits, mode 0600", Err: err})
			}
		}
		fi, err := os.Stat(p)
		add := func(code Code, msg, hint string) {
			e := c.At(c.DiskPath(d.Name, "store"))
			bad.add(&Error{Code: code, Object: e.Where() + ": disk " + d.Name, Message: msg, Hint: hint, Err: err})
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && scheme == "file" && d.Create:
			dir := filepath.Dir(p)
			if di, derr := os.Stat(dir); derr != nil || !di.IsDir() {
				add(CodeNotFound, "the folder "+dir+" is not there", "make it, or correct the path")
			}
			continue
		case errors.Is(err, fs.ErrNotExist):
			hint := "correct the path"
			if scheme == "file" {
				hint += ", or make it: add create: true and size:, or run: truncate -s 10G " + p
			}
			add(CodeNotFound, p+" is not there", hint)
			continue
		case errors.Is(err, fs.ErrPermission):
			add(CodeDenied, p+" cannot be looked at: permission denied", "run as a user that may")
			continue
		case err != nil:
			add(CodeInvalid, p+": "+cause(err), "correct the path")
			continue
		}
		dev := fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0
		switch {
		case scheme == "block" && !dev:
			add(CodeInvalid, p+" is not a block device", "write file:"+p+" for a file")
			continue
		case scheme == "file" && dev:
			add(CodeInvalid, p+" is a block device", "write block:"+p)
			continue
		case scheme == "file" && !fi.Mode().IsRegular():
			add(CodeInvalid, p+" is not a regular file", "name a file")
			continue
		}
		if scheme == "file" {
			switch n := fi.Size(); {
			case n < size:
				add(CodeInvalid, fmt.Sprintf("%s is short: it has %d bytes, size says %s", p, n, d.Size), fmt.Sprintf("run: truncate -s %d %s, or correct size", size, p))
			case n == 0:
				add(CodeInvalid, p+" is empty", "run: truncate -s 10G "+p)
			case n%int64(d.BlockSize) != 0:
				add(CodeInvalid, fmt.Sprintf("%s has %d bytes, which is not a multiple of the block size %d", p, n, d.BlockSize), fmt.Sprintf("run: truncate -s %%%d %s", d.BlockSize, p))
			}
		}
		if scheme == "block" {
			// A signature alone may be an initiator's.
			if e := backing.HostRefusal(p, true); e != nil {
				add(CodeInUse, p+": "+e.Problem, e.Hint)
			}
		}
		for _, o := range files {
			if os.SameFile(o.fi, fi) || sameDevice(o.fi, fi) {
				add(CodeInvalid, fmt.Sprintf("%s is the same file as that of disk %s (a link)", p, o.name), "map one disk into both targets instead")
			}
		}
		files = append(files, seen{fi, d.Name})
	}
	checkSockets(c, &bad)
	return bad.err()
}

// checkSockets looks at what the sockets of exports to virtual machines need. One on which
// somebody listens may be the running daemon's.
func checkSockets(c *config.Config, bad *collect) {
	for i := range c.Targets {
		t := &c.Targets[i]
		if t.VHost != nil {
			checkSocket(c, i, kindVHost, t.VHost, bad)
		}
		if t.VIO != nil {
			checkSocket(c, i, kindVIO, &t.VIO.TargetVHost, bad)
		}
		if t.Xen != nil {
			if e := checkXen(); e != nil {
				e.Object = c.At(fmt.Sprintf("targets[%d].xen", i)).Where() + ": target " + t.Name
				bad.add(e)
			}
		}
	}
}

// checkSocket looks at that of target i's export of that kind.
func checkSocket(c *config.Config, i int, kind string, x *config.TargetVHost, bad *collect) {
	add := func(key string, code Code, msg, hint string) {
		e := c.At(fmt.Sprintf("targets[%d].%s.%s", i, kind, key))
		bad.add(&Error{Code: code, Object: e.Where() + ": target " + c.Targets[i].Name, Message: msg, Hint: hint})
	}
	if fi, err := os.Lstat(x.Socket); err == nil && fi.Mode()&fs.ModeSocket == 0 {
		add("socket", CodeInUse, x.Socket+" is there and is not a socket", "remove it, or name another path with "+kind+".socket")
	}
	if _, err := userID(x.Owner); x.Owner != "" && err != nil {
		add("owner", CodeNotFound, "there is no user "+x.Owner, "make the user, or correct "+kind+".owner")
	}
	if _, err := groupID(x.Group); x.Group != "" && err != nil {
		add("group", CodeNotFound, "there is no group "+x.Group, "make the group, or correct "+kind+".group")
	}
}

// sameDevice: two nodes of one block device.
func sameDevice(a, b os.FileInfo) bool {
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return ok && ok2 && a.Mode()&os.ModeDevice != 0 && b.Mode()&os.ModeDevice != 0 && x.Rdev == y.Rdev
}
